"""Stable numbers from text: the same in every process, on every machine, in every version of Python."""

from __future__ import annotations

from hashlib import blake2b


def stable_hash(*parts: object) -> int:
    """Return 63 bits (0 to 2**63 - 1) that depend on nothing but the parts, each taken as text."""
    # the length before each part keeps ("ab", "c") and ("a", "bc") apart
    message = b"".join(
        b"%d:%s" % (len(raw), raw) for raw in (str(part).encode("utf-8", "surrogatepass") for part in parts)
    )
    return int.from_bytes(blake2b(message, digest_size=8).digest(), "big") >> 1
