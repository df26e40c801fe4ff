"""What a component does beside its work: which sockets it opens, and what it changes that is everyone's."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from renaissance.testing.shared_state import SHARED, Looks, changed, seen

_SHARED: Looks = {
    **SHARED,
    "torch's default dtype": torch.get_default_dtype,
    "torch's default device": torch.get_default_device,
    "torch's number of threads": torch.get_num_threads,
    "torch's grad mode": torch.is_grad_enabled,
    "torch's deterministic mode": torch.are_deterministic_algorithms_enabled,
    "torch's precision of products": torch.get_float32_matmul_precision,
    "the random state of torch": lambda: torch.get_rng_state().tolist(),
}

_UNUSUAL = 1_640_531_527


@dataclass(slots=True)
class Watch:
    """What was seen: hosts that were called, and what was changed of the state that all share."""

    called: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


@contextmanager
def watching() -> Iterator[Watch]:
    """Refuse every connection, and note what changes; random numbers are drawn from states of their own."""
    watch = Watch()
    with _without_network(watch.called), _own_random_states():
        before = seen(_SHARED)
        try:
            yield watch
        finally:
            watch.changed += changed(before, _SHARED)


@contextmanager
def _own_random_states() -> Iterator[None]:
    """Draw from states that no seed in use gives, so that to seed is to change them; put back what was before."""
    kept = random.getstate(), np.random.get_state()
    random.seed(_UNUSUAL)
    np.random.seed(_UNUSUAL)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_UNUSUAL)
            yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])


@contextmanager
def _without_network(called: list[str]) -> Iterator[None]:
    """Note each attempt to reach a host, and let it fail as it does without a network."""

    def refuse(*arguments: Any, **_: Any) -> Any:
        called.append(str(arguments[-1] if isinstance(arguments[0], socket.socket) else arguments[0]))
        raise OSError("the conformance kit lets no component reach the network")

    places: list[tuple[Any, str]] = [(socket.socket, "connect"), (socket.socket, "connect_ex")]
    places += [(socket.socket, "sendto"), (socket, "getaddrinfo")]
    kept = [(owner, name, vars(owner).get(name)) for owner, name in places]
    for owner, name in places:
        setattr(owner, name, refuse)
    try:
        yield
    finally:
        for owner, name, own in kept:
            if own is None:  # it was the base class's
                delattr(owner, name)
            else:
                setattr(owner, name, own)
