from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from renaissance.api import UNKNOWN, Capabilities
from renaissance.assemble import assemble
from renaissance.errors import PluginError, SpecError
from renaissance.resolve import resolve


def test_another_fusion_head_leaves_the_weights_of_the_towers_as_they_were(tiny_model: Callable[..., Any]) -> None:
    first, second = tiny_model(("itc",)), tiny_model(("itc",), fusion="co-attention")
    for tower in ("vision", "text"):
        one, two = getattr(first.encoder, tower).state_dict(), getattr(second.encoder, tower).state_dict()
        assert all(torch.equal(value, two[name]) for name, value in one.items())
    heads = first.tasks["itc"].state_dict(), second.tasks["itc"].state_dict()
    assert all(torch.equal(value, heads[1][name]) for name, value in heads[0].items())


def test_a_seed_decides_every_weight(tiny_model: Callable[..., Any]) -> None:
    first, again, other = (tiny_model(seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    drawn = [name for name, value in first.items() if value.is_floating_point() and value.unique().numel() > 1]
    assert [name for name in drawn if torch.equal(first[name], other[name])] == []


def test_building_leaves_the_global_generator_as_it_was(tiny_model: Callable[..., Any]) -> None:
    before = torch.get_rng_state()
    tiny_model()
    assert torch.equal(before, torch.get_rng_state())


def test_tasks_that_need_no_two_images_add_no_parameters_for_slots(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model()
    assert model.encoder.slots is None
    assert not [name for name in model.state_dict() if "slots" in name]


def test_a_plan_is_kept_with_the_model(tiny_model: Callable[..., Any], tiny_spec: Callable[..., str]) -> None:
    model = tiny_model(("mlm", "itm"))
    assert model.plan.spec == resolve(tiny_spec(), ("mlm", "itm")).spec
    assert list(model.tasks) == ["mlm", "itm"]


def test_a_task_that_says_it_measures_and_cannot_is_refused(tiny_spec: Callable[..., str]) -> None:
    plan = resolve(tiny_spec(), ("mlm",))
    measuring = replace(plan.tasks["mlm"], entry=replace(plan.tasks["mlm"].entry, evaluates=True))
    with pytest.raises(PluginError, match=r"The task 'mlm' of the plugin 'renaissance' .* has no method 'score'"):
        assemble(replace(plan, tasks={"mlm": measuring}))


def test_a_backbone_that_is_not_what_it_said_is_refused(tiny_spec: Callable[..., str]) -> None:
    plan = resolve(tiny_spec(), ("itm",))
    wrong = replace(plan, vision=replace(plan.vision, facts=Capabilities(width=48)))
    with pytest.raises(SpecError, match="'tiny-vit' says that its width is 48, and built it is 32"):
        assemble(wrong)


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (Capabilities(depth=5), "its depth is 5, and built it is 2"),
        (Capabilities(image_size=64), "its image size is 64, and built it is 32"),
        (Capabilities(class_token=False), "its class token is False, and built it is True"),
    ],
)
def test_each_fact_that_was_declared_is_compared_with_what_was_built(
    facts: Capabilities, told: str, tiny_spec: Callable[..., str]
) -> None:
    plan = resolve(tiny_spec(), ("itm",))
    with pytest.raises(SpecError, match=f"'tiny-vit' says that {told}; report it"):
        assemble(replace(plan, vision=replace(plan.vision, facts=facts)))


def test_a_declared_grid_is_compared_with_what_was_built() -> None:
    plan = resolve("timm:test_vit(image_size=32) + tiny-bert(layers=1), random both, lxmert(layers=1)", ("itm",))
    with pytest.raises(SpecError, match=r"says that its grid is \(3, 3\), and built it is \(2, 2\)"):
        assemble(replace(plan, vision=replace(plan.vision, facts=Capabilities(grid=(3, 3)))))


@pytest.mark.parametrize("fusion", ["lxmert", "co-attention", "dual"])
def test_every_fusion_head_is_assembled_with_the_tasks_that_it_can_serve(
    fusion: str, tiny_model: Callable[..., Any]
) -> None:
    tasks = ("itc", "retrieval") if fusion == "dual" else ("mlm", "itm", "itc", "retrieval")
    assert set(tiny_model(tasks, fusion=fusion).tasks) == set(tasks)


SHARES = 'text-cross-attention(layers={}, heads=2, text_blocks="shared")'
WORDS = 'width=32, heads=2, mlp_width=64, tokenizer="renaissance"'


def test_blocks_that_only_the_build_shows_not_to_run_in_halves_are_refused() -> None:
    plan: Any = resolve(f"tiny-vit + transformers:bert(layers=2, {WORDS}), random both, {SHARES.format(2)}")
    other: Any = resolve(f"tiny-vit + transformers:albert(layers=2, {WORDS}), random both")
    unknown = replace(other.text, facts=replace(other.text.facts, text_blocks=UNKNOWN))
    with pytest.raises(SpecError, match=r"'transformers:albert' has none that run so.*leave out text_blocks"):
        assemble(replace(plan, text=unknown))


def test_more_shared_blocks_than_the_build_shows_are_refused_with_the_most() -> None:
    line = (
        f'tiny-vit + transformers:bert({WORDS}, overrides={{"num_hidden_layers": 2}}), random both, {SHARES.format(3)}'
    )
    with pytest.raises(SpecError, match=r"'transformers:bert' has 2; say text-cross-attention\(layers=2\) or fewer"):
        assemble(resolve(line))
