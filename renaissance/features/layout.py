"""The file of a feature store: a safetensors file with fixed tensors, written as a stream, opened as a memory map.

| tensor | shape | what |
|---|---|---|
| `digests` | uint8 [S, 32] | the content digest of each sample |
| `offsets` | int64 [S + 1] | sample i has the tokens from offsets[i] to offsets[i + 1] |
| `pooled` | [S, D] | the pooled vectors, where the tower has them |
| `tokens` | [M, D] | the real tokens of all samples, one after the other |

The header is written last, into the room left for it: a file whose writer was killed has none, and does not open.

Letters in shapes: S samples, M tokens of all samples, D width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from renaissance.errors import FeatureStoreError

FORMAT = "renaissance-features-1"
DIGEST_BYTES = 32
MOST_HEADER_BYTES = 1 << 20
MOST_TOKENS = 10**15
DTYPES: Mapping[str, torch.dtype] = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
ITEM_BYTES: Mapping[str, int] = {"U8": 1, "I64": 8, "F32": 4, "F16": 2, "BF16": 2}


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
    """What the file of a store holds, all but the numbers.

    dtype: of tokens and pooled, in safetensors' spelling. about: what the key was made of, for people. sha256: of each
    tensor's bytes.
    """

    key: str
    samples: int
    tokens: int
    width: int
    dtype: str
    pooled: bool
    about: Mapping[str, Any]
    sha256: Mapping[str, str]

    def shapes(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the dtype and shape of each tensor, in the order of the file."""
        shapes: dict[str, tuple[str, tuple[int, ...]]] = {
            "digests": ("U8", (self.samples, DIGEST_BYTES)),
            "offsets": ("I64", (self.samples + 1,)),
        }
        if self.pooled:
            shapes["pooled"] = (self.dtype, (self.samples, self.width))
        return {**shapes, "tokens": (self.dtype, (self.tokens, self.width))}

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
            "about": json.dumps(self.about, sort_keys=True),
            "sha256": json.dumps(self.sha256, sort_keys=True),
        }
        metadata["header_sha256"] = _header_digest(tensors, metadata)
        return json.dumps({"__metadata__": metadata, **tensors}).encode()

    def file_bytes(self) -> int:
        """Return about how large the file becomes: the data, without the header."""
        return sum(section.size for section in self.sections(0).values())


def read_layout(path: Path) -> tuple[Layout, dict[str, Section]]:
    """Return what the file at `path` holds, and where.

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
    last = sections["tokens"]
    if size != last.start + last.size:
        fault = f"it has {size:,} bytes where its header promises {last.start + last.size:,}"
        raise FeatureStoreError(f"{path} is damaged: {fault}. {_next_step(path)}")
    return layout, sections


def damaged(path: Path, fault: str) -> FeatureStoreError:
    """Return the error for a damaged store, with the next step."""
    return FeatureStoreError(f"{path} is damaged: {fault}. {_next_step(path)}")


def _next_step(path: Path) -> str:
    return f"Delete {path.name}: the next run builds it again."


def _parse(path: Path, header: bytes) -> Layout:
    """Return the layout that a header describes; it is rebuilt from the header's facts and must come out the same."""
    try:
        found = json.loads(header)
        metadata = found["__metadata__"]
        if metadata["format"] != FORMAT:
            raise FeatureStoreError(f"{path} is not a feature store of this version. {_next_step(path)}")
        layout = Layout(
            key=metadata["key"],
            samples=found["digests"]["shape"][0],
            tokens=found["tokens"]["shape"][0],
            width=found["tokens"]["shape"][1],
            dtype=found["tokens"]["dtype"],
            pooled="pooled" in found,
            about=json.loads(metadata["about"]),
            sha256=json.loads(metadata["sha256"]),
        )
        if layout.header() != header.rstrip(b" "):
            raise damaged(path, "its header contradicts itself")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise damaged(path, "it has no valid header, as after a build that was cut off") from None
    return layout


def _header_digest(tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps([tensors, metadata], sort_keys=True).encode()).hexdigest()
