"""`renaissance.explain` and the command: the folder that they write, and what they refuse."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image

import renaissance
from renaissance.cli import main
from renaissance.data.prepared import Writer
from renaissance.errors import (
    CapabilityError,
    DataError,
    MissingPackageError,
    OutputError,
    SampleError,
    SpecError,
)
from renaissance.explaining.pairs import Pair
from renaissance.pretrained import Model
from tests.explaining.models import LINES, TEXT, VISION, made

if TYPE_CHECKING:
    from tests.cli.conftest import Result

SECTIONS = ("sample", "shares", "cka", "drift", "probes", "pointing")
TEXT_OF_PAIR = "a small red heart on a white background"


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def moved(model: Model) -> Model:
    """The model after its fusion head was trained."""
    other = made(LINES["lxmert"])
    with torch.no_grad():
        for name, parameter in other.encoder.named_parameters():
            if name.startswith("fusion."):
                parameter.mul_(1.1)
    return other


@pytest.fixture(scope="module")
def told(model: Model, moved: Model, pairs: list[Pair], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An explanation with all sections, by the command, and what that printed."""
    folder = tmp_path_factory.mktemp("explaining")
    model.save(folder / "start")
    moved.save(folder / "moved")
    pairs[0].picture.save(folder / "scene.png")
    line = [str(folder / "moved"), "--image", str(folder / "scene.png"), "--text", TEXT_OF_PAIR, "--data", "world"]
    line += ["--against", str(folder / "start"), "--samples", "4", "--steps", "8", "--out", str(folder / "world")]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["explain", *line]) == 0
    return folder / "world", printed.getvalue()


@pytest.fixture(scope="module")
def world(told: tuple[Path, str]) -> Path:
    return told[0]


def read(folder: Path) -> Any:
    return json.loads((folder / "explanation.json").read_text())


def test_every_section_has_its_figures_and_every_picture_is_listed(world: Path) -> None:
    facts = read(world)
    assert facts["format"] == 1
    assert all(facts[section] for section in SECTIONS)
    assert facts["unavailable"] == {}
    listed = {picture["file"] for picture in facts["pictures"]}
    assert listed == {path.name for path in world.iterdir()} - {"explanation.json"}
    assert {picture["section"] for picture in facts["pictures"]} == set(SECTIONS) - {"shares"}
    for name in listed:
        with Image.open(world / name) as drawn:
            assert min(drawn.size) > 200


def test_the_figures_belong_together(world: Path) -> None:
    facts = read(world)
    sample = facts["sample"]
    words, patches = sum(word["attribution"] for word in sample["words"]), sum(map(sum, sample["patches"]))
    assert " ".join(word["word"] for word in sample["words"]) == TEXT_OF_PAIR
    assert words + patches == pytest.approx(sample["output"] - sample["baseline"], rel=0.05, abs=1e-3)
    assert sample["gap"] <= sample["tolerance"]
    assert facts["shares"]["image_share"] + facts["shares"]["text_share"] == pytest.approx(1, abs=1e-5)
    moved = {row["layer"]: row["weights"] for row in facts["drift"]}
    assert moved["vision.0"] == moved["text.0"] == 0
    assert moved["fusion.0"] == pytest.approx(0.1, rel=1e-4)
    diagonal = [row[place] for place, row in enumerate(facts["cka"]["within"])]
    assert diagonal == pytest.approx([1] * len(diagonal))
    assert facts["pointing"]["incomplete"] == 0
    assert facts["pointing"]["attribution"]["samples"] == facts["pointing"]["rollout"]["samples"] == 4
    assert {probe["target"] for probe in facts["probes"]} == {"shape", "colour", "size", "background"}


def test_models_and_data_are_known_by_their_digests(world: Path) -> None:
    facts = read(world)
    assert facts["model"]["sha256"] != facts["against"]["sha256"]
    assert facts["model"]["spec"] == facts["against"]["spec"]
    assert facts["data"] == {**facts["data"], "kind": "world", "samples": 4}
    assert str(world.parent) not in (world / "explanation.json").read_text()


def test_the_same_call_gives_the_same_bytes(model: Model, pairs: list[Pair], tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    given = {"image": pairs[0].picture, "text": "a red cup that costs $5 and $6", "steps": 8}
    for name in ("one", "two"):
        renaissance.explain(model, tmp_path / name, **given)  # type: ignore[arg-type]  # a mapping of several types
        torch.manual_seed(7)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert set(digests(tmp_path / "one")) == {"explanation.json", "attribution.png", "rollout.png"}
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
    assert not any(parameter.requires_grad for parameter in model.encoder.vision.parameters())


def test_what_cannot_be_had_is_said_and_the_rest_is_there(pairs: list[Pair], tmp_path: Path) -> None:
    head = "q-former(layers=1, heads=2, queries=4)"
    model = made(f"{VISION} + {TEXT}, random both, {head}", "itm")
    done = renaissance.explain(
        model, tmp_path / "out", image=pairs[0].picture, text="a cup", against=made(LINES["one-tower on text"])
    )
    assert "QFormer is none of those" in done.facts["unavailable"]["rollout"]
    assert "differ in number or shape" in done.facts["unavailable"]["drift"]
    assert done.facts["sample"]["rollout_patches"] is None
    assert done.facts["drift"] is None
    assert [picture["file"] for picture in done.facts["pictures"]] == ["attribution.png"]


@pytest.fixture(scope="module")
def prepared(pairs: list[Pair], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "own"
    with Writer(folder) as writer:
        for place, pair in enumerate(pairs[:8]):
            file = folder.parent / f"{place}.png"
            pair.picture.save(file)
            writer.image(str(place), file.read_bytes(), file.name)
            for split in ("train", "test"):
                writer.item(split, f"{split}-{place}", images=[str(place)], texts=[pair.text, "more"])
        writer.finish({"layout": "own", "source": "own"})
    return folder


def test_prepared_data_give_shares_and_similarity_of_a_held_out_split(
    model: Model, prepared: Path, tmp_path: Path
) -> None:
    facts = renaissance.explain(model, tmp_path / "out", data=prepared, samples=6, task="itc").facts
    assert facts["data"] == {**facts["data"], "kind": "prepared", "name": "own", "split": "test", "samples": 6}
    assert facts["output"]["name"] == "similarity (itc)"
    assert facts["shares"]["samples"] == facts["cka"]["samples"] == 6
    assert facts["sample"] is facts["probes"] is facts["pointing"] is None
    with pytest.raises(DataError, match="has no split 'tset'; it has: test, train"):
        renaissance.explain(model, tmp_path / "other", data=prepared, split="tset")


def test_pairs_of_ones_own_are_compared_and_probed_with_drawn_scenes(
    model: Model, moved: Model, pairs: list[Pair], tmp_path: Path
) -> None:
    given = [(pair.picture, pair.text) for pair in pairs[:6]]
    facts = renaissance.explain(moved, tmp_path / "out", data=given, against=model, samples=5, probes=24).facts
    assert facts["data"] == {**facts["data"], "kind": "given", "split": None, "samples": 5}
    assert facts["shares"]["samples"] == facts["cka"]["samples"] == 5
    assert facts["settings"]["probes"] == facts["probes"][0]["train"] + facts["probes"][0]["test"] == 24
    assert facts["cka"]["against_layers"] == facts["cka"]["layers"]
    assert {row["layer"]: row["cka"] for row in facts["drift"]}["vision.0"] == 0
    assert facts["sample"] is facts["pointing"] is None
    with pytest.raises(SpecError, match="Pairs have no splits"):
        renaissance.explain(model, tmp_path / "other", data=given, split="test")
    with pytest.raises(DataError, match="three different samples"):
        renaissance.explain(model, tmp_path / "other", data=given[:1] * 4)


def test_what_cannot_be_explained_is_refused_before_anything_is_written(
    model: Model, pairs: list[Pair], tmp_path: Path
) -> None:
    out, picture = tmp_path / "out", pairs[0].picture
    untrained = made(LINES["lxmert"], "mlm")
    with pytest.raises(CapabilityError, match=r"Nothing of this model can be explained.*Train one with tasks: \[itm\]"):
        renaissance.explain(untrained, out, image=picture, text="a cup")
    with pytest.raises(CapabilityError, match="The task 'mlm' of this model cannot be explained"):
        renaissance.explain(model, out, image=picture, text="a cup", task="mlm")
    with pytest.raises(SpecError, match=r"has no labels\. Leave out --label"):
        renaissance.explain(model, out, image=picture, text="a cup", label="yes")
    with pytest.raises(SampleError, match=r"gone.png cannot be read \(No such file or directory\)"):
        renaissance.explain(model, out, image=tmp_path / "gone.png", text="a cup")
    with pytest.raises(SampleError, match="tokens that the model reads"):
        renaissance.explain(model, out, image=picture, text="snow " * 80)
    with pytest.raises(SpecError, match="give --text too"):
        renaissance.explain(model, out, image=picture)
    with pytest.raises(SpecError, match="There is nothing to explain the model on"):
        renaissance.explain(model, out)
    with pytest.raises(SpecError, match="The world has no splits"):
        renaissance.explain(model, out, data="world", split="test")
    with pytest.raises(DataError, match="Give more --samples"):
        renaissance.explain(model, out, data="world", samples=2)
    with pytest.raises(SpecError, match="There is no baseline 'black' for pictures"):
        renaissance.explain(model, out, image=picture, text="a cup", baseline="black")  # type: ignore[arg-type]  # that is the test
    assert not out.exists()
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"exists\. Choose another folder"):
        renaissance.explain(model, out, image=picture, text="a cup")
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_a_missing_package_is_named_with_the_pip_line(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "captum" else find(name, *rest)
    )
    with pytest.raises(
        MissingPackageError, match=r"need the package captum. Try: pip install 'renaissance-vl\[explain\]'"
    ):
        renaissance.explain(model, tmp_path / "out", data="world")


# --- the command ------------------------------------------------------------------------------------------------------


def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> Result:
    from tests.cli.conftest import Result

    code = main(["explain", *arguments])
    printed = capsys.readouterr()
    return Result(code, printed.out, printed.err)


def test_the_command_writes_the_folder_and_tells_each_word(
    model: Model, pairs: list[Pair], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save(tmp_path / "model")
    pairs[0].picture.save(tmp_path / "cup.png")
    given = [str(tmp_path / "model"), "--image", str(tmp_path / "cup.png"), "--text", "a red cup", "--steps", "8"]
    told = ran(capsys, *given, "--out", str(tmp_path / "one"))
    assert told.code == 0, told.err
    assert "logit (itm)" in told.out
    assert "attribution.png, rollout.png" in told.out
    assert {"a", "red", "cup"} <= {line.split()[0] for line in told.out.splitlines() if line}
    data = ran(capsys, *given, "--out", str(tmp_path / "two"), "--json").json()
    assert data == read(tmp_path / "two") == read(tmp_path / "one")
    assert data["model"]["name"] == "model"
    again = ran(capsys, *given, "--out", str(tmp_path / "two"))
    assert again.code == 8
    assert "exists. Choose another folder" in again.err


def test_the_command_tells_of_data_and_of_another_model(told: tuple[Path, str]) -> None:
    for expected in ("image's share", "moved most", "weights by 10.0%", "vision colour read best", "chance %"):
        assert expected in told[1]
