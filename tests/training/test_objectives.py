"""Hard negatives, a queue, a teacher and masked patches: two gloo processes make the steps of one."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing import get_context
from torch.nn.parallel import DistributedDataParallel

from renaissance.training.train_step import TrainStep

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


def work(rank: int, folder: str, model: Any, batches: list[Any]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(stepped(DistributedDataParallel(TrainStep(model, WEIGHTS)), batches[rank]), f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(
    tiny_model: Callable[..., Any], tiny_batch: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """What one process makes of eight pairs, and what two make of five and three."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("ranks")
    model = tiny_model(TASKS)
    parts = [tiny_batch(model, 5), tiny_batch(model, 3, first=5)]
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    context = get_context("fork" if not torch.cuda.is_initialized() else "spawn")
    processes = [context.Process(target=work, args=(rank, str(folder), model, parts)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        if process.is_alive():
            process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
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
