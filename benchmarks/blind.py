"""Each recipe for fine-tuning on a generated world: the trained model beside its blind twin, three seeds.

python benchmarks/blind.py [--folder FOLDER] [--only RECIPE ...] [--seeds SEED ...] [--write]

Fails where a model is not 10 points better than its twin, or fewer than 1,000 items were measured. A folder keeps the
worlds, the pretrained models and the runs; what is there already is not done again, and a run of a recipe that was
changed since is refused. `--write` writes docs/blind.md of all finished runs of the folder, and says what is missing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from paired import table
from small_world import CAPTIONS, RECIPES, pretrained, pretraining_of, settings, write

import renaissance
from renaissance.errors import SpecError
from renaissance.recipe import Recipe, load_recipe
from renaissance.training.folder import RECIPE

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
# what is measured on; the recipes were tuned on the other one, whose captions the pretrained models read
SCENES, WORLD_SEED = 6000, 7
CAPTION_SCENES, CAPTION_SEED = 10_000, 1
SEEDS = (0, 1, 2)
POINTS, ITEMS = 10, 1000
UNTOLD = ("name", "seed", "workers", "checkpoint_every")
PAGE = Path(__file__).parents[1] / "docs" / "blind.md"
HEADER = ("recipe", "score", "items", "chance", "seeds", "trained", "blind twin", "least difference")
TEXT = """# Blind twins

Does a fine-tuned model look, or read, at all? Each recipe of `recipes/finetune/world/` trains a model and its blind
twin, which sees other items' images (vision) or reads other items' texts (text), from the same start, on a generated
world of {scenes:,} scenes; an item of retrieval is a caption, or an image, that is searched with. `make blind` trains
all of them with the seeds {seeds} and writes this page; it fails if one is not {points} points above its twin on
{items:,} items, with each seed.

{table}

{missing}The recipes were tuned on another world, whose captions the pretrained models read. GLUE is MRPC, made of
captions: do two of them tell of the same picture? CIFAR-10 is the world's image classification, by shape.

{pretraining}
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
        return [*told, ", ".join(map(str, self.trained)), *scores, f"{self.least:.1f}"]


def world(folder: Path) -> Path:
    """Return the folder of the prepared corpora to fine-tune on, which are made if they are not there."""
    if not (folder / "prepared").is_dir():
        write(folder, SCENES, WORLD_SEED, [CAPTIONS, *LAYOUTS.values()])
    return folder / "prepared"


def finished(run: Path, name: str) -> Mapping[str, Any] | None:
    """Return the scores of a run of a recipe, if it is there and done.

    Raises:
        SystemExit: it is of another recipe, whatever its seed, or of the same before it was changed.
    """
    file = run / "scores.json"
    if not file.is_file():
        return None
    try:
        same = placeless(load_recipe(run / RECIPE)) == placeless(load_recipe(RECIPES / f"{name}.yaml"))
    except SpecError:  # none, or one that is no longer read
        same = False
    if not same:
        raise SystemExit(
            f"'{run}' is no run of the recipe '{name}' as it is now. Remove it, and the runs that started from it, or "
            "choose another --folder."
        )
    return json.loads(file.read_text())


def placeless(recipe: Recipe) -> dict[str, Any]:
    """Return what a recipe says, but for its seed, where its data, start and store are, and what no score shows.

    How often it is saved, and by how many processes its data are read, changes nothing; `primary` is read anew.
    """
    found = {key: value for key, value in recipe.dump().items() if key not in UNTOLD}
    for section, key in (("data", "path"), ("start", "model"), ("store", "folder"), ("evaluation", "primary")):
        if found[section]:
            found[section].pop(key, None)
    return found


def start_of(name: str, folder: Path) -> Path:
    """Return the model that a recipe starts from, which is trained if it is not there; the folder, if from none."""
    pretraining = pretraining_of(name)
    if pretraining is None:
        return folder
    run = folder / "runs" / pretraining
    if finished(run, pretraining) is None:
        captions = folder / "captions"
        if not (captions / "prepared").is_dir():
            write(captions, CAPTION_SCENES, CAPTION_SEED, [CAPTIONS])
        pretrained(captions / "prepared", run, recipe=RECIPES / f"{pretraining}.yaml")
    return run


def run_of(name: str, folder: Path, seed: int) -> Path:
    """Return the folder of a run."""
    return folder / "runs" / f"{name}-{seed}"


def train(name: str, folder: Path, root: Path, seed: int) -> None:
    """Train a recipe beside its twin, if this is not done; a run that was stopped goes on."""
    run = run_of(name, folder, seed)
    if finished(run, name) is None:
        recipe = settings(RECIPES / f"{name}.yaml", root / LAYOUTS[name], start_of(name, folder), seed)
        renaissance.run(recipe, out=run, resume=run.is_dir())


def outcome(name: str, folder: Path) -> Outcome | None:
    """Return the score that counts of a recipe, with those seeds of which there are runs; None: there is none."""
    evaluation = load_recipe(RECIPES / f"{name}.yaml").dump()["evaluation"]
    found: dict[str, dict[int, dict[str, Any]]] = {"trained": {}, "blind": {}}
    for seed in SEEDS:
        scores = finished(run_of(name, folder, seed), name)
        for row in scores["scores"] if scores else ():
            if f"{row['split']}/{row['task']}/{row['name']}" == evaluation["primary"]:
                found[row["model"]][seed] = row
    if not found["trained"]:
        return None
    values = {model: {seed: row["value"] for seed, row in rows.items()} for model, rows in found.items()}
    one = next(iter(found["trained"].values()))
    score = f"{one['name']}, {one['split']}"
    return Outcome(name, evaluation["blind"], score, one["n"], one["chance"], values["trained"], values["blind"])


def pretraining_told(name: str, folder: Path) -> str | None:
    """Return what a pretrained model is, and how well it does; None: there is none."""
    scores = finished(folder / "runs" / name, name)
    if scores is None:
        return None
    measured = [row for row in scores["scores"] if row["model"] == "trained" and row["name"] in ("accuracy", "R@10")]
    told = ", ".join(f"{row['task']} {row['name']} {row['value']:.1f}" for row in measured)
    return f"- `{name}`: {scores['training']['updates']:,} updates of {scores['training']['batch_size']}; {told}"


def page(folder: Path) -> str:
    """Return the page of what has been run."""
    found = {name: outcome(name, folder) for name in LAYOUTS}
    missing = [f"`{name}`" for name, one in found.items() if one is None]
    starts = sorted({name for recipe in LAYOUTS if (name := pretraining_of(recipe)) is not None})
    told = [text for text in (pretraining_told(name, folder) for name in starts) if text is not None]
    return TEXT.format(
        scenes=SCENES,
        seeds=", ".join(map(str, SEEDS)),
        points=POINTS,
        items=ITEMS,
        table=table(HEADER, [one.row() for one in found.values() if one is not None]),
        missing=f"Not run for this page: {', '.join(missing)}.\n\n" if missing else "",
        pretraining="\n".join(told) or "No pretrained model was needed.",
    )


def main() -> None:
    """Train, print and write the page.

    Raises:
        SystemExit: a model is not enough better than its twin.
    """
    parser = argparse.ArgumentParser(description="Recipes of the generated world: trained models beside blind twins.")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", nargs="*", choices=list(LAYOUTS), default=list(LAYOUTS))
    parser.add_argument("--seeds", nargs="*", type=int, choices=SEEDS, default=SEEDS)
    parser.add_argument("--write", action="store_true", help="write docs/blind.md of all that the folder has")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        root = world(folder)
        for seed, name in product(arguments.seeds, arguments.only):
            train(name, folder, root, seed)
        outcomes = [one for name in arguments.only if (one := outcome(name, folder)) is not None]
        if arguments.write:
            PAGE.write_text(page(folder), encoding="utf-8")
    print(table(HEADER, [one.row() for one in outcomes]))
    short = [one.recipe for one in outcomes if not one.sees]
    if short:
        raise SystemExit(f"Not {POINTS} points better than the blind twin: {', '.join(short)}.")


if __name__ == "__main__":
    main()
