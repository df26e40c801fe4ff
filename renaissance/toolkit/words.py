"""Which tokens are pieces of one word, read from a tokenizer's vocabulary."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import Tokenizer

from renaissance.api import WordPieces


def word_pieces(tokenizer: Tokenizer) -> WordPieces | None:
    """Return the pieces of words of a tokenizer of the `tokenizers` library; None where it marks no words.

    Words are marked in one of three ways: a prefix of the pieces that continue one ('##ing'), a mark on those that
    start one ('Ġrun', '▁run'), or a suffix of those that end one ('run</w>'). Special tokens are no pieces.
    """
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


def _start_mark(tokenizer: Tokenizer) -> str | None:
    """Return what the tokenizer puts before each word."""
    if tokenizer.pre_tokenizer is None:
        return None
    for step in _steps(json.loads(tokenizer.pre_tokenizer.__getstate__())):
        match step.get("type"):
            case "Metaspace":
                return str(step["replacement"])
            case "ByteLevel":
                return "Ġ"  # how that step writes a space
    return None


def _steps(step: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield step
    for inner in step.get("pretokenizers", ()):
        yield from _steps(inner)
