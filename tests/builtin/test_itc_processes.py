"""Two gloo processes have the sigmoid loss of one at the same global batch, and its gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from renaissance.builtin.itc import ImageTextContrast
from renaissance.builtin.task_entries import ItcOptions
from tests.builtin.test_itc import WIDTH, Encoded, batch, facts
from tests.processes import in_two_processes

KEYS = ([[1, 2], [3, 0], [4, 0], [2, 0]], [1, 3, 4, 2])  # the first image shares a caption with the last
CUTS = (slice(0, 3), slice(3, 4))  # unequal parts


def vectors() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(4, WIDTH, generator=generator) for _ in range(2))
    return images, texts


def lost(part: slice) -> dict[str, Tensor]:
    """Return what the loss of a part of the batch is, and its gradients."""
    task = ImageTextContrast(ItcOptions(loss="sigmoid"), model=facts())
    images, texts = (tensor[part].clone().requires_grad_() for tensor in vectors())
    encoded: Any = Encoded(images, texts)
    result = task.loss(encoded, None, None, batch(KEYS[0][part], KEYS[1][part]))
    result.sum.backward()
    assert task.bias is not None
    assert None not in (images.grad, texts.grad, task.bias.grad, task.log_scale.grad)
    gradients: Any = {"images": images.grad, "texts": texts.grad, "bias": task.bias.grad, "scale": task.log_scale.grad}
    return {"sum": result.sum.detach(), "count": result.count, **gradients}


def work(rank: int, folder: str) -> None:
    torch.save(lost(CUTS[rank]), f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    in_two_processes(work, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", ["sum", "count", "bias", "scale"])
def test_the_parts_add_up_to_the_loss_of_one_process(name: str, parts: list[dict[str, Tensor]]) -> None:
    alone = lost(slice(0, 4))[name]
    torch.testing.assert_close(parts[0][name] + parts[1][name], alone)


@pytest.mark.parametrize("name", ["images", "texts"])
def test_each_vector_has_the_gradient_of_the_whole_batch(name: str, parts: list[dict[str, Tensor]]) -> None:
    alone = lost(slice(0, 4))[name]
    torch.testing.assert_close(torch.cat([part[name] for part in parts]), alone)
