"""The file of a shard: a safetensors file with fixed tensors, written as a stream, opened as a memory map.

| tensor | shape | what |
|---|---|---|
| `tokens` | [M, W] | the real tokens of all samples, one after the other |
| `pooled` | [S, D] | the pooled vectors, where the tower has them |
| `digests` | uint8 [S, 32] | the content digest of each sample |
| `offsets` | int64 [S + 1] | sample i has the tokens from offsets[i] to offsets[i + 1] |
| `checks` | int64 [S] | the xxh3 of each sample's tokens, with that of its pooled vector as the seed |

The header is written last, into the room left for it: a file whose writer was killed has none, and does not open.

Letters in shapes: S samples, M tokens of all samples, D width of the tower, W that of a row: the token after the last
block, and beside it, where the fusion head reads them, the token after each of the last blocks: W = D (1 + layers).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from renaissance.errors import FeatureStoreError

FORMAT = "renaissance-features-3"
DIGEST_BYTES = 32
MOST_HEADER_BYTES = 1 << 20
MOST = 10**15  # more samples, and more tokens, than a shard has
INDEX = ("digests", "offsets", "checks")
DTYPES: Mapping[str, torch.dtype] = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
ITEM_BYTES: Mapping[str, int] = {"U8": 1, "I64": 8, "F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True, slots=True)
class Cost:
    """What computing some features took: wall seconds, and FLOPs; None: nobody counted them."""

    seconds: float = 0.0
    flops: int | None = 0

    def __add__(self, other: Cost) -> Cost:
        """Return both together."""
        known = self.flops is not None and other.flops is not None
        return Cost(self.seconds + other.seconds, (self.flops or 0) + (other.flops or 0) if known else None)

    def of(self, share: float) -> Cost:
        """Return this share of it."""
        return Cost(self.seconds * share, None if self.flops is None else round(self.flops * share))


MOST_COST = Cost(1e12 + 1 / 3, 10**30)  # no shard's takes more letters in its header


@dataclass(frozen=True, slots=True)
class Section:
    """One tensor of the file; `start` counts bytes from the beginning of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        """The bytes that it takes."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Layout:
    """What a shard holds, all but the numbers.

    width: of the tower. layers: blocks whose outputs stand beside each token. dtype: of tokens and pooled, in
    safetensors' spelling. about: what the key was made of, for people. sha256: of the bytes of each tensor of the
    index. cost: of computing all of it.
    """

    key: str
    samples: int
    tokens: int
    width: int
    layers: int
    dtype: str
    pooled: bool
    about: Mapping[str, Any]
    sha256: Mapping[str, str]
    cost: Cost = Cost()

    def shapes(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the dtype and shape of each tensor, in the order of the file."""
        shapes: dict[str, tuple[str, tuple[int, ...]]] = {
            "tokens": (self.dtype, (self.tokens, self.width * (1 + self.layers)))
        }
        if self.pooled:
            shapes["pooled"] = (self.dtype, (self.samples, self.width))
        return {
            **shapes,
            "digests": ("U8", (self.samples, DIGEST_BYTES)),
            "offsets": ("I64", (self.samples + 1,)),
            "checks": ("I64", (self.samples,)),
        }

    def sections(self, data_start: int) -> dict[str, Section]:
        """Return where each tensor lies, for a file whose data begin at this byte."""
        sections: dict[str, Section] = {}
        start = data_start
        for name, (dtype, shape) in self.shapes().items():
            sections[name] = Section(dtype, shape, start)
            start += sections[name].size
        return sections

    def header(self) -> bytes:
        """Return the JSON header of the safetensors format, without the padding."""
        tensors = {
            name: {"dtype": s.dtype, "shape": list(s.shape), "data_offsets": [s.start, s.start + s.size]}
            for name, s in self.sections(0).items()
        }
        metadata = {
            "format": FORMAT,
            "key": self.key,
            "layers": str(self.layers),
            "about": json.dumps(self.about, sort_keys=True),
            "sha256": json.dumps(self.sha256, sort_keys=True),
            "cost": json.dumps(asdict(self.cost)),
        }
        metadata["header_sha256"] = _header_digest(tensors, metadata)
        return json.dumps({"__metadata__": metadata, **tensors}).encode()

    @property
    def data_bytes(self) -> int:
        """How large the data are, without the header."""
        return sum(section.size for section in self.sections(0).values())


def read_layout(path: Path) -> tuple[Layout, dict[str, Section]]:
    """Return what the shard at `path` holds, and where.

    Raises:
        FeatureStoreError: it is missing, truncated, too long, damaged in its header, or something else.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(length) if 0 < length <= MOST_HEADER_BYTES else b""
    except OSError as error:
        raise FeatureStoreError(f"{path} cannot be read ({error.strerror or error}). {_next_step(path)}") from None
    layout = _parse(path, header)
    sections = layout.sections(8 + length)
    last = sections[INDEX[-1]]
    if size != last.start + last.size:
        raise damaged(path, f"it has {size:,} bytes where its header promises {last.start + last.size:,}")
    return layout, sections


def damaged(path: Path, fault: str) -> FeatureStoreError:
    """Return the error for a damaged shard, with the next step."""
    return FeatureStoreError(f"{path} is damaged: {fault}. {_next_step(path)}")


def _next_step(path: Path) -> str:
    return f"Delete {path.name}: the next run computes again what it held."


def _parse(path: Path, header: bytes) -> Layout:
    """Return the layout that a header describes; it is rebuilt from the header's facts and must come out the same."""
    try:
        found = json.loads(header)
        metadata = found["__metadata__"]
        if metadata["format"] != FORMAT:
            raise FeatureStoreError(f"{path} is not of a feature store of this version. {_next_step(path)}")
        layers = int(metadata["layers"])
        layout = Layout(
            key=metadata["key"],
            samples=found["digests"]["shape"][0],
            tokens=found["tokens"]["shape"][0],
            width=found["tokens"]["shape"][1] // (1 + layers),
            layers=layers,
            dtype=found["tokens"]["dtype"],
            pooled="pooled" in found,
            about=json.loads(metadata["about"]),
            sha256=json.loads(metadata["sha256"]),
            cost=Cost(**json.loads(metadata["cost"])),
        )
        if layout.header() != header.rstrip(b" "):
            raise damaged(path, "its header contradicts itself")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, ZeroDivisionError):
        raise damaged(path, "it has no valid header, as after a build that was cut off") from None
    return layout


def _header_digest(tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps([tensors, metadata], sort_keys=True).encode()).hexdigest()
