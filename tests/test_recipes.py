"""Every recipe in the repository can be run: it is valid, its names exist, and its parts fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from renaissance.errors import UnknownComponentError
from renaissance.recipe import BUILTIN_RECIPES, load_recipe
from renaissance.recipe.start import SavedStart
from renaissance.registry import default_registry
from renaissance.resolve import resolve
from renaissance.shorthand import parse_spec
from renaissance.uses import select_tasks

ROOT = Path(__file__).parent.parent
RECIPES = sorted([*(ROOT / "recipes").glob("*.yaml"), *BUILTIN_RECIPES.glob("*.yaml")])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_resolves(path: Path) -> None:
    recipe = load_recipe(path)
    assert not isinstance(recipe.start, SavedStart)
    tasks = select_tasks(recipe, default_registry())
    try:
        plan = resolve(recipe.start, tasks.options)
    except UnknownComponentError as error:
        if "pip install renaissance-plugin-packaged" in str(error):
            pytest.skip("the plugin 'packaged' is not installed")
        raise
    assert set(tasks.trained) <= set(plan.tasks)


def test_the_demo_is_what_it_says() -> None:
    recipe = load_recipe(BUILTIN_RECIPES / "demo.yaml")
    assert recipe.start == parse_spec("tiny-vit + tiny-bert, two-tower, random both, lxmert(layers=2, width=128)")
    assert list(recipe.tasks) == ["mlm", "itm", "itc"]
    assert recipe.name == "demo"


def test_the_control_of_the_pictures_differs_in_its_towers_alone() -> None:
    pictures, control = (load_recipe(ROOT / "recipes" / f"{name}.yaml") for name in ("pictures", "pictures-random"))
    towers = parse_spec(
        "packaged:efficientnet-lite0 + packaged:minilm, random both, frozen both, lxmert(layers=2, width=128)"
    )
    assert control == pictures.model_copy(update={"name": "pictures-random", "start": towers})
