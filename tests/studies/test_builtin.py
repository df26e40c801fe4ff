"""Every study that ships can be planned at each of its sizes, and its sizes are what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

import renaissance
from renaissance.studies.arms import expand
from renaissance.studies.claims import Collection
from renaissance.studies.design import Study
from renaissance.studies.effects import check_effects
from renaissance.studies.library import BUILTIN, load, names
from renaissance.studies.linting import check_design
from renaissance.studies.matching import check_matched
from renaissance.studies.measured import check_metrics
from renaissance.studies.planning import check_seeds

CONTENTS = {name: load(name).content for name in names()}
STUDIES = {name: content for name, content in CONTENTS.items() if isinstance(content, Study)}
SIZES = [(name, preset) for name, study in STUDIES.items() for preset in study.presets]


@pytest.mark.parametrize(("name", "preset"), SIZES)
def test_a_study_that_ships_can_be_run_at_each_size(name: str, preset: str) -> None:
    design = expand(STUDIES[name], preset)
    check_design(design)
    check_metrics(design)
    check_effects(design)
    check_seeds(design)  # a confirmatory preset has the seeds that its verdict needs
    if design.size.runs_here:  # counting models of billions of parameters takes minutes; 'study plan' does
        check_matched(design)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_that_ships_is_called_as_its_file(name: str) -> None:
    assert STUDIES[name].name == name


def test_smoke_gives_no_verdict_and_what_asks_for_one_has_two_seeds_at_least() -> None:
    for study in STUDIES.values():
        for name, preset in study.presets.items():
            assert (name != "smoke") or preset.verdicts == "none"
            assert preset.verdicts == "none" or expand(study, name).study.seeds[next(iter(study.stages))] >= 2


def test_each_claim_of_a_collection_is_by_hypotheses_that_are_there() -> None:
    for collection in (content for content in CONTENTS.values() if isinstance(content, Collection)):
        for place in (place for claim in collection.claims for place in claim.by):
            study, _, hypothesis = place.partition("/")
            assert hypothesis in [one.name for one in STUDIES[study].hypotheses], place


def test_the_reports_in_the_guide_are_at_most_5_mb_together() -> None:
    reports = Path(renaissance.__file__).parents[1] / "docs" / "studies"
    assert sum(file.stat().st_size for file in reports.rglob("*") if file.is_file()) <= 5_000_000


def test_the_folder_of_the_checkout_leads_to_what_is_installed() -> None:
    root = Path(renaissance.__file__).parents[1]
    assert (root / "studies").resolve() == BUILTIN.resolve()
