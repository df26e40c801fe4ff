"""`renaissance evaluate`: what was left out is told, and training splits are measured only where they are named."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

import renaissance
from renaissance.data.prepared import Writer

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

SPLITS = ("train", "restval", "val")
PrepareCaptions = Callable[..., Path]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Save a model of itc and itm, untrained."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    spec = (
        "tiny-vit(image_size=16, layers=1, width=16, heads=2, mlp_width=16) + "
        "tiny-bert(layers=1, width=16, heads=2, mlp_width=16), random both, lxmert(layers=1, width=16, heads=2)"
    )
    renaissance.build(spec, tasks=("itc", "itm")).save(folder)
    return str(folder)


@pytest.fixture
def prepare(tmp_path: Path) -> PrepareCaptions:
    """Prepare four pictures a split; `broken` ones of 'val' are truncated."""

    def write(name: str, layout: str = "coco-captions", *, splits: tuple[str, ...] = SPLITS, broken: int = 0) -> Path:
        folder = tmp_path / "prepared" / name
        fields = {"subset": "swap_att"} if layout == "sugarcrepe" else {}
        with Writer(folder) as writer:
            for split in splits:
                for number in range(4):
                    key = f"{split}-{number}"
                    cut = 60 if split == "val" and number < broken else None
                    writer.image(key, _picture(number)[:cut], f"{key}.png")
                    texts = [f"picture {number} of {split}", f"another of {key}"]
                    writer.item(split, key, images=[key], texts=texts, target=0, fields=fields)
            writer.finish({"layout": layout})
        return folder

    return write


def _picture(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((20, 20), 40 + number).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def test_samples_that_are_left_out_are_counted_and_shown(cli: Cli, saved: str, prepare: PrepareCaptions) -> None:
    folder = str(prepare("coco", broken=2))
    failed = cli("evaluate", saved, "--data", folder, "--task", "itm")
    assert failed.code == 5
    assert "val-0" in failed.err
    passed = cli("evaluate", saved, "--data", folder, "--task", "itm", "--on-bad-sample", "skip")
    assert passed.code == 0, passed.err
    assert "Samples left out: 2." in passed.err
    assert [line for line in passed.err.splitlines() if line.startswith("left out: ") and "val-1" in line]
    listed = cli("evaluate", saved, "--data", folder, "--task", "itm", "--on-bad-sample", "skip", "--json")
    assert [("val-0" in line, "val-1" in line) for line in listed.json()["skipped"]] == [
        (True, False),
        (False, True),
    ]
    assert listed.json()["splits"]["val"]["images"] == 2


def test_where_nothing_is_left_out_nothing_is_told(cli: Cli, saved: str, prepare: PrepareCaptions) -> None:
    result = cli(
        "evaluate", saved, "--data", str(prepare("coco")), "--task", "itm", "--on-bad-sample", "skip", "--json"
    )
    assert result.json()["skipped"] == []
    assert "left out" not in result.err


def test_no_item_is_left_out_whatever_was_asked_for(cli: Cli, saved: str, prepare: PrepareCaptions) -> None:
    folder = str(prepare("probe", "sugarcrepe", broken=1))
    result = cli("evaluate", saved, "--data", folder, "--task", "sugarcrepe", "--on-bad-sample", "skip")
    assert result.code == 5
    assert "No item is left out" in result.err
    assert "val-0" in result.err


def test_training_splits_are_measured_only_where_they_are_named(cli: Cli, saved: str, prepare: PrepareCaptions) -> None:
    arguments = ("evaluate", saved, "--data", str(prepare("coco")), "--task", "itm", "--json")
    assert list(cli(*arguments).json()["splits"]) == ["val"]
    named = cli(*arguments, "--split", "restval", "--split", "train")
    assert list(named.json()["splits"]) == ["restval", "train"]
    unknown = cli(*arguments, "--split", "vla")
    assert unknown.code == 4
    assert "train" in unknown.err
    alone = cli("evaluate", saved, "--data", str(prepare("sbu", "sbu", splits=("train",))))
    assert alone.code == 4
    assert "holds only data to train on. Name the split to measure: train." in alone.err


def test_all_tasks_print_the_table_of_each_data_and_say_what_is_passed_over(
    cli: Cli, saved: str, prepare: PrepareCaptions
) -> None:
    prepare("coco", broken=1)
    prepare("flickr", "flickr30k")
    prepare("questions", "vqav2")
    below = str(prepare("sbu", "sbu", splits=("train",)).parent)
    arguments = ("evaluate", saved, "--data", below, "--all-tasks", "--on-bad-sample", "skip")
    result = cli(*arguments)
    assert result.code == 0, result.err
    assert [line.split()[:3] for line in result.out.splitlines() if " accuracy " in line] == [
        ["coco", "val", "itm"],
        ["flickr", "val", "itm"],
    ]
    assert "questions: passed over, for no task of this model is for it" in result.err
    assert "sbu: passed over, for it has no split to measure" in result.err
    assert "Samples left out: 1." in result.err
    told = cli(*arguments, "--json").json()
    assert "coco: measured on val." in result.err
    assert list(told["splits"]) == ["coco/val", "flickr/val"]
    assert len(told["skipped"]) == 1
    assert told["skipped"][0].startswith("coco: ")


def test_a_task_is_given_options(cli: Cli, saved: str, prepare: PrepareCaptions) -> None:
    folder = str(prepare("probe", "sugarcrepe"))
    measured = ("evaluate", saved, "--data", folder, "--task", "sugarcrepe", "--json")
    by_itm, by_itc = (cli(*measured, "--option", f"by={by}").json()["scores"] for by in ("itm", "itc"))
    assert by_itm == cli(*measured).json()["scores"]
    assert [row["name"] for row in by_itc] == [row["name"] for row in by_itm]
    wrong = cli(*measured, "--option", "by=itx")
    assert (wrong.code, "'by'" in wrong.err) == (2, True)
    assert cli(*measured, "--option", "by").code == 2
    assert "give one --task" in cli("evaluate", saved, "--data", folder, "--option", "by=itc").err
    trained = cli("evaluate", saved, "--data", str(prepare("coco")), "--task", "itm", "--option", "negatives=hard")
    assert "'itm' has the options with which it was trained" in trained.err


def test_blind_figures_have_a_column(cli: Cli, saved: str, prepare: PrepareCaptions) -> None:
    folder = str(prepare("probe", "sugarcrepe"))
    table = cli("evaluate", saved, "--data", folder, "--blind")
    assert "other images / texts" in table.out.splitlines()[0]
    told = cli("evaluate", saved, "--data", folder, "--blind", "--json").json()
    assert all(set(row["blind"]) == {"vision", "text"} for row in told["scores"])
    plain = cli("evaluate", saved, "--data", folder)
    assert "other images" not in plain.out


def test_a_cascade_ends_with_every_pair(cli: Cli, saved: str, prepare: PrepareCaptions) -> None:
    folder = str(prepare("coco"))
    rows = cli("evaluate", saved, "--data", folder, "--cascade", "--json").json()["cascade"]
    assert [row["k"] for row in rows] == [1, 4, None]
    assert (rows[-1]["matched"], rows[-1]["full"]) == (32, 1.0)
    assert [row["flops"] for row in rows[:2]] == sorted(row["flops"] for row in rows[:2])
    lines = cli("evaluate", saved, "--data", folder, "--cascade").out.splitlines()
    assert lines[0].split()[:4] == ["split", "k", "pairs", "matched"]
    assert [line.split()[1] for line in lines[2:]] == ["1", "4", "all"]
    assert cli("evaluate", saved, "--data", folder, "--cascade", "--task", "itm").code == 2


def test_what_a_run_trained_on_is_measured_only_where_it_is_waived(
    cli: Cli, saved: str, prepare: PrepareCaptions, tmp_path: Path
) -> None:
    folder = prepare("coco")
    run = tmp_path / "run"
    shutil.copytree(saved, run / "model")
    recipe = {"start": "tiny-vit + tiny-bert, random both", "tasks": {"itm": {}}, "batch": {"size": 2}}
    data = {"kind": "prepared", "path": str(folder)}
    (run / "recipe.yaml").write_text(json.dumps({**recipe, "data": data}))
    arguments = ("evaluate", str(run / "model"), "--data", str(folder), "--task", "itm", "--json", "--split", "train")
    refused = cli(*arguments)
    assert refused.code == 4
    assert "4 of the 4 images of 'train' were trained on" in refused.err
    waived = cli(*arguments, "--waive", "train")
    assert waived.code == 0, waived.err
    assert [(found["images"], found["waived"]) for found in waived.json()["overlap"]] == [(4, True)]
    assert "train: 4 of its 4 images were trained on (leak, waived" in waived.err
    assert cli(*arguments[:-2]).json()["overlap"] == []
    shutil.rmtree(folder / "..", ignore_errors=True)
    other = prepare("other")
    assert "is not compared with the training data" in cli(*arguments[:2], "--data", str(other), "--task", "itm").err
