"""Tokenizing, one rule for every text backbone: strings to padded token ids with their mask.

Letters in shapes: T texts, L tokens of the longest of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer

from renaissance.api import TextInput, TokenizerFacts, WordPieces
from renaissance.errors import ModelFileError, SampleError, SpecError
from renaissance.toolkit.words import word_numbers, word_pieces

# the tokenizer that ships, for towers that bring none
WORDPIECE = Path(__file__).parent.parent / "builtin" / "wordpiece"
TOKENIZER_FILE = "tokenizer.json"
FACTS_FILE = "tokenizer_facts.json"

# A megabyte of text takes seconds to tokenize for the sake of the first few tokens; no language or markup needs more
# characters than this for one token, on average over a text.
CHARACTERS_PER_TOKEN = 16
MIN_CHARACTERS = 1024

PAD_TOKENS = ("[PAD]", "<pad>")
MASK_TOKENS = ("[MASK]", "<mask>")


class WordTokenizer:
    """A `TextProcessor` around a tokenizer of the `tokenizers` library; it owns a copy of that tokenizer."""

    def __init__(self, tokenizer: Tokenizer, facts: TokenizerFacts) -> None:
        """Take a tokenizer with its post-processing (special tokens) in place, and what a task must know of it.

        Raises:
            SpecError: `max_tokens` leaves no room for a token beside the special ones.
        """
        self._json = _plain_json(tokenizer)
        self._tokenizer = Tokenizer.from_str(self._json)
        self._pieces = word_pieces(self._tokenizer) or WordPieces(by_text=True)
        self.facts = replace(facts, pieces=self._pieces)
        special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        if facts.max_tokens <= special:
            raise SpecError(
                f"max_tokens={facts.max_tokens} leaves no room for text beside {special} special tokens. "
                f"Use at least {special + 1}."
            )
        self._tokenizer.enable_truncation(facts.max_tokens)
        self._tokenizer.enable_padding(pad_id=facts.pad_id, pad_token=self._tokenizer.id_to_token(facts.pad_id))
        self._max_characters = max(MIN_CHARACTERS, CHARACTERS_PER_TOKEN * facts.max_tokens)

    def __call__(self, texts: Sequence[str], seconds: Sequence[str] | None = None) -> TextInput:
        """Tokenize, truncate to `max_tokens`, pad on the right to the longest; return ids and mask [T, L].

        seconds: the second text of each, where each is a pair; then there are `segment_ids` [T, L] too, 0 and 1.
        Where ids do not tell which tokens are pieces of one word, there are `words` [T, L].

        Raises:
            SampleError: there is no text, or one of them is no text (None, a number, broken Unicode).
        """
        given = self._given(texts, seconds)
        encodings = self._encode(given)
        ids = np.array([encoding.ids for encoding in encodings], dtype=np.int64)
        mask = np.array([encoding.attention_mask for encoding in encodings], dtype=bool)
        segments = None
        if seconds is not None:
            segments = torch.from_numpy(np.array([encoding.type_ids for encoding in encodings], dtype=np.int64))
        words = None
        if self._pieces.by_text:
            numbers = [word_numbers(*pair) for pair in zip(encodings, given, strict=True)]
            words = torch.from_numpy(np.array(numbers, dtype=np.int64))
        return TextInput(torch.from_numpy(ids), torch.from_numpy(mask), segments, words=words)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has after truncation, the special ones included.

        Raises:
            SampleError: as for tokenizing.
        """
        return [sum(encoding.attention_mask) for encoding in self._encode(self._given(texts))]

    def describe(self) -> dict[str, Any]:
        """Return everything that changes the ids: the digest of the tokenizer, and its facts."""
        digest = hashlib.sha256(self._json.encode()).hexdigest()
        return {"sha256": digest, **_jsonable(self.facts)}

    def with_max_tokens(self, max_tokens: int) -> WordTokenizer:
        """Return the same tokenizer for texts of another greatest length."""
        return WordTokenizer(self._tokenizer, replace(self.facts, max_tokens=max_tokens))

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_facts.json` into `folder`."""
        (folder / TOKENIZER_FILE).write_text(self._json + "\n", encoding="utf-8")
        (folder / FACTS_FILE).write_text(json.dumps(self.describe(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> WordTokenizer:
        """Read what `save` wrote.

        Raises:
            ModelFileError: a file is missing or damaged, or the tokenizer is not the one that was saved.
        """
        tokenizer = read_tokenizer(folder / TOKENIZER_FILE)
        path = folder / FACTS_FILE
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            digest = saved.pop("sha256")
            facts = TokenizerFacts(**{**saved, "special_ids": tuple(saved["special_ids"])})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelFileError(f"{path} cannot be read ({error}). Save or download the model again.") from None
        processor = cls(tokenizer, facts)
        if processor.describe()["sha256"] != digest:
            raise ModelFileError(
                f"{folder / TOKENIZER_FILE} is not the tokenizer that {FACTS_FILE} describes (its SHA-256 differs). "
                "Save or download the model again."
            )
        return processor

    def _given(self, texts: Sequence[str], seconds: Sequence[str] | None = None) -> list[tuple[str, ...]]:
        """Return each text, or each pair of texts, as it goes to the tokenizer."""
        if isinstance(texts, str) or not texts:
            raise SampleError(f"Expected a list of texts with at least one, not {texts!r}. Try: ['a red cup'].")
        checked = [self._checked(index, text) for index, text in enumerate(texts)]
        if seconds is None:
            return [(text,) for text in checked]
        others = [self._checked(index, text) for index, text in enumerate(seconds)]
        return list(zip(checked, others, strict=True))

    def _encode(self, given: Sequence[tuple[str, ...]]) -> list[Encoding]:
        # the fast way does not say where tokens lie in a text
        encode = self._tokenizer.encode_batch if self._pieces.by_text else self._tokenizer.encode_batch_fast
        return encode([text[0] if len(text) == 1 else text for text in given])

    def _checked(self, index: int, text: object) -> str:
        """Return the text, stripped and cut to a length from which `max_tokens` tokens can be made."""
        if not isinstance(text, str):
            raise SampleError(f"Text {index} is {text!r}, not a string. Remove it, or give its words as a string.")
        text = text.strip()[: self._max_characters]
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise SampleError(
                f"Text {index} holds broken Unicode (a lone surrogate at character {error.start}): {text[:40]!r}. "
                "Decode its file with the right encoding."
            ) from None
        return text


def read_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer in a `tokenizer.json`.

    Raises:
        ModelFileError: the file is missing, or no tokenizer.
    """
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises a bare Exception for what is no tokenizer
        raise ModelFileError(
            f"{path} cannot be read as a tokenizer ({error}). Give a folder with the tokenizer.json that the "
            "`tokenizers` library writes."
        ) from None


def infer_facts(tokenizer: Tokenizer, *, max_tokens: int) -> TokenizerFacts:
    """Return the facts of a tokenizer that comes as a `tokenizer.json` alone, from the names of its special tokens.

    Raises:
        SpecError: it has no padding token.
    """
    special = {added.content: id_ for id_, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    pad = next((vocabulary[token] for token in PAD_TOKENS if token in vocabulary), None)
    if pad is None:
        raise SpecError(f"The tokenizer has no padding token. Add one of {', '.join(PAD_TOKENS)} to it.")
    mask = next((vocabulary[token] for token in MASK_TOKENS if token in vocabulary), None)
    return TokenizerFacts(
        vocabulary=max(vocabulary.values()) + 1,
        pad_id=pad,
        mask_id=mask,
        special_ids=tuple(sorted({pad, *special.values(), *([] if mask is None else [mask])})),
        max_tokens=max_tokens,
    )


def _plain_json(tokenizer: Tokenizer) -> str:
    """Return the tokenizer as JSON, without the truncation and padding that a caller may have switched on."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy.to_str()


def _jsonable(facts: TokenizerFacts) -> Mapping[str, Any]:
    """Return the facts without the pieces of words, which the vocabulary gives again."""
    values = {fact.name: getattr(facts, fact.name) for fact in fields(facts) if fact.name != "pieces"}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
