"""The check that every parameter learns.

Letters in shapes: D width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from renaissance.testing.subjects import TOLERANCE, check_equal, seeded

SEEDS = (3, 4, 5)  # chance may drop a path for all inputs: what stays zero with each of them is cut off
Run = Callable[[Any], Mapping[str, Tensor]]


def check_gradients(module: nn.Module, run: Run) -> None:
    """Check that in training each parameter gets a finite gradient, and no weight matrix one of zeros alone.

    run: what a module gives, by name. Vectors [D] or [D, 1] may get zeros: a key's bias cancels in a softmax, and so
    does what gives one number to one. A matrix may where the outputs are flat in it though they depend on it: where
    only its sign is read, or a table's row for padding alone.

    Raises:
        ConformanceError: naming the parameters.
    """
    module = copy.deepcopy(module).train()  # batch norms take statistics in train mode, and parameters gradients
    module.zero_grad()
    for seed in SEEDS:
        with seeded(seed):
            torch.autograd.backward(random_sum(run(module)))
        gradients = {name: p.grad for name, p in module.named_parameters() if p.requires_grad}
        zero = [name for name, g in gradients.items() if g is not None and g.squeeze().dim() > 1 and not g.any()]
        if not zero:
            break
    module.eval()
    without = [name for name, gradient in gradients.items() if gradient is None]
    check_equal("gradients", "parameters that the outputs do not depend on", without, [])
    broken = [name for name, gradient in gradients.items() if gradient is not None and not gradient.isfinite().all()]
    check_equal("gradients", "gradients that are not finite", broken, [])
    cut = [name for name in zero if not _flat(module, run, name)]
    check_equal("gradients", "weight matrices whose gradient is zero", cut, [])


def random_sum(found: Mapping[str, Tensor]) -> Tensor:
    """Return a sum [] of what a module gave, with random weights: a plain one is flat behind a norm."""
    return torch.stack([(output * torch.randn_like(output)).sum() for output in found.values()]).sum()


@torch.no_grad()
def _flat(module: nn.Module, run: Run, name: str) -> bool:
    """Return whether the outputs depend on a parameter, and yet stay when it changes by a thousandth."""
    parameter = module.get_parameter(name)
    owner = module.get_submodule(name.rpartition(".")[0])
    kept, plain = parameter.clone(), run(module)
    with seeded(4):
        noise = torch.randn_like(kept) * kept.abs().mean().clamp(min=1e-3)
    near = 1e-3 * noise
    if isinstance(owner, nn.Embedding) and owner.padding_idx is not None:
        near[owner.padding_idx] = 0  # torch gives this row no gradient
    moved = []
    for change in (near, noise):
        parameter.copy_(kept + change)
        moved.append(_moved(run(module), plain))
    parameter.copy_(kept)
    return moved == [False, True]


def _moved(seen: Mapping[str, Tensor], plain: Mapping[str, Tensor]) -> bool:
    """Return whether any output differs by more than rounding."""
    pairs = [(seen[name], plain[name]) for name in plain]
    return any(float((a - b).abs().max() / b.abs().max().clamp(min=1)) > TOLERANCE for a, b in pairs)
