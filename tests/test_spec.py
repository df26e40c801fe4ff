from __future__ import annotations

import time
from typing import Any

import pytest
from pydantic import TypeAdapter

from renaissance.errors import SpecError
from renaissance.spec import ModelSpec, Part, TwoTowerSpec, did_you_mean, json_schema, parse_json, shown, validate_spec

PLAIN: dict[str, Any] = {
    "architecture": "two-tower",
    "vision": {"name": "vit-base"},
    "text": {"name": "bert-base"},
}


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def with_option(value: Any) -> dict[str, Any]:
    return {**PLAIN, "text": {"name": "bert-base", "options": {"a": value}}}


def with_stop(value: Any) -> dict[str, Any]:
    return {
        **PLAIN,
        "rules": [{"action": "frozen", "part": {"name": "text", "layers": {"start": None, "stop": value}}}],
    }


HOSTILE: dict[str, Any] = {
    "nothing": None,
    "a list": [],
    "no architecture": {},
    "another architecture": {**PLAIN, "architecture": "tri-tower"},
    "NaN": with_option(float("nan")),
    "infinity": with_option([float("inf")]),
    "ten to the 5000": with_option(10**5000),
    "ten to the 4000": with_option(10**4000),
    "a depth of 100,000": with_option(deep(100_000)),
    "a text for a number": with_stop("12"),
    "a truth value for a number": with_stop(True),
    "a fraction for a number": with_stop(1.0),
    "a number beyond any library": with_stop(2**40),
    "bidi in a name": {**PLAIN, "text": {"name": "bert\u202ebase"}},
    "NUL in a name": {**PLAIN, "text": {"name": "bert\x00base"}},
    "a line break in a name": {**PLAIN, "text": {"name": "bert-base\n"}},
    "a lone surrogate in a name": {**PLAIN, "text": {"name": "bert\ud800"}},
    "a lone surrogate in an option": with_option({"b": ["\ud800"]}),
    "50 MB in a name": {**PLAIN, "text": {"name": "b" * 50_000_000}},
    "a way up the folders": {**PLAIN, "text": {"name": "transformers:../../etc"}},
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_data_is_refused_quickly_in_one_printable_line(data: Any) -> None:
    began = time.process_time()
    with pytest.raises(SpecError) as caught:
        validate_spec(data)
    assert time.process_time() - began < 0.5
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_an_unknown_key_shows_its_path_and_the_nearest_of_the_keys_beside_it() -> None:
    with pytest.raises(SpecError) as caught:
        validate_spec({**PLAIN, "text": {"name": "bert-base", "optionz": {}}})
    assert (
        str(caught.value)
        == "spec: unknown key 'text.optionz'. Did you mean 'options'? Known keys: layers, name, options."
    )


def test_a_misspelt_key_is_told_before_the_key_that_is_missing_for_it() -> None:
    with pytest.raises(SpecError, match=r"unknown key 'txt'\. Did you mean 'text'\?"):
        validate_spec({"architecture": "two-tower", "vision": {"name": "vit-base"}, "txt": {"name": "bert-base"}})


def test_an_unknown_key_that_is_a_word_of_the_grammar_is_named_all_the_same() -> None:
    with pytest.raises(
        SpecError, match=r"unknown key 'frozen'\. Known keys: architecture, as_published, fusion, rules, text, vision\."
    ):
        validate_spec({**PLAIN, "frozen": True})


@pytest.mark.parametrize("name", ["frozen", "trainable", "one-tower", "two-tower", "lora"])
def test_a_word_of_the_shorthand_is_no_fusion_head(name: str) -> None:
    with pytest.raises(SpecError, match=name):
        validate_spec({**PLAIN, "fusion": {"name": name}})


def test_a_slice_needs_a_number() -> None:
    with pytest.raises(SpecError, match=r"a slice needs a number"):
        validate_spec({**PLAIN, "text": {"name": "bert-base", "layers": {}}})


def test_a_spec_cannot_be_changed() -> None:
    spec = validate_spec(PLAIN)
    with pytest.raises(ValueError, match="frozen"):
        spec.rules = ()  # type: ignore[misc]  # that it is refused is the test


def test_dumped_data_give_the_spec_back() -> None:
    data = {**with_stop(6), "fusion": {"name": "lxmert", "options": {"layers": 2, "names": ["a", None, {"b": 0.5}]}}}
    spec = validate_spec(data)
    assert isinstance(spec, TwoTowerSpec)
    assert validate_spec(spec.model_dump(mode="json")) == spec


def test_the_json_schema_describes_both_architectures() -> None:
    schema = json_schema()
    assert set(schema["discriminator"]["mapping"]) == {"one-tower", "two-tower"}
    assert schema == TypeAdapter(ModelSpec).json_schema()
    assert schema["$defs"]["TowerSpec"]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("part", "text"), [(Part(name="both"), "both"), (Part(name="text", group="norms"), "text.norms")]
)
def test_a_part_is_written_as_the_grammar_says(part: Part, text: str) -> None:
    assert str(part) == text


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', "[NaN]", "[Infinity]", "[-Infinity]", "{", "[" * 100_000])
def test_json_with_traps_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"^a file: "):
        parse_json(text, what="a file")


def test_json_without_traps_is_read() -> None:
    assert parse_json('{"a": [1, 2.5, null, true]}', what="a file") == {"a": [1, 2.5, None, True]}


@pytest.mark.parametrize("text", ["a\x1b[31mred", "a\u202eb", "a\nb", "\ud800"])
def test_what_is_shown_can_be_printed(text: str) -> None:
    assert shown(text).isprintable()


def test_what_is_shown_is_not_long() -> None:
    assert len(shown("x" * 1_000_000)) < 100


def test_a_word_that_nothing_is_near_to_gets_no_suggestion() -> None:
    assert did_you_mean("zzzz", ["vit-base"]) == ""
    assert did_you_mean("vit-bse", ["vit-base", "bert-base"]) == " Did you mean 'vit-base'?"
