"""Towers of a few numbers, which compute on the CPU what tests of stores can foretell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from renaissance.api import Features, TextInput, TokenizerFacts, VisionInput
from renaissance.features.keys import content_digest
from renaissance.features.store import FeatureStore, build_or_open
from renaissance.toolkit.canonical import encode_canonical

WORDS = ["a", "a red cup", "two red cups", "a", "the longest of all of these captions", "cup"]
DIGESTS = [content_digest(caption) for caption in WORDS]
KEY = "ab" * 32


class Letters:
    facts = TokenizerFacts(vocabulary=40, pad_id=0, mask_id=None, special_ids=(0,), max_tokens=64)

    def describe(self) -> Mapping[str, Any]:
        return {"kind": "letters"}


class TinyText(nn.Module):
    """Embeds each word by its length; the pooled vector is that of the first."""

    blocks: Sequence[nn.Module] = ()
    final: Sequence[nn.Module] = ()

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(40, width)
        self.processor = Letters()
        self.calls = 0

    def forward(self, inputs: TextInput, layers: Sequence[int] = ()) -> Features:
        self.calls += 1
        tokens = self.words(inputs.token_ids)
        return Features(tokens, inputs.mask, tokens[:, 0], tuple(tokens * (2 + i) for i, _ in enumerate(layers)))

    def save(self, folder: Path) -> Mapping[str, Any]:
        return {"width": self.words.embedding_dim}


class TinyVision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 5, 4, 4)

    def forward(self, inputs: VisionInput, layers: Sequence[int] = ()) -> Features:
        tokens = self.patches(inputs.pixels).flatten(2).transpose(1, 2)
        return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))


def tokenize(captions: Sequence[str]) -> TextInput:
    longest = max(len(caption.split()) for caption in captions)
    ids = torch.zeros(len(captions), longest, dtype=torch.int64)
    for row, caption in enumerate(captions):
        for column, word in enumerate(caption.split()):
            ids[row, column] = 1 + len(word)
    return TextInput(ids, ids > 0)


def load(rows: Sequence[int]) -> TextInput:
    return tokenize([WORDS[row] for row in rows])


def build(folder: Path, tower: nn.Module | None = None, *, layers: int = 0, **options: Any) -> FeatureStore:
    """Build the store of the words in `folder`, in shards of two samples."""
    encode = partial(encode_canonical, (tower or TinyText()).eval(), layers=range(-layers, 0))
    chosen: dict[str, Any] = {"samples_a_step": 2, "shard_bytes": 1, "about": {"é": [1]}, **options}
    return build_or_open(folder / KEY, encode, chosen.pop("samples", DIGESTS), chosen.pop("load", load), **chosen)


def computed(captions: Sequence[str]) -> Features:
    return encode_canonical(TinyText().eval(), tokenize(captions))


def pixels(rows: Sequence[int]) -> Tensor:
    return torch.stack([torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(row)) for row in rows])


def shards(folder: Path) -> list[Path]:
    return sorted((folder / KEY).glob("*.safetensors"))


def flipped(path: Path, position: int, bit: int = 1) -> None:
    """Flip one bit of a file."""
    whole = path.read_bytes()
    path.write_bytes(whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :])
