from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from renaissance.toolkit.random import stream_seed, uniform

KEYS = torch.arange(20_000) * 31 + 7


def test_numbers_lie_in_zero_to_one_with_the_mean_and_variance_of_a_uniform() -> None:
    drawn = uniform(KEYS, "a", 10)
    assert drawn.shape == (20_000, 10)
    assert drawn.dtype == torch.float64
    assert 0 <= float(drawn.min()) < 1e-4
    assert 1 - 1e-4 < float(drawn.max()) < 1
    assert abs(float(drawn.mean()) - 0.5) < 0.003
    assert abs(float(drawn.var()) - 1 / 12) < 0.001


def test_numbers_of_neighbouring_keys_places_and_streams_do_not_move_together() -> None:
    first, other = uniform(KEYS, "a", 2), uniform(KEYS, "b", 2)
    pairs = [(first[:, 0], first[:, 1]), (first[:, 0], other[:, 0]), (first[:-1, 0], first[1:, 0])]
    for one, two in pairs:
        assert abs(float(torch.corrcoef(torch.stack([one, two]))[0, 1])) < 0.03


def test_every_tenth_is_drawn_equally_often() -> None:
    counts = torch.histc(uniform(KEYS, "c", 5).flatten(), bins=10, min=0, max=1)
    assert float((counts / 10_000 - 1).abs().max()) < 0.05


@given(keys=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=12), cut=st.integers(0, 12))
@settings(deadline=None, max_examples=100, derandomize=True)
def test_what_is_drawn_for_a_key_does_not_depend_on_its_batch(keys: list[int], cut: int) -> None:
    whole = torch.tensor(keys)
    parts = torch.cat([uniform(part, "x", 3) for part in (whole[:cut], whole[cut:])])
    assert torch.equal(uniform(whole, "x", 3), parts)


def test_the_first_numbers_do_not_depend_on_how_many_are_drawn() -> None:
    assert torch.equal(uniform(KEYS[:9], "x", 7)[:, :3], uniform(KEYS[:9], "x", 3))


def test_a_stream_has_a_seed_of_its_own_that_does_not_change_over_versions() -> None:
    assert stream_seed(0, "fusion") == stream_seed(0, "fusion") != stream_seed(1, "fusion") != stream_seed(1, "text")
    assert stream_seed(0, "vision") == 40179070136848442


def test_the_generator_does_not_change_over_versions() -> None:
    expected = [[0.8950571582683063, 0.4983406917026991], [0.7856809331004752, 0.05741136641485245]]
    assert uniform(torch.tensor([1, 2]), "fixed", 2).tolist() == expected


def test_the_global_generator_is_left_as_it_was() -> None:
    before = torch.get_rng_state()
    uniform(KEYS, "x", 2)
    assert torch.equal(before, torch.get_rng_state())
