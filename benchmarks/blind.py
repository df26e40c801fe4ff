"""Each recipe for fine-tuning on a generated world: the trained model beside its blind twin, three seeds.

python benchmarks/blind.py [--folder FOLDER] [--only RECIPE ...]

Writes docs/blind.md, and fails where a model is not 10 points better than its twin, or fewer than 1,000 items were
measured, but for the recipes of which this has not been shown yet. A folder keeps the world, the pretrained model and
the runs; what is there already is not done again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paired import table
from small_world import CAPTIONS, RECIPES, pretrained, settings, write

import renaissance
from renaissance.recipe import load_recipe

# the corpus that each recipe is run on
LAYOUTS = {
    "vqav2": "vqav2",
    "nlvr2": "nlvr2",
    "snli-ve": "snli-ve",
    "refcoco+": "refcoco+",
    "retrieval": "flickr30k",
    "glue": "glue",
    "cifar-10": "image-classification",
}
# the recipes were tuned on the world of seed 1
SCENES, WORLD_SEED = 8000, 7
SEEDS = (0, 1, 2)
POINTS, ITEMS = 10, 1000
# what has not been shown to be so much better yet (docs/finetuning.md says what was tried): measured, and no failure
UNSHOWN = ("nlvr2", "snli-ve")
PAGE = Path(__file__).parents[1] / "docs" / "blind.md"
HEADER = ("recipe", "score", "items", "chance", "trained", "blind twin", "least difference")
TEXT = """# Blind twins

Does a fine-tuned model look, or read, at all? Each recipe of `recipes/finetune/world/` trains a model and its blind
twin, which sees other items' images (vision) or reads other items' texts (text), from the same start, on a generated
world of {scenes:,} scenes. Scores are those of seeds {seeds}; an item of retrieval is a caption, or an image,
that is searched with. `make blind` trains all of them and writes this page; it fails if one is not {points} points
above its twin on {items:,} items, with each seed, but for {unshown}, of which this has not been shown yet.

{table}

The recipes were tuned on another world. {from_pretrained} start from the model of `pretraining.yaml` ({pretraining}),
the others from scratch, or from a frozen EfficientNet-Lite0 of ImageNet. GLUE is MRPC, made of captions: do two of them
tell of the same picture? CIFAR-10 is the world's image classification, by shape.
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The score that counts of a recipe, of the model and of its twin by seed, in percent."""

    recipe: str
    blind: str
    score: str
    items: int
    chance: float
    trained: Mapping[int, float]
    twin: Mapping[int, float]

    @property
    def least(self) -> float:
        """The least difference of a seed."""
        return min(self.trained[seed] - self.twin[seed] for seed in self.trained)

    @property
    def sees(self) -> bool:
        """Whether the model is better than its twin, by enough and on enough."""
        return self.least >= POINTS and self.items >= ITEMS

    def row(self) -> list[str]:
        """Return its row of the table."""
        scores = [" / ".join(f"{value:.1f}" for value in model.values()) for model in (self.trained, self.twin)]
        told = f"`{self.recipe}` ({self.blind})", self.score, f"{self.items:,}", f"{self.chance:.1f}"
        return [*told, *scores, f"{self.least:.1f}"]


def world(folder: Path, layouts: Iterable[str], *, scenes: int = SCENES) -> Path:
    """Return the folder of prepared corpora, which are made if they are not there."""
    if not (folder / "prepared").is_dir():
        write(folder, scenes, WORLD_SEED, [CAPTIONS, *layouts])
    return folder / "prepared"


def finished(run: Path) -> Mapping[str, Any] | None:
    """Return the scores of a run, if it is there and done."""
    file = run / "scores.json"
    return json.loads(file.read_text()) if file.is_file() else None


def pretrained_first(name: str) -> bool:
    """Return whether a recipe starts from the pretrained model."""
    return "model" in load_recipe(RECIPES / f"{name}.yaml").dump()["start"]


def start_of(folder: Path, root: Path) -> Path:
    """Return the pretrained model, which is trained if it is not there."""
    run = folder / "runs" / "pretraining"
    return run if finished(run) else pretrained(root, run)


def outcome(name: str, folder: Path, root: Path, model: Path, seeds: Sequence[int] = SEEDS) -> Outcome:
    """Train a recipe with each seed, beside its twin; return the score that counts."""
    found: dict[str, dict[int, dict[str, Any]]] = {"trained": {}, "blind": {}}
    for seed in seeds:
        recipe = settings(RECIPES / f"{name}.yaml", root / LAYOUTS[name], model, seed)
        run = folder / "runs" / f"{name}-{seed}"
        scores = finished(run) or renaissance.run(recipe, out=run).scores
        for row in scores["scores"]:
            if f"{row['split']}/{row['task']}/{row['name']}" == recipe["evaluation"]["primary"]:
                found[row["model"]][seed] = row
    values = {model: {seed: row["value"] for seed, row in rows.items()} for model, rows in found.items()}
    one = found["trained"][seeds[0]]
    score = f"{one['name']}, {one['split']}"
    return Outcome(
        name, recipe["evaluation"]["blind"], score, one["n"], one["chance"], values["trained"], values["blind"]
    )


def page(outcomes: Sequence[Outcome], pretraining: Mapping[str, Any]) -> str:
    """Return the page."""
    measured = [row for row in pretraining["scores"] if row["name"] in ("accuracy", "R@10")]
    told = ", ".join(f"{row['task']} {row['name']} {row['value']:.1f}" for row in measured)
    updates = f"{pretraining['training']['updates']:,} updates"
    return TEXT.format(
        scenes=SCENES,
        seeds=", ".join(map(str, SEEDS)),
        points=POINTS,
        items=ITEMS,
        unshown=" and ".join(f"`{name}`" for name in UNSHOWN),
        table=table(HEADER, [one.row() for one in outcomes]),
        from_pretrained=", ".join(f"`{name}`" for name in LAYOUTS if pretrained_first(name)),
        pretraining=f"{updates}, {told}",
    )


def main() -> None:
    """Train, print and write the page.

    Raises:
        SystemExit: a model is not enough better than its twin.
    """
    parser = argparse.ArgumentParser(description="Recipes of the generated world: trained models beside blind twins.")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", nargs="*", choices=list(LAYOUTS), default=list(LAYOUTS))
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        root = world(folder, LAYOUTS.values())
        model = start_of(folder, root) if any(map(pretrained_first, arguments.only)) else folder
        outcomes = [outcome(name, folder, root, model) for name in arguments.only]
        pretraining = finished(model)
    print(table(HEADER, [one.row() for one in outcomes]))
    if arguments.only == list(LAYOUTS) and pretraining is not None:
        PAGE.write_text(page(outcomes, pretraining), encoding="utf-8")
    short = [one.recipe for one in outcomes if not one.sees and one.recipe not in UNSHOWN]
    if short:
        raise SystemExit(f"Not {POINTS} points better than the blind twin: {', '.join(short)}.")


if __name__ == "__main__":
    main()
