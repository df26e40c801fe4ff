"""The sections of what was asked and what came of it: the question, the verdicts, the effects."""

from __future__ import annotations

from collections.abc import Sequence

from renaissance.report.blocks import (
    Block,
    Bullets,
    Cell,
    Column,
    Facts,
    Figure,
    Heading,
    Paragraph,
    Section,
    Table,
    Told,
)
from renaissance.report.blocks import number as number_cell
from renaissance.report.blocks import words as text_cell
from renaissance.report.effects import effect_plot
from renaissance.report.facts import Claim, Hypothesis, Results
from renaissance.report.wording import (
    BADGES,
    NOTHING,
    count,
    decimals,
    effect,
    ledger_key,
    level_of,
    listed,
    margin,
    metric_name,
    probability,
    quantity,
    standing,
)

WEIGHTS = {
    "confirmatory": "confirmatory for the primary hypothesis, exploratory for all others",
    "exploratory": "exploratory: they suggest, and confirm nothing",
    "none": "none: this preset shows that the study runs",
}
SAMPLING = (
    "Effects and intervals are paired, over pretraining seeds. The primary hypothesis is decided by its own p, the "
    "others by theirs after Holm's correction, which is over all that are stated."
)


def question(results: Results) -> Section:
    """Return what was asked, of what, and how."""
    study = results.study
    primary = next(hypothesis for hypothesis in results.hypotheses if hypothesis.name == study.primary)
    facts = [
        ("scope", study.scope),
        ("primary hypothesis", primary.says),
        ("preset", f"{study.preset}: {study.about}" if study.about else study.preset),
        ("verdicts", WEIGHTS[study.verdicts]),
    ]
    columns = [Column("stage"), Column("tasks"), Column("updates", "number"), Column("batch", "number")]
    columns += [Column("seeds", "number"), Column("data")]
    rows = [
        [
            text_cell(stage.name),
            text_cell(", ".join(stage.tasks)),
            number_cell(count(stage.updates), stage.updates),
            number_cell(count(stage.batch), stage.batch),
            number_cell(count(stage.seeds), stage.seeds),
            text_cell(stage.data),
        ]
        for stage in results.stages
    ]
    stages = [Table("The stages that each arm goes through", columns, rows)] if rows else []
    return Section("question", "Question and scope", [Facts(facts), *stages])


def verdicts(results: Results) -> Section:
    """Return what became of the claims and of each hypothesis, the primary one first."""
    blocks: list[Block] = []
    if results.claims:
        blocks += [Heading("Claims"), *claims_told(results.claims, level=4), Heading("Hypotheses")]
    below = 4 if results.claims else 3
    blocks += [hypothesis_told(hypothesis, level=below) for hypothesis in results.ranked]
    return Section("verdicts", "Verdicts", [*blocks, Paragraph(SAMPLING, quiet=True)])


def claims_told(claims: Sequence[Claim], *, level: int = 3) -> list[Block]:
    """Return claims with their verdicts; `level`: of their headings."""
    return [
        Told(
            anchor=f"claim-{claim.number}",
            name=f"Claim {claim.number}",
            says=claim.claim,
            badge=BADGES[claim.verdict],
            standing="",
            lines=[claim.reason] if claim.reason else [],
            facts=[("by", listed(claim.by))] if claim.by else [],
            level=level,
        )
        for claim in claims
    ]


def hypothesis_told(hypothesis: Hypothesis, *, prefix: str = "", level: int = 3) -> Told:
    """Return a hypothesis with its verdict; `prefix` keeps its anchor apart from those of other studies."""
    return Told(
        anchor=f"{prefix}hypothesis-{hypothesis.name}",
        name=hypothesis.name,
        says=hypothesis.says,
        badge=BADGES[hypothesis.verdict],
        standing=standing(hypothesis),
        lines=[line for line in (hypothesis.sentence, hypothesis.reason) if line],
        facts=_facts(hypothesis),
        more=_more(hypothesis),
        leading=hypothesis.primary,
        level=level,
    )


def _facts(hypothesis: Hypothesis) -> list[tuple[str, str]]:
    """Return the numbers that a verdict is made of; those that were not made are left out."""
    mean, interval, _ = effect(hypothesis.estimate, hypothesis.metric)
    return _known(
        ("effect", mean),
        (f"{level_of(hypothesis)} interval", interval),
        ("margin", margin(hypothesis)),
        ("p", probability(hypothesis.p)),
        ("p, Holm", probability(hypothesis.p_holm)),
        ("seeds", count(hypothesis.n)),
    )


def _more(hypothesis: Hypothesis) -> list[tuple[str, str]]:
    """Return the numbers that stand beside them."""
    found, margins, equal = hypothesis.bootstrap, hypothesis.margin, hypothesis.equivalence
    key, places = ledger_key(hypothesis.metric), decimals((found.low, found.high)) if found else 0
    ends = [quantity(end, key, places) for end in (found.low, found.high)] if found else []
    gain, gain_interval, _ = effect(margins.gain if margins else None, hypothesis.metric)
    return _known(
        ("metric", metric_name(hypothesis.metric)),
        ("arms", ", ".join(hypothesis.arms)),
        ("sd over seeds", effect(hypothesis.estimate, hypothesis.metric)[2]),
        ("seeds planned for", count(hypothesis.seeds_needed)),
        ("seeds to decide", count(hypothesis.seeds_to_decide)),
        ("p, permutation", probability(hypothesis.p_permutation)),
        ("p, equivalence", probability(equal.p if equal else None)),
        (
            "gain of the reference" if margins and margins.of else "gain over chance",
            gain if gain_interval == NOTHING else f"{gain} {gain_interval}",
        ),
        ("p of the gain", probability(margins.p_gain if margins else None)),
        ("bootstrap", f"[{', '.join(ends)}] over {listed(found.over)}" if found else NOTHING),
    )


def _known(*facts: tuple[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in facts if value != NOTHING]


def effects(results: Results) -> Section:
    """Return the effect plot, and the differences of single seeds that it shows."""
    plot = effect_plot(results.ranked)
    if plot is None:
        return Section("effects", "Effects")
    rows = [hypothesis for hypothesis in results.ranked if hypothesis.differences]
    most = max((len(hypothesis.differences) for hypothesis in rows), default=0)
    columns = [Column("hypothesis"), *(Column(f"seed {place + 1}", "number") for place in range(most))]
    table = Table("Paired differences by pretraining seed", columns, [_by_seed(found, most) for found in rows])
    return Section("effects", "Effects", [Figure(plot), table] if most else [Figure(plot)])


def _by_seed(hypothesis: Hypothesis, most: int) -> list[Cell]:
    found, key = hypothesis.differences, ledger_key(hypothesis.metric)
    places = decimals(found)
    cells = [number_cell(quantity(value, key, places, signed=True), value) for value in found]
    return [text_cell(hypothesis.name), *cells, *[number_cell(NOTHING, None)] * (most - len(found))]


def notes(results: Results) -> Section:
    """Return what the analysis said, and which runs failed."""
    said: list[Block] = [Bullets(results.notes)] if results.notes else []
    failed = [run for run in results.runs if run.state == "failed"]
    if failed:
        rows = [[*map(text_cell, (run.id, ", ".join(run.arms), run.stage, _fault(run.error)))] for run in failed]
        columns = [Column("run", "code"), Column("arms"), Column("stage"), Column("error")]
        said.append(Table("Runs that failed, and are in no number above", columns, rows))
    return Section("notes", "Notes", said)


def _fault(error: object) -> str:
    if isinstance(error, dict):
        return ": ".join(str(error[key]) for key in ("type", "message") if error.get(key))
    return str(error) if error else "not said"
