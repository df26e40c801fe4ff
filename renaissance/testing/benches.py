"""Where components are built at their tiny size and tried.

Letters in shapes: P pairs, N tokens of the vision stream, L of the text stream, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from renaissance.api import BackboneEntry, Features, FusionHeadEntry, Joint, Options, SavedBackbone, TowerFacts
from renaissance.components import checked_options, described
from renaissance.registry import Component, Registry, load_factory
from renaissance.testing.subjects import Subject, made_up, seeded, tensors_of
from renaissance.testing.watching import Watch, watching
from renaissance.testing.weights import focus, randomise, settle
from renaissance.toolkit.attention import Block

Outputs = Mapping[str, Tensor]
VISION_WIDTH, TEXT_WIDTH = 24, 16
HEAD_DEVIATION = 0.3


@dataclass(frozen=True, slots=True)
class Trial:
    """How components of a kind are built, given weights under which faults show, and run on fixed inputs.

    run returns what a module gives by name, at real tokens alone, so that it can be compared.
    """

    make: Callable[[Any, Any], nn.Module]
    vary: Callable[[Any], None]
    run: Callable[[Any], Outputs]


class Bench:
    """A component under test; what is built is shared among its rules, so those that change a module take a fresh one.

    registry: of the built-ins and the component's plugin. trial: a `Trial`, or the `TaskTrial` of a task.
    """

    def __init__(self, component: Component, registry: Registry, trial: Any) -> None:
        self.component, self.registry, self.trial = component, registry, trial

    @property
    def entry(self) -> Any:
        """The component's entry."""
        return self.component.entry

    @cached_property
    def options(self) -> Options:
        """The checked options of the tiny size.

        Raises:
            SpecError: the entry's own options refuse them.
        """
        return checked_options(self.entry, self.entry.tiny, of=self.component.qualified)

    def fresh(self, seed: int = 0) -> Any:
        """Return a new module with the random weights of a seed, in eval mode."""
        with seeded(seed):
            return self.trial.make(self.entry, self.options).eval()

    def varied(self, seed: int = 0) -> Any:
        """Return a new module with weights under which faults show, in eval mode."""
        module = self.fresh(seed)
        with seeded(seed):
            self.trial.vary(module)
        return module.eval()

    @cached_property
    def module(self) -> Any:
        """A module with weights under which faults show, in eval mode; rules leave it as it is."""
        return self.varied()

    @cached_property
    def watch(self) -> Watch:
        """What the component did beside its work when it was built and run."""
        load_factory(self.entry)  # what the libraries behind it do when they are imported is not its doing
        with watching() as watch:
            module = self.trial.make(self.entry, self.options).eval()
        with torch.no_grad(), watching() as running:
            self.trial.run(module)
        built = [name for name in watch.changed if name != "the random state of torch"]
        return Watch(watch.called + running.called, list(dict.fromkeys(built + running.changed)))


# --- backbones --------------------------------------------------------------------------------------------------------


def backbone_trial(entry: BackboneEntry) -> Trial:
    """Return how backbones of an entry's modality are tried."""

    def vary(backbone: nn.Module) -> None:
        randomise(backbone)
        focus(backbone)
        settle(backbone, entry.modality)

    def run(backbone: Any) -> Outputs:
        return tensors_of(backbone(made_up(backbone.processor, entry.modality)))

    return Trial(make_backbone, vary, run)


def make_backbone(entry: BackboneEntry, options: Options, saved: SavedBackbone | None = None) -> nn.Module:
    """Build a backbone with random weights, or without any from what was saved of one."""
    built: nn.Module = load_factory(entry)(options, weights="random" if saved is None else "none", saved=saved)
    return built


def subject_of(bench: Bench) -> Subject:
    """Return the backbone of a bench as the checks of backbones take it."""
    facts = described(bench.component, bench.options)

    def rebuild(saved: SavedBackbone) -> Any:
        with seeded(1):
            return make_backbone(bench.entry, bench.options, saved)

    return Subject(bench.module, facts, bench.entry.modality, rebuild)


# --- fusion heads -----------------------------------------------------------------------------------------------------


def fusion_trial(entry: FusionHeadEntry) -> Trial:
    """Return how fusion heads are tried."""

    def run(head: Any) -> Outputs:
        return outputs_of(head, entry, *streams(entry, entry.options(**entry.tiny)))

    return Trial(make_head, vary_head, run)


def make_head(entry: FusionHeadEntry, options: Options, *, class_token: bool = False) -> nn.Module:
    """Build a fusion head for towers of different widths, with blocks of a text tower where it needs some."""
    needs = entry.needs(options)
    blocks = [Block(TEXT_WIDTH, 2, 2 * TEXT_WIDTH, 0.0) for _ in range(needs.count)]
    vision, text = (TowerFacts(width, class_token) for width in (VISION_WIDTH, TEXT_WIDTH))
    given = {"text_blocks": blocks} if needs.text_blocks is not None else {}
    built: nn.Module = load_factory(entry)(options, vision=vision, text=text, **given)
    return built


@torch.no_grad()
def vary_head(head: nn.Module) -> None:
    """Make weights larger than at the start, so that every path counts."""
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=HEAD_DEVIATION)


def streams(entry: FusionHeadEntry, options: Options, pairs: int = 3) -> tuple[Features, Features]:
    """Return a vision stream [P, 5, D] and a text stream [P, 6, D], both padded, as the entry needs them."""
    needs, generator = entry.needs(options), torch.Generator().manual_seed(0)

    def stream(width: int, longest: int) -> Features:
        lengths = torch.arange(longest - pairs + 1, longest + 1).unsqueeze(1)
        tokens, embedded, *layers = (
            torch.randn(pairs, longest, width, generator=generator) for _ in range(2 + needs.layers)
        )
        layers[-1:] = [tokens] if layers else []
        mask = torch.arange(longest) < lengths  # [P, N]
        return Features(tokens, mask, None, tuple(layers), embedded if needs.embedded else None)

    return stream(VISION_WIDTH, 5), stream(TEXT_WIDTH, 6)


def outputs_of(head: Any, entry: FusionHeadEntry, vision: Features, text: Features) -> dict[str, Tensor]:
    """Return all that a head gives for pairs, at real tokens; for a shared space, both sides' vectors [P, D]."""
    found = parts_of(head(vision, text, entry.outputs))
    if entry.shared_space:
        for name, features, width in (("vision", vision, VISION_WIDTH), ("text", text, TEXT_WIDTH)):
            first = features.tokens[:, 0, :width]
            found[f"projected {name}"] = head.project(first, name)
    return found


def parts_of(joint: Joint) -> dict[str, Tensor]:
    """Return the outputs that are there, streams at their real tokens."""
    found = {} if joint.pooled is None else {"pooled": joint.pooled}
    for name, features in (("vision", joint.vision), ("text", joint.text)):
        if features is not None:
            found[name] = features.tokens[features.mask]
    return found
