from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from renaissance.assemble import assemble
from renaissance.errors import SpecError
from renaissance.recipe import validate_recipe
from renaissance.recipe.freezing import Freezing
from renaissance.recipe.training import Optimiser
from renaissance.resolve import resolve
from renaissance.training.optimiser import learning_rates, make_optimiser
from renaissance.training.stages import check_learning_rates, stages_of

Tiny = Callable[..., Any]
LR, SHARE = 1e-3, 0.65


def rates(model: Any, **settings: Any) -> dict[str, float]:
    """Return the learning rate of each parameter that the optimiser has."""
    optimiser = make_optimiser(model, Optimiser(lr=LR, **settings))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group["lr"] for group in optimiser.param_groups for p in group["params"]}


def test_each_layer_of_a_tower_learns_at_a_share_of_the_rate_of_the_layer_above_it(tiny_spec: Any) -> None:
    depth = 4
    spec = f"tiny-vit(layers={depth}, image_size=32) + tiny-bert(layers={depth}), random both, lxmert(layers=1)"
    found = rates(assemble(resolve(spec, ("itm",))), layer_decay=SHARE)
    for name, rate in found.items():
        part, _, rest = name.removeprefix("encoder.").partition(".")
        if part not in ("vision", "text"):
            assert rate == pytest.approx(5 * LR), name
        elif rest.startswith("blocks."):
            assert rate == pytest.approx(LR * SHARE ** (depth - int(rest.split(".")[1]))), name
        elif "embeddings" in rest:
            assert rate == pytest.approx(LR * SHARE ** (depth + 1)), name
        else:
            assert rate == pytest.approx(LR), name  # the final norm and the pooler


def test_embeddings_that_a_one_tower_model_adds_learn_as_its_base_s_own() -> None:
    spec = "tiny-vit(layers=2, width=32, heads=2, image_size=32) + tiny-bert, one-tower, random encoder, random text"
    found = rates(assemble(resolve(spec, ("itm",))), layer_decay=0.5)
    assert {rate for name, rate in found.items() if name.startswith("encoder.other.")} == {LR * 0.5**3}
    assert {rate for name, rate in found.items() if "base.model.embeddings" in name} == {LR * 0.5**3}
    assert {rate for name, rate in found.items() if name.startswith("encoder.pooler.")} == {LR * 5}


def test_the_last_multiplier_that_names_a_part_gives_its_rate(tiny_model: Tiny) -> None:
    model = tiny_model(("itm",))
    given = {"both": 0.5, "text[-1:]": 2.0, "fusion": 1.0, "fusion.norms": 3.0, 'text("*.query.*")': 7.0}
    found = rates(model, multipliers=given)
    assert found["encoder.vision.blocks.0.attention.q_proj.weight"] == pytest.approx(0.5 * LR)
    assert found["encoder.text.blocks.0.attention.self.key.weight"] == pytest.approx(0.5 * LR)
    assert found["encoder.text.blocks.1.attention.self.key.weight"] == pytest.approx(2 * LR)
    assert found["encoder.text.blocks.0.attention.self.query.weight"] == pytest.approx(7 * LR)
    assert found["encoder.fusion.vision_projection.weight"] == pytest.approx(LR)
    assert found["encoder.fusion.layers.0.cross.end.norm.weight"] == pytest.approx(3 * LR)
    assert found["tasks.itm.head.weight" if "tasks.itm.head.weight" in found else "tasks.itm.classifier.weight"] == (
        pytest.approx(5 * LR)
    )


def test_multipliers_and_layers_multiply(tiny_model: Tiny) -> None:
    found = rates(tiny_model(("itm",)), multipliers={"text": 2.0}, layer_decay=0.5)
    assert found["encoder.text.blocks.0.attention.self.key.weight"] == pytest.approx(2 * 0.25 * LR)


def test_what_is_frozen_is_not_in_the_optimiser(tiny_model: Tiny) -> None:
    model = tiny_model(("itm",), "frozen text, lora vision, frozen fusion.biases")
    found = rates(model)
    assert set(found) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith("encoder.text.") for name in found)
    assert any("lora_A" in name for name in found)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"multipliers": {"encoder": 2.0}}, "'encoder' is no part of this model; it has vision, text, fusion"),
        ({"multipliers": {"text[:9]": 2.0}}, r"The text tower has 2 layers; 'text\[:9\]' reaches beyond them"),
    ],
)
def test_learning_rates_of_what_is_not_there_are_refused(
    settings: dict[str, Any], message: str, tiny_model: Tiny
) -> None:
    with pytest.raises(SpecError, match=message):
        learning_rates(tiny_model(("itm",)), Optimiser(**settings))


def test_learning_rates_of_what_never_trains_are_refused(tiny_model: Tiny, tiny_recipe: Tiny) -> None:
    model, later = tiny_model(("itm",), "frozen text"), {"stages": [{"at": 2, "thaw": ["text"]}]}
    settings = Optimiser(multipliers={"text": 2.0})
    with pytest.raises(SpecError, match=r"optimiser\.multipliers: 'text' is frozen; let it train, or leave it out"):
        check_learning_rates(model, settings, stages_of(model, Freezing()))
    check_learning_rates(model, settings, stages_of(model, Freezing.model_validate(later)))
    check_learning_rates(model, Optimiser(multipliers={"both": 2.0}), stages_of(model, Freezing()))


def test_layers_of_a_tower_that_lists_none_have_no_rates_of_their_own(tiny_recipe: Tiny) -> None:
    text = "tiny-bert(layers=1, width=32, heads=2)"
    for rules, schedule in (("", {}), ("frozen vision", {"stages": [{"at": 2, "thaw": ["vision"]}]})):
        with torch.device("meta"):
            line = ", ".join(part for part in (f"timm:test_resnet + {text}", "random both", rules) if part)
            model = assemble(resolve(line, ("itm",)))
        freezing = validate_recipe(tiny_recipe(freezing=schedule)).freezing
        with pytest.raises(SpecError, match="layer_decay: the vision tower does not list its layers; freeze it"):
            check_learning_rates(model, Optimiser(layer_decay=0.9), stages_of(model, freezing))


@pytest.mark.parametrize("multipliers", [{"txt": 2.0}, {"text[": 2.0}, {"text": 0.0}])
def test_multipliers_of_a_wrong_form_are_refused_with_the_recipe(
    multipliers: dict[str, float], tiny_recipe: Tiny
) -> None:
    with pytest.raises(SpecError, match=r"optimiser\.multipliers"):
        validate_recipe(tiny_recipe(optimiser={"multipliers": multipliers}))
