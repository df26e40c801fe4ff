"""A generated world in the published layouts, and a small model that read its captions: what tasks are tried on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import renaissance
from renaissance.data.prepare import prepare
from renaissance.data.prepared import Prepared
from renaissance.data.world.build import write_world
from renaissance.recipe import load_recipe

RECIPES = Path(__file__).parents[1] / "recipes" / "finetune" / "world"
PRETRAINING = RECIPES / "pretraining.yaml"
CAPTIONS = "coco-captions"
GLUE = "glue"
IMAGE_SIZE = 64


def write(folder: Path, scenes: int, seed: int, layouts: Sequence[str]) -> Path:
    """Generate a world and prepare some of its layouts; return the folder of the prepared ones.

    "glue" is GLUE's MRPC, made of the captions.
    """
    of_world = [layout for layout in layouts if layout != GLUE]
    write_world(folder / "world", scenes, seed, layouts=of_world, image_size=IMAGE_SIZE)
    for layout in of_world:
        prepare(layout, folder / "world" / layout, folder / "prepared" / layout)
    if GLUE in layouts:
        write_paraphrases(folder / "prepared" / CAPTIONS, folder / "world" / GLUE / "MRPC")
        prepare(GLUE, folder / "world" / GLUE, folder / "prepared" / GLUE)
    return folder / "prepared"


def pretraining_of(name: str) -> str | None:
    """Return the recipe of the model that a recipe of the world starts from; None: it starts from none."""
    start = load_recipe(RECIPES / f"{name}.yaml").dump()["start"]
    return Path(start["model"]).name.removeprefix("world-") if "model" in start else None


def pretrained(
    root: Path,
    out: Path,
    *,
    recipe: Path = PRETRAINING,
    seed: int = 0,
    steps: int | None = None,
    batch: int | None = None,
) -> Path:
    """Train a recipe on the prepared captions, by default pretraining.yaml; return the folder of the run.

    A run that was stopped goes on.
    """
    found = load_recipe(recipe).dump()
    found["data"]["path"] = str(root / CAPTIONS)
    return renaissance.run(shortened({**found, "seed": seed}, steps, batch), out=out, resume=out.is_dir()).folder


def shortened(recipe: dict[str, Any], steps: int | None, batch: int | None) -> dict[str, Any]:
    """Return a recipe with so many updates, and samples in each; None: as many as it says."""
    changes = {"budget": {"steps": steps}} if steps else {}
    return recipe | changes | ({"batch": {"size": batch}} if batch else {})


def write_paraphrases(captions: Path, out: Path) -> None:
    """Write captions as MRPC is published: half of the pairs tell of one picture, the others of two.

    Each caption of a picture stands in as many pairs of the one kind as of the other, so that neither tells the label.
    """
    out.mkdir(parents=True)
    for split, name in (("train", "train"), ("val", "dev")):
        rows = [f"{label}\t{n}\t{n}\t{one}\t{two}" for n, (label, one, two) in enumerate(_paired(captions, split))]
        lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", *rows]
        (out / f"{name}.tsv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _paired(captions: Path, split: str) -> Iterator[tuple[int, str, str]]:
    told = [item.texts for item in Prepared(captions).items(split)]
    for number, (first, *others) in enumerate(told):
        yield 1, first, others[0]
        yield 0, first, told[(number + 1) % len(told)][1]


def settings(recipe: Path, data: Path, model: Path, seed: int) -> dict[str, Any]:
    """Return a recipe of the world with its data, its seed, and, where it starts from a saved one, its model.

    What it stores of frozen towers lies beside the folder of the prepared data.
    """
    found = load_recipe(recipe).dump()
    found["data"]["path"] = str(data)
    if "model" in found["start"]:
        found["start"]["model"] = str(model)
    if found["store"]:
        found["store"]["folder"] = str(data.parents[1] / "features")
    return {**found, "seed": seed}
