"""Hard negatives, a queue, a teacher and masked patches: two gloo processes make the steps of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from renaissance.assemble import assemble
from renaissance.resolve import resolve
from renaissance.training.train_step import TrainStep
from tests.processes import in_two_processes

TASKS: dict[str, dict[str, Any]] = {
    "mlm": {"at_least_one": True, "distillation": 0.4, "distillation_ramp": 4},
    "itm": {"negatives": "hard", "replaced": "both", "max_similarity": 0.999, "distillation": 0.3, "momentum": 0.9},
    "itc": {"width": 16, "queue": 12, "distillation": 0.4, "distillation_ramp": 0, "momentum": 0.9},
    "mim": {"patch_size": 8, "masking": "blocks", "target": "features"},
}
WEIGHTS = {"mlm": 1.0, "itm": 0.5, "itc": 2.0, "mim": 1.5}
STEPS = 3


def stepped(step: torch.nn.Module, batch: Any) -> dict[str, Tensor]:
    """Return the losses and gradients of the last of some steps of SGD, and what is kept after them."""
    inner: TrainStep = getattr(step, "module", step)  # DDP's
    optimiser = torch.optim.SGD(step.parameters(), lr=0.05)
    for _ in range(STEPS):
        optimiser.zero_grad()
        output = step(batch)
        output.loss.backward()
        optimiser.step()
        inner.momentum.update()
    gradients = {f"gradient {name}": p.grad.clone() for name, p in inner.named_parameters() if p.grad is not None}
    figures = {**{f"loss {k}": v for k, v in output.losses.items()}, **output.metrics}
    return {**gradients, **figures, **inner.state_dict(), **inner.momentum.tensors()}


def built(spec: str) -> Any:
    return assemble(resolve(spec, TASKS), seed=0).train()


def work(rank: int, folder: str, spec: str, batches: list[Any]) -> None:
    step = DistributedDataParallel(TrainStep(built(spec), WEIGHTS))
    torch.save(stepped(step, batches[rank]), f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def results(
    tiny_spec: Callable[..., str], tiny_batch: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """What one process makes of eight pairs, and what two make of five and three."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("ranks")
    model = built(tiny_spec())
    parts = [tiny_batch(model, 5), tiny_batch(model, 3, first=5)]
    in_two_processes(work, folder, tiny_spec(), parts)
    alone = stepped(TrainStep(model, WEIGHTS), tiny_batch(model, 8))
    return alone, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize(
    "kind", ["gradient", "loss", "itc/", "momentum.queue", "momentum.teacher", "tasks.", "encoder."]
)
def test_two_processes_have_what_one_has(kind: str, results: Any) -> None:
    alone, ranks = results
    names = [name for name in alone if name.startswith(kind)]
    assert names
    for rank in ranks:
        assert rank.keys() == alone.keys()
        for name in names:
            torch.testing.assert_close(rank[name], alone[name], rtol=1e-3, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_both_processes_keep_the_same_bits(results: Any) -> None:
    _, (first, second) = results
    assert [name for name in first if name.startswith("momentum") and not torch.equal(first[name], second[name])] == []
