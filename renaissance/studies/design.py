"""A study as data: stages that each arm goes through, factors that tell the arms apart, and hypotheses stated before.

A *stage* is a recipe without its seed. A later stage may start from an earlier one: `start: {model: "@pretrain"}`; data
that the study makes itself are named so too: `path: "@scenes/vqav2"`. A *setting* is a path into a stage's recipe with
its value: `pretrain.optimiser.lr: 0.001`. An *arm* is a level of each factor, or a control.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, JsonValue, StringConstraints, model_validator

from renaissance.data.world import scene as world_scene
from renaissance.data.world.kinds import check_compositional, choose_kinds
from renaissance.errors import SpecError
from renaissance.recipe.values import Count, NotNegative, Positive
from renaissance.spec import Strict, did_you_mean

PRETRAINING = "pretrain"
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$", max_length=60)]
# a published layout, perhaps with a language: refcoco+-de
Layout = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+\-]*$", max_length=60)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000, strip_whitespace=True)]
SettingPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_:\-]+)+$", max_length=200)]
Settings = dict[SettingPath, JsonValue]
# 'stage/split/task/metric' of the trained model, 'stage/data/split/task/metric' of it on further data that its recipe
# names, or a figure of the stage's ledger
Metric = Annotated[
    str, StringConstraints(pattern=r"^[^/]+/(?:ledger/[a-z_]+|(?:[^/]+/)?[^/]+/[^/]+/[^/]+)$", max_length=200)
]


class Kinds(Strict):
    """Of which things the scenes of a world are drawn; of all there are, where none are named."""

    shapes: tuple[str, ...] | None = Field(None, strict=False, description="At least 2: [circle, star].")
    colours: tuple[str, ...] | None = Field(None, strict=False, description="At least 2: [red, blue].")
    textures: tuple[str, ...] | None = Field(None, strict=False, description="[plain, striped, dotted].")
    backgrounds: tuple[str, ...] | None = Field(None, strict=False, description="[white, light grey].")

    @property
    def chosen(self) -> world_scene.Kinds:
        """The same, as the world takes it.

        Raises:
            SpecError: there is no such kind, or there are too few.
        """
        return choose_kinds(
            shapes=self.shapes, colours=self.colours, textures=self.textures, backgrounds=self.backgrounds
        )


class World(Strict):
    """A generated world that the study writes and prepares once, for all of its runs.

    What it leaves at its default stands in no digest, so that studies keep their runs when a key is added.
    """

    size: Count = Field(description="Scenes; 15% each are for validation and test.")
    seed: int = Field(ge=0, le=2**31)
    layouts: tuple[Layout, ...] = Field(
        strict=False, min_length=1, description="'@name/layout' is the prepared folder."
    )
    languages: tuple[Word, ...] = Field(("en",), strict=False)
    image_size: Count = Field(64, ge=16, le=512, description="Pixels a side.")
    kinds: Kinds = Field(Kinds(), exclude_if=lambda kinds: kinds == Kinds())
    compositional: bool = Field(
        False,
        exclude_if=lambda held_out: not held_out,
        description="A split 'test_compositional' in coco-captions, of pairs of shape and colour that no other has.",
    )

    @model_validator(mode="after")
    def _drawable(self) -> Self:
        try:
            kinds = self.kinds.chosen
            if self.compositional:
                check_compositional(kinds)
        except SpecError as error:
            raise ValueError(str(error)) from None
        return self


class Factor(Strict):
    """What is varied between arms, level by level, and nothing else."""

    about: Text
    varies: tuple[SettingPath, ...] = Field(
        strict=False, min_length=1, description="Paths that the levels may change; a path stands for all below it."
    )
    levels: dict[Word, Settings] = Field(min_length=2, description="Settings by level; {}: the stages as they are.")


class Control(Strict):
    """An arm outside the factors: a floor, or another explanation."""

    about: Text
    varies: tuple[SettingPath, ...] = Field((), strict=False, description="Paths in which it differs from the stages.")
    settings: Settings = Field(default_factory=dict)
    skips: tuple[Word, ...] = Field((), strict=False, description="Stages that it leaves out, such as 'pretrain'.")


class Expected(Strict):
    """What a pilot, or the field, lets one expect; it decides how many seeds a verdict needs, before the run."""

    sd: Positive = Field(
        description="Standard deviation of the contrast over pretraining seeds, in units of the metric."
    )
    gain: Positive | None = Field(
        None, description="Of the reference over the floor, where the margin is a share; of 'greater': the difference."
    )


class _Hypothesis(Strict):
    name: Word
    says: Text = Field(description="The claim, as a sentence that can be wrong.")
    metric: Metric
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    expected: Expected | None = None


Stated = TypeVar("Stated", bound=_Hypothesis)


def _different(hypothesis: Stated, *fields: str) -> Stated:
    """Return a hypothesis whose arms in these fields are not the same."""
    names = [getattr(hypothesis, field) for field in fields]
    if len(set(names)) < len(names):
        raise ValueError(f"{' and '.join(repr(field) for field in fields)} name the same arm; name different ones")
    return hypothesis


class Greater(_Hypothesis):
    """A weighted sum of arms is greater than a margin."""

    kind: Literal["greater"]
    weights: dict[Word, float] = Field(min_length=2, description="By arm; they sum to 0: {vision: 1, none: -1}.")
    margin: NotNegative = Field(0.0, description="In units of the metric.")

    @model_validator(mode="after")
    def _contrast(self) -> Self:
        if abs(sum(self.weights.values())) > 1e-9 or 0 in self.weights.values():
            raise ValueError("the weights of a contrast are not 0 and sum to 0, as in {vision: 1, none: -1}")
        return self

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that it compares."""
        return tuple(self.weights)


class NoLoss(_Hypothesis):
    """An arm is no worse than the reference by more than a share of what the reference gains over a floor.

    Void where the reference does not beat the floor: then there is nothing to lose.
    """

    kind: Literal["no-loss"]
    arm: Word
    reference: Word
    floor: Word
    share: Annotated[float, Field(gt=0, lt=1)] = 0.2

    @model_validator(mode="after")
    def _apart(self) -> Self:
        return _different(self, "arm", "reference", "floor")

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that it compares."""
        return (self.arm, self.reference, self.floor)


class Alike(_Hypothesis):
    """Two arms differ by less than a margin, to either side (TOST)."""

    kind: Literal["alike"]
    arm: Word
    other: Word
    margin: Positive = Field(description="In units of the metric.")

    @model_validator(mode="after")
    def _apart(self) -> Self:
        return _different(self, "arm", "other")

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that it compares."""
        return (self.arm, self.other)


Hypothesis = Annotated[Greater | NoLoss | Alike, Field(discriminator="kind")]


class Range(Strict):
    """Values that a search draws from."""

    low: Positive
    high: Positive
    log: bool = True

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"'low' {self.low:g} is not below 'high' {self.high:g}")
        return self


class Search(Strict):
    """Settings tuned inside each arm, by equally many trials, before its runs; judged on validation samples alone."""

    stage: Word
    trials: Annotated[int, Field(ge=2, le=1000)]
    space: dict[SettingPath, Range | list[JsonValue]] = Field(min_length=1, description="A range, or values.")
    metric: Annotated[str, StringConstraints(pattern=r"^validation/[^/]+/.+$")] = Field(
        description="'validation/task/metric' of the last evaluation in training; never of a test split."
    )
    seed: int = Field(0, ge=0, le=2**31)


class Matched(Strict):
    """Arms that are said to be of like size; the linter counts them."""

    arms: tuple[Word, ...] = Field(strict=False, min_length=2)
    on: Literal["parameters", "flops"] = Field(description="Parameters without embeddings, or forward FLOPs a pair.")
    stage: Word = PRETRAINING
    within: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="Largest relative difference.")


class Target(Strict):
    """A score to reach: reported is the compute that each arm took until it did."""

    stage: Word
    metric: Annotated[str, StringConstraints(pattern=r"^validation/[^/]+/.+$")]
    value: float


Seeds = dict[Word, Annotated[int, Field(ge=1, le=1000)]]
Verdicts = Literal["confirmatory", "exploratory", "none"]


class Preset(Strict):
    """The same study at another size."""

    about: Text
    settings: Settings = Field(default_factory=dict, description="Of all arms alike.")
    seeds: Seeds = Field(default_factory=dict)
    arms: tuple[Word, ...] = Field((), strict=False, description="Only these; default: all.")
    verdicts: Verdicts = "exploratory"
    worlds: dict[Word, Count] = Field(default_factory=dict, description="Other sizes of generated worlds, in scenes.")
    trials: Annotated[int, Field(ge=2, le=1000)] | None = Field(None, description="Of the search, in each arm.")
    runs_here: bool = Field(True, description="false: it is checked and costed here, and run elsewhere.")


class Study(Strict):
    """A controlled study: each arm takes the same stages with the same seeds, and differs in its factors alone."""

    name: Word
    question: Text
    scope: Text = Field(description="'in world W, with towers T': what a verdict holds for.")
    worlds: dict[Word, World] = Field(default_factory=dict)
    stages: dict[Word, dict[str, JsonValue]] = Field(min_length=1, description="Recipes, in order, without their seed.")
    seeds: Seeds = Field(description="Of each stage; those of a later stage are nested in those of the earlier one.")
    factors: dict[Word, Factor] = Field(min_length=1)
    arms: tuple[Word, ...] = Field((), strict=False, description="Which crossings of levels; default: all.")
    controls: dict[Word, Control] = Field(default_factory=dict)
    hypotheses: tuple[Hypothesis, ...] = Field(strict=False, min_length=1)
    primary: Word = Field(description="The hypothesis whose verdict the study is for; the others are exploratory.")
    search: Search | None = None
    matched: tuple[Matched, ...] = Field((), strict=False)
    targets: tuple[Target, ...] = Field((), strict=False)
    reference: Word | None = Field(None, description="The arm whose compute the others are compared with.")
    presets: dict[Word, Preset] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for fault in self._faults():
            raise ValueError(fault)
        return self

    def _faults(self) -> Iterator[str]:
        """Yield what does not fit together inside the file."""
        names = [hypothesis.name for hypothesis in self.hypotheses]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"two hypotheses are called '{name}'; give each a name of its own"
        if self.primary not in names:
            yield f"'primary' is '{self.primary}', and the hypotheses are: {', '.join(names)}"
        if set(self.seeds) != set(self.stages):
            yield f"'seeds' must name each stage once: {', '.join(self.stages)}"
        for where, stages in self._stages_named():
            for stage in stages:
                if stage not in self.stages:
                    yield f"{where} names the stage '{stage}', and the stages are: {', '.join(self.stages)}"
        for stage, recipe in self.stages.items():
            if "seed" in recipe:
                yield f"stages.{stage} sets 'seed', which the study numbers itself; say how many in 'seeds'"
        for name, factor in self.factors.items():
            for level, settings in factor.levels.items():
                for path in settings:
                    if not within(path, factor.varies):
                        yield f"factors.{name}.levels.{level} sets '{path}', which its 'varies' does not name"
        for name, control in self.controls.items():
            for path in control.settings:
                if not within(path, control.varies):
                    yield f"controls.{name} sets '{path}', which its 'varies' does not name"
                if stage_of(path) in control.skips:
                    yield f"controls.{name} sets '{path}' of a stage that it skips"
        yield from self._arms_named()
        yield from self._presets_beside()

    def _arms_named(self) -> Iterator[str]:
        """Yield arms that are called alike, and names of arms that there are not."""
        names = [*crossed(self), *self.controls]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"two arms are called '{name}'; give the level or the control another name"
        named = [("arms", self.arms), *((f"presets.{name}.arms", preset.arms) for name, preset in self.presets.items())]
        named += [(f"the hypothesis '{one.name}'", one.arms) for one in self.hypotheses]
        named += [("matched", matched.arms) for matched in self.matched]
        named += [("reference", () if self.reference is None else (self.reference,))]
        for where, arms in named:
            for arm in arms:
                if arm not in names:
                    listed = did_you_mean(arm, names) or f" The arms are: {', '.join(names)}"
                    yield f"{where} names no arm of this study: '{arm}'.{listed}"

    def _presets_beside(self) -> Iterator[str]:
        """Yield what presets say of worlds and searches that there are not."""
        for name, preset in self.presets.items():
            for world in preset.worlds:
                if world not in self.worlds:
                    yield f"presets.{name} names the world '{world}', and there are: {', '.join(self.worlds) or 'none'}"
            if preset.trials is not None and self.search is None:
                yield f"presets.{name} says how many 'trials', and there is no 'search'"

    def _stages_named(self) -> Iterator[tuple[str, list[str]]]:
        for name, factor in self.factors.items():
            paths = [*factor.varies, *(path for level in factor.levels.values() for path in level)]
            yield f"factors.{name}", [stage_of(path) for path in paths]
        for name, control in self.controls.items():
            yield f"controls.{name}", [*map(stage_of, (*control.varies, *control.settings)), *control.skips]
        for hypothesis in self.hypotheses:
            yield f"the hypothesis '{hypothesis.name}'", [hypothesis.metric.split("/")[0]]
        for name, preset in self.presets.items():
            yield f"presets.{name}", [*map(stage_of, preset.settings), *preset.seeds]
        if self.search is not None:
            yield "search", [self.search.stage, *map(stage_of, self.search.space)]
        yield "targets", [target.stage for target in self.targets]
        yield "matched", [matched.stage for matched in self.matched]


def crossed(study: Study) -> list[str]:
    """Return the names of all arms that the levels of a study's factors make, crossed."""
    return [".".join(levels) for levels in itertools.product(*(factor.levels for factor in study.factors.values()))]


def stage_of(path: str) -> str:
    """Return the stage of a setting's path."""
    return path.partition(".")[0]


def within(path: str, roots: tuple[str, ...]) -> bool:
    """Return whether a path is one of `roots`, or lies below one."""
    return any(path == root or path.startswith(f"{root}.") for root in roots)
