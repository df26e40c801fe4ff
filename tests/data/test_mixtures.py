"""Mixtures: what each part gives, in which order, and that processes and later starts change nothing."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from renaissance.data.collate import Collator, chosen_caption
from renaissance.data.load import load_data
from renaissance.data.loader import loader
from renaissance.data.mixtures import BLOCK, Mixture
from renaissance.data.readers.sources import FileImage
from renaissance.data.records import DataSet, Record
from renaissance.data.sampling import BatchPlan
from renaissance.errors import DataError, SpecError
from renaissance.recipe import validate_recipe
from renaissance.recipe.data import MixtureData
from renaissance.toolkit.images import ImageProcessor
from renaissance.toolkit.text import WordTokenizer
from renaissance.training.samples import select_samples
from tests.data.shards import write_datasets, write_tars

WORLD = {"kind": "world", "train": 12, "test": 6, "captions": 2, "image_size": 16}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def part(name: str, count: int, pictures: Path) -> tuple[Record, ...]:
    image = FileImage(str(pictures / "0.png"))
    return tuple(Record(f"{name}{n}", image, (f"{name} {n} one", f"{name} {n} two"), "row") for n in range(count))


@pytest.fixture
def mixture(pictures: Path) -> Mixture:
    samples = (part("a", 50, pictures), part("b", 20, pictures), part("c", 7, pictures))
    return Mixture(names=("a", "b", "c"), samples=samples, weights=(5.0, 3.0, 2.0), digests=("1", "2", "3"))


def plan(**changes: Any) -> BatchPlan:
    return BatchPlan(**{"count": 100, "batch_size": 8, "seed": 5, **changes})


def ids(mixture: Mixture, plan: BatchPlan, numbers: range) -> list[list[str]]:
    return [[record.id for record in part.samples] for part in mixture.parts(plan, numbers)]


def load(parts: list[dict[str, Any]], cache: Path, *, validation: int = 0) -> DataSet:
    data = MixtureData.model_validate({"kind": "mixture", "parts": parts})
    return load_data(data, cache=cache, on_bad_sample="error", validation=validation)


def test_each_part_has_its_share_of_every_block(mixture: Mixture) -> None:
    slots = [part for step in range(BLOCK // 8) for part, _ in mixture.slots(step, 8, 1)]
    assert Counter(slots) == {0: 5000, 1: 3000, 2: 2000}


def test_a_part_goes_on_in_the_next_block_where_it_was(mixture: Mixture) -> None:
    slots = mixture.slots(0, BLOCK, 1) + mixture.slots(1, BLOCK, 1)
    for part, count in enumerate(mixture.counts):
        assert [position for other, position in slots if other == part] == list(range(2 * count))


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1e9, 1e-9, 1.0), (0.1, 0.2, 0.7)])
def test_the_shares_fill_a_block_and_no_part_is_left_out(weights: Any, mixture: Mixture) -> None:
    counts = replace(mixture, weights=weights).counts
    assert sum(counts) == BLOCK
    assert min(counts) >= 1


def test_a_part_is_passed_through_whole_before_it_begins_again(mixture: Mixture) -> None:
    seen = [name for batch in ids(mixture, plan(), range(60)) for name in batch]
    for name, count in (("a", 50), ("b", 20), ("c", 7)):
        own = [each for each in seen if each[0] == name]
        passes = [own[start : start + count] for start in range(0, len(own) - count + 1, count)]
        assert len(passes) > 1
        assert all(len(set(each)) == count for each in passes)
        assert passes[0] != passes[1]


def test_an_epoch_is_one_pass_through_the_first_part(mixture: Mixture) -> None:
    assert len(mixture) == 100


def test_the_samples_of_a_mixture_are_those_of_all_parts(mixture: Mixture) -> None:
    assert mixture.distinct == len(list(mixture)) == 77


def test_the_rows_that_may_be_skipped_are_a_share_of_those_of_all_parts(tiny_recipe: Any, tmp_path: Path) -> None:
    lines = []
    for number in range(40):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / f"{number}.png")
        lines.append(json.dumps({"image": f"{number}.png", "caption": f"picture {number}" if number else ""}))
    (tmp_path / "captions.jsonl").write_text("\n".join(lines) + "\n")
    large = {"kind": "images", "path": str(tmp_path), "hold_out": []}
    parts = [{"name": "small", "data": WORLD}, {"name": "large", "data": large}]
    data = {"kind": "mixture", "parts": parts}
    recipe = validate_recipe(tiny_recipe(data=data, on_bad_sample="skip", skip_budget=0.02))
    assert len(select_samples(recipe).skipped) == 1


def test_the_draw_depends_on_the_seed(mixture: Mixture) -> None:
    assert ids(mixture, plan(), range(5)) == ids(mixture, plan(), range(5))
    assert ids(mixture, plan(), range(5)) != ids(mixture, plan(seed=6), range(5))


def test_a_later_start_gives_the_same_batches(mixture: Mixture) -> None:
    whole = ids(mixture, plan(), range(30))
    assert [ids(mixture, plan(), range(start, 30)) for start in range(30)] == [whole[start:] for start in range(30)]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_processes_share_the_batches_of_one(accumulation: int, mixture: Mixture) -> None:
    whole = plan(accumulation=accumulation)
    ranks = [ids(mixture, replace(whole, world_size=2, rank=rank), range(20)) for rank in range(2)]
    assert ids(mixture, whole, range(20)) == [first + second for first, second in zip(*ranks, strict=True)]


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_processes_change_nothing(
    workers: int, mixture: Mixture, images: ImageProcessor, texts: WordTokenizer
) -> None:
    found = loader(mixture, plan(), Collator(images, texts, seed=3), start_step=3, steps=6, workers=workers)
    assert [list(batch.ids) for _, (batch,) in found] == ids(mixture, plan(), range(3, 9))


def test_each_pass_through_a_part_has_the_next_caption(mixture: Mixture) -> None:
    told: dict[str, list[str]] = {}
    for made in mixture.parts(plan(), range(60)):
        for record, epoch in zip(made.samples, made.epochs, strict=True):
            told.setdefault(record.id, []).append(chosen_caption(record, 5, epoch))
    assert all(first != second for first, second, *_ in (texts for texts in told.values() if len(texts) > 1))


def test_a_batch_takes_the_epoch_of_each_sample(mixture: Mixture, images: ImageProcessor, texts: WordTokenizer) -> None:
    collator = Collator(images, texts, seed=3)
    records: Any = tuple(mixture.samples[1])[:2]
    seeds = [collator(records, epoch).seeds.tolist() for epoch in (4, 9)]
    assert collator(records, [4, 9]).seeds.tolist() == [seeds[0][0], seeds[1][1]]


def test_parts_may_be_of_any_kind_and_keep_their_splits(tmp_path: Path) -> None:
    write_tars(tmp_path / "tars")
    write_tars(tmp_path / "tars", (5,), split="val", first=60)
    stream = {"kind": "stream", "source": str(tmp_path / "tars"), "splits": {"val": {}}}
    data = load([{"name": "scenes", "data": WORLD}, {"data": stream, "weight": 3.0}], tmp_path / "cache", validation=2)
    assert {name: len(split) for name, split in data.splits.items()} == {"scenes.test": 6, "part2.val": 5}
    assert len(data.validation) == 1
    assert isinstance(data.train, Mixture)
    seen = [name for batch in ids(data.train, plan(count=len(data.train)), range(40)) for name in batch]
    own = [name for name in seen if "sample" not in name and ".tar" in name]
    assert len(set(own[:23])) == 23


def test_a_mixture_of_other_samples_or_weights_is_another_one(tmp_path: Path) -> None:
    def identity(weight: float, train: int) -> str:
        parts: list[dict[str, Any]] = [
            {"data": WORLD, "weight": weight},
            {"data": {**WORLD, "train": train, "seed": 1}},
        ]
        found = load(parts, tmp_path).train
        assert isinstance(found, Mixture)
        return found.identity

    assert len({identity(1.0, 12), identity(2.0, 12), identity(1.0, 13)}) == 3
    assert identity(1.0, 12) == identity(1.0, 12)


def test_parts_that_call_different_images_the_same_are_refused(tmp_path: Path) -> None:
    for place in ("first", "second"):
        write_datasets(tmp_path / place / "set", (6,))
    with pytest.raises(DataError, match="'part1' and 'part2' have different images that are called"):
        load([{"data": {"kind": "images", "path": str(tmp_path / p / "set")}} for p in ("first", "second")], tmp_path)


def test_an_empty_part_is_refused(mixture: Mixture) -> None:
    with pytest.raises(DataError, match="The part 'b' of the mixture has no sample"):
        replace(mixture, samples=(mixture.samples[0], (), mixture.samples[2]))


def test_two_parts_of_one_name_are_refused(tiny_recipe: Any) -> None:
    parts = [{"name": "x", "data": WORLD}, {"name": "x", "data": WORLD}]
    with pytest.raises(SpecError, match="two parts are called 'x'"):
        validate_recipe(tiny_recipe(data={"kind": "mixture", "parts": parts}))


def test_a_part_that_cannot_be_read_is_named_by_its_fault(tmp_path: Path) -> None:
    folder = write_tars(tmp_path / "tars")
    shutil.rmtree(folder)
    with pytest.raises(DataError, match="There is nothing to stream at"):
        load([{"data": WORLD}, {"data": {"kind": "stream", "source": str(folder)}}], tmp_path)
