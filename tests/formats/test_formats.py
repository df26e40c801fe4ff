"""Today's renaissance reads what each earlier version saved. The folders are written by tests/formats/make.py."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.version import Version
from safetensors import safe_open
from safetensors.torch import load_file

import renaissance
from renaissance import saved_config
from renaissance.card import card_of, sources
from renaissance.cli import main
from renaissance.data import prepared
from renaissance.data.decode import open_image
from renaissance.data.prepared import Prepared
from renaissance.data.world import build as world
from renaissance.data.world.build import write_world
from renaissance.errors import RenaissanceError
from renaissance.features import layout
from renaissance.features.store import FeatureStore
from renaissance.manifest import MANIFEST_FORMAT
from renaissance.training import checkpoint, ledger_file
from renaissance.training.checkpoint import newest_checkpoint
from renaissance.training.folder import run_id
from tests.formats.make import answers

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VERSIONS = sorted((path.parent.name for path in HERE.glob("*/answers.json")), key=Version)
# formats by the words of docs/policy.md, as they are written today
WRITTEN: Mapping[str, object] = {
    "saved model": saved_config.FORMAT,
    "manifest": MANIFEST_FORMAT,
    "scores": sources.FORMAT,
    "ledger": ledger_file.FORMAT,
    "checkpoint": checkpoint.FORMAT,
    "feature store": layout.FORMAT,
    "prepared data": prepared.FORMAT,
    "world": world.FORMAT,
}

# what reads each file that says a format, and what it says of a newer one
UPGRADE = r"is of format 99, and this renaissance knows up to \d+\. Try: pip install --upgrade renaissance-vl$"
NEWER: Mapping[str, tuple[Callable[[], object], str]] = {
    "run/model/config.json": (lambda: renaissance.from_pretrained("run"), UPGRADE),
    "run/model/manifest.json": (lambda: renaissance.from_pretrained("run"), UPGRADE),
    "run/model/scores.json": (lambda: card_of(Path("run/model")), UPGRADE),
    "run/model/ledger.json": (lambda: card_of(Path("run/model")), UPGRADE),
    "run/ledger.json": (lambda: ledger_file.read_ledger(Path("run")), r"is of format 99, .* reads \d+; upgrade\.$"),
    "prepared/manifest.json": (lambda: Prepared(Path("prepared")), r"by another version\. Prepare the data again\.$"),
}


@pytest.fixture(params=VERSIONS)
def saved(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a copy of what one version saved."""
    shutil.copytree(HERE / request.param, tmp_path / "saved")
    monkeypatch.chdir(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_saved_model_answers_as_it_did(saved: Path) -> None:
    expected = json.loads((saved / "answers.json").read_text())
    found = answers(saved / "run")
    assert set(found) == set(expected)
    for name, values in expected.items():
        torch.testing.assert_close(torch.tensor(found[name]), torch.tensor(values), rtol=0, atol=1e-4)


def test_ledger_and_card_are_made_of_the_files_of_a_run(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "run", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["run"]
    assert facts == json.loads((saved / "run" / "ledger.json").read_text())
    assert main(["card", "run"]) == 0
    (score,) = json.loads((saved / "run" / "scores.json").read_text())["scores"]
    assert re.search(rf"\| {score['value']:.1f} ", capsys.readouterr().out)


def test_a_checkpoint_is_continued_to_the_weights_that_it_led_to(saved: Path) -> None:
    newest, faults = newest_checkpoint(saved / "killed" / "checkpoints", run_id(saved / "killed"))
    assert (newest is not None, faults) == (True, [])
    renaissance.run(saved / "killed" / "recipe.yaml", out="killed", resume=True)
    weights = "model/model.safetensors"
    found, expected = load_file(saved / "killed" / weights), load_file(saved / "run" / weights)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        # another processor rounds otherwise, and Adam makes a step of about lr = 1e-4 even of rounding alone
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=5e-4)


def test_a_store_of_features_opens_and_is_whole(saved: Path) -> None:
    (folder,) = (saved / "features").iterdir()
    store = FeatureStore.open(folder)
    store.verify()
    features = store.read(range(len(store)))
    assert features.tokens.shape[0] == len(store) > 0
    assert features.tokens[features.mask].isfinite().all()


def test_prepared_data_are_read_with_their_pictures(saved: Path) -> None:
    data = Prepared(saved / "prepared")
    counts = {split: table["count"] for split, table in data.manifest["splits"].items()}
    assert set(data.splits) == {"train", "restval", "val", "test"}
    for split, count in counts.items():
        items = list(data.items(split))
        assert len(items) == count
        assert all(item.texts for item in items)
        assert {open_image(item.images[0].read(), name=item.id).size for item in items} == {(16, 16)}


def test_a_world_of_the_same_seed_is_the_same(saved: Path) -> None:
    asked = json.loads((saved / "world" / "world.json").read_text())
    again = saved / "again"
    write_world(
        again,
        asked["size"],
        asked["seed"],
        asked["languages"],
        asked["layouts"],
        image_size=asked["image_size"],
    )
    assert (again / "scenes.jsonl").read_bytes() == (saved / "world" / "scenes.jsonl").read_bytes()
    assert json.loads((again / "world.json").read_text()) == asked


@pytest.mark.parametrize("file", NEWER)
def test_a_newer_format_is_refused_by_name(saved: Path, file: str) -> None:
    text, changed = re.subn(r'"format": \d+', '"format": 99', (saved / file).read_text(), count=1)
    assert changed
    (saved / file).write_text(text)
    read, told = NEWER[file]
    with pytest.raises(RenaissanceError, match=told):
        read()


def test_a_newer_checkpoint_is_passed_over_by_name(saved: Path) -> None:
    (manifest,) = saved.glob("killed/checkpoints/*/manifest.json")
    manifest.write_text(manifest.read_text().replace(f'"format": {checkpoint.FORMAT}', '"format": 99'))
    newest, (fault,) = newest_checkpoint(saved / "killed" / "checkpoints")
    assert newest is None
    assert "another format (99)" in fault


def test_each_format_that_is_written_today_is_kept_here() -> None:
    kept = {name: number for version in VERSIONS for name, number in _formats(HERE / version)}
    assert kept == WRITTEN, "a format has changed: raise the version, and run python -m tests.formats.make"


def _formats(folder: Path) -> Iterator[tuple[str, object]]:
    """Yield the formats of what a version saved, as its files say them."""

    def said(path: str) -> Any:
        (found,) = folder.glob(path)
        return json.loads(found.read_text())["format"]

    yield "saved model", said("run/model/config.json")
    yield "manifest", said("run/model/manifest.json")
    yield "scores", said("run/scores.json")
    yield "ledger", said("run/ledger.json")
    yield "checkpoint", said("killed/checkpoints/*/manifest.json")
    yield "prepared data", said("prepared/manifest.json")
    yield "world", said("world/world.json")
    (shard,) = folder.glob("features/*/*.safetensors")
    with safe_open(shard, "pt") as file:
        yield "feature store", file.metadata()["format"]


def test_the_policy_names_the_formats_of_today() -> None:
    page = (ROOT / "docs" / "policy.md").read_text()
    told = dict(re.findall(r"^\| ([a-z ]+) \| [^|]+ \| `([^`]+)` \|", page, re.M))
    assert told == {name: str(number) for name, number in WRITTEN.items()}
