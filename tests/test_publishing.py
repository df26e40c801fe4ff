from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import renaissance
from renaissance.card import write_card
from renaissance.cli import main
from renaissance.errors import (
    CardError,
    HubError,
    ModelFileError,
    NonFiniteError,
    PublishError,
    RenaissanceError,
    SpecError,
)
from renaissance.manifest import files_in, write_manifest
from renaissance.publishing import publish
from renaissance.recipe.data import WorldData
from tests.hub_server import HubServer, use

if TYPE_CHECKING:
    from renaissance.training.run import Run

# huggingface_hub gives its HTTP client large files in a way that the client wants written otherwise
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "org/model"
TOKEN = "secret-of-org"
PICTURES = [Image.linear_gradient("L").convert("RGB").rotate(angle) for angle in (0, 90)]
CAPTIONS = ["a red cup on a table", "two dogs"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(tokens={TOKEN: "org"}) as server:
        use(server, monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_spec: Callable[..., str], cache: Path) -> Run:
    recipe = {
        "name": "tiny",
        "start": tiny_spec(),
        "tasks": {"itm": {}, "itc": {"options": {"width": 16}}},
        "data": {"kind": "world", "train": 24, "test": 6, "captions": 2, "image_size": 32},
        "batch": {"size": 4},
        "budget": {"steps": 2},
        "schedule": {"warmup_steps": 1},
        "evaluation": {"tasks": {"retrieval": {}}, "untrained": False},
    }
    return renaissance.run(recipe, out=tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture
def folder(finished: Run, tmp_path: Path) -> Path:
    """A copy of the run's model, to be changed."""
    shutil.copytree(finished.folder / "model", tmp_path / "model")
    return tmp_path / "model"


def sent(hub: HubServer) -> list[str]:
    return [str(request) for request in hub.requests]


# --- there and back ---------------------------------------------------------------------------------------------------


def test_a_run_is_one_commit_with_its_card_recipe_scores_ledger_and_self_test(hub: HubServer, finished: Run) -> None:
    made = publish(finished, REPO)
    head = hub.repos[REPO].at("main")
    assert head is not None
    assert made.changed
    assert made.commit == head.oid
    assert made.url == f"{hub.endpoint}/{REPO}"
    assert len(hub.repos[REPO].commits) == 2  # the Hub's own first one, and ours
    assert {name: len(blob.data) for name, blob in head.files.items() if name != ".gitattributes"} == made.files
    assert {"recipe.yaml", "scores.json", "ledger.json", "selftest.safetensors", "manifest.json"} <= set(made.files)
    assert REPO in head.files["README.md"].data.decode()


@pytest.mark.parametrize("again", [{}, {"dtype": "float16"}])
def test_the_same_run_published_twice_is_one_commit(hub: HubServer, finished: Run, again: dict[str, Any]) -> None:
    first, second = publish(finished, REPO, **again), publish(finished.folder, REPO, **again)
    assert (second.commit, second.changed) == (first.commit, False)
    assert second.files == first.files
    assert len(hub.asked("POST .*/commit/")) == 1


def test_publishing_leaves_the_run_as_it_is(hub: HubServer, finished: Run) -> None:
    before = {name: (finished.folder / name).read_bytes() for name in files_in(finished.folder)}
    publish(finished, REPO)
    publish(finished, "org/half", dtype="bfloat16")
    assert {name: (finished.folder / name).read_bytes() for name in files_in(finished.folder)} == before


def test_a_dry_run_tells_what_would_travel_and_asks_nothing(hub: HubServer, finished: Run) -> None:
    told = publish(finished, REPO, dry_run=True)
    assert hub.requests == []
    assert (told.commit, told.changed) == (None, False)
    assert publish(finished, REPO).files == told.files


def test_scores_and_outputs_after_the_hub_are_those_before(hub: HubServer, finished: Run, tmp_path: Path) -> None:
    data = WorldData(kind="world", train=8, test=24, captions=2, image_size=32, seed=5)
    made = publish(finished, REPO, private=True)
    before = renaissance.from_pretrained(finished.folder)
    after = renaissance.from_pretrained(REPO, revision=made.commit, token=TOKEN, cache_dir=tmp_path)
    one, two = (
        [scores.rows() for scores in renaissance.evaluate(model, data, tasks=("itm", "retrieval"))]
        for model in (before, after)
    )
    assert one == two
    assert one[0]
    assert torch.equal(before.match(PICTURES, CAPTIONS), after.match(PICTURES, CAPTIONS))
    for left, right in zip(before.embed(PICTURES, CAPTIONS), after.embed(PICTURES, CAPTIONS), strict=True):
        assert left is not None
        assert right is not None
        assert torch.equal(left, right)


def test_branches_and_offline_work_are_those_of_the_cache(hub: HubServer, finished: Run, tmp_path: Path) -> None:
    made = publish(finished, REPO, revision="next")
    assert hub.repos[REPO].branches["next"] == made.commit
    renaissance.from_pretrained(REPO, revision="next", cache_dir=tmp_path)
    hub.requests.clear()
    renaissance.from_pretrained(REPO, revision="next", cache_dir=tmp_path, local_files_only=True)
    assert hub.requests == []


# --- what is refused before a byte is sent ----------------------------------------------------------------------------


def change_weights(folder: Path, name: str, value: float) -> None:
    path = folder / "model.safetensors"
    with safe_open(path, framework="pt") as opened:
        note = opened.metadata()
    state = load_file(path)
    next(tensor for key, tensor in sorted(state.items()) if name in key).view(-1)[0] = value
    save_file(state, path, metadata=note)
    write_manifest(folder)


def no_scores(folder: Path) -> None:
    (folder / "scores.json").unlink()
    write_manifest(folder)


def empty_scores(folder: Path) -> None:
    (folder / "scores.json").write_text(json.dumps({"scores": []}))
    write_manifest(folder)


def edit_scores(folder: Path, **changes: Any) -> None:
    path = folder / "scores.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    write_manifest(folder)


def scores_of_the_untrained_alone(folder: Path) -> None:
    rows = json.loads((folder / "scores.json").read_text())["scores"]
    edit_scores(folder, scores=[{**row, "model": "untrained"} for row in rows])


def unlisted_scores(folder: Path) -> None:
    """Scores that the manifest does not list would stay behind."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["files"]["scores.json"]
    path.write_text(json.dumps(manifest))


def leak(folder: Path, *, waived: bool) -> None:
    found = {"split": "test", "images": 2, "total": 6, "level": "leak", "reason": "x", "waived": waived, "examples": []}
    edit_scores(folder, overlap={"checked": "image ids", "found": [found]})


def path_in_the_recipe(folder: Path) -> None:
    path = folder / "recipe.yaml"
    path.write_text(f"{path.read_text()}# from /home/someone/data\n")
    write_manifest(folder)


def path_in_the_config(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["spec"]["text"]["options"]["tokenizer"] = "/home/someone/words"
    path.write_text(json.dumps(config))
    write_manifest(folder)


def broken_recipe(folder: Path) -> None:
    (folder / "recipe.yaml").write_text("name: [x\n")
    write_manifest(folder)


def card_by_hand(folder: Path) -> None:
    (folder / "README.md").write_text("# My model\n\nThe best.\n")


def secret_in_the_card(folder: Path) -> None:
    card = folder / "README.md"
    card.write_text(f"{card.read_text()}\n<!-- yours -->\nMy token is hf_{'a' * 34}.\n")


def path_in_the_card(folder: Path) -> None:
    card = folder / "README.md"
    card.write_text(f"{card.read_text()}\n<!-- yours -->\nThe data are in /home/someone/data.\n")


def another_bit(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def another_digest(folder: Path) -> None:
    """Whoever downloads it would find it damaged."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["model.safetensors"]["sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (no_scores, PublishError, "has no scores.*renaissance run"),
        (empty_scores, PublishError, "has no scores"),
        (scores_of_the_untrained_alone, PublishError, "has no scores"),
        (unlisted_scores, PublishError, "has no scores"),
        (lambda folder: edit_scores(folder, scores="many"), PublishError, "has no scores"),
        (lambda folder: leak(folder, waived=False), PublishError, "that it was trained on.*evaluation.waive"),
        (lambda folder: change_weights(folder, "text", float("nan")), NonFiniteError, "holds NaN"),
        (lambda folder: change_weights(folder, "itm", 9.0), ModelFileError, "failed its self-test"),
        (another_bit, ModelFileError, "not what the manifest says"),
        (another_digest, ModelFileError, "not what the manifest says"),
        (secret_in_the_card, CardError, "a token of the Hub"),
        (path_in_the_card, CardError, "an absolute path"),
        (path_in_the_recipe, CardError, r"^recipe.yaml, line \d+, has an absolute path.*--shorten-paths"),
        (path_in_the_config, CardError, r"^config.json, line \d+, has an absolute path.*--shorten-paths"),
        (broken_recipe, ModelFileError, r"recipe\.yaml is no recipe"),
        (card_by_hand, CardError, "was written by hand, and would be lost"),
        (lambda folder: (folder / "config.json").write_text("{}"), ModelFileError, "holds no saved model"),
    ],
)
def test_a_model_that_is_not_fit_for_others_is_refused_without_a_request(
    hub: HubServer, folder: Path, change: Callable[[Path], object], error: type[RenaissanceError], told: str
) -> None:
    change(folder)
    with pytest.raises(error, match=told) as raised:
        publish(folder, REPO)
    assert "\n" not in str(raised.value)
    assert f"hf_{'a' * 34}" not in str(raised.value)
    assert set(re.findall(r"/\S*?/model\b", str(raised.value))) <= {str(folder)}  # and no copy that is gone by now
    assert sent(hub) == []


def test_a_leak_that_is_waived_is_published_and_told(hub: HubServer, folder: Path) -> None:
    leak(folder, waived=True)
    publish(folder, REPO)
    head = hub.repos[REPO].at("main")
    assert head is not None
    assert "| test | 2 of 6 | leak |" in head.files["README.md"].data.decode()


def test_what_a_person_wrote_below_the_mark_travels(hub: HubServer, folder: Path) -> None:
    write_card(folder, licence="mit")
    with (folder / "README.md").open("a") as card:
        card.write("\nMy own words.\n")
    for again in ({}, {"dtype": "float16"}):
        publish(folder, REPO, **again)  # type: ignore[arg-type]  # a keyword of its own type
        head = hub.repos[REPO].at("main")
        assert head is not None
        card_there = head.files["README.md"].data.decode()
        assert card_there.endswith("\nMy own words.\n")
        assert "license: mit\n" in card_there


def test_a_config_that_names_a_path_is_published_once_that_is_shortened(hub: HubServer, folder: Path) -> None:
    path_in_the_config(folder)
    with pytest.raises(CardError, match=r"^config\.json, line \d+.*and push what renaissance\.from_pretrained gives"):
        renaissance.from_pretrained(folder).push_to_hub(REPO)
    assert sent(hub) == []
    assert main(["card", str(folder), "--write", "--shorten-paths"]) == 0
    renaissance.from_pretrained(folder).push_to_hub(REPO)
    publish(folder, REPO)
    head = hub.repos[REPO].at("main")
    assert head is not None
    assert b"/home" not in b"".join(blob.data for blob in head.files.values())


def test_a_model_that_is_pushed_has_a_card_of_its_own(hub: HubServer, finished: Run) -> None:
    renaissance.from_pretrained(finished.folder).push_to_hub(REPO)
    head = hub.repos[REPO].at("main")
    assert head is not None
    card = head.files["README.md"].data.decode()
    assert "pipeline_tag: zero-shot-image-classification" in card
    assert f'from_pretrained("{REPO}")' in card
    assert "Nothing was measured." in card
    assert "scores.json" not in head.files


def test_without_a_token_or_a_possible_name_nothing_is_asked(
    hub: HubServer, finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HubError, match="takes no repository called"):
        publish(finished, "org/a--b")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="needs a token"):
        publish(finished, REPO)
    assert sent(hub) == []


def test_trained_only_needs_a_tower_to_leave_out(hub: HubServer, finished: Run) -> None:
    with pytest.raises(SpecError, match="pretrained and wholly frozen, and this model has none"):
        publish(finished, REPO, trained_only=True)
    assert sent(hub) == []


def test_nothing_of_a_refused_model_reaches_somebody_elses_repository(hub: HubServer, finished: Run) -> None:
    with pytest.raises(HubError, match="may not write to 'else'"):
        publish(finished, "else/model")
    assert {request.method for request in hub.requests} == {"GET"}


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_exactly_what_would_travel_with_sizes(
    hub: HubServer, finished: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", str(finished.folder), REPO, "--dry-run"]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert hub.requests == []
    files = publish(finished, REPO).files
    listed = {row[0]: int(row[1].replace(",", "")) for row in table if len(row) == 2 and row[1][0].isdigit()}
    assert listed == dict(files)
    assert ["in", "all", f"{sum(files.values()):,}"] in table
    assert ["sent", "nothing", "(--dry-run)"] in table


def test_the_command_publishes_and_says_where(
    hub: HubServer, finished: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for _ in range(2):
        assert main(["publish", str(finished.folder), REPO, "--private", "--dtype", "float16", "--json"]) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert [one["changed"] for one in told] == [True, False]
    assert told[0]["commit"] == hub.repos[REPO].branches["main"]
    assert hub.repos[REPO].private
    assert main(["publish", str(finished.folder), REPO]) == 0
    assert f"{hub.endpoint}/{REPO}" in capsys.readouterr().out


def test_the_command_refuses_in_one_line_with_the_code_of_the_error(
    hub: HubServer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    no_scores(folder)
    assert main(["publish", str(folder), REPO]) == PublishError.exit_code
    assert len(capsys.readouterr().err.splitlines()) == 1
