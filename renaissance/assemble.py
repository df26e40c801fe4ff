"""Plan -> encoder and tasks: the only place that calls factories."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn

from renaissance.api import SavedBackbone, TowerNeeds, Weights
from renaissance.errors import PluginError, SpecError
from renaissance.models.freezing import freeze, hold_statistics
from renaissance.models.two_tower import TwoTower, tower_facts
from renaissance.registry import load_factory
from renaissance.resolve import Plan, TowerPlan
from renaissance.toolkit.random import stream_seed


class Assembly(nn.Module):
    """An encoder with its tasks' heads, and the plan that both were built from."""

    encoder: TwoTower
    tasks: nn.ModuleDict

    def __init__(self, plan: Plan, encoder: TwoTower, tasks: nn.ModuleDict) -> None:
        super().__init__()
        self.plan = plan
        self.encoder = encoder
        self.tasks = tasks


def assemble(plan: Plan, *, seed: int = 0, saved: Mapping[str, SavedBackbone] | None = None) -> Assembly:
    """Build what a plan says.

    Each part draws its random weights from its own stream of `seed`, so that another fusion head leaves the towers'
    weights as they were. With `saved` (by tower) nothing is downloaded and nothing initialised: all parameters are on
    the meta device until they are loaded.

    Raises:
        SpecError: the parts do not fit, which for some backbones only their build can tell.
        HubError: pretrained weights or a tokenizer cannot be had.
    """
    empty = saved is not None
    vision = _tower(plan.vision, seed, saved)
    text = _tower(plan.text, seed, saved)
    facts = {"vision": tower_facts(vision), "text": tower_facts(text)}
    with _stream(seed, "fusion", empty):
        blocks = _text_blocks(plan, text, seed, empty)
        fusion = load_factory(plan.fusion.entry)(plan.fusion.options, **facts, **blocks)
    slots = max((task.entry.slots for task in plan.tasks.values()), default=1)
    with _stream(seed, "slots", empty):
        encoder = TwoTower(vision, text, fusion, plan.fusion.entry, slots, _needs(plan))
    freeze(encoder, plan.frozen)
    return Assembly(plan, encoder, build_tasks(plan, encoder, seed, empty=empty))


def build_tasks(plan: Plan, encoder: TwoTower, seed: int, *, empty: bool = False) -> nn.ModuleDict:
    """Build the heads of a plan's tasks for an encoder; `empty`: on the meta device, to be loaded.

    Raises:
        PluginError: a task is no task: it says that it measures models, and has no `score`.
    """
    tasks = nn.ModuleDict()
    for name, task in plan.tasks.items():
        with _stream(seed, f"task {name}", empty):
            tasks[name] = load_factory(task.entry)(task.options, model=encoder.facts())
        if task.entry.evaluates and not callable(getattr(tasks[name], "score", None)):
            raise PluginError(
                f"The task '{name}' of the plugin '{task.plugin}' says that it measures, and has no method 'score'; "
                "report it to the plugin, or leave the task out."
            )
    return tasks


def _needs(plan: Plan) -> TowerNeeds:
    return plan.fusion.entry.needs(plan.fusion.options)


def _text_blocks(plan: Plan, text: Any, seed: int, empty: bool) -> dict[str, Any]:
    """Return the blocks of the text backbone that the fusion head shares, or inherits, as an argument of its factory.

    What is inherited are the blocks that follow the tower's last one in the backbone that it is cut from.
    """
    needs = _needs(plan)
    match needs.text_blocks:
        case None:
            return {}
        case "shared":
            return {"text_blocks": text.text_blocks()[: needs.count]}
    if empty:  # blocks of one backbone have one shape, and their weights are loaded
        return {"text_blocks": [copy.deepcopy(text.text_blocks()[0]) for _ in range(needs.count)]}
    depth = len(text.blocks)
    whole = plan.text.options.model_copy(update={"layers": depth + needs.count})
    donor: Any = _tower(replace(plan.text, options=whole), seed, None)
    return {"text_blocks": donor.text_blocks()[depth:]}


def _tower(tower: TowerPlan, seed: int, saved: Mapping[str, SavedBackbone] | None) -> nn.Module:
    weights: Weights = tower.weights if saved is None else "none"
    kept = None if saved is None else saved[tower.entry.modality]
    factory = load_factory(tower.entry)
    # With weights="none" the factory itself keeps parameters on meta: only it knows which buffers must be real.
    with _stream(seed, tower.entry.modality, False):
        built: nn.Module = factory(tower.options, weights=weights, saved=kept)
    _check_facts(tower, built)
    if tower.weights == "pretrained":
        hold_statistics(built)
    return built


def _check_facts(tower: TowerPlan, built: Any) -> None:
    declared = tower.facts.width
    if isinstance(declared, int) and declared != built.width:
        raise SpecError(
            f"'{tower.name}' says that its width is {declared}, and built it is {built.width}; report it to its plugin."
        )


@contextmanager
def _stream(seed: int, part: str, empty: bool) -> Iterator[None]:
    """Draw random weights from a part's own stream, and leave the global one as it was; or make no weights at all."""
    if empty:
        with init_empty_weights(include_buffers=False):
            yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, part))
        yield
