from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from renaissance.errors import SpecError
from renaissance.plain_yaml import parse_yaml
from renaissance.recipe import Recipe, json_schema, load_recipe, validate_recipe
from renaissance.recipe.start import SavedStart

LEAST: dict[str, Any] = {"start": "vit-base + bert-base", "tasks": {"mlm": {}}}


def refused(message: str, **changes: Any) -> None:
    with pytest.raises(SpecError, match=message):
        validate_recipe({**LEAST, **changes})


# --- what is unknown --------------------------------------------------------------------------------------------------

UNKNOWN: dict[str, tuple[dict[str, Any], str]] = {
    "optimizer": ({"optimizer": {}}, "unknown key 'optimizer'. Did you mean 'optimiser'?"),
    "in a section": ({"optimiser": {"lrr": 1.0}}, "'optimiser.lrr'. Did you mean 'lr'? Known keys: betas,"),
    "in a task": (
        {"tasks": {"mlm": {"wieght": 1}}},
        "'tasks.mlm.wieght'. Did you mean 'weight'? Known keys: options, weight.",
    ),
    "in generated data": (
        {"data": {"kind": "world", "trian": 3}},
        "'data.trian'. Did you mean 'train'? Known keys: captions,",
    ),
    "in columns": (
        {"data": {"kind": "images", "columns": {"imge": "x"}}},
        "'data.columns.imge'. Did you mean 'image'?",
    ),
    "in a hold-out": (
        {"data": {"kind": "images", "hold_out": [{"name": "t", "by": "id", "share": 0.1, "bye": 1}]}},
        "'data.hold_out.0.bye'. Did you mean 'by'? Known keys: by,",
    ),
    "in a named split": (
        {"data": {"kind": "images", "splits": {"a": {"where": {}, "sean": True}}}},
        "'data.splits.a.sean'. Did you mean 'seen'? Known keys: seen, where.",
    ),
    "in a spec": ({"start": {"architecture": "two-tower", "visoin": {}}}, "unknown key"),
    "in a saved start": (
        {"start": {"model": "x", "surgry": {}}},
        "'surgry'. Did you mean 'surgery'? Known keys: model,",
    ),
    "in the surgery": (
        {"start": {"model": "x", "surgery": {"drop_task": []}}},
        "'surgery.drop_task'. Did you mean 'drop_tasks'? Known keys: add_tasks, drop_tasks, freeze, image_size, "
        "max_tokens, thaw.",
    ),
}


@pytest.mark.parametrize(("changes", "message"), UNKNOWN.values(), ids=UNKNOWN.keys())
def test_an_unknown_key_shows_its_path_and_the_nearest_of_the_keys_beside_it(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        validate_recipe({**LEAST, **changes})
    if "visoin" not in str(changes):
        assert message in str(caught.value)
    assert "Known keys" in str(caught.value) or "field required" in str(caught.value)


def test_a_fault_in_the_shorthand_is_told_in_its_own_words() -> None:
    refused(
        r"^recipe: 'start': expected the name of a backbone.*\(at character 12: 'the end'\)\.$", start="vit-base + "
    )


@pytest.mark.parametrize("value", [None, 5, [], True])
def test_a_start_of_another_kind_is_told_what_can_stand_there(value: Any) -> None:
    refused("'start': give a line of shorthand, a spec, or", start=value)


@pytest.mark.parametrize("value", ["12", True, 1.0, -1, 2**40, None, float("nan")])
def test_numbers_are_not_guessed(value: Any) -> None:
    refused("^recipe: 'seed'", seed=value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1e-4", True, 0, -1.0])
def test_a_learning_rate_is_a_positive_number(value: Any) -> None:
    refused("^recipe: 'optimiser.lr'", optimiser={"lr": value})


@pytest.mark.parametrize("name", ["../up", "..", "/root", "a b", "", "a\x00", "a\u202e", "x" * 101])
def test_a_name_cannot_lead_out_of_its_folder(name: str) -> None:
    refused("^recipe: 'name'", name=name)


# --- cross-field physics ----------------------------------------------------------------------------------------------


def test_a_warm_up_as_long_as_the_training_is_refused() -> None:
    refused(
        "the warm-up of 10 steps is not shorter than the training of 10",
        budget={"steps": 10},
        schedule={"warmup_steps": 10},
    )
    refused("the warm-up of 10 steps", budget={"steps": 10}, schedule={"warmup_share": 1.0})


def test_weights_that_sum_to_nothing_are_refused() -> None:
    refused("weights of the tasks sum to nothing", tasks={"mlm": {"weight": 0}, "itm": {"weight": 0.0}})


def test_a_recipe_without_tasks_is_refused() -> None:
    refused("^recipe: 'tasks'", tasks={})


def test_a_batch_that_the_data_cannot_fill_is_refused() -> None:
    refused("a batch of 64 cannot be formed of 10 training scenes", data={"kind": "world", "train": 10})


def test_a_batch_that_its_parts_do_not_divide_is_refused() -> None:
    refused("'size' 10 is not a multiple of 'accumulation' 3", batch={"size": 10, "accumulation": 3})


def test_a_store_beside_augmentation_is_refused() -> None:
    refused("a store holds so many views of each image as", store=True, augmentation={"flip": True})


def test_a_store_that_would_leave_out_samples_is_refused() -> None:
    refused("a store is built before the training, which would then form other", store=True, on_bad_sample="skip")


def test_steps_and_epochs_together_or_neither_are_refused() -> None:
    refused("give one of 'steps', 'epochs', .*, and not 2", budget={"steps": 1, "epochs": 1})
    refused("give one of 'steps', 'epochs', .*, and not 0", budget={})


def test_two_ways_to_say_the_warm_up_are_refused() -> None:
    refused("give one of 'warmup_steps' and 'warmup_share'", schedule={"warmup_steps": 1, "warmup_share": 0.1})


def test_a_crop_from_much_to_little_is_refused() -> None:
    refused("'crop' is", augmentation={"crop": [0.9, 0.5]})


# --- data and back ----------------------------------------------------------------------------------------------------

RECIPES: dict[str, dict[str, Any]] = {
    "least": LEAST,
    "saved": {**LEAST, "start": {"model": "org/name@abc", "surgery": {"drop_tasks": ["mlm"], "add_tasks": ["itm"]}}},
    "one-tower": {**LEAST, "start": "electra-small + vit-base, one-tower, frozen encoder[:2]"},
    "images": {
        **LEAST,
        "data": {
            "kind": "images",
            "path": "somewhere",
            "columns": {"caption": ["a", "b"]},
            "splits": {"s": {"where": {"split": ["x", "y"]}}},
        },
        "augmentation": {"crop": [0.5, 1]},
        "trackers": ["tensorboard"],
        "optimiser": {"lr": 1, "betas": [0.9, 0.99], "clip_norm": None},
    },
}


@pytest.mark.parametrize("data", RECIPES.values(), ids=RECIPES.keys())
def test_a_dumped_recipe_is_loaded_back_from_json_and_from_yaml(data: dict[str, Any], tmp_path: Path) -> None:
    recipe = validate_recipe(data)
    assert validate_recipe(json.loads(json.dumps(recipe.dump()))) == recipe
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.dump()), encoding="utf-8")
    assert load_recipe(path) == recipe


def test_a_start_from_a_saved_model_is_told_from_a_spec() -> None:
    recipe = validate_recipe(RECIPES["saved"])
    assert isinstance(recipe.start, SavedStart)
    assert recipe.start.surgery.drop_tasks == ("mlm",)


def test_the_json_schema_allows_a_line_of_shorthand_and_describes_every_key() -> None:
    schema = json_schema()
    assert {"type": "string"} in schema["properties"]["start"]["anyOf"]
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert schema["additionalProperties"] is False
    references = [line.split('"')[3] for line in json.dumps(schema, indent=0).splitlines() if line.startswith('"$ref"')]
    assert references
    assert all(reference.removeprefix("#/$defs/") in schema["$defs"] for reference in references)


# --- files ------------------------------------------------------------------------------------------------------------


def test_yes_no_on_and_octal_stay_text_and_are_refused_where_a_number_or_truth_value_belongs(tmp_path: Path) -> None:
    assert parse_yaml(b"[no, on, yes, 012, 0x10, 1_000, 12:30:00, 2020-01-01, .inf]", what="x") == [
        "no", "on", "yes", "012", "0x10", "1_000", "12:30:00", "2020-01-01", ".inf",
    ]  # fmt: skip
    path = tmp_path / "recipe.yaml"
    for line in (
        "store: no",
        "store: on",
        "seed: 012",
        "seed: 1_000",
        "optimiser: {lr: .inf}",
        "optimiser: {lr: 1e400}",
    ):
        path.write_text(f"start: vit-base + bert-base\ntasks: {{mlm: {{}}}}\n{line}\n")
        with pytest.raises(SpecError, match=r"^recipe: '"):
            load_recipe(path)


def test_the_scalars_of_json_are_read() -> None:
    assert parse_yaml(b"[1, -2, 0.5, 1e-4, 1E5, true, false, null, ~, text]", what="x") == [
        1, -2, 0.5, 1e-4, 1e5, True, False, None, None, "text",
    ]  # fmt: skip


HOSTILE = {
    "an alias bomb": (b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", r"line 2: aliases"),
    "a key twice": (b"seed: 1\nseed: 2\n", r"line 2: the key 'seed' stands twice"),
    "a key twice, deep": (b"a:\n  b: 1\n  b: 2\n", r"line 3: the key 'b' stands twice"),
    "a Python object": (b"a: !!python/object/apply:os.system [ls]", r"line 1: tags"),
    "an explicit type": (b"store: !!bool yes", r"line 1: tags"),
    "a merge with an alias": (b"a: &x {b: 1}\nc:\n  <<: *x\n", "aliases"),
    "a key that is no text": (b"? [a]\n: 1\n", "is not text"),
    "a number as a key": (b"1: 2\n", "is not text"),
    "two documents": (b"a: 1\n---\nb: 2\n", "document"),
    "a depth of 100,000": (b"a: " + b"[" * 100_000, "nested too deeply"),
    "a depth of 5,000 mappings": (b"{a: " * 5_000, "x: "),
    "a depth of 50,000 items": (b"- " * 50_000, "recursion"),
    "more than 256 KB": (b"a" * 300_000, r"300,000 bytes are more than"),
    "50 MB": (b"a" * 50_000_000, "bytes are more than"),
    "no UTF-8": (b"\xed\xa0\x80", "not UTF-8"),
    "a NUL": (b"a: \x00", "special characters"),
    "no YAML": (b"a: b: c", "line 1: mapping values are not allowed here"),
}


@pytest.mark.parametrize(("raw", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_yaml_is_refused_quickly(raw: bytes, message: str) -> None:
    began = time.process_time()
    with pytest.raises(SpecError, match=message):
        parse_yaml(raw, what="x")
    assert time.process_time() - began < 1.5


@pytest.mark.parametrize("value", ['"\\ud800"', "1e400", "1" + "0" * 5000])
def test_an_option_that_nothing_can_use_is_refused(value: str) -> None:
    data = parse_yaml(f"tasks: {{mlm: {{options: {{a: {value}}}}}}}".encode(), what="x")
    refused("^recipe: 'tasks.mlm.options", **data)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"The recipe '.*none.yaml' cannot be read: No such file"):
        load_recipe(tmp_path / "none.yaml")


def test_an_empty_file_is_no_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"")
    with pytest.raises(SpecError, match=r"^recipe: "):
        load_recipe(path)
