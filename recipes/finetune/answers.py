"""Print the recipe of VQAv2 with the answers of prepared data as its labels.

python recipes/finetune/answers.py PREPARED [--minimum 9] [--recipe FILE] > my-vqav2.yaml

The answers are the commonest ones of questions of train and val, normalised, that are given `minimum` times or more:
3,129 for VQAv2.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from renaissance.data.prepared import Prepared
from renaissance.recipe import Recipe, load_recipe, validate_recipe
from renaissance.toolkit.vqa import vocabulary

RECIPE = Path(__file__).parent / "vqav2.yaml"
SPLITS = ("train", "val")


def answers(folder: Path, minimum: int) -> tuple[str, ...]:
    """Return the answers of the prepared data."""
    prepared = Prepared(folder)
    splits = [split for split in SPLITS if split in prepared.splits]
    given = (item.label for split in splits for item in prepared.items(split))
    return tuple(vocabulary([answer for answer in given if answer is not None], minimum=minimum))


def with_answers(recipe: Path, folder: Path, minimum: int) -> Recipe:
    """Return the recipe with these data and their answers."""
    found = load_recipe(recipe).dump()
    found["data"]["path"] = str(folder)
    found["tasks"]["vqa"]["options"]["labels"] = list(answers(folder, minimum))
    return validate_recipe(found)


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(description="Print the recipe of VQAv2 with the answers of prepared data.")
    parser.add_argument("prepared", type=Path)
    parser.add_argument("--minimum", type=int, default=9)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    arguments = parser.parse_args()
    recipe = with_answers(arguments.recipe, arguments.prepared, arguments.minimum)
    print(yaml.safe_dump(recipe.dump(), sort_keys=False, allow_unicode=True), end="")


if __name__ == "__main__":
    main()
