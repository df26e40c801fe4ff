"""Random numbers as pure functions of a key, the same on every device and for any split of a batch over processes."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64: the increment of SplitMix64
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def uniform(keys: Tensor, stream: str, count: int) -> Tensor:
    """Return `count` numbers in [0, 1) for each key: keys int64 [P] -> float64 [P, count].

    `stream` names what they are for; different streams are independent. The generator is SplitMix64.
    """
    salt = int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "little", signed=True)
    steps = torch.arange(1, count + 1, device=keys.device) * _GOLDEN
    bits = _mix(_mix(keys ^ salt).unsqueeze(-1) + steps)
    return _shifted(bits, 11).to(torch.float64) * 2.0**-53


def stream_seed(*parts: object) -> int:
    """Return the seed, of 56 bits, of the stream that the parts name: `stream_seed(seed, "fusion")`."""
    named = "/".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(named.encode(), digest_size=7).digest(), "little")


def _mix(bits: Tensor) -> Tensor:
    bits = (bits ^ _shifted(bits, 30)) * _MIX_1
    bits = (bits ^ _shifted(bits, 27)) * _MIX_2
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Shift right without the sign: torch's shift of int64 is arithmetic."""
    return (bits >> by) & ((1 << (64 - by)) - 1)
