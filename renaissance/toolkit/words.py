"""Which tokens are pieces of one word, read from a tokenizer's vocabulary, or from where they lie in a text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordLevel

from renaissance.api import WordPieces


def word_pieces(tokenizer: Tokenizer) -> WordPieces | None:
    """Return the pieces of words of a tokenizer of the `tokenizers` library; None where it marks no words.

    Words are marked in one of three ways: a prefix of the pieces that continue one ('##ing'), a mark on those that
    start one ('Ġrun', '▁run'), or a suffix of those that end one ('run</w>'). Special tokens are no pieces. Where the
    vocabulary is one of whole words, none is.
    """
    if isinstance(tokenizer.model, WordLevel):
        return WordPieces()
    special = {id_ for id_, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    vocabulary = {
        token: id_ for token, id_ in tokenizer.get_vocab(with_added_tokens=True).items() if id_ not in special
    }
    prefix = getattr(tokenizer.model, "continuing_subword_prefix", None)
    suffix = getattr(tokenizer.model, "end_of_word_suffix", None)
    start = _start_mark(tokenizer)
    if prefix:
        return WordPieces(continues=tuple(sorted(id_ for token, id_ in vocabulary.items() if token.startswith(prefix))))
    if suffix:
        return unfinished_pieces(vocabulary, suffix)
    if start:
        return WordPieces(
            continues=tuple(sorted(id_ for token, id_ in vocabulary.items() if not token.startswith(start)))
        )
    return None


def unfinished_pieces(vocabulary: Mapping[str, int], suffix: str = "</w>") -> WordPieces:
    """Return the pieces of a vocabulary whose words end with a suffix."""
    return WordPieces(unfinished=tuple(sorted(id_ for token, id_ in vocabulary.items() if not token.endswith(suffix))))


def word_numbers(encoding: Encoding, texts: Sequence[str]) -> list[int]:
    """Return the number of each token's word, -1 for special tokens and padding; texts: the one, or the two, encoded.

    A token starts a word where the tokenizer's own splitting does, where white space stands before it, and where the
    second text begins. The encoding must know where its tokens lie (`encode_batch`, not `encode_batch_fast`).
    """
    numbers: list[int] = []
    word, before = -1, None
    places = zip(encoding.word_ids, encoding.sequence_ids, encoding.offsets, strict=True)
    for split, text, (start, stop) in places:
        if split is None or text is None:
            numbers.append(-1)
            before = None
            continue
        if before is None or before[:2] != (text, split) or _spaced(texts[text], before[2], start, stop):
            word += 1
        numbers.append(word)
        before = (text, split, stop)
    return numbers


def _spaced(text: str, end: int, start: int, stop: int) -> bool:
    """Return whether white space stands between two tokens, at the end of the first or the start of the second."""
    return any(character.isspace() for character in text[max(0, end - 1) : start] + text[start:stop][:1])


def _start_mark(tokenizer: Tokenizer) -> str | None:
    """Return what the tokenizer puts before each word, when it splits or, as Llama's does, when it normalises."""
    for part in (tokenizer.pre_tokenizer, tokenizer.normalizer):
        for step in () if part is None else _steps(json.loads(part.__getstate__())):
            match step:
                case {"type": "Metaspace", "replacement": str(mark)}:
                    return mark
                case {"type": "ByteLevel"}:
                    return "Ġ"  # how that step writes a space
                case {"type": "Replace", "pattern": {"String": " "}, "content": str(mark)} if mark.strip():
                    return mark
    return None


def _steps(step: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield step
    for inner in (*step.get("pretokenizers", ()), *step.get("normalizers", ())):
        yield from _steps(inner)
