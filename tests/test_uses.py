"""Which tasks a recipe trains, which it measures, and under which names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from renaissance.api import TaskEntry
from renaissance.errors import SpecError, UnknownComponentError
from renaissance.recipe import validate_recipe
from renaissance.registry import Component, Registry
from renaissance.resolve import resolve
from renaissance.uses import TaskSelection, select_tasks


class OneMore(Registry):
    """The built-ins, and a plugin 'rival' that offers another 'mlm' and a task 'other'."""

    def find(self, kind: Any, name: str, modality: Any = None) -> Component:
        if name in ("rival:mlm", "rival:other", "other"):
            entry = TaskEntry(name=name.rpartition(":")[2], summary="", factory="nowhere:nothing")
            return Component(entry, "rival")
        return super().find(kind, name, modality)


def selected(tasks: dict[str, Any], measured: dict[str, Any] | None = None) -> TaskSelection:
    recipe = validate_recipe(
        {"start": "tiny-vit + tiny-bert, random both", "tasks": tasks, "evaluation": {"tasks": measured or {}}}
    )
    return select_tasks(recipe, OneMore())


def test_a_task_has_the_name_of_its_entry_however_it_is_written() -> None:
    found = selected({"renaissance:itm": {}, "rival:other": {"weight": 2}}, {"retrieval": {"rerank": 4}})
    assert list(found.trained) == ["itm", "other"]
    assert found.measured == {"retrieval": {"rerank": 4}}


def test_a_plugin_s_task_is_not_mistaken_for_a_built_in_of_the_same_name() -> None:
    found = selected({"rival:mlm": {}})
    plan = resolve("tiny-vit + tiny-bert, random both", found.options, registry=OneMore())
    assert plan.tasks["mlm"].plugin == "rival"


def test_a_task_of_weight_0_is_left_out() -> None:
    found = selected({"itm": {}, "mlm": {"weight": 0}})
    assert list(found.trained) == list(found.options) == ["itm"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: selected({"itm": {}, "renaissance:itm": {}}), SpecError, "stands twice"),
        (lambda: selected({"itm": {}}, {"itm": {"false_share": 0.3}}), SpecError, "evaluation.tasks.itm empty"),
        (lambda: selected({"itn": {}}), UnknownComponentError, "Did you mean 'itm'"),
    ],
)
def test_what_cannot_be_meant_is_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
