"""Streams of the Hub, as the clients of `datasets` and `huggingface_hub` read them from a server on loopback.

The address of the Hub is read where they are imported, so one process of its own does all that is asked here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.data.shards import SIZES, caption, png, write_parquet, write_tars
from tests.hub_server import Blob, HubServer, Repo

SCRIPT = """
import json, os, sys
from pathlib import Path
from renaissance.data.load import load_data
from renaissance.data.sampling import BatchPlan
from renaissance.errors import RenaissanceError
from renaissance.recipe.data import StreamData

def opened(source, **options):
    data = StreamData(source=source, shuffle_buffer=8, **options)
    return load_data(data, cache=Path(sys.argv[1]), on_bad_sample="error", validation=0)

def told(stream, numbers):
    plan = BatchPlan(count=len(stream), batch_size=4, seed=5)
    return [[record.captions[0] for record in part.samples] for part in stream.parts(plan, numbers)]

def fault(*arguments, **options):
    try:
        opened(*arguments, **options)
    except RenaissanceError as error:
        return [type(error).__name__, str(error)]

data = opened("hf:org/squares", splits={"test": {}})
found = {
    "captions": [record.captions[0] for record in data.train],
    "bytes": [len(record.image.read()) for record in data.train],
    "test": [record.captions[0] for record in data.splits["test"]],
    "facts": data.facts,
    "marks": [shard.mark for shard in data.train.shards],
    "whole": told(data.train, range(12)),
    "late": told(opened("hf:org/squares").train, range(7, 12)),
    "tars": [[record.captions[0], record.image.read().hex()] for record in opened("hf:org/tars").train],
    "tars whole": told(opened("hf:org/tars").train, range(12)),
    "tars late": told(opened("hf:org/tars").train, range(7, 12)),
    "tar marks": [shard.mark for shard in opened("hf:org/tars").train.shards],
    "kept": sorted(path.name.partition("-")[0] for path in Path(sys.argv[1]).iterdir()),
    "pinned": [shard.mark for shard in opened("hf:org/squares", revision="old").train.shards],
    "fetched": [path.name for path in Path(os.environ["HF_HOME"]).rglob("*.tar")],
    "missing": fault("hf:org/nothing"),
    "split": fault("hf:org/squares", split="dev"),
}
print(json.dumps(found))
"""


def publish(hub: HubServer, name: str, folder: Path) -> str:
    repo = hub.repos[name] = Repo(name, private=False)
    files = {path.relative_to(folder).as_posix(): Blob(path.read_bytes(), lfs=False) for path in folder.rglob("*.*")}
    return repo.commit("main", "Add samples", files).oid


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], HubServer, str]]:
    """What the process found, the server with what was asked of it, and the commit of the newest version."""
    folder = tmp_path_factory.mktemp("hub")
    with HubServer() as hub:
        publish(hub, "org/squares", write_parquet(folder / "squares"))
        repo = hub.repos["org/squares"]
        repo.tags["old"] = repo.branches["main"]
        write_parquet(folder / "squares", (5,), split="test", first=60)
        files = {
            path.relative_to(folder / "squares").as_posix(): Blob(path.read_bytes(), lfs=False)
            for path in (folder / "squares").rglob("*.parquet")
        }
        newest = repo.commit("main", "Add a split", files).oid
        publish(hub, "org/tars", write_tars(folder / "tars"))
        hub.fail(r"GET /datasets/org/squares/resolve/.*train-00002", status=503, times=2)
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(folder / "cache")],
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
                "HF_ENDPOINT": hub.endpoint,
                "HF_HOME": str(folder / "home"),
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HUB_DISABLE_XET": "1",
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout.splitlines()[-1]), hub, newest


def test_the_samples_of_a_dataset_are_read_from_its_shards(answers: tuple[dict[str, Any], HubServer, str]) -> None:
    found, hub, _ = answers
    assert found["captions"] == [caption(number) for number in range(sum(SIZES))]
    assert min(found["bytes"]) > 50
    assert found["test"] == [caption(60 + number) for number in range(5)]
    assert "a stream of 23 samples in 4 shards" in found["facts"]
    assert not hub.asked("/api/models/")


def test_shards_are_pinned_to_the_commit_that_was_found(answers: tuple[dict[str, Any], HubServer, str]) -> None:
    found, hub, newest = answers
    old = hub.repos["org/squares"].tags["old"]
    assert found["marks"][0] == f"hf://datasets/org/squares@{newest}/data/train-00000-of-00004.parquet"
    assert {mark.split("@")[1].split("/")[0] for mark in found["pinned"]} == {old}


def test_a_later_start_gives_the_same_batches(answers: tuple[dict[str, Any], HubServer, str]) -> None:
    found, _, _ = answers
    assert found["late"] == found["whole"][7:]


def test_a_server_that_is_busy_for_a_moment_is_asked_again(answers: tuple[dict[str, Any], HubServer, str]) -> None:
    _, hub, _ = answers
    assert [fault.times for fault in hub.faults] == [0]


def test_tar_shards_are_read_in_part_and_never_stored(answers: tuple[dict[str, Any], HubServer, str]) -> None:
    found, hub, _ = answers
    assert found["tars"] == [[caption(number), png(number).hex()] for number in range(sum(SIZES))]
    assert found["tars late"] == found["tars whole"][7:]
    commit = hub.repos["org/tars"].branches["main"]
    assert found["tar marks"][0] == f"hf://datasets/org/tars@{commit}/train-00000.tar"
    assert found["kept"] == ["hub"] * len(SIZES) + ["stream"] * 2  # an index a shard; the sizes of two splits
    assert not found["fetched"]


def test_what_is_not_there_is_told(answers: tuple[dict[str, Any], HubServer, str]) -> None:
    found, _, _ = answers
    assert found["missing"][0] == "DataError"
    assert "org/nothing" in found["missing"][1]
    assert found["split"] == [
        "DataError",
        "'org/squares' has no split 'dev'. Set data.split to one of: train, test.",
    ]
