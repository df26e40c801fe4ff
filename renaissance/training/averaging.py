"""The exponential moving average of weights: smoother than the weights of any one update, and measured in their place.

After update n each average becomes d times itself plus 1 - d times the weight, with d the least of `decay` and
(1 + n) / (10 + n), so that a short training does not end near its start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from renaissance.training.sharded import like, local


class Average:
    """Averages of a model's trainable parameters, by their names.

    What is frozen is its own average, and buffers (batch statistics) are those of the model.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self._values: dict[str, Tensor] = {}
        self.follow()

    def follow(self) -> None:
        """Average from here on what is trainable now, beside what was before."""
        for name, parameter in self._model.named_parameters():
            if parameter.requires_grad and name not in self._values:
                self._values[name] = parameter.detach().clone()

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Follow an update of the model; `updates` counts from 1."""
        decay = min(self._decay, (1 + updates) / (10 + updates))
        weights = [local(weight.detach()) for weight in self._weights()]
        torch._foreach_lerp_([local(value) for value in self._values.values()], weights, 1.0 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the averages while what is inside runs; its own weights come back bit for bit."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def apply(self) -> None:
        """Give the model the averages for good."""
        for weight, value in zip(self._weights(), self._values.values(), strict=True):
            weight.copy_(value)

    def tensors(self) -> dict[str, Tensor]:
        """Return the averages, as checkpoints hold them."""
        return dict(self._values)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` gave, and average nothing else."""
        parameters = dict(self._model.named_parameters())
        self._values = {name: like(value, parameters[name].detach()) for name, value in tensors.items()}
        self.follow()

    def _weights(self) -> list[nn.Parameter]:
        parameters = dict(self._model.named_parameters())
        return [parameters[name] for name in self._values]

    @torch.no_grad()
    def _swap(self) -> None:
        for weight, value in zip(self._weights(), self._values.values(), strict=True):
            held = weight.detach().clone()
            weight.copy_(value)
            value.copy_(held)
