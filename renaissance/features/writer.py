"""Write the file of a feature store micro-batch by micro-batch, so that it never has to fit into memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from renaissance.api import Features
from renaissance.errors import FeatureStoreError
from renaissance.features.layout import DTYPES, MOST_TOKENS, Layout

DTYPE_NAMES: Mapping[torch.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}


class StoreWriter:
    """Writes one store into an open file: `add` features in the order of the samples, then `finish`.

    digests: the content digest of each sample, hexadecimal.
    """

    def __init__(self, file: BinaryIO, key: str, digests: Sequence[str], about: Mapping[str, Any]) -> None:
        self.file = file
        self.key = key
        self.about = about
        self.digests = b"".join(bytes.fromhex(digest) for digest in digests)
        self.offsets = [0]
        self.layout: Layout | None = None
        self.hashes = {name: hashlib.sha256() for name in ("tokens", "pooled")}

    def plan(self, features: Features, samples: int) -> Layout:
        """Return the layout as far as the first features show it; its `tokens` is a forecast.

        Raises:
            FeatureStoreError: the tower computes in a dtype that a store cannot hold.
        """
        name = DTYPE_NAMES.get(features.tokens.dtype)
        if name is None:
            raise FeatureStoreError(
                f"A store cannot hold {features.tokens.dtype}, which this tower computes in; it can hold float32, "
                "float16 and bfloat16. Train without the store."
            )
        batch, _, width = features.tokens.shape
        tokens = -(-int(features.mask.sum()) * samples // batch)
        self.layout = Layout(
            key=self.key,
            samples=samples,
            tokens=tokens,
            width=width,
            dtype=name,
            pooled=features.pooled is not None,
            about=self.about,
            sha256=dict.fromkeys(("digests", "offsets", "pooled", "tokens"), "0" * 64),
        )
        # room for any number of tokens: how many there are is known at the end
        header_bytes = len(replace(self.layout, tokens=MOST_TOKENS).header())
        self.header_bytes = -(-header_bytes // 8) * 8
        self.sections = self.layout.sections(8 + self.header_bytes)
        self.file.seek(self.sections["tokens"].start)
        return self.layout

    def add(self, features: Features) -> None:
        """Append features [B, N, D] of the next samples; only real tokens are kept.

        Raises:
            FeatureStoreError: a padded token stands before a real one.
        """
        assert self.layout is not None
        lengths = features.mask.sum(1)
        if not torch.equal(features.mask, _up_to(lengths, features.mask.shape[1])):
            raise FeatureStoreError(
                "A store cannot hold what this tower gives: masked tokens before or between real ones. "
                "Train without the store."
            )
        written = len(self.offsets) - 1
        for length in lengths.tolist():
            self.offsets.append(self.offsets[-1] + length)
        self._append("tokens", features.tokens[features.mask])
        if features.pooled is not None:
            end = self.file.tell()
            self.file.seek(self.sections["pooled"].start + written * _row_bytes(features.pooled))
            self._append("pooled", features.pooled)
            self.file.seek(end)

    def finish(self) -> None:
        """Write what is known only now, the header last, and make all of it last through a crash."""
        assert self.layout is not None
        offsets = np.array(self.offsets, dtype="<i8").tobytes()
        self._write_at(self.sections["digests"].start, self.digests)
        self._write_at(self.sections["offsets"].start, offsets)
        digests = {name: digest.hexdigest() for name, digest in self.hashes.items()}
        digests |= {"digests": hashlib.sha256(self.digests).hexdigest(), "offsets": hashlib.sha256(offsets).hexdigest()}
        header = replace(self.layout, tokens=self.offsets[-1], sha256=digests).header()
        self._write_at(8, header.ljust(self.header_bytes))
        self.file.flush()
        os.fsync(self.file.fileno())
        self._write_at(0, self.header_bytes.to_bytes(8, "little"))
        self.file.flush()
        os.fsync(self.file.fileno())

    def _append(self, name: str, values: Tensor) -> None:
        data = values.contiguous().cpu().view(torch.uint8).numpy().tobytes()
        self.hashes[name].update(data)
        self.file.write(data)

    def _write_at(self, position: int, data: bytes) -> None:
        self.file.seek(position)
        self.file.write(data)


def _up_to(lengths: Tensor, count: int) -> Tensor:
    """Return bool [B, count], True at the first `lengths` positions."""
    return torch.arange(count, device=lengths.device) < lengths.unsqueeze(1)


def _row_bytes(values: Tensor) -> int:
    return values.shape[1] * values.element_size()
