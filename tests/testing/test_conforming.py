"""Each rule of the kit holds for sound components, and rejects one that breaks it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import Field

from renaissance.api import Entry, FusionHeadEntry, Item, Options
from renaissance.errors import PluginError, UnknownComponentError
from renaissance.registry import default_registry
from renaissance.testing import ConformanceError, Example, Finding, conform, conformance
from renaissance.testing.conforming import alone, cases_of, offered
from renaissance.testing.items import Picture
from renaissance.testing.rules import all_rules, rules_for
from tests.testing import broken_backbones, broken_heads, broken_tasks


class Undescribed(Options):
    """Options of which one says nothing."""

    fault: str = ""


class BadDefault(Options):
    """Options whose default they refuse."""

    fault: str = ""
    width: int = Field(0, ge=1, description="Channels.")


HEAD = broken_heads.entry()
BROKEN: list[tuple[str, Entry]] = [
    ("names", replace(HEAD, factory="tests.testing.broken_heads:nowhere")),
    ("names", replace(HEAD, summary="")),
    ("options", replace(HEAD, options=Undescribed)),
    ("options", replace(HEAD, options=BadDefault)),
    ("options", replace(HEAD, tiny={"fault": {"a set"}})),
    *((fault, broken_heads.entry(fault)) for fault in broken_heads.FAULTS),
    ("streams", broken_heads.entry("pools the image alone")),
    *((fault, broken_backbones.entry(fault)) for fault in broken_backbones.VISION_FAULTS),
    *((fault, broken_backbones.entry(fault, "text")) for fault in broken_backbones.TEXT_FAULTS),
    *((fault, broken_tasks.entry(fault)) for fault in broken_tasks.FAULTS),
]
OF_PLUGINS = {"listing", "global state"}  # what is seen of the module of a plugin
OWN_ERRORS = {"names": ("PluginError: The factory ",)}  # that are there without the kit


def finding(rule: str, entry: Entry) -> Finding:
    (found,) = conform(entry, rules=[rule]).findings
    return found


@pytest.mark.parametrize(("rule", "entry"), BROKEN, ids=[f"{type(e).__name__}: {rule}" for rule, e in BROKEN])
def test_a_rule_rejects_a_component_that_breaks_it(rule: str, entry: Entry) -> None:
    found = finding(rule, entry)
    assert found.outcome == "failed"
    assert found.reason.startswith((f"The check '{rule}' failed: ", *OWN_ERRORS.get(rule, ())))


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("listing", "describing it imports torch"),
        (
            "global state",
            "its hooks change the warnings filters, the random state of Python, the random state of NumPy, the random "
            "state of torch",
        ),
    ],
)
def test_a_rule_rejects_a_plugin_that_breaks_it(rule: str, told: str) -> None:
    cases = cases_of(*offered("tests.testing.broken_plugin"))
    (found,) = [case.finding() for case in cases if case.rule.name == rule]
    assert found.outcome == "failed"
    assert found.reason.startswith(f"The check '{rule}' failed: {told}; expected: ")


def test_each_rule_has_a_component_that_it_rejects() -> None:
    for sound in (HEAD, broken_backbones.entry(), broken_backbones.entry(modality="text"), broken_tasks.entry()):
        rejected = {rule for rule, entry in BROKEN if isinstance(entry, type(sound))} | {"names", "options"}
        assert {rule.name for rule in rules_for(sound)} <= rejected | OF_PLUGINS


def test_what_each_rule_says_is_one_sentence() -> None:
    said = [text for rules in all_rules().values() for text in rules.values()]
    assert len(said) > 30
    assert all(text.endswith(".") and text.count("\n") == 0 for text in said)


@pytest.mark.parametrize(
    "entry",
    [HEAD, broken_backbones.entry(), broken_backbones.entry(modality="text"), broken_tasks.entry()],
    ids=["head", "vision", "text", "task"],
)
def test_a_sound_component_holds_every_rule(entry: Entry) -> None:
    report = conform(entry)
    assert report.failures == ()
    report.check()


# --- the report and the decorator -------------------------------------------------------------------------------------


def test_a_report_names_the_rules_that_are_broken() -> None:
    report = conform(broken_heads.entry("streams"), rules=["streams", "batch"])
    with pytest.raises(ConformanceError, match="1 of 2 rules are broken: 'streams' by 'tried:head'"):
        report.check()
    assert "no gradient reaches the text stream" in report.failures[0].reason


def test_a_component_that_cannot_be_built_fails_and_does_not_stop_the_report() -> None:
    report = conform(replace(HEAD, factory="tests.testing.broken_heads:entry"), rules=["batch", "options"])
    assert [found.outcome for found in report.findings] == ["held", "failed"]
    assert report.failures[0].reason.startswith("TypeError: ")


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownComponentError, match="Did you mean 'lxmert'"):
        conform("lxmrt")
    with pytest.raises(ValueError, match="no rule is called 'batches'"):
        conform(HEAD, rules=["batches"])


def test_a_plugin_that_cannot_be_imported_is_an_error_when_tests_are_collected() -> None:
    with pytest.raises(PluginError, match="'renaissance_plugin_nowhere' failed: ModuleNotFoundError"):
        conformance("renaissance_plugin_nowhere")


def ids_of(**chosen: Any) -> list[str]:
    """Return what the tests are called that the decorator makes."""

    @conformance("tests.testing.sound_plugin", **chosen)
    def test(rule: Any) -> None:
        rule()

    (mark,) = test.pytestmark  # type: ignore[attr-defined]  # pytest's own
    return [case.id for case in mark.args[1]]


def test_the_decorator_makes_one_readable_test_a_rule() -> None:
    ids = ids_of()
    assert ids[0] == "head: names"
    assert "label: oracle" in ids
    assert len(ids) == len(set(ids))


def test_the_decorator_takes_some_of_the_components_and_refuses_what_is_none() -> None:
    assert {name.split(":")[0] for name in ids_of(components=["label"])} == {"label"}
    with pytest.raises(ValueError, match="offers no component called 'labels'"):
        ids_of(components=["labels"])


def test_a_task_is_tried_on_the_items_that_are_given() -> None:
    items = [Item(id=str(n), images=(Picture(n),), texts=(), label=broken_tasks.LABELS[n % 2]) for n in range(6)]
    wrong = Example(items, [torch.eye(2)[(n + 1) % 2] for n in range(6)])
    cases = cases_of(*offered("tests.testing.sound_plugin"), {"label": wrong})
    outcomes = {case.rule.name: case.finding().outcome for case in cases if case.rule.name in ("loss", "oracle")}
    assert outcomes == {"loss": "held", "oracle": "failed"}


def test_a_task_that_takes_no_items_is_told_apart_from_one_that_holds_and_fails_in_a_test() -> None:
    refusing = list(cases_of(*alone(broken_tasks.entry("refuses"))))
    found = {case.rule.name: case.finding() for case in refusing}
    assert {found[rule].outcome for rule in broken_tasks.FAULTS} == {"not tried"}
    assert found["loss"].reason.startswith("it takes none of the made-up items (No item is good enough.)")
    with pytest.raises(
        ConformanceError, match=r"'loss' failed: it was not tried: .*expected: conformance\(examples=...\)"
    ):
        next(case for case in refusing if case.rule.name == "loss")()


def test_heads_that_match_images_with_texts_may_not_look_at_other_pairs() -> None:
    itm = default_registry().find("task", "itm").entry
    assert finding("items apart", itm).outcome == "held"
    broken = replace(itm, factory="tests.testing.broken_tasks:MatchingByBatch")
    assert finding("items apart", broken).reason.startswith("The check 'items apart' failed: a difference of ")


def test_a_contrast_does_not_depend_on_the_order_of_its_batch() -> None:
    itc: Any = default_registry().find("task", "itc").entry
    assert finding("batch order", itc).outcome == "held"
    broken = replace(itc, factory="tests.testing.broken_tasks:ContrastByPlace")
    assert finding("batch order", broken).reason.startswith("The check 'batch order' failed: a loss of ")


def test_a_rule_that_does_not_apply_is_skipped_with_its_reason() -> None:
    entry: FusionHeadEntry = replace(HEAD, outputs=frozenset())
    assert finding("streams", entry) == Finding("tried:head", "streams", "not applicable", "it fuses nothing")
