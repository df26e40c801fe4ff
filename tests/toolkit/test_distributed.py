"""One process alone; what two processes gather is checked beside their training, in tests/training."""

from __future__ import annotations

import torch

from renaissance.api import Features
from renaissance.toolkit.distributed import gather, gather_features, offset, rank, total, world_size


def test_one_process_alone_gathers_nothing() -> None:
    tensor = torch.ones(2, 3, requires_grad=True)
    features = Features(torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.bool))
    assert (world_size(), rank()) == (1, 0)
    assert gather(tensor) is tensor
    assert gather_features(features) is features
    assert offset(2, tensor.device) == 0


def test_a_total_has_no_gradient() -> None:
    tensor = torch.ones(2, requires_grad=True)
    assert torch.equal(total(tensor), tensor)
    assert not total(tensor).requires_grad
