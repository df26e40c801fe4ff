"""Train the zoo: two towers, then every model that starts from them, all by the recipes of recipes/zoo/.

python benchmarks/zoo.py [--folder FOLDER] [--only NAME ...] [--twice] [--pictures FOLDER]

Writes the towers' weights, renaissance/model_cards/, and the tables of docs/zoo.md; fails where a model is not three
standard deviations above its untrained twin. `--twice` trains each model again, and tells whether it is the same to
the bit. What is done is not done again, until the recipe, its pictures, the towers or the code of renaissance change.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from paired import table
from safetensors.torch import save as serialised
from zoo_data import write_data

import renaissance
from renaissance.builtin import towers
from renaissance.card import write_card
from renaissance.container import load, save
from renaissance.cost import cost
from renaissance.durable import sha256_of
from renaissance.features.keys import content_digest
from renaissance.recipe import Recipe, load_recipe
from renaissance.recipe.data import ImagesData
from renaissance.zoo import COUNTED, FOLDER, ORGANISATION, TWICE, Card, cards

ROOT = Path(__file__).parents[1]
RECIPES, PAGE = ROOT / "recipes" / "zoo", ROOT / "docs" / "zoo.md"
TOWERS = ("tiny-vit", "tiny-bert")
PICTURES = ROOT.parent / "shared" / "data" / "pictures"
ABOVE = 3.0  # standard deviations that a model is above its untrained twin
LARGEST = 3_000_000  # bytes of weights
HEADER = (
    "model", *(name for name, _ in COUNTED), "twin's", "deviations above it", "numbers", "MB", "GFLOP", "seconds",
    "same bits twice",
)  # fmt: skip
PAPER = ("recipe", "spec", "parameters, M", "trained, M", "updates", "batch", "EFLOP")


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where models are trained: a folder with the data, the runs, and what each of them was made of."""

    folder: Path
    pictures: Path

    def trained(self, recipe: Path, name: str, *, made_of: str) -> Path:
        """Return the run of a recipe, which is trained unless it is there and made of the same."""
        run, mark = self.folder / "runs" / name, self.folder / "runs" / f"{name}.made-of"
        chosen = load_recipe(recipe)
        data = self._data(chosen)
        if data is not None:
            made_of += digest(path for path in self.pictures.rglob("*") if path.is_file())
        if not (run / "scores.json").is_file() or not mark.is_file() or mark.read_text() != made_of:
            shutil.rmtree(run, ignore_errors=True)
            renaissance.run(chosen, out=run, data=data)
            mark.write_text(made_of)
        return run

    def _data(self, recipe: Recipe) -> str | None:
        """Return where pictures are, by the name that the recipe has for them: no path of this machine is kept."""
        if not isinstance(recipe.data, ImagesData):
            return None
        here = self.folder / str(recipe.data.path)
        if here.is_symlink():  # maybe to the pictures of another time
            here.unlink()
        here.symlink_to(self.pictures.resolve())
        return recipe.data.path


def code() -> str:
    """Return a digest of all that renaissance is written in."""
    return digest(path for path in Path(renaissance.__file__).parent.rglob("*.py"))


def digest(paths: Iterable[Path]) -> str:
    """Return a digest of the contents of files."""
    return content_digest("".join(map(sha256_of, sorted(paths))))


# --- towers -----------------------------------------------------------------------------------------------------------


def train_towers(shop: Workshop) -> str:
    """Train both towers and write their weights into the package; return a digest of these."""
    for name in TOWERS:
        recipe = RECIPES / "towers" / f"{name}.yaml"
        run = shop.trained(recipe, name, made_of=digest([recipe]) + code())
        encoder: Any = load(run / "model").encoder
        tower = encoder.vision if name == "tiny-vit" else encoder.text
        state = {key: tensor.half().contiguous() for key, tensor in tower.state_dict().items()}
        (towers.FOLDER / f"{name}.safetensors").write_bytes(serialised(state))
    return digest(towers.FOLDER.glob("*.safetensors"))


# --- models -----------------------------------------------------------------------------------------------------------


def train_model(shop: Workshop, name: str, made_of: str, *, twice: bool) -> Card:
    """Train a model and save it where it ships; with `twice`, train it again and note what came of it."""
    recipe = RECIPES / f"{name}.yaml"
    made_of = digest([recipe]) + made_of
    run = shop.trained(recipe, name, made_of=made_of)
    card = saved(run, name)
    if twice:
        again = shop.trained(recipe, f"{name}-again", made_of=made_of)
        note(name, [sha256_of(place / "model" / "model.safetensors") for place in (run, again)], run)
    return card


def saved(run: Path, name: str) -> Card:
    """Save the model of a run in fp16, with its card, without the towers that other packages ship."""
    assembly = load(run / "model", verify=False)  # a run that was kept may have the self-test of older code
    extra = {file: (run / file).read_bytes() for file in ("recipe.yaml", "scores.json", "ledger.json")}
    save(assembly, FOLDER / name, extra=extra, dtype="float16", trained_only=bool(assembly.plan.plugins))
    card = Card(name, FOLDER / name)
    # what was drawn here is ours to license; pictures are their owners'
    write_card(card.folder, repo=f"{ORGANISATION}/{name}", licence="apache-2.0" if card.drawn else None)
    return card


def note(name: str, weights: list[str], run: Path) -> None:
    """Note whether two trainings gave the same weights, and on which machine."""
    known = json.loads(TWICE.read_text(encoding="utf-8")) if TWICE.is_file() else {}
    machine = json.loads((run / "ledger.json").read_text(encoding="utf-8"))["machine"]
    known[name] = {"same": len(set(weights)) == 1, "sha256": weights[0], "machine": machine}
    TWICE.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n", encoding="utf-8")


def row(card: Card) -> list[str]:
    """Return a model's row of the table."""
    found = [(card.score(key), card.score(key, model="untrained"), card.deviations(key)) for _, key in COUNTED]
    scores = ["" if one is None else f"{one['value']:.1f} [{one['low']:.1f}, {one['high']:.1f}]" for one, _, _ in found]
    twins = ", ".join(f"{twin['value']:.1f}" for _, twin, _ in found if twin is not None)
    above = ", ".join(f"{deviations:.0f}" for _, _, deviations in found if deviations is not None)
    sizes = [f"{card.parameters:,}", f"{card.size / 1e6:.2f}", f"{card.flops / 1e9:,.0f}", f"{card.seconds:.0f}"]
    return [f"`{card.name}`", *scores, twins, above, *sizes, {True: "yes", False: "NO", None: ""}[card.same_twice]]


def short(card: Card) -> list[str]:
    """Return what a model falls short of."""
    above = [(name, card.deviations(key)) for name, key in COUNTED]
    low = [f"{name} is {value:.1f} deviations above" for name, value in above if value is not None and value < ABOVE]
    large = [f"{card.size:,} bytes"] if card.size > LARGEST else []
    return [*low, *large, *(["another on the second run"] if card.same_twice is False else [])]


# --- the page ---------------------------------------------------------------------------------------------------------


def paper_row(path: Path) -> list[str]:
    """Return what a recipe of the paper's full size costs, counted without weights."""
    recipe = load_recipe(path)
    found = cost(recipe.start, list(recipe.tasks))
    updates, batch = recipe.budget.steps or 0, recipe.batch.size
    whole = found.flops.training / found.batch * batch * updates
    sizes = [f"{found.parameters.total / 1e6:,.2f}", f"{found.parameters.trainable / 1e6:,.2f}"]
    start = yaml.safe_load(path.read_text(encoding="utf-8"))["start"]  # as it is written; a recipe has its parts
    return [f"`{path.stem}`", f"`{start}`", *sizes, f"{updates:,}", str(batch), f"{whole / 1e18:,.2f}"]


def filled(text: str, name: str, rows: str) -> str:
    """Return a page with another table between its marks.

    Raises:
        SystemExit: the page has no such marks.
    """
    begins, ends = f"<!-- rows: {name} -->\n", "<!-- /rows -->"
    before, begun, rest = text.partition(begins)
    _, ended, after = rest.partition(ends)
    if not begun or not ended:
        raise SystemExit(f"The page has no table '{name}'. Put it between '{begins.strip()}' and '{ends}'.")
    return f"{before}{begins}{rows}\n{ends}{after}"


def write_page() -> None:
    """Write the tables of docs/zoo.md from what lies beside the models, and from the paper's recipes."""
    text = PAGE.read_text(encoding="utf-8")
    text = filled(text, "zoo", table(HEADER, [row(card) for card in cards()]))
    paper = [paper_row(path) for path in sorted((RECIPES / "paper").glob("*.yaml"))]
    PAGE.write_text(filled(text, "paper", table(PAPER, paper)), encoding="utf-8")


def main() -> None:
    """Train what is not trained yet, print a row for each model, and write the page.

    Raises:
        SystemExit: a model is not far enough above its twin, too large, or another on the second run.
    """
    names = sorted(path.stem for path in RECIPES.glob("*.yaml"))
    parser = argparse.ArgumentParser(description="Train the models that ship with renaissance.")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "zoo", help="where data and runs lie")
    parser.add_argument("--only", nargs="*", choices=names, default=names)
    parser.add_argument("--twice", action="store_true", help="train each model a second time")
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="the folder of real pictures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # with more, sums are added in another order from run to run
    arguments.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(arguments.folder)
    write_data(Path("zoo"))
    shop = Workshop(Path(), arguments.pictures)
    made_of = train_towers(shop) + code()
    found = [train_model(shop, name, made_of, twice=arguments.twice) for name in arguments.only]
    print(table(HEADER, [row(card) for card in found]))
    write_page()
    faults = [f"{card.name}: {fault}" for card in found for fault in short(card)]
    if faults:
        raise SystemExit("\n".join(faults))


if __name__ == "__main__":
    main()
