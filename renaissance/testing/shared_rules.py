"""What every backbone and every fusion head must hold as a module: its seed, its copies, and that it minds its work."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from renaissance.api import BackboneEntry, FusionHeadEntry
from renaissance.testing.benches import Bench
from renaissance.testing.models import caption_batch, model_with
from renaissance.testing.subjects import check_equal, failure
from renaissance.training.train_step import TrainStep


def _seeded(bench: Bench) -> None:
    """One seed of torch gives the same weights, another gives others."""
    first, second, other = _weights(bench, 0, 1), _weights(bench, 0, 2), _weights(bench, 1, 1)
    check_equal("seeded", "names of the weights", sorted(second), sorted(first))
    moved = [name for name, tensor in first.items() if not torch.equal(second[name], tensor)]
    if moved:
        raise failure("seeded", f"{moved} that differ with the same seed", "the same bits")
    fixed = [n for n, t in first.items() if t.dim() > 1 and not _constant(t) and torch.equal(other[n], t)]
    if fixed:
        raise failure("seeded", f"{fixed} that are the same with another seed", "other random weights")


def _constant(tensor: Tensor) -> bool:
    """Return whether nothing was drawn for a tensor."""
    return bool(tensor.max() == tensor.min())


def _weights(bench: Bench, seed: int, others: int) -> dict[str, Tensor]:
    """Return the trainable weights that a seed of torch gives, whatever Python's and NumPy's random states are."""
    kept = random.getstate(), np.random.get_state()
    try:
        random.seed(others)
        np.random.seed(others)
        module: nn.Module = bench.fresh(seed)
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}


def _network(bench: Bench) -> None:
    """Building it with random weights and running it reaches for no host."""
    called = bench.watch.called
    if called:
        raise failure("network", f"it reaches for {', '.join(called)}", "no network with random weights")


def _state(bench: Bench) -> None:
    """Building and running it leaves alone what all share: environment, filters, random states, torch's settings."""
    changed = bench.watch.changed
    if changed:
        raise failure("state", f"it changes {', '.join(changed)}", "nothing that all share")


def _deepcopy(bench: Bench) -> None:
    """A deep copy gives the same, bit for bit, and shares no weights with it."""
    module = bench.module
    twin = copy.deepcopy(module)
    with torch.no_grad():
        check_same_bits("deepcopy", bench.trial.run(twin), bench.trial.run(module))
    own = {tensor.data_ptr() for tensor in module.parameters()}
    shared = [name for name, tensor in twin.named_parameters() if tensor.data_ptr() in own]
    check_equal("deepcopy", "weights that both share", shared, [])


def _frozen(bench: Bench) -> None:
    """Frozen, it stays in eval mode whatever train() says, and no bit of it moves while all else trains."""
    task = _task_of(bench)
    model = model_with(bench.component, bench.registry, {task: {}}, frozen=True)
    part: nn.Module = getattr(model.encoder, _part_of(bench))
    before = {name: tensor.clone() for name, tensor in part.state_dict().items()}
    step = TrainStep(model, {task: 1.0}).train()
    optimiser = torch.optim.SGD([p for p in step.parameters() if p.requires_grad], lr=0.1)
    batch = caption_batch(model)
    for _ in range(2):
        optimiser.zero_grad()
        step(batch).loss.backward()
        optimiser.step()
        step.train()
    training = [name for name, module in part.named_modules() if module.training]
    check_equal("frozen", "modules in train mode", training, [])
    trained = [name for name, p in part.named_parameters() if p.requires_grad or p.grad is not None]
    check_equal("frozen", "parameters with a gradient", trained, [])
    moved = [name for name, tensor in part.state_dict().items() if not torch.equal(tensor, before[name])]
    check_equal("frozen", "tensors that moved", moved, [])


def _part_of(bench: Bench) -> str:
    return bench.entry.modality if isinstance(bench.entry, BackboneEntry) else "fusion"


def _task_of(bench: Bench) -> str:
    """Return a task that trains what stands above or below of the component."""
    outputs = bench.entry.outputs if isinstance(bench.entry, FusionHeadEntry) else {"pooled"}
    return "itm" if "pooled" in outputs else "mlm" if "text" in outputs else "mim" if "vision" in outputs else "itc"


def check_same_bits(rule: str, seen: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise unless both have the same outputs, bit for bit."""
    check_equal(rule, "outputs", sorted(seen), sorted(expected))
    for name, tensor in expected.items():
        if seen[name].shape != tensor.shape or not torch.equal(seen[name], tensor):
            raise failure(rule, f"'{name}' that differs", "the same bits")


RULES: dict[str, Callable[[Bench], None]] = {
    "seeded": _seeded,
    "network": _network,
    "state": _state,
    "deepcopy": _deepcopy,
    "frozen": _frozen,
}
