"""Where the tokens of a text come from, and where the patches of a picture lie: public facts of processors alone.

Letters in shapes: L tokens of a text, H and W pixels, E width of word embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from renaissance.api import TextInput, VisionInput
from renaissance.assemble import Assembly
from renaissance.errors import CapabilityError, SampleError
from renaissance.spec import shown


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a text, as white space separates them, and its tokens: from `start` on, up to and without `stop`."""

    text: str
    start: int
    stop: int


def words_of(processor: Any, text: str) -> tuple[Word, ...]:
    """Return the words of a text with their tokens; special tokens, and a prefix of the model's own, are of no word.

    Raises:
        SampleError: it has no words, or is longer than the model takes.
    """
    said = text.split()
    if not said:
        raise SampleError("The text is empty. Give some words.")
    around, after = _around(processor)
    lengths = _lengths(processor, [" ".join(said[: count + 1]) for count in range(len(said))])
    stops = [length - after for length in lengths]
    words = tuple(map(Word, said, [around - after, *stops[:-1]], stops))
    cut = words[-1].stop - words[-1].start < _lengths(processor, said[-1:])[0] - around  # it has more tokens alone
    if cut or any(word.stop <= word.start for word in words):
        raise SampleError(
            f"The text '{shown(text)}' has more than the {processor.facts.max_tokens} tokens that the model reads. "
            "Give a shorter one."
        )
    return words


def _around(processor: Any) -> tuple[int, int]:
    """Return how many tokens are of no word (special ones, a prefix of each text), and how many of them come last."""
    one, two = _lengths(processor, ["a", "a a"])
    given: TextInput = processor(["a"])
    special = [token in processor.facts.special_ids for token in given.token_ids[0, given.mask[0]].tolist()]
    return 2 * one - two, special[::-1].index(False)


def _lengths(processor: Any, texts: list[str]) -> list[int]:
    given: TextInput = processor(texts)
    lengths: list[int] = given.mask.sum(1).tolist()
    return lengths


def by_word(tokens: Tensor, words: tuple[Word, ...]) -> Tensor:
    """Return the sums [words] of values [L] over the tokens of each word."""
    return torch.stack([tokens[word.start : word.stop].sum() for word in words])


def patch_grid(assembly: Assembly, images: VisionInput) -> tuple[int, int, int]:
    """Return (tokens before the first patch, rows, columns) of the tokens that encode pictures of this size.

    Raises:
        CapabilityError: the tokens are no grid.
    """
    with torch.no_grad():
        first = VisionInput(images.pixels[:1])
        count = assembly.encoder.encode_vision(first).tokens.shape[1]
    height, width = images.pixels.shape[-2:]
    for prefix in range(count):
        rows = round(((count - prefix) * height / width) ** 0.5)
        if rows and (count - prefix) % rows == 0 and (count - prefix) // rows == round(rows * width / height):
            return prefix, rows, (count - prefix) // rows
    raise CapabilityError(
        f"The {count} tokens of {type(assembly.encoder.vision).__name__} are no grid of patches of a picture of "
        f"{height} x {width} pixels, so no map can be drawn. Choose a model whose vision tower keeps a grid."
    )


# --- word embeddings --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WordTable:
    """The table of word embeddings that a text goes through, and the ids [1, L] that it is read at."""

    module: nn.Module
    ids: Tensor

    def __call__(self, ids: Tensor) -> Tensor:
        """Return the embeddings [B, L, E] of ids [B, L]."""
        found: Tensor = self.module(ids)
        return found


def word_table(assembly: Assembly, texts: TextInput) -> WordTable:
    """Return the table of word embeddings that texts [1, L] are read from.

    It is found by running it: some text towers take embeddings in place of ids, and not all of them.

    Raises:
        CapabilityError: the text tower has no such table.
    """
    read: list[WordTable] = []
    length, real = texts.token_ids.shape[1], texts.mask

    def note(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        ids = arguments[0]
        if ids.dim() == 2 and ids.shape[1] >= length and bool((ids[:, :length] == texts.token_ids)[real].all()):
            read.append(WordTable(module, ids.clone()))

    tables = [module for module in assembly.encoder.modules() if isinstance(module, nn.Embedding)]
    hooks = [table.register_forward_pre_hook(note) for table in tables]
    try:
        with torch.no_grad():
            assembly.encoder.encode_text(texts)
    finally:
        for hook in hooks:
            hook.remove()
    if not read:
        raise CapabilityError(
            f"{type(assembly.encoder.text).__name__} reads no table of word embeddings at the ids of its tokens, so "
            "words have no gradient. Choose a model with another text tower."
        )
    return read[0]


@contextmanager
def embeddings_given(table: WordTable, embeddings: Tensor) -> Iterator[None]:
    """Let the table give these embeddings [B, L, E], whatever the ids."""

    def instead(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        return embeddings if output.shape == embeddings.shape else output

    hook = table.module.register_forward_hook(instead)
    try:
        yield
    finally:
        hook.remove()
