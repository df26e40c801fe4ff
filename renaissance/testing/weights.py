"""Weights under which a wrong wiring shows: those of an initialisation are often zero, or too small to tell."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from renaissance.api import Modality, VisionInput


@torch.no_grad()
def randomise(module: nn.Module, deviation: float = 0.02) -> None:
    """Move every parameter a little: zeros and tiny scales of an initialisation would hide wrong wiring."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.add_(torch.randn_like(parameter), alpha=deviation)


@torch.no_grad()
def focus(backbone: nn.Module) -> None:
    """Let convolutions look at their middle most, as trained ones do: random ones look anywhere, grid or not."""
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size[0] % 2 and module.kernel_size[0] > 1:
            rows, columns = (torch.arange(size) - size // 2 for size in module.kernel_size)
            module.weight.mul_(torch.exp(-3.0 * (rows[:, None].square() + columns.square())))
        if isinstance(module, nn.Conv2d):  # against the small variances, a norm's epsilon would be large
            module.weight.div_(module.weight.flatten(1).norm(dim=1).mean())


@torch.no_grad()
def settle(backbone: nn.Module, modality: Modality) -> None:
    """Let batch norms see images once: with the statistics that they start from, a deep net's signal dies out."""
    norms = [module for module in backbone.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if modality != "vision" or not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    size: tuple[int, int] = cast(Any, backbone).processor.image_size
    spots = torch.rand(8, 3, 8, 8)  # noise alone, which convolutions blur away, would leave too small a variance
    noise = torch.rand(8, 3, *size)
    images = (nn.functional.interpolate(spots, size=size) + noise) / 2
    backbone.train()(VisionInput((images * 255).to(torch.uint8)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
