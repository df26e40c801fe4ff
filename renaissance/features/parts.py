"""What of a model is stored: a frozen tower, or the frozen first blocks of one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from renaissance.api import MODALITIES, Features, Modality, Prefix, TextInput, VisionInput
from renaissance.errors import SpecError
from renaissance.features.keys import kernel_facts, store_facts, store_key, tower_digest
from renaissance.models.one_tower import OneTower
from renaissance.models.two_tower import TwoTower
from renaissance.toolkit.canonical import encode_canonical, prefix_canonical
from renaissance.toolkit.devices import moved

FEWEST_BLOCKS = 1  # embeddings alone are sooner computed than read


@dataclass(frozen=True, slots=True)
class Stored:
    """The part of a tower that is stored.

    depth: its first blocks, before others that are trained; None: all of it. layers: the last blocks whose outputs the
    fusion head reads as well. dtype: in which it is kept; None: that in which it is computed.
    """

    modality: Modality
    tower: Any
    depth: int | None = None
    layers: int = 0
    dtype: torch.dtype | None = None

    @property
    def device(self) -> torch.device:
        """Where the tower is."""
        device: torch.device = next(self.tower.parameters()).device
        return device

    @property
    def name(self) -> str:
        """The part, as people say it."""
        return f"{self.modality} tower" if self.depth is None else f"{self.modality}[:{self.depth}]"

    def encode(self, inputs: VisionInput | TextInput) -> Features:
        """Return features [B, N, D] of distinct inputs in canonical shapes; of first blocks, the tokens after them."""
        assert not any(part.training for part in self._modules()), "what is frozen is in eval mode"
        given = moved(inputs, self.device)
        if self.depth is None:
            return encode_canonical(self.tower, given, range(-self.layers, 0))
        prefix = prefix_canonical(self.tower, given, self.depth)
        return Features(prefix.tokens, prefix.mask)

    def read_as(self, features: Features) -> Features | Prefix:
        """Return what was read of the store as what it is."""
        return features if self.depth is None else Prefix(features.tokens, features.mask, self.depth)

    def facts(self) -> dict[str, Any]:
        """Return everything that the key of its store is made of."""
        weight = next(self.tower.parameters())
        return store_facts(
            tower=tower_digest(self.tower, _config(self.tower), self._after()),
            name=type(self.tower).__name__,
            modality=self.modality,
            depth=self.depth,
            layers=self.layers,
            dtype=weight.dtype,
            kept=self.dtype or weight.dtype,
            processor=self.tower.processor.describe(),
            kernel=kernel_facts(weight.device),
        )

    def key(self) -> str:
        """Return the key of its store."""
        return store_key(self.facts())

    def _after(self) -> set[int]:
        """Return the ids of the tensors that come after it."""
        if self.depth is None:
            return set()
        rest = (*tuple(self.tower.blocks)[self.depth :], *self.tower.final)
        return {id(tensor) for part in rest for tensor in (*part.parameters(), *part.buffers())}

    def _modules(self) -> Iterable[nn.Module]:
        parts = (self.tower,)
        if self.depth is not None:
            parts = (*self.tower.embeddings, *tuple(self.tower.blocks)[: self.depth])
        return (module for part in parts for module in part.modules())


def stored_parts(
    encoder: TwoTower | OneTower,
    dtype: torch.dtype | None = None,
    depths: Mapping[Modality, int | None] | None = None,
) -> dict[Modality, Stored]:
    """Return what of an encoder can be stored, by modality.

    depths: by modality, how many first blocks hold still all the training long: None: the whole tower, 0: none. By
    default those that hold still now.

    Raises:
        SpecError: there is nothing that could be stored.
    """
    if isinstance(encoder, OneTower):
        raise SpecError(
            "'store' keeps what frozen towers give, and the blocks of a one-tower model depend on the pair; leave "
            "'store' out."
        )
    if encoder.faults.any:
        raise SpecError(
            "'store' keeps what frozen towers give for the texts as they are, and 'as-published(...)' changes these; "
            "leave one of the two out."
        )
    held = depths or {modality: encoder.prefix(modality) for modality in MODALITIES}
    parts = {
        modality: Stored(
            modality, getattr(encoder, modality), depth, encoder.needs.layers if depth is None else 0, dtype
        )
        for modality, depth in held.items()
        if depth is None or depth >= FEWEST_BLOCKS
    }
    if not parts:
        raise SpecError(_nothing(encoder))
    return parts


def _nothing(encoder: TwoTower) -> str:
    """Say why nothing can be stored."""
    if encoder.needs.layers:
        return (
            f"'store' keeps what frozen towers give, and no tower is frozen whole; this fusion head reads the last "
            f"{encoder.needs.layers} layers of each, so fewer first layers may be frozen. Say 'frozen vision', freeze "
            "fewer layers, or leave 'store' out."
        )
    return (
        "'store' keeps what frozen towers give, and no tower is frozen, nor the embeddings with the first layers of "
        "one that can go on after them; say 'frozen vision' or 'frozen vision[:6]', or leave 'store' out."
    )


def _config(tower: Any) -> Mapping[str, Any]:
    """Return the config that a tower would be saved with."""
    with tempfile.TemporaryDirectory() as folder:
        config: Mapping[str, Any] = tower.save(Path(folder))
    return config
