from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from renaissance.errors import SpecError
from renaissance.shorthand import format_spec, parse_spec
from renaissance.spec import ADAPTERS, VERBS, OneTowerSpec, TwoTowerSpec, validate_spec

CHECKS = settings(deadline=None, max_examples=300, derandomize=True, suppress_health_check=list(HealthCheck))

words = st.from_regex(r"[A-Za-z][A-Za-z0-9_.\-]{0,8}", fullmatch=True)
models = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,6}(/[A-Za-z0-9_.\-]{1,6}){0,2}", fullmatch=True)
revisions = st.from_regex(r"@[A-Za-z0-9_][A-Za-z0-9_.\-/]{0,8}", fullmatch=True)
libraries = st.sampled_from(["transformers", "timm", "open-clip"])
names = st.one_of(
    words,
    st.builds("{}:{}".format, words, words),
    st.builds("{}:{}{}".format, libraries, models, st.just("") | revisions),
)
heads = st.one_of(words, st.builds("{}:{}".format, words, words)).filter(
    lambda name: name not in (*VERBS, *ADAPTERS, "one-tower", "two-tower", "as-published")
)
numbers = st.integers(-(2**31) + 1, 2**31 - 1)
slices = st.one_of(
    st.none(), st.tuples(st.none() | numbers, st.none() | numbers).filter(lambda ends: ends != (None, None))
).map(lambda ends: None if ends is None else {"start": ends[0], "stop": ends[1]})
characters = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63) + 1, 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        characters,
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(characters, inner, max_size=3),
    max_leaves=6,
)
options = st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True), json_values, max_size=3)
towers = st.fixed_dictionaries({"name": names, "layers": slices, "options": options})
parts = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["vision", "text", "fusion", "encoder", "both"]),
        "group": st.sampled_from([None, "embeddings", "norms", "biases"]),
        "layers": slices,
        "pattern": st.none() | st.from_regex(r"[A-Za-z0-9_.*?\[\]!\-]{1,12}", fullmatch=True),
    }
)
rules = st.lists(
    st.one_of(
        st.fixed_dictionaries({"action": st.sampled_from(VERBS), "part": parts}),
        st.fixed_dictionaries({"action": st.sampled_from(["lora", "bitfit"]), "part": parts, "options": options}),
    ),
    max_size=3,
)
fusions = st.fixed_dictionaries({"name": heads, "options": options})
faults = st.dictionaries(st.sampled_from(["no_padding_mask", "frozen_in_train_mode"]), st.booleans())
specs = st.one_of(
    st.fixed_dictionaries(
        {
            "architecture": st.just("two-tower"),
            "vision": towers,
            "text": towers,
            "fusion": fusions,
            "rules": rules,
            "as_published": faults,
        }
    ),
    st.fixed_dictionaries(
        {
            "architecture": st.just("one-tower"),
            "base": towers,
            "donor": st.none() | towers,
            "pooling": st.sampled_from(["first", "mean", "both"]),
            "max_tokens": st.none() | st.integers(3, 1000),
            "rules": rules,
            "as_published": faults,
        }
    ),
)


@given(data=specs)
@CHECKS
def test_what_is_formatted_is_parsed_back(data: dict[str, Any]) -> None:
    spec = validate_spec(data)
    assert parse_spec(format_spec(spec)) == spec


@given(data=specs)
@CHECKS
def test_formatting_a_parsed_line_changes_nothing(data: dict[str, Any]) -> None:
    line = format_spec(validate_spec(data))
    assert format_spec(parse_spec(line)) == line


@given(text=st.text(max_size=60))
@CHECKS
def test_any_text_is_a_spec_or_a_spec_error(text: str) -> None:
    parse_or_refuse(text)


fragments = st.sampled_from(
    [
        "vit-base",
        "timm:a/b@c",
        " + ",
        ", ",
        "(",
        ")",
        "[",
        ":",
        "]",
        "=",
        "1",
        "-6",
        '"',
        "{",
        "}",
        "frozen ",
        "text",
        "lora",
        "x",
        "1e400",
    ]
)


@given(pieces=st.lists(fragments, max_size=14))
@CHECKS
def test_any_mixture_of_the_grammars_own_words_is_a_spec_or_a_spec_error(pieces: list[str]) -> None:
    parse_or_refuse("".join(pieces))


def parse_or_refuse(text: str) -> None:
    with contextlib.suppress(SpecError):
        parse_spec(text)


def test_two_towers_are_a_two_tower_model_with_the_default_head() -> None:
    spec = parse_spec("vit-base + bert-base")
    assert isinstance(spec, TwoTowerSpec)
    assert (spec.vision.name, spec.text.name, spec.fusion.name) == ("vit-base", "bert-base", "lxmert")


def test_one_tower_is_a_one_tower_model() -> None:
    assert isinstance(parse_spec("electra-small"), OneTowerSpec)
    spec = parse_spec("electra-small + vit-base, one-tower")
    assert isinstance(spec, OneTowerSpec)
    assert spec.donor is not None
    assert spec.donor.name == "vit-base"


def test_the_line_of_the_readme_is_understood() -> None:
    spec = parse_spec("vit-base + bert-base, two-tower, frozen text")
    assert [f"{rule.action} {rule.part}" for rule in spec.rules] == ["frozen text"]


FAULTS = {
    "": "expected the name of a backbone",
    "vit-base + ": r"expected the name of a backbone.*\(at character 12: 'the end'\)",
    "a + b + c": "a model has at most two towers",
    "a + b, two-tower, one-tower": "a second architecture; keep one",
    "a + b, lxmert, dual": "a second fusion head; keep one",
    "a + b, frozen": "'frozen' needs a part: 'frozen vision'",
    "a + b, frozen txt": r"'txt' is no part of a model: .* Did you mean 'text'\?",
    "a + b, frozen text.norm": r"'.norm' is unknown: .* Did you mean 'norms'\?",
    "a + b, frozen both[:1].norms": r"the layers come last: 'both\.norms\[:1\]'",
    "a + b, frozzen text": r"'frozzen text' is no clause\. Did you mean 'frozen'\?",
    "a + b, frozen text[6]": r"a slice is '\[start:stop\]'",
    "a + b, frozen text[:]": "a slice needs a number",
    "a + b, lxmert[:6]": r"a fusion head takes options in '\( \)', not a slice",
    "a + b, lxmert(layers)": "an option is 'key=value'",
    "a + b, lxmert(layers=six)": "the value of 'layers' is no JSON: strings need double quotes",
    "a + b, lxmert(layers=True)": "truth values are true and false",
    "a + b, lxmert(layers=2": r"expected ',' or '\)' after an option",
    "a + b, lxmert(layers=2, layers=3)": "the option 'layers' stands twice; keep one",
    'a + b, lxmert(x={"y": 1, "y": 2})': "the key 'y' stands twice; keep one",
    "a + b, lxmert(x=NaN)": "NaN is not a number",
    "a + b, lxmert(x=1e400)": "finite number",
    "a + b; lxmert": r"expected ',' and a clause, or the end \(at character 6: '; lxmert'\)",
    "vit-base, two-tower": r"A two-tower model needs two backbones: 'vit-base \+ bert-base, two-tower'",
    "vit-base, lxmert": "A one-tower model has no fusion head",
    "a\u202e + b": r"at character 2: '\\u202e \+ b'",
}


@pytest.mark.parametrize(("line", "message"), FAULTS.items())
def test_a_fault_is_shown_where_it_stands_with_what_could_stand_there(line: str, message: str) -> None:
    with pytest.raises(SpecError, match=f"(?i){message}"):
        parse_spec(line)


BOMBS = {
    "50 MB": "a" * 50_000_000,
    "a depth of 16,000": "a + b, lxmert(x=" + "[" * 16_000,
    "a depth of 8,000 that closes": "a + b, lxmert(x=" + "[" * 8_000 + "]" * 8_000 + ")",
    "ten to the 5000": "a + b, lxmert(x=1" + "0" * 5000 + ")",
    "a slice of many digits": "a[:" + "9" * 16_000 + "]",
    "4,000 equal keys": "a + b, lxmert(x={" + '"a":1,' * 2_700 + '"a":1})',
    "a NUL": "a\x00 + b",
    "a lone surrogate": 'a + b, lxmert(x="\ud800")',
    "an escaped lone surrogate": 'a + b, lxmert(x="\\ud800")',
}


@pytest.mark.parametrize("line", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_is_refused_quickly(line: str) -> None:
    began = time.process_time()
    with pytest.raises(SpecError) as caught:
        parse_spec(line)
    assert time.process_time() - began < 0.5
    assert len(str(caught.value)) < 300
