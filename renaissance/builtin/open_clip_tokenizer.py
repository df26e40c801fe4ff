"""The tokenizers of open_clip models, with the mask that open_clip leaves to be guessed.

Letters in shapes: T texts, L tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

from renaissance.api import TextInput, TokenizerFacts, WordPieces
from renaissance.builtin.open_clip_library import quiet
from renaissance.errors import HubError, ModelFileError, SpecError
from renaissance.toolkit.messages import first_line
from renaissance.toolkit.words import unfinished_pieces, word_pieces

SETTINGS_FILE = "open_clip_tokenizer.json"
TOKENIZER_FOLDER = "tokenizer"


class OpenClipTokenizer:
    """Turns strings into ids as the model was trained on them; `settings` are the arguments of open_clip's class.

    `<start_of_text>` and `<end_of_text>` in a text are those special tokens, as in open_clip.
    """

    def __init__(self, tokenizer: SimpleTokenizer | HFTokenizer, vocabulary: int, settings: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._settings = dict(settings)
        self.facts = _facts(tokenizer, vocabulary)

    @classmethod
    def of_model(cls, model: str, text_config: Mapping[str, Any]) -> OpenClipTokenizer:
        """Return the tokenizer of an open_clip model; CLIP's own ships with open_clip, others come from the Hub.

        Raises:
            SpecError: the model has fewer words than its tokenizer, or a tokenizer of another kind.
            HubError: the tokenizer cannot be fetched.
        """
        context = text_config.get("context_length", 77)
        vocabulary = text_config.get("vocab_size", 49408)
        settings = {"context_length": context, **text_config.get("tokenizer_kwargs", {})}
        if text_config.get("tokenizer_mode"):
            raise SpecError(f"open-clip:{model}: its tokenizer's mode is not supported. Choose another text backbone.")
        try:
            with quiet():
                tokenizer = open_clip.get_tokenizer(model, context_length=context)
        except Exception as error:  # each layer of the download raises a class of its own
            raise HubError(
                f"open-clip:{model}: its tokenizer could not be fetched ({first_line(error)}). Connect to the Hub once "
                "to fill the cache, or choose a model with CLIP's own tokenizer, such as ViT-B-32."
            ) from error
        if not isinstance(tokenizer, (SimpleTokenizer, HFTokenizer)):
            raise SpecError(f"open-clip:{model}: its kind of tokenizer is not supported. Choose another text backbone.")
        found = cls(tokenizer, vocabulary, settings)
        if max(found.facts.special_ids, default=0) >= vocabulary:
            raise SpecError(f"open-clip:{model}: vocab_size={vocabulary} is less than its tokenizer has. Drop it.")
        return found

    def __call__(self, texts: Sequence[str], seconds: Sequence[str] | None = None) -> TextInput:
        """Return ids int64 [T, L] and their mask [T, L], padded to the longest of these texts.

        The two texts of a pair stand one after the other, as these models know no segments.
        """
        if seconds is not None:
            texts = [f"{first} {second}" for first, second in zip(texts, seconds, strict=True)]
        token_ids = self._tokenizer(list(texts))
        positions = torch.arange(token_ids.shape[1])
        # the last token that is no padding ends a text: CLIP's padding id is also that of a word, "!"
        lengths = torch.where(token_ids != self.facts.pad_id, positions + 1, 0).amax(dim=1).clamp(min=1)  # [T]
        longest = int(lengths.max()) if len(texts) else 0
        return TextInput(token_ids[:, :longest], positions[:longest] < lengths[:, None])

    def describe(self) -> Mapping[str, Any]:
        """Return everything that changes the ids, JSON-able."""
        return {
            "kind": self._kind,
            "digest": self._digest(),
            **self._settings,
            "special_ids": list(self.facts.special_ids),
        }

    def save(self, folder: Path) -> None:
        """Write what `load` reads."""
        saved = {"kind": self._kind, "vocabulary": self.facts.vocabulary, "settings": self._settings}
        (folder / SETTINGS_FILE).write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")
        if isinstance(self._tokenizer, HFTokenizer):
            self._tokenizer.save_pretrained(str(folder / TOKENIZER_FOLDER))

    @classmethod
    def load(cls, folder: Path) -> OpenClipTokenizer:
        """Read what `save` wrote; nothing is downloaded.

        Raises:
            ModelFileError: a file is missing or damaged.
        """
        path = folder / SETTINGS_FILE
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            if saved["kind"] == "clip":
                return cls(SimpleTokenizer(**saved["settings"]), saved["vocabulary"], saved["settings"])
            tokenizer = HFTokenizer(str(folder / TOKENIZER_FOLDER), **saved["settings"])
            return cls(tokenizer, saved["vocabulary"], saved["settings"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelFileError(
                f"{path}: the tokenizer cannot be read ({error}). Save or download it again."
            ) from None

    @property
    def _kind(self) -> str:
        return "clip" if isinstance(self._tokenizer, SimpleTokenizer) else "hugging-face"

    def _digest(self) -> str:
        if isinstance(self._tokenizer, SimpleTokenizer):
            content = json.dumps(self._tokenizer.encoder, ensure_ascii=True)
        else:
            content = self._tokenizer.tokenizer.backend_tokenizer.to_str()
        return hashlib.sha256(content.encode()).hexdigest()


def _facts(tokenizer: SimpleTokenizer | HFTokenizer, vocabulary: int) -> TokenizerFacts:
    if isinstance(tokenizer, SimpleTokenizer):
        pad, mask, special = 0, None, tuple(tokenizer.all_special_ids)
        pieces: WordPieces | None = unfinished_pieces(tokenizer.encoder)
    else:
        inner = tokenizer.tokenizer
        pad, mask, special = inner.pad_token_id, inner.mask_token_id, tuple(sorted(inner.all_special_ids))
        pieces = word_pieces(inner.backend_tokenizer)
    return TokenizerFacts(
        vocabulary=vocabulary,
        pad_id=pad,
        mask_id=mask,
        special_ids=special,
        max_tokens=tokenizer.context_length,
        pieces=pieces,
    )
