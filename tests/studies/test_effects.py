"""What recipes imply and do not say is compared too: arms that train otherwise are refused, others are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from renaissance.errors import StudyError
from renaissance.recipe import validate_recipe
from renaissance.studies.effects import check_effects, model_of, updates_of

Studies = Callable[..., Any]
Change = Callable[[dict[str, Any]], object]
Spec = Callable[..., str]


def factor(levels: dict[str, Any], *varies: str) -> Change:
    """Replace the factor by one whose levels are 'low' and 'high'."""

    def change(study: dict[str, Any]) -> None:
        paths = varies or [path for level in levels.values() for path in level]
        study["factors"] = {"one": {"about": "A test.", "varies": list(dict.fromkeys(paths)), "levels": levels}}

    return change


def refused(design: Any, told: str) -> None:
    with pytest.raises(StudyError) as caught:
        check_effects(design)
    assert told in str(caught.value)


RANDOM = [{"action": "random", "part": {"name": name}} for name in ("vision", "text")]


def frozen(part: str, **layers: int) -> dict[str, Any]:
    return {"action": "frozen", "part": {"name": part, **({"layers": layers} if layers else {})}}


# --- dropout ----------------------------------------------------------------------------------------------------------


def test_a_start_that_brings_another_dropout_along_is_told(tiny_study: Studies, tiny_spec: Spec) -> None:
    levels = {"low": {}, "high": {"pretrain.start": tiny_spec(dropout=0.1)}}
    refused(
        tiny_study(factor(levels)), "in the dropout of 'vision' of 'pretrain', which their recipes imply: 0, and 0.1"
    )
    paths = [f"pretrain.start.{part}.options.dropout" for part in ("vision", "text", "fusion")]
    check_effects(tiny_study(factor(levels, "pretrain.start", *paths)))


def test_a_dropout_at_its_default_is_known(tiny_study: Studies, tiny_spec: Spec) -> None:
    without = tiny_spec().replace(", dropout=0.0", "", 2)
    levels = {"low": {}, "high": {"pretrain.start": without}}
    refused(tiny_study(factor(levels, "pretrain.start")), "the dropout of 'text'")


def test_freezing_does_not_turn_dropout_off_unsaid(tiny_study: Studies, tiny_spec: Spec) -> None:
    levels = {"low": {}, "high": {"pretrain.start.rules": [*RANDOM, frozen("text")]}}

    def dropping(study: dict[str, Any]) -> None:
        factor(levels)(study)
        study["stages"]["pretrain"]["start"] = tiny_spec(dropout=0.1)

    check_effects(tiny_study(factor(levels)))
    refused(
        tiny_study(dropping), "the dropout of 'text' of 'pretrain', which their recipes imply: 0.1, and 0, as it holds"
    )


def test_frozen_layers_are_compared_and_not_how_they_are_written(tiny_study: Studies, tiny_spec: Spec) -> None:
    thawed = [*RANDOM, frozen("text"), {"action": "trainable", "part": {"name": "text", "layers": {"start": 1}}}]
    first = {"pretrain.start.rules": [*RANDOM, frozen("text", stop=1)]}

    def arms(rules: list[dict[str, Any]]) -> Change:
        def change(study: dict[str, Any]) -> None:
            factor({"low": first, "high": {"pretrain.start.rules": rules, "pretrain.optimiser.lr": 0.01}})(study)
            study["stages"]["pretrain"]["start"] = tiny_spec(dropout=0.1)

        return change

    check_effects(tiny_study(arms(thawed)))
    refused(tiny_study(arms([*RANDOM, frozen("text", stop=2)])), "the dropout of 'text'")


def test_a_published_fault_keeps_the_dropout_of_what_is_frozen(tiny_study: Studies, tiny_spec: Spec) -> None:
    levels = {"low": {}, "high": {"pretrain.start.rules": [*RANDOM, frozen("text")]}}

    def change(study: dict[str, Any]) -> None:
        factor(levels)(study)
        study["stages"]["pretrain"]["start"] = f"{tiny_spec(dropout=0.1)}, as-published(frozen_in_train_mode=true)"

    check_effects(tiny_study(change))


# --- images and heads -------------------------------------------------------------------------------------------------


def straight(start: str, **changes: Any) -> Change:
    """Add a control that leaves pretraining out."""

    def change(study: dict[str, Any]) -> None:
        settings = {"finetune.start": start, **changes}
        floor = {"about": "None.", "skips": ["pretrain"], "varies": list(settings), "settings": settings}
        study["controls"] = {"floor": floor}

    return change


def test_an_arm_without_pretraining_has_the_same_model_in_fine_tuning(tiny_study: Studies, tiny_spec: Spec) -> None:
    check_effects(tiny_study(straight(tiny_spec())))
    refused(tiny_study(straight(tiny_spec(dropout=0.1))), "the dropout of 'vision' of 'finetune'")


def test_another_size_of_images_is_told(tiny_study: Studies, tiny_spec: Spec) -> None:
    larger = tiny_spec().replace("image_size=32", "image_size=64")
    assert larger != tiny_spec()
    refused(
        tiny_study(straight(larger)),
        "the size of the images of 'finetune', which their recipes imply: 32 pixels, and 64",
    )


def test_a_size_that_surgery_gives_counts(tiny_study: Studies, tiny_spec: Spec) -> None:
    larger = tiny_spec().replace("image_size=32", "image_size=64")

    def change(study: dict[str, Any]) -> None:
        straight(larger)(study)
        study["stages"]["finetune"]["start"] = {"model": "@pretrain", "surgery": {"image_size": 64}}

    design = tiny_study(change)
    check_effects(design)
    model = model_of(design.study, design.arm("low"), "finetune")
    assert model is not None
    assert (model.origin, model.image_size, model.spec.vision.options["image_size"]) == ("pretrain", 64, 64)  # type: ignore[union-attr]  # two towers


def with_itc(study: dict[str, Any], **options: Any) -> None:
    study["stages"]["pretrain"]["tasks"] = {"itm": {}, "itc": {"options": {"width": 16}}}
    study["stages"]["finetune"]["tasks"] = {"itm": {}, "itc": {"options": options}}


def test_a_head_that_is_kept_keeps_its_options(tiny_study: Studies, tiny_spec: Spec) -> None:
    def change(study: dict[str, Any]) -> None:
        with_itc(study)
        straight(tiny_spec())(study)

    refused(tiny_study(change), "differ in the head of 'itc' of 'finetune'")
    refused(tiny_study(lambda study: with_itc(study, width=8)), "the head of 'itc' was built with other options")
    check_effects(tiny_study(lambda study: with_itc(study, width=16)))


def test_heads_that_change_are_declared(tiny_study: Studies) -> None:
    def change(study: dict[str, Any]) -> None:
        study["stages"]["pretrain"]["tasks"] = {"itm": {}, "mlm": {}}

    refused(tiny_study(change), "write 'surgery: {drop_tasks: [mlm]}' in its start")


# --- updates ----------------------------------------------------------------------------------------------------------


def test_epochs_of_more_data_are_more_updates(tiny_study: Studies) -> None:
    def change(*varies: str) -> Change:
        def changed(study: dict[str, Any]) -> None:
            factor({"low": {}, "high": {"finetune.data.train": 32}}, "finetune.data", *varies)(study)
            study["stages"]["finetune"]["budget"] = {"epochs": 2}

        return changed

    refused(tiny_study(change()), "in the updates of 'finetune', which their recipes imply: 8, and 16; make it equal")
    check_effects(tiny_study(change("finetune.budget")))


def test_samples_in_larger_batches_are_fewer_updates(tiny_study: Studies) -> None:
    def change(study: dict[str, Any]) -> None:
        factor({"low": {}, "high": {"finetune.batch.size": 8}})(study)
        study["stages"]["finetune"]["budget"] = {"samples": 16}

    refused(tiny_study(change), "in the updates of 'finetune', which their recipes imply: 4, and 2")


def test_epochs_of_data_whose_size_is_not_known_are_not_taken_for_equal(tiny_study: Studies) -> None:
    def change(size: int) -> Change:
        def changed(study: dict[str, Any]) -> None:
            world = {"seed": 1, "layouts": ["coco-captions"]}
            study["worlds"] = {"one": {**world, "size": 80}, "other": {**world, "seed": 2, "size": size}}
            here, there = ({"finetune.data.path": f"@{name}/coco-captions"} for name in ("one", "other"))
            factor({"low": here, "high": there})(study)
            finetune = study["stages"]["finetune"]
            finetune["data"], finetune["budget"] = {"kind": "prepared", "path": "@one/coco-captions"}, {"epochs": 1}

        return changed

    refused(tiny_study(change(90)), "1 epochs of its own data and batches")


@pytest.mark.parametrize(
    ("budget", "every", "updates"),
    [({"steps": 7}, None, 7), ({"samples": 22}, None, 5), ({"epochs": 2}, None, 8), ({"epochs": 2}, 1, 4)],
)
def test_updates_are_those_that_a_training_makes(
    tiny_study: Studies, budget: dict[str, int], every: int | None, updates: int
) -> None:
    recipe = dict(tiny_study().arm("low").recipes["pretrain"])
    evaluation = {**recipe["evaluation"], "every": every, "validation": 8}
    assert updates_of(validate_recipe({**recipe, "budget": budget, "evaluation": evaluation})) == updates


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("pretrain.start", "tiny-vit + tiny-brt", "Did you mean 'tiny-bert'?"),
        ("pretrain.start.text.options.dropot", 0.1, "Did you mean 'dropout'?"),
        ("pretrain.tasks.itmm", {}, "itmm"),
    ],
)
def test_a_model_that_cannot_be_built_is_told_with_its_arm(
    tiny_study: Studies, path: str, value: object, told: str
) -> None:
    with pytest.raises(StudyError) as caught:
        check_effects(tiny_study(factor({"low": {}, "high": {path: value}})))
    assert "arm 'high', stage 'pretrain'" in str(caught.value)
    assert told in str(caught.value)
