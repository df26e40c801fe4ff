from __future__ import annotations

import random
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renaissance.data.families import families
from renaissance.data.load import load_data
from renaissance.data.readers.sources import FileImage
from renaissance.data.records import DataSet, Record
from renaissance.data.splits import split_records
from renaissance.errors import DataError
from renaissance.recipe.data import ImagesData

PICTURES = Path(__file__).parents[3] / "shared/data/pictures"
NUMBER_WORDS = [f"{letter}{number}" for letter in "abcdefghij" for number in range(100)]


def record(name: str, *captions: str, **fields: str) -> Record:
    return Record(
        name,
        FileImage(f"{fields.get('source', '')}/{name}.png"),
        captions or (f"{name} {name}x {name}y",),
        name,
        fields,
    )


def many(count: int, **fields: str) -> list[Record]:
    return [record(NUMBER_WORDS[number], **fields) for number in range(count)]


def recipe(**data: Any) -> ImagesData:
    return ImagesData.model_validate({"hold_out": [], **data})


def ids(records: tuple[Record, ...]) -> list[str]:
    return [found.id for found in records]


def linked(one: str, other: str) -> bool:
    return len(set(families([[one], [other]]))) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a red cup", "a blue cup"),
        ("red cup", "a red cup"),
        ("a red cup", "a cup"),
        ("Red Cup!", "red cup"),
        ("flag: France", "flag: South Georgia Islands"),
        ("cup", "red cup"),
        ("keycap: #", "keycap: *"),
        ("ｒｅｄ cup", "red cup"),
    ],
)
def test_captions_a_word_apart_or_with_an_equal_prefix_are_a_family(one: str, other: str) -> None:
    assert linked(one, other)
    assert linked(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cup", "dog"),
        ("a red cup", "a blue dog"),
        ("red cup", "cup red"),
        ("a big red cup", "a cup"),
        ("#", "*"),
        (": one", ": two"),
        ("red: big dog", "blue: big cat"),
        ("a b c", "b c d"),
    ],
)
def test_other_captions_are_no_family(one: str, other: str) -> None:
    assert not linked(one, other)


def test_links_connect_through_others_and_through_the_captions_of_a_record() -> None:
    found = families([["red cup"], ["blue cup", "a dog there"], ["a cat there"], ["green tree"]])
    assert found == [0, 0, 0, 3]


def by_definition(captions: list[list[str]]) -> list[int]:
    def apart(one: list[str], other: list[str]) -> bool:
        if one == other:
            return True
        if len(one) > len(other):
            one, other = other, one
        if len(other) - len(one) == 1 and one:
            return any(other[:i] + other[i + 1 :] == one for i in range(len(other)))
        return len(one) == len(other) > 1 and sum(a != b for a, b in zip(one, other, strict=True)) == 1

    groups = list(range(len(captions)))
    for i, j in combinations(range(len(captions)), 2):
        if any(apart(a.split(), b.split()) for a in captions[i] for b in captions[j]):
            groups = [groups[i] if group == groups[j] else group for group in groups]
    return [groups.index(group) for group in groups]


caption = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(" ".join)


@given(st.lists(st.lists(caption, min_size=1, max_size=2), max_size=8))
@settings(max_examples=200)
def test_families_are_what_the_definition_says(captions: list[list[str]]) -> None:
    assert families(captions) == by_definition(captions)


def test_ten_thousand_captions_take_no_more_than_a_moment() -> None:
    words = random.Random(0)
    captions = [[" ".join(words.choices(NUMBER_WORDS, k=9))] for _ in range(10_000)]
    assert len(set(families(captions))) > 9_900


@given(seed=st.integers(0, 2**31), share=st.floats(0.05, 0.6), by=st.sampled_from(["id", "family"]))
@settings(max_examples=30)
def test_a_hold_out_has_its_share_and_nothing_of_it_is_trained_on(seed: int, share: float, by: str) -> None:
    records = many(100)
    data = split_records(
        records, recipe(hold_out=[{"name": "test", "by": by, "share": share}], seed=seed), validation=10
    )
    assert len(data.splits["test"]) == round(share * 100)
    assert len(data.validation) == 10
    parts = [ids(data.train), ids(data.validation), ids(data.splits["test"])]
    assert sorted(sum(parts, [])) == sorted(ids(tuple(records)))  # noqa: RUF017


def test_a_draw_does_not_depend_on_the_order_of_the_records() -> None:
    records = many(60)
    wanted = recipe(hold_out=[{"name": "a", "by": "id", "share": 0.2}, {"name": "b", "by": "family", "share": 0.2}])
    one, other = (split_records(part, wanted, validation=8) for part in (records, records[::-1]))
    for name in ("a", "b"):
        assert set(ids(one.splits[name])) == set(ids(other.splits[name]))
    assert set(ids(one.validation)) == set(ids(other.validation))


def test_a_seed_and_a_name_change_the_draw() -> None:
    draws = {
        tuple(
            ids(
                split_records(
                    many(60), recipe(hold_out=[{"name": name, "by": "id", "share": 0.2}], seed=seed), validation=0
                ).splits[name]
            )
        )
        for name in ("a", "b")
        for seed in (0, 1)
    }
    assert len(draws) == 4


def test_families_are_held_out_whole_and_one_that_is_too_large_is_not() -> None:
    large = [record(f"large-{number}", f"{word} cup") for number, word in enumerate(NUMBER_WORDS[100:130])]
    small = [record(f"{word}-{number}", f"{word}: {word}{number}x") for word in NUMBER_WORDS[:35] for number in (1, 2)]
    data = split_records(large + small, recipe(hold_out=[{"name": "test", "by": "family", "share": 0.2}]), validation=0)
    held = Counter(name.split("-")[0] for name in ids(data.splits["test"]))
    assert set(held.values()) == {2}
    assert sum(held.values()) == 20


def three_sources() -> list[Record]:
    return many(50, source="a") + many(50, source="b") + many(50, source="c")


def held_by_id() -> DataSet:
    wanted = recipe(
        train={"where": {"source": ["b", "a"]}},
        hold_out=[{"name": "test", "by": "id", "share": 0.2}],
        splits={"other": {"where": {"source": "c"}, "seen": True}},
    )
    return split_records(three_sources(), wanted, validation=0)


def test_an_id_that_is_held_out_is_trained_on_from_no_source() -> None:
    data = held_by_id()
    assert not set(ids(data.train)) & set(ids(data.splits["test"]))
    assert len(data.train) == 80


def test_a_hold_out_has_each_id_once_from_the_source_named_first() -> None:
    held = held_by_id().splits["test"]
    assert len(held) == len(set(ids(held))) == 10
    assert {found.fields["source"] for found in held} == {"b"}


def test_a_seen_split_has_only_ids_that_are_trained_on() -> None:
    data = held_by_id()
    assert {found.fields["source"] for found in data.splits["other"]} == {"c"}
    assert set(ids(data.splits["other"])) == set(ids(data.train))


def test_what_a_named_split_holds_is_not_trained_on_by_default() -> None:
    data = split_records(
        many(10, kind="x") + many(5, kind="y"), recipe(splits={"y": {"where": {"kind": "y"}}}), validation=0
    )
    assert {found.fields["kind"] for found in data.train} == {"x"}
    assert len(data.splits["y"]) == 5


def test_validation_is_at_most_a_quarter_and_says_so() -> None:
    data = split_records(many(40), recipe(), validation=256)
    assert (len(data.train), len(data.validation)) == (30, 10)
    assert any("10 samples of 256 asked for" in fact for fact in data.facts)
    assert not any("validation" in fact for fact in split_records(many(40), recipe(), validation=0).facts)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"train": {"where": {"sauce": "a"}}}, "no column 'sauce'. They have: 'source'"),
        ({"train": {"where": {"source": ["a", "z"]}}}, "no sample has 'z' in column 'source'. Values there: 'a', 'b'"),
        ({"splits": {"s": {"where": {"source": "q"}}}}, "Split 's': no sample has 'q'"),
        ({"train": {"where": {"source": "a", "kind": "k"}}}, "no column 'kind'"),
        ({"splits": {"s": {"where": {"source": ["a", "b", "c"]}}}}, "No sample is left to train on"),
        ({"train": {"where": {"source": "a"}}, "splits": {"s": {"where": {"source": "a"}}}}, "No sample is left"),
        ({"hold_out": [{"name": "t", "by": "id", "share": 0.001}]}, "The hold-out 't' would be empty"),
        ({"hold_out": [{"name": "t", "by": "id", "share": 0.1}] * 2}, "The split name 't' is taken"),
        ({"splits": {"train": {"where": {"source": "a"}}}}, "The split name 'train' is taken"),
    ],
)
def test_a_split_that_cannot_be_is_an_error_that_names_what_there_is(data: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        split_records(three_sources(), recipe(**data), validation=0)
    assert message in str(caught.value)


@pytest.mark.skipif(not PICTURES.is_dir(), reason=f"real pictures are not at {PICTURES}")
def test_real_pictures_are_split_by_id_and_by_family(tmp_path: Path) -> None:
    wanted = recipe(
        path=str(PICTURES),
        train={"where": {"source": ["noto", "clipart"]}},
        hold_out=[{"name": "ids", "by": "id", "share": 0.1}, {"name": "families", "by": "family", "share": 0.2}],
        splits={"fluent": {"where": {"source": "fluent"}, "seen": True}},
    )
    data = load_data(wanted, cache=tmp_path, on_bad_sample="error", validation=256)
    sizes = {name: len(held) for name, held in data.splits.items()}
    assert sizes["ids"] == 301
    assert sizes["families"] == 602
    trained = set(ids(data.train)) | set(ids(data.validation))
    assert not trained & (set(ids(data.splits["ids"])) | set(ids(data.splits["families"])))
    assert set(ids(data.splits["fluent"])) <= trained
    together = [*data.train, *data.validation, *data.splits["families"]]
    found = families([one.captions for one in together])
    training = len(data.train) + len(data.validation)
    assert not set(found[:training]) & set(found[training:])
