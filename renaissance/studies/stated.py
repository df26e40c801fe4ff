"""What a study's primary verdict is about, as a digest: a change of it shows, and tells a plan from an afterthought."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from renaissance.studies.arms import Design, every_arm, worlds_of
from renaissance.studies.design import Hypothesis


def primary_of(design: Design) -> Hypothesis:
    """Return the hypothesis that a design's study is for."""
    return next(one for one in design.study.hypotheses if one.name == design.study.primary)


def stated(design: Design) -> str:
    """Return a digest of the primary hypothesis, its arms as they are before any search, the search, and the seeds.

    Further arms and hypotheses do not change it, nor what a study says in words.
    """
    study, primary = design.study, primary_of(design)
    arms = {arm.name: arm.recipes for arm in every_arm(study, design.size) if arm.name in primary.arms}
    drawn = {world for recipes in arms.values() for _, world, _ in worlds_of(recipes)}
    content = {
        "hypothesis": primary.model_dump(mode="json", exclude={"says"}),
        "arms": {arm: {stage: _nameless(recipe) for stage, recipe in recipes.items()} for arm, recipes in arms.items()},
        "worlds": {
            name: world.model_dump(mode="json", exclude={"layouts"})
            for name, world in study.worlds.items()
            if name in drawn
        },
        "search": None if study.search is None else study.search.model_dump(mode="json"),
        "seeds": study.seeds,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _nameless(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in recipe.items() if key != "name"}
