"""What results.json holds, as data: all that a report tells.

Unknown keys are left alone, so that what a later analysis adds does no harm; what is told must be there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from renaissance.spec import shown

Verdict = Literal["supported", "refuted", "undecided", "void"]
Share = float
Count = Annotated[int, Field(ge=0)]


class _Facts(BaseModel):
    """Frozen facts; no coerced types, no NaN."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class StudyFacts(_Facts):
    """What was asked, and of what a verdict holds."""

    name: str
    question: str
    scope: str
    preset: str
    about: str = ""
    verdicts: Literal["confirmatory", "exploratory", "none"]
    primary: str
    digest: str | None
    version: str
    command: str
    complete: bool


class Parameters(_Facts):
    """Counted parameters of a model."""

    total: Count
    trainable: Count
    without_embeddings: Count | None = None


class Arm(_Facts):
    """An arm: a level of each factor, or a control."""

    name: str
    control: bool = False
    about: str = ""
    levels: dict[str, str] = Field(default_factory=dict)
    varies: list[str] = Field(default_factory=list)
    spec: str = ""
    parameters: Parameters | None = None
    flops_a_pair: float | None = None
    frozen: dict[str, str] | None = None


class Stage(_Facts):
    """A stage that each arm goes through."""

    name: str
    tasks: list[str]
    updates: Count
    batch: Count
    data: str
    seeds: Count


class Mean(_Facts):
    """A mean over seeds with its interval; one seed has neither spread nor interval."""

    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    n: Count
    level: Share = 0.95


class Margin(_Facts):
    """How much of a difference counts; where it is a share of a gain, of which."""

    value: float | None
    share: Share | None = None
    of: list[str] | None = None
    gain: Mean | None = None
    p_gain: float | None = None


class Bootstrap(_Facts):
    """An interval by resampling, and what was resampled."""

    low: float
    high: float
    over: list[str]


class Equivalence(_Facts):
    """The two one-sided tests of an equivalence."""

    p_lower: float | None
    p_upper: float | None
    p: float | None


class Hypothesis(_Facts):
    """A hypothesis that was stated before the run, and what became of it."""

    name: str
    says: str
    kind: Literal["greater", "no-loss", "alike"]
    primary: bool
    metric: str
    arms: list[str]
    n: Count
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    differences: list[float] = Field(default_factory=list)
    estimate: Mean | None
    bootstrap: Bootstrap | None = None
    p: float | None
    p_permutation: float | None = None
    p_holm: float | None = None
    margin: Margin | None = None
    equivalence: Equivalence | None = None
    seeds_needed: Count | None = None
    seeds_to_decide: Count | None = None
    verdict: Verdict | None
    confirmatory: bool = False
    reason: str
    sentence: str


class Claim(_Facts):
    """A claim of the paper, and what the studies say of it."""

    number: int
    claim: str
    verdict: Literal["supported", "refuted", "undecided", "not tested here"]
    by: list[str] = Field(default_factory=list)
    reason: str = ""


class Score(_Facts):
    """A score of an arm, over its seeds: values [fine-tuning seed] by pretraining seed."""

    arm: str
    stage: str
    split: str
    task: str
    metric: str
    model: str = "trained"
    chance: float | None = None
    mean: float | None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    values: list[list[float | None]] = Field(default_factory=list)


class Saving(_Facts):
    """Shares saved against the reference arm."""

    flops: dict[str, Share | None] = Field(default_factory=dict)
    seconds: dict[str, Share | None] = Field(default_factory=dict)
    peak_memory_bytes: Share | None = None


class Compute(_Facts):
    """What a stage took in an arm, as means over its seeds."""

    arm: str
    stage: str
    updates: float | None = None
    samples: float | None = None
    flops: dict[str, float | None]
    seconds: dict[str, float | None] = Field(default_factory=dict)
    peak_memory_bytes: float | None = None
    saving: Saving | None = None


class Ratio(_Facts):
    """A geometric mean over the pretraining seeds in which both arms reached a target, and how many these are."""

    mean: float
    low: float | None
    high: float | None
    n: Count


class Ratios(_Facts):
    """What an arm took to a target against the arm `to`."""

    to: str
    flops: Ratio | None
    samples: Ratio | None


class Reach(_Facts):
    """The compute that each run took to a target; null: it never got there. every: updates between measurements."""

    arm: str
    stage: str
    metric: str
    value: float
    every: int | None = None
    flops: list[float | None] = Field(default_factory=list)
    samples: list[float | None] = Field(default_factory=list)
    ratio: Ratios | None = None


class Variance(_Facts):
    """Shares of the variance of a score."""

    metric: str
    arm: str
    pretraining: Share | None
    finetuning: Share | None
    items: Share | None
    sd: float | None


class Curve(_Facts):
    """A figure in training: step, samples, FLOPs, mean, and the lowest and the highest of the seeds."""

    arm: str
    stage: str
    metric: str
    points: list[tuple[float, float | None, float | None, float, float | None, float | None]]


class Case(_Facts):
    """A retrieval of one query: what a model put first."""

    arm: str
    run: str
    query: str
    kind: str
    image: str | None
    right: bool
    top: list[JsonValue] = Field(default_factory=list)


class Explanation(_Facts):
    """A folder that `renaissance explain` wrote, and one of what became of the layers since the model began."""

    arm: str
    folder: str
    beginning: str | None = None


class Run(_Facts):
    """One run of the study."""

    id: str
    arms: list[str]
    stage: str
    seeds: list[int] = Field(default_factory=list)
    state: Literal["done", "failed", "waiting"]
    seconds: float | None = None
    flops: float | None = None
    command: str = ""
    scores_sha256: str | None = None
    error: JsonValue = None


class Results(_Facts):
    """All that a report tells."""

    study: StudyFacts
    arms: list[Arm] = Field(min_length=1)
    stages: list[Stage]
    hypotheses: list[Hypothesis]
    claims: list[Claim] = Field(default_factory=list)
    scores: list[Score] = Field(default_factory=list)
    compute: list[Compute] = Field(default_factory=list)
    reach: list[Reach] = Field(default_factory=list)
    variance: list[Variance] = Field(default_factory=list)
    curves: list[Curve] = Field(default_factory=list)
    cases: list[Case] = Field(default_factory=list)
    explanations: list[Explanation] = Field(default_factory=list)
    runs: list[Run] = Field(default_factory=list)
    machine: dict[str, JsonValue] | None = None
    notes: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for fault in self._faults():
            raise ValueError(fault)
        return self

    def _faults(self) -> Iterator[str]:
        arms = {arm.name for arm in self.arms}
        for key in ("scores", "compute", "reach", "variance", "curves", "cases", "explanations"):
            for row in getattr(self, key):
                if row.arm not in arms:
                    yield f"'{key}' names the arm '{shown(row.arm)}', which 'arms' does not have"
        if self.study.primary not in {hypothesis.name for hypothesis in self.hypotheses}:
            yield f"'study.primary' is '{shown(self.study.primary)}', which 'hypotheses' does not have"

    @property
    def ranked(self) -> list[Hypothesis]:
        """The hypotheses, the primary one first."""
        return sorted(self.hypotheses, key=lambda hypothesis: not hypothesis.primary)
