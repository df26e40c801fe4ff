"""Write a shard micro-batch by micro-batch, so that it never has to fit into memory.

Letters in shapes: B samples, N longest of them in tokens, D width, W width of a row.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
import torch
import xxhash
from torch import Tensor

from renaissance.api import Features
from renaissance.errors import FeatureStoreError
from renaissance.features.layout import DTYPES, INDEX, MOST, MOST_COST, Cost, Layout

DTYPE_NAMES: Mapping[torch.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}


class ShardWriter:
    """Writes one shard into an open file: `add` features, then `finish`.

    dtype: in which they are kept; None: that in which the tower computes.
    """

    def __init__(self, file: BinaryIO, key: str, about: Mapping[str, Any], dtype: torch.dtype | None = None) -> None:
        self.file, self.key, self.about, self.dtype = file, key, about, dtype
        self.layout: Layout | None = None
        self.data_start = 0
        self.digests: list[bytes] = []
        self.offsets = [0]
        self.checks: list[int] = []
        self.pooled: list[bytes] = []

    @property
    def data_bytes(self) -> int:
        """How large the data are by now."""
        return 0 if self.layout is None else self.layout.data_bytes

    def add(self, digests: Sequence[str], features: Features) -> None:
        """Append features [B, N, D] of the samples with these digests (hexadecimal); only real tokens are kept.

        Raises:
            FeatureStoreError: the dtype cannot hold them, or a padded token stands before a real one.
        """
        lengths = features.mask.sum(1)
        if not torch.equal(features.mask, _up_to(lengths, features.mask.shape[1])):
            raise FeatureStoreError(
                "A store cannot hold what this tower gives: masked tokens before or between real ones. "
                "Train without the store."
            )
        layout = self.layout or self._plan(features)
        kept = DTYPES[layout.dtype]
        rows = _kept(torch.cat((features.tokens, *features.layers), -1)[features.mask], kept)  # [M, W]
        pooled = None if features.pooled is None else _kept(features.pooled, kept)
        for index, (digest, count) in enumerate(zip(digests, lengths.tolist(), strict=True)):
            start = self.offsets[-1] - layout.tokens
            seed = b"" if pooled is None else _bytes(pooled[index])
            self.checks.append(check(_bytes(rows[start : start + count]), seed))
            self.offsets.append(self.offsets[-1] + count)
            self.digests.append(bytes.fromhex(digest))
            self.pooled.append(seed)
        self.file.write(_bytes(rows))
        self.layout = replace(layout, samples=len(self.digests), tokens=self.offsets[-1])

    def finish(self, cost: Cost) -> None:
        """Write what is known only now, the header last, and make all of it last through a crash.

        cost: what it took to compute all of it.
        """
        assert self.layout is not None, "a shard holds something"
        index = {
            "digests": b"".join(self.digests),
            "offsets": np.array(self.offsets, dtype="<i8").tobytes(),
            "checks": np.array(self.checks, dtype="<u8").tobytes(),
        }
        for data in (*self.pooled, *(index[name] for name in INDEX)):
            self.file.write(data)
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in index.items()}
        header = replace(self.layout, sha256=digests, cost=cost).header()
        self._write_at(8, header.ljust(self.data_start - 8))
        self._sync()
        self._write_at(0, (self.data_start - 8).to_bytes(8, "little"))
        self._sync()

    def _plan(self, features: Features) -> Layout:
        """Leave room for the header, however much the shard will hold."""
        dtype = self.dtype or features.tokens.dtype
        name = DTYPE_NAMES.get(dtype)
        if name is None:
            raise FeatureStoreError(
                f"A store cannot hold {dtype}, which this tower computes in; it can hold float32, float16 and "
                "bfloat16. Choose one of them as store.dtype, or train without the store."
            )
        layout = Layout(
            key=self.key,
            samples=0,
            tokens=0,
            width=features.tokens.shape[2],
            layers=len(features.layers),
            dtype=name,
            pooled=features.pooled is not None,
            about=self.about,
            sha256=dict.fromkeys(INDEX, "0" * 64),
        )
        room = len(replace(layout, samples=MOST, tokens=MOST, cost=MOST_COST).header())
        self.data_start = 8 + -(-room // 8) * 8
        self.file.seek(self.data_start)
        return layout

    def _write_at(self, position: int, data: bytes) -> None:
        self.file.seek(position)
        self.file.write(data)

    def _sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())


def check(tokens: Any, pooled: Any) -> int:
    """Return the checksum, 64 bits, of the bytes of one sample's tokens and of its pooled vector."""
    return xxhash.xxh3_64_intdigest(tokens, xxhash.xxh3_64_intdigest(pooled))


def _kept(values: Tensor, dtype: torch.dtype) -> Tensor:
    kept = values.to(dtype)
    if kept.dtype != values.dtype and not bool(kept.isfinite().all()) and bool(values.isfinite().all()):
        raise FeatureStoreError(
            f"{dtype} cannot hold what this tower gives, which reaches {float(values.abs().max()):.3g}. Set "
            "store.dtype to 'bf16' or 'fp32'."
        )
    return kept


def _bytes(values: Tensor) -> bytes:
    return values.contiguous().cpu().view(torch.uint8).numpy().tobytes()


def _up_to(lengths: Tensor, count: int) -> Tensor:
    """Return bool [B, count], True at the first `lengths` positions."""
    return torch.arange(count, device=lengths.device) < lengths.unsqueeze(1)
