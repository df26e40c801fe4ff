"""Streams: their order, their split over processes, where a training goes on, and what cannot be used."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from renaissance.data.collate import Collator
from renaissance.data.load import load_data
from renaissance.data.loader import loader
from renaissance.data.records import DataSet, Record
from renaissance.data.sampling import BatchPlan
from renaissance.data.streaming import parquet, tars
from renaissance.data.streams import Stream, StreamReader
from renaissance.errors import DataError, RenaissanceError, SampleError, SpecError
from renaissance.recipe.data import Columns, ImagesData, StreamData, StreamSplit
from renaissance.recipe.values import OnBadSample
from renaissance.toolkit.images import ImageProcessor
from renaissance.toolkit.text import WordTokenizer
from tests.data.shards import SIZES, add, caption, png, write_datasets, write_parquet, write_tars

COUNT = sum(SIZES)
ALL = sorted(caption(number) for number in range(COUNT))
WRITERS: dict[str, Callable[[Path], Path]] = {
    "webdataset": write_tars,
    "parquet": write_parquet,
    "datasets": write_datasets,
}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., DataSet]:
    def opened_stream(source: Path | str, *, on_bad_sample: OnBadSample = "error", **options: Any) -> DataSet:
        data = StreamData(source=str(source), **options)
        return load_data(data, cache=tmp_path / "cache", on_bad_sample=on_bad_sample, validation=0)

    return opened_stream


@pytest.fixture
def stream(opened: Callable[..., DataSet], tmp_path: Path) -> Stream:
    train = opened(write_tars(tmp_path / "tars"), shuffle_buffer=8).train
    assert isinstance(train, Stream)
    return train


def plan(**changes: Any) -> BatchPlan:
    return BatchPlan(**{"count": COUNT, "batch_size": 4, "seed": 5, **changes})


def told(stream: Stream, plan: BatchPlan, numbers: range) -> list[list[str]]:
    return [[record.captions[0] for record in part.samples] for part in stream.parts(plan, numbers)]


# --- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_shard_gives_the_samples_with_their_images(
    kind: str, opened: Callable[..., DataSet], tmp_path: Path
) -> None:
    train = opened(WRITERS[kind](tmp_path / kind)).train
    assert len(train) == COUNT
    records = list(train)
    assert [record.captions for record in records] == [(caption(number),) for number in range(COUNT)]
    assert [record.image.read() for record in records] == [png(number) for number in range(COUNT)]
    assert len({record.image.name for record in records}) == len({record.id for record in records}) == COUNT


@pytest.mark.parametrize("kind", WRITERS)
def test_any_part_of_a_shard_is_read_alone(kind: str, opened: Callable[..., DataSet], tmp_path: Path) -> None:
    train: Any = opened(WRITERS[kind](tmp_path / kind)).train
    shard = max(train.shards, key=lambda shard: shard.count)
    whole = shard.read(0, shard.count)
    assert [shard.read(start, start + 2) for start in range(shard.count - 1)] == [
        whole[start : start + 2] for start in range(shard.count - 1)
    ]


def test_a_glob_and_a_single_shard_are_sources(opened: Callable[..., DataSet], tmp_path: Path) -> None:
    write_tars(tmp_path / "tars")
    assert len(opened(tmp_path / "tars" / "train-0000[01].tar".replace("[01]", "*")).train) == COUNT
    assert len(opened(tmp_path / "tars" / "train-00002.tar").train) == SIZES[2]


def test_columns_are_found_by_name_or_given(opened: Callable[..., DataSet], tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    table = pa.table({"jpg": [png(1)], "words": [["two words", "Two words.", "another one"]], "key": ["k1"]})
    pq.write_table(table, tmp_path / "set" / "train.parquet")
    (record,) = opened(tmp_path / "set", columns=Columns(caption="words", id="key")).train
    assert (record.id, record.captions) == ("k1", ("two words", "another one"))
    with pytest.raises(DataError, match=r"has no column 'text'. It has: 'jpg', 'words', 'key'"):
        opened(tmp_path / "set", columns=Columns(caption="text"))


def test_captions_of_a_webdataset_sample_may_be_in_its_json(opened: Callable[..., DataSet], tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "1.png", png(1))
        add(archive, "1.json", b'{"captions": ["first caption", "second caption"], "width": 8}')
    (record,) = opened(tmp_path / "a.tar").train
    assert record.captions == ("first caption", "second caption")


# --- the order --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer", [1, 3, 1000])
@pytest.mark.parametrize("interleave", [None, 1, 2])
def test_an_epoch_has_each_sample_once(stream: Stream, buffer: int, interleave: int | None) -> None:
    stream = replace(stream, shuffle_buffer=buffer, interleave=interleave)
    for epoch in range(3):
        each = plan(batch_size=2)
        steps = range(epoch * each.steps_per_epoch, (epoch + 1) * each.steps_per_epoch)
        seen = [text for part in told(stream, each, steps) for text in part]
        assert len(seen) == len(set(seen)) == COUNT - COUNT % 2


def test_the_micro_batches_of_an_epoch_have_each_sample_once(stream: Stream) -> None:
    each = plan(batch_size=8, accumulation=2)
    seen = [text for part in told(stream, each, range(2 * each.steps_per_epoch)) for text in part]
    assert len(seen) == len(set(seen)) == each.steps_per_epoch * 8


def test_each_epoch_and_seed_has_an_order_of_its_own(stream: Stream) -> None:
    steps = plan().steps_per_epoch
    first, second = told(stream, plan(), range(steps)), told(stream, plan(), range(steps, 2 * steps))
    assert first != second
    assert first != told(stream, plan(seed=6), range(steps))
    assert first == told(stream, plan(), range(steps))


def test_samples_that_fill_no_batch_are_other_ones_in_each_epoch(
    opened: Callable[..., DataSet], tmp_path: Path
) -> None:
    stream: Any = opened(write_tars(tmp_path / "one", (11,))).train
    each = plan(count=11, batch_size=8)
    assert len({frozenset(part) for part in told(stream, each, range(12))}) > 3


def test_one_sample_of_buffer_keeps_the_order_within_shards(stream: Stream) -> None:
    reader = StreamReader(replace(stream, shuffle_buffer=1), seed=5)
    numbers = [int(reader.sample(0, 0, index).captions[0].split()[-1]) for index in range(COUNT)]
    assert sum(after != before + 1 for before, after in pairwise(numbers)) <= len(SIZES)


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_processes_share_the_batches_of_one(stream: Stream, world_size: int, accumulation: int) -> None:
    whole = plan(batch_size=8, accumulation=accumulation)
    numbers = range(2 * whole.steps_per_epoch * accumulation)
    ranks = [told(stream, replace(whole, world_size=world_size, rank=rank), numbers) for rank in range(world_size)]
    assert told(stream, whole, numbers) == [list(chain(*parts)) for parts in zip(*ranks, strict=True)]


def test_a_process_reads_the_lanes_of_its_part_alone(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    real = tars.TarShard.read

    def noted(shard: Any, start: int, stop: int) -> list[Record]:
        read.append(stop - start)
        return real(shard, start, stop)

    monkeypatch.setattr(tars.TarShard, "read", noted)
    each = plan(world_size=2, rank=1)
    list(stream.parts(each, range(each.steps_per_epoch)))
    assert sum(read) <= COUNT // 2 + 2


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_loader_processes_change_nothing(
    workers: int, stream: Stream, images: ImageProcessor, texts: WordTokenizer
) -> None:
    collator = Collator(images, texts, seed=3)
    found = loader(stream, plan(accumulation=2), collator, start_step=2, steps=8, workers=workers)
    ids = [[batch.ids for batch in batches] for _, batches in found]
    parts = iter(stream.parts(plan(accumulation=2), range(4, 20)))
    assert ids == [[tuple(r.id for r in next(parts).samples) for _ in range(2)] for _ in range(8)]


# --- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WRITERS)
def test_a_later_start_gives_the_same_batches(kind: str, opened: Callable[..., DataSet], tmp_path: Path) -> None:
    stream: Any = opened(WRITERS[kind](tmp_path / kind), shuffle_buffer=8).train
    whole = told(stream, plan(), range(15))
    assert [told(stream, plan(), range(start, 15)) for start in range(15)] == [whole[start:] for start in range(15)]


def test_a_later_start_reads_no_more_than_a_window_of_what_came_before(
    opened: Callable[..., DataSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream: Any = opened(write_parquet(tmp_path / "set", (40,) * 10, group=10), shuffle_buffer=20, interleave=1).train
    each = plan(count=400)
    read: list[int] = []
    real = parquet.ParquetShard.read

    def noted(shard: Any, start: int, stop: int) -> list[Record]:
        read.append(stop - start)
        return real(shard, start, stop)

    monkeypatch.setattr(parquet.ParquetShard, "read", noted)
    list(stream.parts(each, range(90, 95)))
    assert sum(read) == 20


def test_the_window_held_is_no_larger_than_the_buffer(stream: Stream) -> None:
    reader = StreamReader(replace(stream, shuffle_buffer=6), seed=0, lanes=2)
    for index in range(COUNT // 2):
        for lane in range(2):
            reader.sample(0, lane, index)
        assert sum(len(records) for _, records in reader._held.values()) <= 6


def test_the_index_of_a_tar_is_made_once(
    opened: Callable[..., DataSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tars(tmp_path / "tars")
    before: Any = opened(folder).train
    monkeypatch.setattr(tars, "write_index", lambda *_: pytest.fail("it is there"))
    after: Any = opened(folder).train
    assert before.identity == after.identity


def test_other_shards_or_another_buffer_are_another_stream(
    stream: Stream, opened: Callable[..., DataSet], tmp_path: Path
) -> None:
    other: Any = opened(write_tars(tmp_path / "other", SIZES[::-1]), shuffle_buffer=8).train
    assert len({stream.identity, other.identity, replace(stream, shuffle_buffer=9).identity}) == 3


# --- splits -----------------------------------------------------------------------------------------------------------


def test_a_split_is_one_of_the_source_or_of_other_data(
    opened: Callable[..., DataSet], pictures: Path, tmp_path: Path
) -> None:
    write_tars(tmp_path / "tars")
    write_tars(tmp_path / "tars", (6,), split="val", first=50)
    rows = "".join(f"{file.name},picture {file.stem}\n" for file in sorted(pictures.glob("*.png")))
    (pictures / "captions.csv").write_text("image,caption\n" + rows)
    other = ImagesData(path=str(pictures), hold_out=({"name": "test", "by": "id", "share": 0.5},))
    splits = {"val": StreamSplit(samples=4), "far": StreamSplit(data=other, split="test", samples=2)}
    data = opened(tmp_path / "tars", splits=splits)
    assert len(data.train) == COUNT
    assert [record.captions[0] for record in data.splits["val"]] == [caption(50 + n) for n in range(4)]
    assert len(data.splits["far"]) == 2
    with pytest.raises(DataError, match="The data of the split 'far' have no split 'far'; set its 'split' to one of"):
        opened(tmp_path / "tars", splits={"far": StreamSplit(data=other)})


@pytest.mark.parametrize("kind", WRITERS)
def test_a_split_that_is_not_there_is_an_error(kind: str, opened: Callable[..., DataSet], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dev"):
        opened(WRITERS[kind](tmp_path / kind), split="dev")


def test_evaluation_in_training_needs_a_split_of_its_own(tmp_path: Path) -> None:
    folder = write_tars(tmp_path / "tars")
    with pytest.raises(DataError, match=r"Name some as data\.splits\.validation"):
        load_data(StreamData(source=str(folder)), cache=tmp_path, on_bad_sample="error", validation=4)
    write_tars(folder, (6,), split="validation", first=50)
    named = StreamData(source=str(folder), splits={"validation": StreamSplit()})
    data = load_data(named, cache=tmp_path, on_bad_sample="error", validation=4)
    assert (len(data.validation), len(data.splits["validation"])) == (4, 6)


# --- what cannot be used ----------------------------------------------------------------------------------------------


def batches(stream: Any, collator: Collator, workers: int = 0) -> list[Any]:
    each = plan(count=len(stream))
    steps = loader(stream, each, collator, start_step=0, steps=each.steps_per_epoch, workers=workers)
    return [batch for _, parts in steps for batch in parts]


@pytest.fixture
def holed(tmp_path: Path) -> Path:
    """Eight samples; of one the caption is missing, of one the image."""
    with tarfile.open(tmp_path / "holed.tar", "w") as archive:
        for number in range(8):
            if number != 3:
                add(archive, f"{number}.png", png(number))
            if number != 5:
                add(archive, f"{number}.txt", caption(number).encode())
    return tmp_path / "holed.tar"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_sample_is_an_error_that_names_it(
    workers: int, holed: Path, opened: Callable[..., DataSet], images: ImageProcessor, texts: WordTokenizer
) -> None:
    with pytest.raises(SampleError, match=r"holed.tar, sample '[35]': it has no (image|caption)"):
        batches(opened(holed).train, Collator(images, texts, seed=0), workers)


def test_a_bad_sample_is_left_out_and_counted_where_the_user_says_so(
    holed: Path, opened: Callable[..., DataSet], images: ImageProcessor, texts: WordTokenizer
) -> None:
    made = batches(opened(holed, on_bad_sample="skip").train, Collator(images, texts, seed=0, on_bad_sample="skip"))
    assert sum(len(batch.ids) for batch in made) == 6
    assert sum(len(batch.skipped) for batch in made) == 2


def test_a_truncated_tar_is_an_error_or_its_whole_samples(opened: Callable[..., DataSet], tmp_path: Path) -> None:
    folder = write_tars(tmp_path / "tars", (6, 6))
    cut = folder / "train-00001.tar"
    cut.write_bytes(cut.read_bytes()[: 512 * 4 * 3 + 700])
    with pytest.raises(SampleError, match=r"train-00001\.tar: the shard is truncated"):
        opened(folder)
    data = opened(folder, on_bad_sample="skip")
    assert len(data.train) == 9
    assert data.skipped == ("train-00001.tar: the shard is truncated: the mark at its end is missing",)


def test_a_damaged_row_group_is_an_error_or_skipped_rows(opened: Callable[..., DataSet], tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "set", (12,), group=4)
    file = next((folder / "data").iterdir())
    data = bytearray(file.read_bytes())
    start = pq.ParquetFile(file).metadata.row_group(1).column(0).data_page_offset
    data[start : start + 40] = bytes(40)
    file.write_bytes(data)
    bad: Any = opened(folder).train
    with pytest.raises(DataError, match="not a Parquet file, or damaged"):
        list(bad)
    records = list(opened(folder, on_bad_sample="skip").train)
    assert [record.captions for record in records] == [(caption(n),) if n not in range(4, 8) else () for n in range(12)]


def test_a_shard_that_lacks_a_column_is_named(opened: Callable[..., DataSet], tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "set", (4, 4))
    second = folder / "data" / "train-00001-of-00002.parquet"
    pq.write_table(pq.read_table(second).drop_columns(["caption"]), second)
    train: Any = opened(folder).train
    with pytest.raises(DataError, match=r"train-00001-of-00002\.parquet has no column 'caption', which the first"):
        list(train)


def test_an_empty_stream_is_an_error(opened: Callable[..., DataSet], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no sample in its split 'train'"):
        opened(write_tars(tmp_path / "tars", (0,)))
    with pytest.raises(DataError, match="has no sample in its split 'train'"):
        opened(write_parquet(tmp_path / "set", (0,)))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing-here", "There is nothing to stream at"),
        ("file.txt", "cannot be streamed"),
        ("csv", "made of .csv files"),
        ("empty", "no dataset that can be streamed"),
    ],
)
def test_what_cannot_be_streamed_is_told(
    source: str, message: str, opened: Callable[..., DataSet], tmp_path: Path
) -> None:
    (tmp_path / "file.txt").write_text("text")
    (tmp_path / "empty").mkdir()
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "train.csv").write_text("image,caption\na.png,a b\n")
    with pytest.raises(RenaissanceError, match=message):
        opened(tmp_path / source)


def test_a_divisor_of_the_micro_batch_is_asked_for(stream: Stream) -> None:
    with pytest.raises(SpecError, match="A micro-batch of 4 cannot be taken from 3 places"):
        list(replace(stream, interleave=3).parts(plan(), range(1)))
