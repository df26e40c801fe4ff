"""The headers of safetensors files: what tensors they say they hold, checked before a byte of weight is read.

A file that is too large for a header, overlaps itself or lies about its size is refused from its first bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from renaissance.errors import ModelFileError
from renaissance.manifest import AGAIN, INDEX, SHARD, WEIGHTS, parse_object, read_object, refuse_pickled
from renaissance.spec import shown

_MAX_HEADER_BYTES = 4 * 2**20
_MAX_TENSORS = 20_000
_MAX_RANK = 8
_MAX_SHARDS = 1_000
# a tensor's entry has at most this many commas: between its fields, its sizes, its offsets, and after itself
_MAX_COMMAS = _MAX_TENSORS * (_MAX_RANK + 4)
# safetensors writes the metadata of a header in an order that changes; one key makes the bytes the same each time
TIED = "tied"

_DTYPES: Mapping[str, tuple[torch.dtype, int]] = {
    "F64": (torch.float64, 8),
    "F32": (torch.float32, 4),
    "F16": (torch.float16, 2),
    "BF16": (torch.bfloat16, 2),
    "F8_E4M3": (torch.float8_e4m3fn, 1),
    "F8_E5M2": (torch.float8_e5m2, 1),
    "I64": (torch.int64, 8),
    "I32": (torch.int32, 4),
    "I16": (torch.int16, 2),
    "I8": (torch.int8, 1),
    "U8": (torch.uint8, 1),
    "BOOL": (torch.bool, 1),
}
DTYPE_NAMES: Mapping[torch.dtype, str] = {dtype: name for name, (dtype, _) in _DTYPES.items()}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """What a header says of a tensor."""

    file: str
    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StoredState:
    """The tensors of a folder; `tied` maps each further name of a shared tensor to the name that is stored."""

    folder: Path
    tensors: Mapping[str, StoredTensor]
    tied: Mapping[str, str] = field(default_factory=dict)


def read_state(folder: Path) -> StoredState:
    """Read the headers of the weights in `folder`, and the index where they are in shards.

    Raises:
        ModelFileError: a file is missing, is no safetensors file, or contradicts the index or itself.
    """
    if not (folder / INDEX).exists():
        if not (folder / WEIGHTS).exists():
            refuse_pickled(folder)
        tensors, tied = read_header(folder / WEIGHTS)
        return StoredState(folder, tensors, tied)
    if (folder / WEIGHTS).exists():
        raise ModelFileError(f"{folder} holds both {WEIGHTS} and {INDEX}; remove the one that is not this model's.")
    tensors, tied = {}, {}
    listed = _read_index(folder / INDEX)
    for file in sorted(set(listed.values())):
        found, tied = read_header(folder / file)
        _check_shard(folder, file, found, listed)
        tensors |= found
    return StoredState(folder, tensors, tied)


def read_header(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Return the tensors and the tied names of one safetensors file, from its header alone.

    Raises:
        ModelFileError: the header is too large, is not a header, or does not describe the bytes behind it.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(_MAX_HEADER_BYTES, size - 8):
                raise ModelFileError(f"{path} is truncated, or no safetensors file. {AGAIN}.")
            raw = file.read(length)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror or error}). {AGAIN}.") from None
    if raw.count(b",") > _MAX_COMMAS:
        raise ModelFileError(f"{path} has more than {_MAX_TENSORS} tensors in its header, or too many sizes. {AGAIN}.")
    header = parse_object(raw, path)
    note = header.pop("__metadata__", {})
    try:
        tensors = dict(_tensors(header, path.name, size - 8 - length))
        return tensors, _tied(note, tensors)
    except ValueError as error:
        raise ModelFileError(f"{path}: its header is damaged ({error}). {AGAIN}.") from None


def _tensors(header: Mapping[str, Any], file: str, data_bytes: int) -> Iterator[tuple[str, StoredTensor]]:
    """Yield the tensors of a header; raise ValueError unless they fill `data_bytes` one after another."""
    if len(header) > _MAX_TENSORS:
        raise ValueError(f"more than {_MAX_TENSORS} tensors")
    spans = []
    for name, entry in header.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"'{shown(name)}' lacks dtype, shape or data_offsets")
        shape, offsets = _sizes(entry["shape"], name), _sizes(entry["data_offsets"], name)
        if not isinstance(entry["dtype"], str) or entry["dtype"] not in _DTYPES:
            raise ValueError(f"'{shown(name)}' has the unknown dtype {shown(entry['dtype'])}")
        dtype, item_bytes = _DTYPES[entry["dtype"]]
        if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * item_bytes:
            raise ValueError(f"'{shown(name)}' has another size than its shape says")
        spans.append((offsets[0], offsets[1]))
        yield name, StoredTensor(file, dtype, shape)
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise ValueError("its tensors overlap, or leave gaps")
        end = stop
    if end != data_bytes:
        raise ValueError(f"it describes {end} bytes, and {data_bytes} are there")


def _sizes(value: object, name: str) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > _MAX_RANK:
        raise ValueError(f"'{shown(name)}' has no shape of at most {_MAX_RANK} dimensions")
    if not all(type(size) is int and 0 <= size < 2**63 for size in value):
        raise ValueError(f"'{shown(name)}' has a size that is no whole number")
    return tuple(value)


def _tied(note: object, tensors: Mapping[str, object]) -> dict[str, str]:
    """Return the tied names that the metadata of a header notes."""
    text = note.get(TIED, "{}") if isinstance(note, dict) else None
    try:
        tied = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        tied = None
    if not isinstance(tied, dict) or not all(isinstance(kept, str) for kept in tied.values()):
        raise ValueError("its note of tied names is unreadable")
    if len(tied) > _MAX_TENSORS or set(tied) & (set(tensors) | set(tied.values())):
        raise ValueError("a tied name is stored as well")
    return tied


def _read_index(path: Path) -> dict[str, str]:
    """Return the file of each tensor."""
    listed = read_object(path).get("weight_map")
    if not isinstance(listed, dict) or not listed or len(listed) > _MAX_TENSORS:
        raise ModelFileError(f"{path} has no weight_map of at most {_MAX_TENSORS} tensors. {AGAIN}.")
    files = set(map(str, listed.values()))
    odd = next((file for file in sorted(files) if not SHARD.fullmatch(file)), None)
    if odd is not None or len(files) > _MAX_SHARDS:
        raise ModelFileError(f"{path} names '{shown(odd or len(files))}', which is no list of weight files. {AGAIN}.")
    return listed


def _check_shard(folder: Path, file: str, found: Mapping[str, object], listed: Mapping[str, str]) -> None:
    """Refuse a shard that holds other tensors than the index says."""
    expected = {name for name, where in listed.items() if where == file}
    for name in sorted(expected ^ set(found)):
        fault = "is missing from" if name in expected else "is in the index elsewhere, or not at all, and stands in"
        raise ModelFileError(f"The tensor '{shown(name)}' {fault} {folder / file}. {AGAIN}.")
