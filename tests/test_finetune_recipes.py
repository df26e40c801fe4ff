"""The recipes for fine-tuning run from end to end on the generated world, small; and a trained model sees."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

import renaissance
from renaissance.cli import main
from renaissance.data.prepare import prepare
from renaissance.data.prepared import Prepared
from renaissance.data.world.build import write_world
from renaissance.recipe import Recipe, as_recipe, load_recipe, validate_recipe
from renaissance.recipe.data import PreparedData
from renaissance.recipe.start import SavedStart
from renaissance.registry import default_registry
from renaissance.training import loop
from renaissance.training.folder import recipe_text
from renaissance.training.update import update as real_update
from renaissance.uses import select_tasks

FOLDER = Path(__file__).parents[1] / "recipes" / "finetune"
RECIPES = sorted(FOLDER.glob("*.yaml"))
# the corpus that each recipe is run on here
LAYOUTS = {
    "cifar-10": "cifar-10",
    "glue": "glue",
    "nlvr2": "nlvr2",
    "refcoco": "refcoco",
    "retrieval": "flickr30k",
    "snli-ve": "snli-ve",
    "vqav2": "vqav2",
}
WORLD = ("nlvr2", "refcoco", "flickr30k", "snli-ve", "vqav2")
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGE_SIZE = 48
RESIZED = {"vqav2", "nlvr2", "snli-ve", "retrieval"}

_spec = importlib.util.spec_from_file_location("answers", FOLDER / "answers.py")
assert _spec is not None
assert _spec.loader is not None
answers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(answers)
BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")
sys.path.insert(0, BENCHMARKS)  # the benchmarks import each other
blind: Any = importlib.import_module("blind")
sys.path.remove(BENCHMARKS)


def ids(path: Path) -> str:
    return path.stem


def write_cifar10(root: Path) -> None:
    root.mkdir()
    (root / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n")
    random = np.random.default_rng(0)
    for name, count in (("data_batch_1", 20), ("test_batch", 10)):
        rows = random.integers(0, 256, (count, 1 + 3 * 32 * 32), dtype=np.uint8)
        rows[:, 0] = np.arange(count) % len(CLASSES)
        (root / f"{name}.bin").write_bytes(rows.tobytes())


def write_rte(root: Path) -> None:
    root.mkdir()
    for split, count in (("train", 20), ("dev", 10)):
        lines = ["index\tsentence1\tsentence2\tlabel"]
        lines += [f"{n}\tA cup is red.\tIt is red.\t{('entailment', 'not_entailment')[n % 2]}" for n in range(count)]
        (root / f"{split}.tsv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data of each layout, each in a folder of its name."""
    root = tmp_path_factory.mktemp("corpora")
    write_world(root / "world", 60, 0, layouts=WORLD, image_size=32)
    write_cifar10(root / "cifar-10")
    (root / "glue").mkdir()
    write_rte(root / "glue" / "RTE")
    for layout in (*WORLD, "cifar-10", "glue"):
        source = root / "world" / layout if layout in WORLD else root / layout
        prepare(layout, source, root / "prepared" / layout)
    return root / "prepared"


@pytest.fixture(scope="module")
def pretrained(tiny_spec: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a model as the recipe of this name starts from: a tiny one, with heads of pretraining."""
    saved: dict[tuple[str, ...], Path] = {}

    def folder(name: str) -> Path:
        tasks = ("mlm", "itm", "itc") if name == "retrieval" else ("mlm", "itm")
        if tasks not in saved:
            saved[tasks] = tmp_path_factory.mktemp("pretrained") / "model"
            renaissance.build(tiny_spec(), tasks=tasks).save(saved[tasks])
        return saved[tasks]

    return folder


def small(path: Path, model: Path, data: Path) -> Recipe:
    """Return a recipe as it is, but for the model, the data, the size of the images, the batch and the budget."""
    recipe = load_recipe(path).dump()
    recipe["start"]["model"] = str(model)
    if path.stem in RESIZED:
        recipe["start"]["surgery"]["image_size"] = IMAGE_SIZE
    recipe["data"]["path"] = str(data)
    recipe["batch"] = {"size": 8, "accumulation": 2}
    recipe["budget"] = {"steps": 3}
    recipe["precision"] = "fp32"
    if path.stem == "retrieval":
        recipe["evaluation"]["tasks"]["retrieval"]["rerank"] = 4
    return validate_recipe(recipe)


@pytest.mark.parametrize("path", RECIPES, ids=ids)
def test_a_recipe_warms_up_within_its_training(path: Path) -> None:
    recipe = load_recipe(path)
    assert isinstance(recipe.start, SavedStart)
    assert recipe.schedule.warmup_share == 0.1
    assert set(select_tasks(recipe, default_registry()).trained) >= set(recipe.start.surgery.add_tasks)


def test_there_is_a_recipe_for_each_kind_of_task() -> None:
    assert {path.stem for path in RECIPES} == set(LAYOUTS)


@pytest.mark.parametrize("path", RECIPES, ids=ids)
def test_a_recipe_runs_and_measures_what_it_says(
    path: Path, corpora: Path, pretrained: Callable[[str], Path], tmp_path: Path, cache: Path
) -> None:
    recipe = small(path, pretrained(path.stem), corpora / LAYOUTS[path.stem])
    run = renaissance.run(recipe, out=tmp_path / "run")
    rows = [row for row in run.scores["scores"] if row["model"] == "trained"]
    assert {row["split"] for row in rows} == set(recipe.data.splits)  # type: ignore[union-attr]  # data are prepared
    assert all(row["n"] > 0 and row["low"] <= row["value"] <= row["high"] and row["chance"] >= 0 for row in rows)
    blind = {(row["split"], row["name"]) for row in run.scores["scores"] if row["model"] == "blind"}
    told = {(row["split"], row["name"]) for row in rows}
    assert blind == (told if recipe.evaluation.blind else set())


def test_the_predictions_of_a_run_can_be_written(
    corpora: Path, pretrained: Callable[[str], Path], tmp_path: Path, cache: Path
) -> None:
    recipe = small(FOLDER / "vqav2.yaml", pretrained("vqav2"), corpora / "vqav2")
    run = renaissance.run(recipe, out=tmp_path / "run")
    command = ("evaluate", str(run.folder), "--data", str(corpora / "vqav2"), "--split", "val")
    assert main((*command, "--predictions", str(tmp_path / "predictions"))) == 0
    rows = json.loads((tmp_path / "predictions" / "val-vqa.json").read_text())
    asked = {int(item.id) for item in Prepared(corpora / "vqav2").items("val")}
    assert {row["question_id"] for row in rows} == asked
    assert {row["answer"] for row in rows} <= {"no", "yes"}


def test_the_recipe_of_vqa_is_printed_with_the_answers_of_the_data(corpora: Path) -> None:
    known = answers.with_answers(FOLDER / "vqav2.yaml", corpora / "vqav2", 1)
    labels = known.tasks["vqa"].options["labels"]
    assert {"no", "yes", "2", "red", "circle"} <= set(labels)
    assert len(set(labels)) == len(labels)
    assert set(answers.answers(corpora / "vqav2", 9)) < set(labels)


def unaided(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without what stands beside its score: that of the twin."""
    return {name: value for name, value in row.items() if name != "blind"}


def test_a_twin_changes_nothing_of_the_model_that_it_is_a_twin_of(
    corpora: Path, pretrained: Callable[[str], Path], tmp_path: Path, cache: Path
) -> None:
    recipe = small(FOLDER / "snli-ve.yaml", pretrained("snli-ve"), corpora / "snli-ve")
    without = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"blind": None})})
    both, alone = (renaissance.run(one, out=tmp_path / str(n)) for n, one in enumerate((recipe, without)))
    trained = [row for row in both.scores["scores"] if row["model"] == "trained"]
    assert [unaided(row) for row in trained] == [unaided(row) for row in alone.scores["scores"]]
    weights = [load_file(run.model_folder / "model.safetensors") for run in (both, alone)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[1])


def test_a_run_that_was_stopped_while_its_twin_trained_is_resumed(
    corpora: Path,
    pretrained: Callable[[str], Path],
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = small(FOLDER / "snli-ve.yaml", pretrained("snli-ve"), corpora / "snli-ve")
    recipe = recipe.model_copy(update={"checkpoint_every": 1})
    whole = renaissance.run(recipe, out=tmp_path / "whole")
    done: list[int] = []

    def update(*arguments: Any, **options: Any) -> Any:
        if len(done) == 5:  # three updates of the model, two of its twin
            raise KeyboardInterrupt
        done.append(1)
        return real_update(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "update", update)
        with pytest.raises(KeyboardInterrupt):
            renaissance.run(recipe, out=tmp_path / "stopped")
    resumed = renaissance.run(recipe, out=tmp_path / "stopped", resume=True)
    assert resumed.scores["scores"] == whole.scores["scores"]
    lines = (tmp_path / "stopped" / "blind" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [3]


def test_a_twin_of_a_model_that_learns_from_captions_searches_among_as_many_images(
    corpora: Path, pretrained: Callable[[str], Path], tmp_path: Path, cache: Path
) -> None:
    recipe = small(FOLDER / "retrieval.yaml", pretrained("retrieval"), corpora / "flickr30k")
    blind = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"blind": "vision"})})
    run = renaissance.run(blind, out=tmp_path / "run")
    sizes: dict[str, dict[tuple[str, str], tuple[int, float]]] = {}
    for row in run.scores["scores"]:
        if row["split"] == "test":
            sizes.setdefault(row["model"], {})[row["task"], row["name"]] = (row["n"], row["chance"])
    assert sizes["blind"] == sizes["trained"]


def test_data_that_are_given_take_the_place_of_the_recipes_own(corpora: Path) -> None:
    recipe = as_recipe(FOLDER / "nlvr2.yaml", data=corpora / "nlvr2")
    assert recipe.data == PreparedData(path=str(corpora / "nlvr2"), splits=("dev", "test1"))


# --- sight ----------------------------------------------------------------------------------------------------------


def test_there_is_a_recipe_of_the_world_for_each_of_these() -> None:
    starts = {blind.pretraining_of(name) for name in blind.LAYOUTS} - {None}
    assert {path.stem for path in (FOLDER / "world").glob("*.yaml")} == {*blind.LAYOUTS, *starts}
    assert {name.removesuffix("+") for name in blind.LAYOUTS} == set(LAYOUTS)


@pytest.mark.parametrize("name", blind.LAYOUTS)
def test_a_recipe_of_the_world_says_which_score_counts_and_what_its_twin_lacks(name: str) -> None:
    recipe = load_recipe(FOLDER / "world" / f"{name}.yaml")
    assert recipe.evaluation.primary is not None
    assert recipe.evaluation.blind is not None


def outcome(trained: float, twin: float, items: int) -> blind.Outcome:
    return blind.Outcome("vqav2", "vision", "VQA score, val", items, 40.0, {0: 90.0, 1: trained}, {0: 40.0, 1: twin})


def test_each_seed_must_be_ten_points_better_on_a_thousand_items() -> None:
    assert outcome(50.0, 40.0, 1000).sees
    assert not outcome(49.9, 40.0, 1000).sees
    assert not outcome(50.0, 40.0, 999).sees


def write_run(folder: Path, name: str, seed: int, trained: float, twin: float) -> None:
    recipe = load_recipe(FOLDER / "world" / f"{name}.yaml")
    split, task, score = str(recipe.evaluation.primary).split("/")
    row = {"split": split, "task": task, "name": score, "n": 1200, "chance": 50.0}
    rows = [{**row, "model": "trained", "value": trained}, {**row, "model": "blind", "value": twin}]
    run = blind.run_of(name, folder, seed)
    run.mkdir(parents=True)
    (run / "scores.json").write_text(json.dumps({"scores": [{**row, "model": "trained", "name": "loss"}, *rows]}))
    found = blind.settings(FOLDER / "world" / f"{name}.yaml", folder / "prepared" / name, folder / "start", seed)
    (run / "recipe.yaml").write_text(recipe_text(validate_recipe(found)))


def test_the_page_of_blind_twins_tells_which_seeds_there_are_and_what_was_not_run(tmp_path: Path) -> None:
    write_run(tmp_path, "nlvr2", 0, 66.25, 50.0)
    write_run(tmp_path, "nlvr2", 2, 64.0, 51.5)
    text = blind.page(tmp_path)
    (row,) = (line for line in text.splitlines() if line.startswith("| `nlvr2`"))
    told = ["`nlvr2` (vision)", "accuracy, test1", "1,200", "50.0", "0, 2", "66.2 / 64.0", "50.0 / 51.5", "12.5"]
    assert [cell.strip() for cell in row.strip("|").split("|")] == told
    others = ", ".join(f"`{name}`" for name in blind.LAYOUTS if name != "nlvr2")
    assert f"Not run for this page: {others}." in text


def test_a_run_that_is_there_is_not_trained_again(tmp_path: Path) -> None:
    write_run(tmp_path, "refcoco+", 0, 70.0, 40.0)
    blind.train("refcoco+", tmp_path, tmp_path / "no-data", 0)


@pytest.mark.parametrize("damage", [{"budget": {"steps": 7}}, None])
def test_a_run_of_another_recipe_is_neither_kept_nor_told(damage: dict[str, Any] | None, tmp_path: Path) -> None:
    write_run(tmp_path, "refcoco+", 0, 70.0, 40.0)
    file = blind.run_of("refcoco+", tmp_path, 0) / "recipe.yaml"
    changed = None if damage is None else validate_recipe({**load_recipe(file).dump(), **damage})
    file.write_text("" if changed is None else recipe_text(changed))
    for again in (lambda: blind.train("refcoco+", tmp_path, tmp_path, 0), lambda: blind.page(tmp_path)):
        with pytest.raises(
            SystemExit, match=r"refcoco\+-0' is no run of the recipe 'refcoco\+' as it is now. Remove it"
        ):
            again()


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Expressions of RefCOCO+, about 1,100 of them to be measured on."""
    root = tmp_path_factory.mktemp("references")
    write_world(root / "world", 1200, 0, layouts=("refcoco+",), image_size=64)
    prepare("refcoco+", root / "world" / "refcoco+", root / "prepared")
    return root / "prepared"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_model_that_learns_which_thing_is_meant_beats_its_blind_twin_by_ten_points(
    seed: int, references: Path, tmp_path: Path, cache: Path
) -> None:
    recipe = {
        "start": "tiny-vit(layers=2, width=64, heads=2, mlp_width=128, image_size=32, patch_size=8), one-tower, "
        "random encoder",
        "tasks": {"referring": {}},
        "data": {"kind": "prepared", "path": str(references), "splits": ["val"]},
        "batch": {"size": 48},
        "budget": {"steps": 200},
        "optimiser": {"lr": 0.003, "fusion_multiplier": 1.0, "head_multiplier": 1.0},
        "schedule": {"decay": "cosine"},
        "evaluation": {"untrained": False, "blind": "text"},
        "seed": seed,
    }
    run = renaissance.run(recipe, out=tmp_path / "run")
    found = {(row["model"], row["name"]): row for row in run.scores["scores"]}
    trained, twin = (found[model, "gt-choice accuracy"] for model in ("trained", "blind"))
    assert trained["n"] == twin["n"] >= 1000
    assert trained["value"] - twin["value"] >= 10
    assert twin["low"] <= twin["chance"] + 5  # the texts alone, or the candidates alone, tell nothing


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_every_recipe_of_the_world_beats_its_blind_twin_by_ten_points(tmp_path: Path, cache: Path) -> None:
    root = blind.world(tmp_path)
    for name, seed in product(blind.LAYOUTS, blind.SEEDS):
        blind.train(name, tmp_path, root, seed)
    outcomes = [blind.outcome(name, tmp_path) for name in blind.LAYOUTS]
    assert [one.row() for one in outcomes if not one.sees] == []
