"""What the stores in a folder are, and which of them go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import pytest

from renaissance.errors import SpecError
from renaissance.features.housekeeping import Removal, collect, digests_in, stores_in, verify_stores
from renaissance.features.locks import BUILDING, IN_USE, building
from renaissance.features.shard import Shard
from renaissance.features.store import FeatureStore, build_or_open
from renaissance.toolkit.canonical import encode_canonical
from tests.features.towers import DIGESTS, TinyText, flipped, load

DAY = 86_400
NOW = 10**9


def stored(folder: Path, digit: str, days: float, **options: int) -> Path:
    """Build a store that was last used so many days ago."""
    place = folder / (digit * 64)
    about = {"name": "TinyText", "modality": "text", "depth": None, "kept": "torch.float32"}
    build_or_open(place, partial(encode_canonical, TinyText().eval()), DIGESTS, load, about=about, **options)
    for name in (BUILDING, IN_USE):
        os.utime(place / name, (NOW - days * DAY,) * 2)
    return place


def gone(removals: list[Removal]) -> str:
    return "".join(removal.store.key[0] for removal in removals if not removal.in_use)


collected = partial(collect, now=lambda: NOW)


def test_stores_are_listed_with_what_they_hold_the_last_used_first(tmp_path: Path) -> None:
    stored(tmp_path, "a", days=3)
    stored(tmp_path, "b", days=1, samples_a_step=2, shard_bytes=1)
    (tmp_path / "contents").mkdir()
    first, second = stores_in(tmp_path)
    assert (first.key[0], first.samples, first.shards, first.part, first.tower, first.kept) == (
        "b", 5, 3, "text tower", "TinyText", "float32",
    )  # fmt: skip
    assert second.file_bytes == sum(path.stat().st_size for path in (tmp_path / ("a" * 64)).iterdir())
    assert digests_in(first.folder) == set(DIGESTS)


def test_a_damaged_store_is_listed_with_its_fault(tmp_path: Path) -> None:
    (shard,) = stored(tmp_path, "a", days=0).glob("*.safetensors")
    os.truncate(shard, 100)
    (store,) = stores_in(tmp_path)
    assert f"{shard} is damaged" in store.fault
    assert digests_in(store.folder) == set()


def test_verify_reads_on_after_a_fault_and_names_every_damaged_shard(tmp_path: Path) -> None:
    whole, broken = stored(tmp_path, "a", days=0), stored(tmp_path, "b", days=0, samples_a_step=2, shard_bytes=1)
    assert verify_stores(stores_in(tmp_path)) == []
    damaged = sorted(broken.glob("*.safetensors"))[:2]
    for path in damaged:
        flipped(path, Shard.open(path, broken.name).sections["tokens"].start)
    faults = verify_stores(stores_in(tmp_path))
    assert sorted(fault.split(" ")[0] for fault in faults) == [str(path) for path in damaged]
    assert whole.exists()


def test_stores_go_by_age(tmp_path: Path) -> None:
    for digit, days in zip("abc", (1, 10, 20), strict=True):
        stored(tmp_path, digit, days)
    assert gone(collected(tmp_path, older_than=5 * DAY)) == "cb"
    assert [place.name[0] for place in tmp_path.iterdir()] == ["a"]


def test_stores_go_by_size_the_longest_unused_first(tmp_path: Path) -> None:
    for digit, days in zip("abc", (1, 10, 20), strict=True):
        stored(tmp_path, digit, days)
    size = stores_in(tmp_path)[0].file_bytes
    assert gone(collected(tmp_path, keep_bytes=2 * size)) == "c"
    assert gone(collected(tmp_path, keep_bytes=2 * size)) == ""


def test_stores_of_a_recipe_stay(tmp_path: Path) -> None:
    for digit in "ab":
        stored(tmp_path, digit, 20)
    assert gone(collected(tmp_path, older_than=DAY, keep={"a" * 64})) == "b"


def test_a_dry_run_deletes_nothing_and_is_no_use(tmp_path: Path) -> None:
    place = stored(tmp_path, "a", days=20)
    for _ in range(2):
        assert gone(collected(tmp_path, older_than=DAY, dry_run=True)) == "a"
    assert len(FeatureStore.open(place)) == 5


def test_without_a_rule_nothing_goes(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="give --older-than DAYS, --keep-gb GB, or both"):
        collect(tmp_path)


def test_a_store_that_is_open_or_built_stays(tmp_path: Path) -> None:
    place = stored(tmp_path, "a", days=20)
    store = FeatureStore.open(place)
    for name in (BUILDING, IN_USE):
        os.utime(place / name, (NOW - 20 * DAY,) * 2)
    assert [removal.in_use for removal in collected(tmp_path, older_than=DAY)] == [True]
    del store
    with building(place):
        assert [removal.in_use for removal in collected(tmp_path, keep_bytes=0)] == [True]
    assert gone(collected(tmp_path, keep_bytes=0)) == "a"
    assert not place.exists()


READER = """
    import sys
    from pathlib import Path
    from renaissance.features.store import FeatureStore

    store = FeatureStore.open(Path(sys.argv[1]))
    print(len(store), flush=True)
    sys.stdin.readline()
"""


def test_a_store_that_another_process_reads_stays(tmp_path: Path) -> None:
    place = stored(tmp_path, "a", days=20)
    command = [sys.executable, "-c", textwrap.dedent(READER), str(place)]
    reader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "5\n"
        assert [removal.in_use for removal in collect(tmp_path, keep_bytes=0)] == [True]
    finally:
        reader.kill()
        reader.communicate(timeout=300)
    assert gone(collect(tmp_path, keep_bytes=0)) == "a"


def test_opening_a_store_is_its_last_use(tmp_path: Path) -> None:
    place = stored(tmp_path, "a", days=0)
    for name in (BUILDING, IN_USE):
        os.utime(place / name, (1000, 1000))
    FeatureStore.open(place)
    assert time.time() - stores_in(tmp_path)[0].last_used < DAY


def test_a_store_that_may_only_be_read_is_read(tmp_path: Path) -> None:
    place = stored(tmp_path, "a", days=0)
    (place / IN_USE).unlink()
    (place / IN_USE).mkdir()  # stands for a folder in which no file can be made
    assert len(FeatureStore.open(place)) == 5
    shutil.rmtree(place)
