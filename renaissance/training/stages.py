"""The stages of a training: within each the set of what trains is fixed, and at its start the encoder is frozen anew.

A stage follows from the recipe and the update alone, so that a resumed run needs no more than its own update's number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.optim import AdamW

from renaissance.assemble import Assembly
from renaissance.errors import SpecError
from renaissance.models.freezing import Encoder, freeze, frozen_parameters
from renaissance.models.parts import Still, layers_of, part_names, still_of, towers_of
from renaissance.recipe.freezing import Freezing, shown_time
from renaissance.recipe.training import Optimiser
from renaissance.resolve import resolve_rules
from renaissance.shorthand import parse_part
from renaissance.spec import PartRule, Rule
from renaissance.training.cached import check_cached
from renaissance.training.optimiser import learning_rates, make_optimiser, named_parameters

# as many updates as no training has: the order of stages follows from the recipe alone, their updates do not
LONG = 2**40
# as many updates as no epoch has: for those who do not know the data
EPOCH = 2**20


@dataclass(frozen=True, slots=True)
class Stage:
    """What is frozen from update `first` on, counted from 0, until the next stage begins.

    label: when that is, in words. train_mode: a published fault, see `models.freezing.freeze`.
    """

    first: int
    rules: tuple[Rule, ...]
    label: str
    train_mode: bool = False


def stages_of(assembly: Assembly, freezing: Freezing, *, steps: int = LONG, epoch: int = EPOCH) -> list[Stage]:
    """Return the stages of a training of `steps` updates, `epoch` to an epoch; the first begins with the first update.

    Raises:
        SpecError: a stage comes after the end, changes nothing, or leaves nothing to train.
    """
    plan, encoder = assembly.plan, assembly.encoder
    stages = [Stage(0, plan.rules, "the start", plan.spec.as_published.frozen_in_train_mode)]
    frozen = frozen_parameters(encoder, plan.rules)
    for time, written in _changes(encoder, freezing):
        label = shown_time(freezing.unit, time)
        first = {"step": int(time), "epoch": int(time) * epoch, "share": round(time * steps)}[freezing.unit]
        if not stages[-1].first < first < steps:
            if steps >= LONG or (freezing.unit == "epoch" and epoch >= EPOCH):  # these numbers say nothing
                raise SpecError(
                    f"freezing: the stage after {label} does not begin between the stage before it and the end of the "
                    "training; choose another time."
                )
            raise SpecError(
                f"freezing: the stage after {label} begins with update {first + 1}, and the training has {steps}, the "
                f"stage before it beginning with {stages[-1].first + 1}; let it begin in between."
            )
        rules = (*stages[-1].rules, *resolve_rules(plan, written))
        after = frozen_parameters(encoder, rules)
        if after == frozen:
            raise SpecError(f"freezing: the stage after {label} changes nothing: {_as_it_was(written)}; leave it out.")
        if not (len(assembly.tasks) or any(id(p) not in after for p in encoder.parameters())):
            raise SpecError(f"freezing: after {label} everything is frozen; leave one part trainable.")
        stages.append(replace(stages[0], first=first, rules=rules, label=label))
        frozen = after
    return stages


def always_frozen(encoder: Encoder, stages: Sequence[Stage]) -> dict[str, Still]:
    """Return how much of each part holds still from its input on in every stage: what a store may hold."""
    held = frozenset.intersection(*(frozen_parameters(encoder, stage.rules) for stage in stages))
    return {name: still_of(encoder, name, held) for name in part_names(encoder)}


def holds_whole(encoder: Encoder, part: str, stage: Stage) -> bool:
    """Return whether all of a part is frozen in a stage."""
    frozen = frozen_parameters(encoder, stage.rules)
    return all(id(parameter) in frozen for parameter in getattr(encoder, part).parameters())


def ever_trained(encoder: Encoder, stages: Sequence[Stage]) -> frozenset[int]:
    """Return the ids of the encoder's parameters that train in some stage."""
    every = frozenset(id(parameter) for parameter in encoder.parameters())
    return frozenset().union(*(every - frozen_parameters(encoder, stage.rules) for stage in stages))


def check_parts(assembly: Assembly, stages: Sequence[Stage]) -> None:
    """Refuse what, in some stage, is not the same when a batch runs in parts; the model is left as it was.

    Raises:
        SpecError: batch statistics are estimated in training.
    """
    try:
        for stage in stages:
            freeze(assembly.encoder, stage.rules, train_mode=stage.train_mode)
            check_cached(assembly)
    finally:
        freeze(assembly.encoder, stages[0].rules, train_mode=stages[0].train_mode)


def check_learning_rates(assembly: Assembly, optimiser: Optimiser, stages: Sequence[Stage]) -> None:
    """Refuse learning rates of what is not there or never trains, or by layers that a trained tower does not list.

    Raises:
        SpecError: naming the part.
    """
    learning_rates(assembly, optimiser)
    trained = ever_trained(assembly.encoder, stages)
    for part in optimiser.multipliers:
        if not named_parameters(assembly.encoder, part) & trained:
            always = " in every stage of 'freezing'" if len(stages) > 1 else ""
            raise SpecError(f"optimiser.multipliers: '{part}' is frozen{always}; let it train, or leave it out.")
    if optimiser.layer_decay is None:
        return
    held = always_frozen(assembly.encoder, stages)
    for name in towers_of(assembly.encoder):
        if not layers_of(assembly.encoder, name) and not held[name].whole:
            raise SpecError(
                f"optimiser.layer_decay: the {name} tower does not list its layers; freeze it, or leave layer_decay "
                "out."
            )


def _as_it_was(rules: Sequence[PartRule]) -> str:
    words = {"trainable": "trains", "frozen": "is frozen"}
    return ", ".join(f"'{rule.part}' {words[rule.action]} already" for rule in rules)


def _changes(encoder: Encoder, freezing: Freezing) -> list[tuple[float, list[PartRule]]]:
    """Return the times at which something changes, and what is thawed and frozen then."""
    found: dict[float, list[PartRule]] = {}
    if freezing.gradual is not None:
        name, every = freezing.gradual.part, freezing.gradual.every
        depth = len(layers_of(encoder, name)) - 2 if name in part_names(encoder) else 0
        if depth < 1:
            raise SpecError(f"freezing.gradual: '{name}' lists no layers in this model; thaw it by a stage.")
        parts = [*(f"{name}[-{count}:]" for count in range(1, depth)), name]
        for number, part in enumerate(parts, start=1):
            found[round(number * every, 9)] = [_rule("trainable", part)]
    for stage in freezing.stages:
        rules = [*(_rule("trainable", p) for p in stage.thaw), *(_rule("frozen", p) for p in stage.freeze)]
        at = round(stage.at, 9)
        found[at] = [*found.get(at, []), *rules]
    return sorted(found.items())


def _rule(action: Any, part: str) -> PartRule:
    return PartRule(action=action, part=parse_part(part))


# --- while it trains --------------------------------------------------------------------------------------------------


def number_at(stages: Sequence[Stage], step: int) -> int:
    """Return the number of the stage to which an update belongs."""
    return max(number for number, stage in enumerate(stages) if stage.first <= step)


def begin_stage(model: nn.Module, optimiser: AdamW, stages: Sequence[Stage], step: int, settings: Optimiser) -> None:
    """Freeze the encoder of a train step as the stage of an update says, and let its optimiser train what then trains.

    The optimiser keeps what it remembers of parameters that go on training. A training of one stage is so already.
    """
    if len(stages) < 2:
        return
    encoder: Any = model.encoder
    freeze(encoder, stages[number_at(stages, step)].rules, train_mode=stages[0].train_mode)
    optimiser.param_groups = make_optimiser(model, settings).param_groups
    trained = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    for parameter in [parameter for parameter in optimiser.state if id(parameter) not in trained]:
        del optimiser.state[parameter]
