"""What towers start from: shuffled weights, and embeddings that start otherwise than the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import renaissance
from renaissance.assemble import Assembly, assemble
from renaissance.errors import SpecError
from renaissance.models.starting import shuffle, take_embeddings
from renaissance.resolve import resolve
from renaissance.shorthand import format_spec

TOWERS = "tiny-vit + tiny-bert, concat(width=64)"
BASES = {"vision": "tiny-vit, one-tower", "text": "tiny-bert, one-tower(image_size=32, patch_size=8)"}


def built(line: str, *, seed: int = 0) -> Assembly:
    return assemble(resolve(line), seed=seed)


def weights(line: str, tower: str, *, seed: int = 0) -> Mapping[str, Tensor]:
    found: dict[str, Tensor] = getattr(built(line, seed=seed).encoder, tower).state_dict()
    return found


def many_values(tensor: Tensor) -> bool:
    return len(set(tensor.flatten().tolist())) > 8


def same(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> set[str]:
    assert set(one) == set(two)
    return {name for name, tensor in one.items() if torch.equal(tensor, two[name])}


def embeddings_of(line: str) -> set[str]:
    base: Any = built(line).encoder.encoder
    listed = {id(parameter) for module in base.embeddings for parameter in module.parameters()}
    return {name for name, parameter in base.named_parameters() if id(parameter) in listed}


@pytest.mark.parametrize("tower", ["vision", "text"])
def test_shuffled_tensors_hold_the_pretrained_values_in_another_order(tower: str) -> None:
    given, shuffled = weights(TOWERS, tower), weights(f"{TOWERS}, shuffled {tower}", tower)
    assert all(torch.equal(tensor.flatten().sort().values, shuffled[name].flatten().sort().values)
               for name, tensor in given.items())  # fmt: skip
    many = {name for name, tensor in given.items() if many_values(tensor)}
    assert not same(given, shuffled) & many
    assert {name for name in many if given[name].ndim == 1}, "norms and biases are among them"


def test_a_shuffle_leaves_the_other_tower_as_it_was() -> None:
    given, shuffled = weights(TOWERS, "vision"), weights(f"{TOWERS}, shuffled text", "vision")
    assert same(given, shuffled) == set(given)


def test_a_seed_decides_the_order_and_another_gives_another() -> None:
    line = f"{TOWERS}, shuffled both"
    first, again, other = (weights(line, "text", seed=seed) for seed in (0, 0, 1))
    assert same(first, again) == set(first)
    assert not same(first, other) & {name for name, tensor in first.items() if many_values(tensor)}


def test_tensors_of_equal_values_are_each_permuted_in_their_own_order() -> None:
    module = nn.ParameterList([torch.arange(64.0), torch.arange(64.0)])
    shuffle(module, 0, "text")
    assert not torch.equal(module[0], module[1])


def test_integers_stay_and_what_two_names_share_is_permuted_once() -> None:
    shared = nn.Parameter(torch.arange(64.0))
    module, once = nn.ParameterList([shared, shared]), nn.ParameterList([torch.arange(64.0)])
    module.register_buffer("count", torch.arange(64))
    module.register_buffer("mean", torch.arange(64.0))
    shuffle(module, 0, "text")
    shuffle(once, 0, "text")
    state = module.state_dict()
    assert module[1] is module[0]
    assert torch.equal(module[0], once[0])
    assert torch.equal(state["count"], torch.arange(64))
    assert not torch.equal(state["mean"], torch.arange(64.0))


def test_a_shuffled_frozen_tower_encodes_and_holds_still() -> None:
    model = built(f"{TOWERS}, shuffled text, frozen text")
    encoder: Any = model.encoder
    tokens = encoder.encode_text(encoder.text.processor(["a red cup"])).tokens
    assert torch.isfinite(tokens).all()
    assert not tokens.requires_grad
    assert not any(parameter.requires_grad for parameter in encoder.text.parameters())


def test_a_saved_shuffled_model_loads_as_it_was_and_says_what_it_started_from(tmp_path: Path) -> None:
    model = renaissance.build(f"{TOWERS}, shuffled text, frozen text", tasks=("itm",))
    model.save(tmp_path / "model")
    again = renaissance.from_pretrained(tmp_path / "model")
    own, loaded = model.assembly.state_dict(), again.assembly.state_dict()
    assert same(own, loaded) == set(own)
    assert "shuffled text" in format_spec(again.assembly.plan.spec)


def test_the_transfer_report_names_what_was_shuffled() -> None:
    report = renaissance.build(f"{BASES['text']}, shuffled encoder, pretrained encoder.embeddings").transfer_report()
    kept = embeddings_of(BASES["text"])
    assert set(report.copied) == {f"base.{name}" for name in kept}
    assert report.shuffled
    assert all(name.startswith("base.") for name in report.shuffled)
    assert "\nshuffled: " in str(report)


# --- embeddings that start otherwise ----------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", ["vision", "text"])
@pytest.mark.parametrize("start", ["random", "shuffled", "pretrained"])
@pytest.mark.parametrize("own", ["random", "shuffled", "pretrained"])
def test_a_base_and_its_embeddings_start_each_from_their_own(modality: str, start: str, own: str) -> None:
    line, named = BASES[modality], embeddings_of(BASES[modality])
    whole, embeddings = weights(f"{line}, {start} encoder", "encoder"), weights(f"{line}, {own} encoder", "encoder")
    mixed = weights(f"{line}, {start} encoder, {own} encoder.embeddings", "encoder")
    assert named
    assert same(mixed, embeddings) >= named
    assert same(mixed, whole) >= set(mixed) - named


def test_the_last_rule_on_where_a_base_starts_wins() -> None:
    line = BASES["text"]
    last = resolve(f"{line}, random encoder.embeddings, shuffled encoder").spec
    assert format_spec(last) == format_spec(resolve(f"{line}, shuffled encoder").spec)
    assert resolve(f"{line}, random encoder, pretrained encoder").spec.rules == ()


@pytest.mark.parametrize(
    "rules",
    ["shuffled encoder", "random encoder.embeddings", "random encoder, pretrained encoder.embeddings",
     "shuffled encoder, random encoder.embeddings, frozen encoder[:1]"],
)  # fmt: skip
def test_the_canonical_form_of_a_start_is_a_fixed_point(rules: str) -> None:
    spec = resolve(f"{BASES['text']}, {rules}").spec
    assert ", ".join(map(str, spec.rules)) == rules
    assert resolve(format_spec(spec)).spec == spec


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("tiny-vit(width=64) + tiny-bert, shuffled vision", "pretrained weights of its default sizes alone"),
        (f"{TOWERS}, shuffled fusion", "A fusion head has no pretrained weights of its own"),
        (f"{TOWERS}, shuffled text[:1]", r"for whole towers, or for their embeddings; write 'shuffled text', or"),
        (f"{BASES['text']}, shuffled vision", r"'shuffled vision': these embeddings are new; leave it out, or name"),
        ("tiny-vit + tiny-bert, one-tower, random text.embeddings", "embeddings alone; write 'random text'"),
        ("swin-tiny + tiny-bert, random vision.embeddings", "'swin-tiny' does not list its embeddings"),
        (f"{TOWERS}, shufled text", "Did you mean 'shuffled'"),
    ],
)
def test_a_start_that_nothing_has_is_refused_by_name(line: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        resolve(line)


def test_a_backbone_that_turns_out_to_list_no_embeddings_keeps_none() -> None:
    bare = nn.Module()
    bare.embeddings = ()  # type: ignore[assignment]  # what a backbone lists is no module
    with pytest.raises(SpecError, match="'x' does not list its embeddings"):
        take_embeddings(bare, bare, name="x")


def test_a_frozen_random_tower_needs_no_pretrained_weights() -> None:
    model = built(
        "tiny-vit(width=64, heads=2) + tiny-bert(width=64, heads=2), random both, frozen both, concat(width=64)"
    )
    towers: Any = model.encoder
    assert not any(
        parameter.requires_grad for tower in (towers.vision, towers.text) for parameter in tower.parameters()
    )
