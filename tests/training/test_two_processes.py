"""Two gloo processes make the step of one at the same global batch. One pair of processes checks several rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from renaissance.api import Features
from renaissance.assemble import assemble
from renaissance.resolve import resolve
from renaissance.toolkit.distributed import gather, gather_features, offset, total
from renaissance.training.train_step import TrainStep
from tests.processes import in_two_processes

TASKS = {"mlm": {"at_least_one": True}, "itm": {}, "itc": {"width": 16}}
WEIGHTS = {"mlm": 1.0, "itm": 0.5, "itc": 2.0}


def stepped(step: torch.nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Return (loss, gradients, weights after one step of SGD and one of AdamW)."""
    output = step(batch)
    output.loss.backward()
    inner: torch.nn.Module = getattr(step, "module", step)  # DDP's
    gradients = {name: p.grad.clone() for name, p in inner.named_parameters() if p.grad is not None}
    torch.optim.SGD(step.parameters(), lr=0.1).step()
    losses = {f"loss of {name}": value for name, value in output.losses.items()}
    figures = {f"figure {name}": value for name, value in output.metrics.items()}
    return output.loss.detach(), gradients, {**inner.state_dict(), **losses, **figures}


def gathered_rules(rank: int) -> dict[str, Any]:
    """Gather tensors of different sizes, with gradient."""
    own = torch.full((2 + rank, 3 - rank), float(rank + 1), requires_grad=True)
    everything = gather(own)
    (everything * torch.arange(5.0).unsqueeze(1)).sum().backward()
    mask = torch.ones((1, 2 + rank), dtype=torch.bool)
    features = gather_features(Features(torch.ones(1, 2 + rank, 4) * rank, mask, torch.full((1, 2), rank)))
    return {
        "everything": everything.detach(),
        "gradient": own.grad,
        "offset": offset(2 + rank, own.device),
        "total": total(torch.tensor(float(rank + 1))),
        "keys": gather(torch.tensor([rank, 2**62 + rank])),
        "mask": features.mask,
        "tokens": features.tokens.shape,
    }


def built(spec: str) -> Any:
    return assemble(resolve(spec, TASKS), seed=0).train()


def work(rank: int, folder: str, spec: str, batches: list[Any]) -> None:
    step = DistributedDataParallel(TrainStep(built(spec), WEIGHTS))
    loss, gradients, after = stepped(step, batches[rank])
    torch.save(
        {"loss": loss, "gradients": gradients, "after": after, "gathered": gathered_rules(rank)}, f"{folder}/{rank}.pt"
    )


@pytest.fixture(scope="module")
def results(
    tiny_spec: Callable[..., str], tiny_batch: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, list[Any]]:
    """What one process makes of eight pairs, and what two make of four each."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("ranks")
    model = built(tiny_spec())
    halves = [tiny_batch(model, 4), tiny_batch(model, 4, first=4)]
    in_two_processes(work, folder, tiny_spec(), halves)
    alone = stepped(TrainStep(model, WEIGHTS), tiny_batch(model, 8))
    return alone, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_both_processes_have_equal_gradients(results: Any) -> None:
    _, (first, second) = results
    assert first["gradients"].keys() == second["gradients"].keys()
    assert [
        name for name, value in first["gradients"].items() if not torch.equal(value, second["gradients"][name])
    ] == []


def test_two_processes_have_the_gradients_of_one_at_the_same_batch(results: Any) -> None:
    (_, alone, _), (first, _) = results
    assert alone.keys() == first["gradients"].keys()
    for name, value in alone.items():
        torch.testing.assert_close(
            first["gradients"][name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_two_processes_make_the_step_of_one(results: Any) -> None:
    (_, _, alone), ranks = results
    for rank in ranks:
        assert alone.keys() == rank["after"].keys()
        for name, value in alone.items():
            torch.testing.assert_close(
                rank["after"][name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_the_mean_of_both_losses_is_that_of_one(results: Any) -> None:
    (loss, _, _), (first, second) = results
    torch.testing.assert_close((first["loss"] + second["loss"]) / 2, loss, rtol=1e-5, atol=1e-5)


def test_tensors_of_different_sizes_are_gathered_in_order_of_rank(results: Any) -> None:
    _, ranks = results
    expected = torch.tensor([[1.0, 1, 1]] * 2 + [[2.0, 2, 0]] * 3)
    for rank in ranks:
        assert torch.equal(rank["gathered"]["everything"], expected)
        assert rank["gathered"]["keys"].tolist() == [0, 2**62, 1, 2**62 + 1]
        assert rank["gathered"]["mask"].tolist() == [[True, True, False], [True, True, True]]
        assert rank["gathered"]["tokens"] == (2, 3, 4)
        assert float(rank["gathered"]["total"]) == 3.0
    assert [rank["gathered"]["offset"] for rank in ranks] == [0, 2]


def test_the_gradient_of_what_is_gathered_is_the_sum_over_processes(results: Any) -> None:
    _, ranks = results
    rows = torch.arange(5.0).unsqueeze(1) * 2  # both processes weigh row i with i
    assert torch.equal(ranks[0]["gathered"]["gradient"], rows[:2].expand(2, 3))
    assert torch.equal(ranks[1]["gathered"]["gradient"], rows[2:].expand(3, 2))
