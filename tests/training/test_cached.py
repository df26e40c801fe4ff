"""A batch in parts has the loss and the gradient of the whole batch, and keeps less of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from renaissance.assemble import assemble
from renaissance.errors import SpecError
from renaissance.recipe import validate_recipe
from renaissance.resolve import resolve
from renaissance.toolkit import recompute
from renaissance.training import cached
from renaissance.training.cached import check_cached
from renaissance.training.train_step import TrainStep

TASKS: Mapping[str, Any] = {"mlm": {"at_least_one": True}, "itm": {"negatives": "hard"}, "itc": {"width": 16}}


def gradients(model: Any, batch: Any, parts: int, tasks: Mapping[str, Any] = TASKS) -> tuple[Tensor, Tensor]:
    """Return the loss, and all gradients as one vector, with dropout drawn from one seed."""
    step = TrainStep(model, dict.fromkeys(tasks, 1.0), parts)
    torch.manual_seed(1)
    loss = step(batch).loss
    loss.backward()
    found = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return loss.detach(), torch.cat([gradient.flatten() for gradient in found])


@pytest.mark.parametrize("parts", [2, 7])
@pytest.mark.parametrize(
    ("rules", "fusion"),
    [("", "lxmert"), ("frozen text", "lxmert"), ("frozen vision, frozen text[:1]", "bridge"), ("", "q-former")],
)
def test_parts_have_the_loss_and_the_gradient_of_the_batch(
    rules: str, fusion: str, parts: int, tiny_model: Callable[..., Any], tiny_batch: Callable[..., Any]
) -> None:
    whole, divided = (tiny_model(TASKS, rules, fusion=fusion) for _ in range(2))
    loss, expected = gradients(whole, tiny_batch(whole, 7), 1)
    parted, found = gradients(divided, tiny_batch(divided, 7), parts)
    torch.testing.assert_close(parted, loss, rtol=1e-6, atol=1e-6)
    assert float((found - expected).norm() / expected.norm()) < 1e-6


def test_a_one_tower_model_runs_in_parts(tiny_batch: Callable[..., Any]) -> None:
    base = "tiny-bert(layers=2, width=32, heads=2, mlp_width=64, dropout=0.0)"
    spec = f"{base}, one-tower(image_size=32, patch_size=8), random encoder"
    whole, divided = (assemble(resolve(spec, TASKS), seed=0).train() for _ in range(2))
    loss, expected = gradients(whole, tiny_batch(whole, 6), 1)
    parted, found = gradients(divided, tiny_batch(divided, 6), 3)
    torch.testing.assert_close(parted, loss, rtol=1e-6, atol=1e-6)
    assert float((found - expected).norm() / expected.norm()) < 1e-6


def test_stored_features_come_in_parts_too(tiny_model: Callable[..., Any], tiny_batch: Callable[..., Any]) -> None:
    models = [tiny_model(TASKS, "frozen vision") for _ in range(2)]
    batch = tiny_batch(models[0], 6)
    stored = models[0].encoder.encode_vision(batch.images)
    batch = replace(batch, images=None, stored_vision=stored)
    (_, expected), (_, found) = gradients(models[0], batch, 1), gradients(models[1], batch, 4)
    assert float((found - expected).norm() / expected.norm()) < 1e-6


def test_dropout_is_the_same_when_a_part_runs_again(
    tiny_model: Callable[..., Any], tiny_batch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [tiny_model(TASKS, dropout=0.3) for _ in range(2)]
    _, again = gradients(models[0], tiny_batch(models[0], 6), 3)
    monkeypatch.setattr(cached, "run", lambda call, _, *inputs: recompute.run(call, False, *inputs))
    _, kept = gradients(models[1], tiny_batch(models[1], 6), 3)
    assert torch.equal(again, kept)


def test_what_is_inside_of_a_part_is_not_kept(tiny_model: Callable[..., Any], tiny_batch: Callable[..., Any]) -> None:
    def kept(parts: int) -> int:
        model = tiny_model(TASKS)
        step, batch = TrainStep(model, dict.fromkeys(TASKS, 1.0), parts), tiny_batch(model, 8)
        held: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            step(batch)
        own = sum(parameter.nbytes for parameter in model.parameters())
        return int(max(0, sum(held.values()) - own) + own // 10)

    assert kept(4) < kept(1) / 2


def test_batch_statistics_are_refused() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    with pytest.raises(SpecError, match="'1' estimates the statistics of a batch"):
        check_cached(module)


def test_one_part_is_refused(tiny_recipe: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(SpecError, match="'cached' runs a batch in 'accumulation' parts, and there is one"):
        validate_recipe(tiny_recipe(batch={"size": 4, "cached": True}))
