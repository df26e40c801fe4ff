"""What parts of a model tell each other of themselves when they are put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class TowerFacts:
    """What a fusion head and a task must know of a tower: its width, and whether token 0 stands for the whole."""

    width: int
    class_token: bool


@dataclass(frozen=True, slots=True)
class WordPieces:
    """Ids of the tokens that are pieces of a word: `continues` that of the token before, `unfinished` that after.

    by_text: ids do not tell, and the processor gives `TextInput.words`.
    """

    continues: tuple[int, ...] = ()
    unfinished: tuple[int, ...] = ()
    by_text: bool = False


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """What a task must know of a tokenizer; `special_ids` are never masked. pieces: None where words are not known."""

    vocabulary: int
    pad_id: int
    mask_id: int | None
    special_ids: tuple[int, ...]
    max_tokens: int
    pieces: WordPieces | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a task must know of the model that it works on; a width is None where the model has no such output.

    vision, text: widths of what `represent` gives; joint: width of `Joint.pooled`; fused_text: of `Joint.text`.
    shared_space: `represent` puts both modalities into one space. vision_tokens: width of the tokens of a vision tower,
    before any fusion; None where there is no such tower.
    """

    vision: int | None
    text: int | None
    joint: int | None
    fused_text: int | None
    shared_space: bool
    tokenizer: TokenizerFacts | None
    vision_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class SavedBackbone:
    """What `Backbone.save` left behind: its config, and the folder with its processor's files."""

    config: Mapping[str, Any]
    folder: Path
