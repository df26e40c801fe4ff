from __future__ import annotations

import pytest
import torch
from torch import nn

from renaissance.toolkit.dropout import LEVELS, Dropout, draw_cheaply


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_share_p_becomes_zero_and_the_mean_stays(p: float) -> None:
    torch.manual_seed(0)
    ones = torch.ones(400_000)
    kept = Dropout(p).train()(ones)
    share = (kept == 0).double().mean().item()
    deviation = (p * (1 - p) / len(ones)) ** 0.5
    assert abs(share - p) < 5 * deviation + 1 / LEVELS
    assert len(kept.unique()) == 2
    assert kept.max().item() == pytest.approx(1 / (1 - p), rel=1e-3)
    assert kept.double().mean().item() == pytest.approx(1.0, abs=5 * deviation / (1 - p))


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(1)
    zero = (Dropout(0.5).train()(torch.ones(400_000)) == 0).double()
    for distance in (1, 2, 3, 4):
        both = (zero[:-distance] * zero[distance:]).mean().item()
        assert abs(both - 0.25) < 5 * (0.25 * 0.75 / len(zero)) ** 0.5


def test_gradients_flow_through_what_is_kept_with_the_same_scale() -> None:
    torch.manual_seed(0)
    values = torch.randn(3, 7, 5, dtype=torch.float64, requires_grad=True)
    dropped = Dropout(0.3).train()(values)
    dropped.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad * values.detach(), dropped.detach())


def test_the_same_seed_drops_the_same() -> None:
    values, dropout = torch.ones(101), Dropout(0.4).train()
    seen = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        seen.append(dropout(values))
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


@pytest.mark.parametrize("dropout", [Dropout(0.1).eval(), Dropout(0.0).train()])
def test_nothing_is_drawn_where_nothing_is_dropped(dropout: nn.Module) -> None:
    values, state = torch.randn(5), torch.get_rng_state()
    assert torch.equal(dropout(values), values)
    assert torch.equal(torch.get_rng_state(), state)


def test_all_can_be_dropped_and_halves_stay_halves() -> None:
    assert Dropout(1.0).train()(torch.ones(4)).tolist() == [0.0] * 4
    assert Dropout(0.5).train()(torch.ones(4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert Dropout(0.5).train()(torch.ones(4, device="meta")).shape == (4,)


def test_a_plain_dropout_of_another_library_draws_cheaply_and_other_kinds_stay() -> None:
    class Own(nn.Dropout):
        pass

    parts = nn.Sequential(nn.Dropout(0.1), nn.Sequential(nn.Dropout(0.2)), Own(0.3), nn.Dropout1d(0.4))
    draw_cheaply(parts)
    assert [type(part) for part in parts.modules() if not isinstance(part, nn.Sequential)] == [
        Dropout,
        Dropout,
        Own,
        nn.Dropout1d,
    ]
    assert [part.p for part in parts.modules() if isinstance(part, nn.Dropout)] == [0.1, 0.2, 0.3]
