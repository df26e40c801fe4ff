"""A study that reads a score which its task never gives is refused before anything runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import renaissance
from renaissance.errors import StudyError
from renaissance.registry import default_registry
from renaissance.studies.measured import check_metrics
from renaissance.studies.planning import check_ready

Studies = Callable[..., Any]
TARGET = {"stage": "pretrain", "metric": "validation/itm/accuracy", "value": 60}


def test_a_hypothesis_about_a_score_that_its_task_does_not_give_is_refused(tiny_study: Studies) -> None:
    def change(study: dict[str, Any]) -> None:
        study["hypotheses"][0]["metric"] = "finetune/test/itm/acuracy"

    told = "the hypothesis 'higher' is about the score 'acuracy', which 'itm' does not give; it may: accuracy."
    with pytest.raises(StudyError, match=told):
        check_ready(tiny_study(change))


def test_so_is_a_target_and_what_is_given_passes(tiny_study: Studies) -> None:
    def change(study: dict[str, Any], metric: str = TARGET["metric"]) -> None:  # type: ignore[assignment]
        study["stages"]["pretrain"]["evaluation"] |= {"every": 1, "validation": 8}
        study["targets"] = [{**TARGET, "metric": metric}]

    check_metrics(tiny_study(change))
    with pytest.raises(StudyError, match="'targets' reads the score 'R@1', which 'itm' does not give"):
        check_metrics(tiny_study(lambda study: change(study, "validation/itm/R@1")))


def test_what_shipped_models_were_measured_by_is_what_their_tasks_say() -> None:
    root, known, seen = Path(renaissance.__file__).parent / "model_cards", default_registry(), set()
    for file in root.glob("*/scores.json"):
        for score in json.loads(file.read_text(encoding="utf-8"))["scores"]:
            given = known.find("task", score["task"]).entry.metrics  # type: ignore[union-attr]
            assert not given or score["name"] in given, (file.parent.name, score["task"], score["name"])
            seen |= {score["task"]} if given else set()
    assert seen >= {"itm", "retrieval"}
