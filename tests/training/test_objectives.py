"""Hard negatives, a queue, a teacher, masked patches and labels: two gloo processes make the steps of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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
    "rank": {"false_texts": 3},
    "mim": {"patch_size": 8, "masking": "blocks", "target": "features"},
}
WEIGHTS = {"mlm": 1.0, "itm": 0.5, "itc": 2.0, "rank": 1.0, "mim": 1.5}
LABELLED: dict[str, dict[str, Any]] = {
    "vqa": {"labels": ["a", "b", "c"]},
    "visual-entailment": {},
    "regression": {},
    "image-classification": {"labels": ["a", "b", "c"]},
    "text-classification": {"labels": ["a", "b"]},
}
LABELLED_WEIGHTS = {"vqa": 1.0, "visual-entailment": 0.5, "regression": 2.0, "image-classification": 1.5}
LABELLED_WEIGHTS["text-classification"] = 0.7
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


def built(spec: str, tasks: dict[str, dict[str, Any]] = TASKS) -> Any:
    return assemble(resolve(spec, tasks), seed=0).train()


def labelled(batch: Any, first: int = 0) -> Any:
    """Return a batch of items numbered from `first`, with the targets that follow from their numbers."""
    numbers = torch.arange(first, first + len(batch.items))
    return replace(
        batch,
        targets={
            "vqa": torch.stack([numbers % 2 * 0.3, numbers % 3 * 0.5, torch.ones_like(numbers)], 1),
            "visual-entailment": numbers % 3,
            "regression": numbers / 4,
            "image-classification": (numbers + 1) % 3,
            "text-classification": numbers % 2,
        },
    )


def work(rank: int, folder: str, spec: str, batches: list[Any]) -> None:
    step = DistributedDataParallel(TrainStep(built(spec), WEIGHTS))
    torch.save(stepped(step, batches[rank]), f"{folder}/{rank}.pt")
    other = DistributedDataParallel(TrainStep(built(spec, LABELLED), LABELLED_WEIGHTS))
    torch.save(stepped(other, labelled(batches[rank], 5 * rank)), f"{folder}/labelled-{rank}.pt")


Results = tuple[dict[str, Tensor], list[dict[str, Tensor]]]


@pytest.fixture(scope="module")
def both(
    tiny_spec: Callable[..., str], tiny_batch: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Results, Results]:
    """What one process makes of eight pairs, and what two make of five and three: of captions, then of labels."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("ranks")
    model = built(tiny_spec())
    parts = [tiny_batch(model, 5), tiny_batch(model, 3, first=5)]
    in_two_processes(work, folder, tiny_spec(), parts)
    whole = tiny_batch(model, 8)
    alone = stepped(TrainStep(model, WEIGHTS), whole)
    other = stepped(TrainStep(built(tiny_spec(), LABELLED), LABELLED_WEIGHTS), labelled(whole))

    def saved(prefix: str) -> list[dict[str, Tensor]]:
        return [torch.load(folder / f"{prefix}{rank}.pt", weights_only=True) for rank in range(2)]

    return (alone, saved("")), (other, saved("labelled-"))


@pytest.fixture(scope="module")
def results(both: tuple[Results, Results]) -> Results:
    """Those of captions."""
    return both[0]


@pytest.mark.parametrize("kind", ["gradient", *(f"loss {name}" for name in LABELLED), "tasks.", "encoder."])
def test_two_processes_learn_from_labels_what_one_learns(kind: str, both: tuple[Results, Results]) -> None:
    alone, ranks = both[1]
    names = [name for name in alone if name.startswith(kind)]
    assert names
    for rank in ranks:
        for name in names:
            torch.testing.assert_close(rank[name], alone[name], rtol=1e-3, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


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
