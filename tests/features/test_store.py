from __future__ import annotations

import errno
import io
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
from collections import namedtuple
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from renaissance.api import TextInput, VisionInput
from renaissance.errors import FeatureStoreError, OutputError
from renaissance.features.keys import content_digest
from renaissance.features.layout import Cost
from renaissance.features.shard import Shard
from renaissance.features.store import FeatureStore, build_or_open, forecast
from renaissance.toolkit.canonical import encode_canonical
from tests.features.towers import (
    DIGESTS,
    KEY,
    WORDS,
    TinyText,
    TinyVision,
    build,
    computed,
    flipped,
    load,
    pixels,
    shards,
)

# --- what is read is what was computed --------------------------------------------------------------------------------


@pytest.mark.parametrize("captions", [WORDS, WORDS[1:3], ["cup"], ["cup", "cup", "a red cup"]])
@pytest.mark.parametrize("shard_bytes", [1, 10**6])
def test_reading_gives_what_the_tower_computes_bit_for_bit(
    tmp_path: Path, captions: list[str], shard_bytes: int
) -> None:
    store = build(tmp_path, shard_bytes=shard_bytes)
    read, direct = store.read([store.rows[content_digest(caption)] for caption in captions]), computed(captions)
    assert torch.equal(read.tokens, direct.tokens)
    assert torch.equal(read.mask, direct.mask)
    assert read.pooled is not None
    assert direct.pooled is not None
    assert torch.equal(read.pooled, direct.pooled)


def test_images_are_stored_bit_for_bit(tmp_path: Path) -> None:
    tower, digests = TinyVision().eval(), [content_digest(str(row)) for row in range(11)]
    store = build(tmp_path, tower, samples=digests, load=lambda rows: VisionInput(pixels(rows)))
    read = store.read([store.rows[digests[row]] for row in (10, 3)])
    assert torch.equal(read.tokens, encode_canonical(tower, VisionInput(pixels([10, 3]))).tokens)
    assert read.mask.all()
    assert read.pooled is None


def test_layers_that_a_head_reads_stand_beside_the_tokens(tmp_path: Path) -> None:
    store = build(tmp_path, layers=2)
    read = store.read([store.rows[DIGESTS[1]]])
    assert torch.equal(read.tokens, computed(["a red cup"]).tokens)
    assert [torch.equal(layer, read.tokens * factor) for factor, layer in zip((2, 3), read.layers, strict=True)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_stored_as_it_is(tmp_path: Path, dtype: torch.dtype) -> None:
    store = build(tmp_path, TinyText().to(dtype))
    read = store.read([store.rows[DIGESTS[0]]])
    assert read.tokens.dtype == dtype
    assert torch.equal(read.tokens[0, 0], TinyText().to(dtype).words.weight[2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_is_computed_in_full_can_be_kept_in_half(tmp_path: Path, dtype: torch.dtype) -> None:
    store = build(tmp_path, dtype=dtype)
    assert torch.equal(store.read([store.rows[DIGESTS[1]]]).tokens, computed(["a red cup"]).tokens.to(dtype))
    assert store.data_bytes < build(tmp_path / "full").data_bytes


def test_numbers_that_half_precision_cannot_hold_are_refused(tmp_path: Path) -> None:
    tower = TinyText()
    with torch.no_grad():
        tower.words.weight[2] = 1e6
    with pytest.raises(FeatureStoreError, match=r"float16 cannot hold .* reaches 1e\+06\. Set store\.dtype to 'bf16'"):
        build(tmp_path, tower, dtype=torch.float16)


def test_a_dtype_that_a_store_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureStoreError, match=r"cannot hold torch\.float64.*train without the store"):
        build(tmp_path, TinyText().double())
    assert shards(tmp_path) == []


def test_tokens_masked_in_the_middle_are_refused(tmp_path: Path) -> None:
    def gappy(rows: Sequence[int]) -> TextInput:
        mask = torch.tensor([[True, False, True]] * len(rows))
        return TextInput(torch.ones(len(rows), 3, dtype=torch.int64), mask)

    with pytest.raises(FeatureStoreError, match="masked tokens before or between"):
        build(tmp_path, load=gappy)


def test_a_shard_is_plain_safetensors(tmp_path: Path) -> None:
    build(tmp_path, shard_bytes=10**6)
    with safe_open(shards(tmp_path)[0], framework="pt") as file:
        assert set(file.keys()) == {"digests", "offsets", "checks", "pooled", "tokens"}
        assert file.get_tensor("tokens").shape == (1 + 3 + 3 + 7 + 1, 6)
        assert torch.equal(file.get_tensor("tokens")[1:4], computed(["a red cup"]).tokens[0])


def test_a_read_is_a_copy(tmp_path: Path) -> None:
    store = build(tmp_path)
    store.read([0]).tokens.zero_()
    assert store.read([0]).tokens.any()


def test_a_pickled_store_is_a_path(tmp_path: Path) -> None:
    store = build(tmp_path)
    pickled = pickle.dumps(store)
    assert len(pickled) < 500
    assert torch.equal(pickle.loads(pickled).read([2]).tokens, store.read([2]).tokens)


# --- what is computed -------------------------------------------------------------------------------------------------


def test_equal_samples_are_computed_once(tmp_path: Path) -> None:
    store = build(tmp_path)
    assert len(store) == len(set(WORDS)) == len(store.rows)


def test_a_second_call_does_not_run_the_tower(tmp_path: Path) -> None:
    build(tmp_path)
    second = TinyText()
    build(tmp_path, second)
    assert second.calls == 0


def test_only_samples_that_are_not_there_are_computed(tmp_path: Path) -> None:
    build(tmp_path, samples=DIGESTS[:3])
    asked: list[int] = []

    def noted(rows: Sequence[int]) -> TextInput:
        asked.extend(rows)
        return load(rows)

    assert len(build(tmp_path, load=noted)) == 5
    assert asked == [4, 5]


def test_progress_ends_at_all_that_were_missing(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    build(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_the_forecast_is_near_and_writes_nothing(tmp_path: Path) -> None:
    encode = partial(encode_canonical, TinyText().eval())
    found = forecast(tmp_path / KEY, encode, DIGESTS, load)
    assert list(tmp_path.iterdir()) == []
    assert (found.samples, found.missing) == (5, 5)
    store = build(tmp_path, shard_bytes=10**6)
    assert found.data_bytes == pytest.approx(store.data_bytes, rel=0.1)
    assert forecast(tmp_path / KEY, encode, DIGESTS, load).missing == 0


def counted_build(folder: Path, samples: Sequence[str], **options: Any) -> FeatureStore:
    """Build a store whose tower takes 1000 FLOPs a call, of at most two samples."""
    tower = TinyText()
    return build(folder, tower, samples=samples, flops=lambda: 1000 * tower.calls, **options)


def test_each_shard_keeps_what_its_features_took(tmp_path: Path) -> None:
    store = counted_build(tmp_path, DIGESTS)  # of five samples in three shards
    cost = store.cost(store.rows.values())
    assert cost.flops == 3000
    assert cost.seconds > 0
    again = FeatureStore.open(tmp_path / KEY)
    assert again.cost(again.rows.values()) == cost


def test_of_a_shard_only_the_share_that_is_read_is_charged(tmp_path: Path) -> None:
    store = counted_build(tmp_path, DIGESTS)
    one = [store.rows[DIGESTS[0]]]
    assert store.cost([*one, *one]).flops == 500
    assert store.cost([]) == Cost()


def test_samples_that_are_added_are_charged_beside_those_that_were_there(tmp_path: Path) -> None:
    counted_build(tmp_path, DIGESTS[:2], shard_bytes=10**6)
    store = counted_build(tmp_path, DIGESTS, shard_bytes=10**6)
    assert store.cost(store.rows.values()).flops == 1000 + 2000


def test_what_nobody_counted_is_not_known(tmp_path: Path) -> None:
    store = build(tmp_path)
    cost = store.cost(store.rows.values())
    assert cost.flops is None
    assert cost.seconds > 0


# --- damage -----------------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def halved(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def lengthened(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def of_other_weights(path: Path) -> None:
    """Put in its place a shard that another tower gave."""
    foreign = build_or_open(
        path.parents[1] / ("cd" * 32), partial(encode_canonical, TinyText().eval()), DIGESTS, load, about={}
    )
    path.write_bytes(foreign.shards[0].path.read_bytes())


def of_another_width(path: Path) -> None:
    other = build(path.parents[1] / "wide", TinyText(width=7))
    path.write_bytes(other.shards[0].path.read_bytes())


def section(name: str) -> Callable[[Path], None]:
    return lambda path: flipped(path, Shard.open(path, KEY).sections[name].start + 1)


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a byte is missing": (cut, "bytes where its header promises"),
    "half is missing": (halved, "bytes where its header promises|no valid header"),
    "nothing is left": (emptied, "no valid header"),
    "a byte too many": (lengthened, "bytes where its header promises"),
    "other weights": (of_other_weights, "it holds what another tower gave"),
    "another width": (of_another_width, "of another kind than those of the other shards"),
    "a bit of the header": (partial(flipped, position=30), "no valid header|contradicts itself"),
    "a bit of the digests": (section("digests"), "the checksum of its digests is wrong"),
    "a bit of the offsets": (section("offsets"), "the checksum of its offsets is wrong"),
    "a bit of the checksums": (section("checks"), "the checksum of its checks is wrong"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_found_at_opening_and_names_file_and_next_step(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    build(tmp_path)
    path = shards(tmp_path)[1]
    damage(path)
    with pytest.raises(FeatureStoreError, match=message) as found:
        build(tmp_path)
    assert str(path) in str(found.value)
    assert f"Delete {path.name}: the next run computes again what it held." in str(found.value)
    path.unlink()
    assert len(build(tmp_path)) == 5


@pytest.mark.parametrize("name", ["pooled", "tokens"])
def test_a_flipped_bit_of_the_numbers_is_found_when_they_are_read_and_by_verify(tmp_path: Path, name: str) -> None:
    build(tmp_path, shard_bytes=10**6).verify()
    path = shards(tmp_path)[0]
    flipped(path, Shard.open(path, KEY).sections[name].start + 5)
    store = build(tmp_path)
    for reads in (lambda: store.read([1, 0]), lambda: store.read([0]), store.verify):
        with pytest.raises(FeatureStoreError, match=rf"{path.name} is damaged: sample 0 is not what was written"):
            reads()
    assert store.read([1]).tokens.any()


def test_every_bit_of_header_and_index_counts(tmp_path: Path) -> None:
    build(tmp_path, shard_bytes=10**6)
    path = shards(tmp_path)[0]
    whole, sections = path.read_bytes(), Shard.open(path, KEY).sections
    header, index = range(0, sections["tokens"].start, 7), range(sections["digests"].start, len(whole), 7)
    for position in (*header, *index):
        flipped(path, position, bit=4)
        with pytest.raises(FeatureStoreError):
            FeatureStore.open(tmp_path / KEY)
        path.write_bytes(whole)


def test_a_store_without_shards_is_empty(tmp_path: Path) -> None:
    assert len(FeatureStore.open(tmp_path / KEY)) == 0


# --- what goes wrong while it is built --------------------------------------------------------------------------------


def test_a_failure_while_building_keeps_what_was_finished(tmp_path: Path) -> None:
    def failing(rows: Sequence[int]) -> TextInput:
        if rows[0] > 1:
            raise KeyError("sample")
        return load(rows)

    with pytest.raises(KeyError):
        build(tmp_path, load=failing)
    assert len(FeatureStore.open(tmp_path / KEY)) == 2
    assert list((tmp_path / KEY).glob(".*.partial")) == []


def test_too_small_a_disk_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", ["total", "used", "free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 90, 10))
    tower = TinyText()
    with pytest.raises(
        OutputError, match=r"5 samples need about 0\.00 MB, and .* has 0\.00 MB free\..*or train without the store"
    ):
        build(tmp_path, tower)
    assert tower.calls == 1
    assert shards(tmp_path) == []


class FullDisk(io.FileIO):
    """A file on a disk that has room for so many bytes only, in all of its files together."""

    room = 0

    def write(self, data: Any) -> int:
        FullDisk.room -= len(data)
        if FullDisk.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def test_a_disk_that_fills_up_keeps_what_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def on_a_small_disk(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        return FullDisk(path, "x") if path.suffix == ".partial" else opened(path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", on_a_small_disk)
    monkeypatch.setattr(FullDisk, "room", 3000)
    with pytest.raises(OutputError, match=r"The disk of .* is full\. What was finished is kept"):
        build(tmp_path)
    assert 0 < len(FeatureStore.open(tmp_path / KEY)) < 5
    assert list((tmp_path / KEY).glob(".*.partial")) == []
    monkeypatch.setattr(FullDisk, "room", 10**6)
    assert len(build(tmp_path)) == 5


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        build(tmp_path / "file")


def test_what_killed_builds_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / KEY / ".0.partial"
    left.parent.mkdir()
    left.write_bytes(b"")
    build(tmp_path)
    assert not left.exists()


# --- processes --------------------------------------------------------------------------------------------------------

SCRIPT = """
    import sys
    from functools import partial
    from pathlib import Path
    from tests.features.towers import TinyText, tokenize
    from renaissance.features.keys import content_digest
    from renaissance.features.store import build_or_open
    from renaissance.toolkit.canonical import encode_canonical

    asked = []

    def load(rows):
        asked.extend(rows)
        if rows[0] >= int(sys.argv[2]):
            print("under way", flush=True)
            sys.stdin.readline()  # until it is killed
        return tokenize([f"{'w' * row} x" for row in rows])

    digests = [content_digest(str(row)) for row in range(32)]
    encode = partial(encode_canonical, TinyText().eval())
    store = build_or_open(Path(sys.argv[1]), encode, digests, load, about={}, samples_a_step=4, shard_bytes=1)
    store.verify()
    print(len(store), len(asked), flush=True)
"""


def start(folder: Path, stop_at: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(folder / KEY), str(stop_at)]
    root = Path(__file__).parents[2]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=300)


def test_a_killed_build_lacks_only_what_was_in_flight_and_of_two_builders_each_sample_is_computed_by_one(
    tmp_path: Path,
) -> None:
    killed = start(tmp_path, 12)
    try:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "under way\n"
        killed.send_signal(signal.SIGKILL)
        assert killed.wait(300) == -signal.SIGKILL
    finally:
        end(killed)
    store = FeatureStore.open(tmp_path / KEY)
    store.verify()
    assert len(store) == 12

    racing = [start(tmp_path, 99) for _ in range(2)]
    try:
        said = [process.communicate("", timeout=300)[0].split() for process in racing]
    finally:
        for process in racing:
            end(process)
    assert [row[0] for row in said] == ["32", "32"]
    assert sorted(int(row[1]) for row in said) == [0, 20]
