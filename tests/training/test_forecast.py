"""What an update will take is known before the first, by how the recipe divides it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from renaissance.recipe import validate_recipe
from renaissance.registry import default_registry
from renaissance.training.course import batch_plan
from renaissance.training.forecast import Forecast, forecast
from renaissance.training.processes import Processes
from renaissance.training.samples import select_samples
from renaissance.training.start import start
from renaissance.uses import select_tasks

Recipes = Callable[..., dict[str, Any]]
WORDS = ("a cup", "a red cup on a table beside a tall green tree and a small white house")


@pytest.fixture
def foretold(tiny_recipe: Recipes, tmp_path: Any) -> Callable[..., Forecast]:
    """Return the forecast of a tiny recipe with such batches, of which two texts in four are long."""

    def of(captions: Sequence[Sequence[str]] = ((WORDS[0],), (WORDS[1],)), **batch: Any) -> Forecast:
        measured = {"tasks": {"itm": {}}, "untrained": False}
        recipe = validate_recipe(tiny_recipe(batch=batch, tasks={"itm": {}}, evaluation=measured))
        registry, tasks = default_registry(), select_tasks(recipe, default_registry())
        data = select_samples(recipe, items=False)
        for place, record in enumerate(data.train):
            object.__setattr__(record, "captions", tuple(captions[place // 2 % 2]))
        assembly, _ = start(recipe, tasks, registry, data.train)
        plan = batch_plan(recipe, len(data.train), Processes(recipe, tmp_path))
        return forecast(recipe, assembly, data, {}, 1, padded=plan.share)

    return of


def test_texts_are_padded_to_the_longest_of_their_micro_batch(foretold: Callable[..., Forecast]) -> None:
    whole, half, pairs = (foretold(size=8, accumulation=parts) for parts in (1, 2, 4))
    assert whole == half, "each half has a long text"
    assert pairs.text_tokens < whole.text_tokens
    assert pairs.flops_an_update < whole.flops_an_update


def test_parts_of_one_batch_are_padded_as_one(foretold: Callable[..., Forecast]) -> None:
    assert foretold(size=8, accumulation=8, cached=True) == foretold(size=8)


def test_all_captions_of_samples_are_foreseen_and_not_their_first_ones(foretold: Callable[..., Forecast]) -> None:
    first, second = foretold([WORDS, WORDS], size=2), foretold([WORDS[::-1], WORDS[::-1]], size=2)
    short, long = foretold([WORDS[:1]] * 2, size=2), foretold([WORDS[1:]] * 2, size=2)
    assert first.text_tokens == second.text_tokens == long.text_tokens > short.text_tokens
