"""The sections of the arms and their runs: what was frozen, what each run cost, how each number is made again."""

from __future__ import annotations

import re

from renaissance.report.blocks import (
    Block,
    Cell,
    Column,
    Command,
    Facts,
    Figure,
    Folded,
    Paragraph,
    Section,
    Table,
    without_empty,
)
from renaissance.report.blocks import number as number_cell
from renaissance.report.blocks import words as text_cell
from renaissance.report.charts import size_plot
from renaissance.report.facts import Arm, Results, Run
from renaissance.report.wording import NOTHING, count, duration, listed, short

_PART = re.compile(r"(\d+) of (\d+)\b")
_WHOLE = {"all of it": 1.0, "nothing": 0.0}
_DIGEST = 16  # characters of a SHA-256 that tables show


def arms(results: Results) -> Section:
    """Return the arms, what each trains, and what of each part is frozen."""
    blocks: list[Block] = [_arm_table(results.arms)]
    plot = size_plot(results.arms)
    if plot is not None:
        blocks.append(Figure(plot))
    freeze_map = _freeze_map(results.arms)
    blocks += [freeze_map] if freeze_map else []
    return Section("arms", "Arms, and what is frozen", [*blocks, _specs(results.arms)])


def _arm_table(found: list[Arm]) -> Table:
    factors = list(dict.fromkeys(factor for arm in found for factor in arm.levels))
    columns = [Column("arm"), *(Column(factor) for factor in factors), Column("what it is")]
    columns += [Column("parameters", "number"), Column("trained", "number"), Column("no embeddings", "number")]
    columns += [Column("FLOPs a pair", "number")]
    return without_empty(Table("The arms", columns, [_arm_row(arm, factors) for arm in found]))


def _arm_row(arm: Arm, factors: list[str]) -> list[Cell]:
    size = arm.parameters
    sizes = (None, None, None) if size is None else (size.total, size.trainable, size.without_embeddings)
    # of an arm of factors its levels say what it is
    about = ": ".join(filter(None, ("control", arm.about))) if arm.control else "" if arm.levels else arm.about
    return [
        text_cell(arm.name),
        *(text_cell(arm.levels.get(factor, NOTHING)) for factor in factors),
        text_cell(about or NOTHING),
        *(number_cell(short(value), value) for value in sizes),
        number_cell(short(arm.flops_a_pair), arm.flops_a_pair),
    ]


def _specs(found: list[Arm]) -> Folded:
    """Return what the table of the arms has no room for."""
    columns = [Column("arm"), Column("differs in"), Column("spec", "code")]
    rows = [
        [text_cell(arm.name), text_cell(", ".join(arm.varies) or NOTHING), text_cell(arm.spec or NOTHING)]
        for arm in found
    ]
    table = without_empty(Table("Of each arm, which keys of recipes differ, and its spec", columns, rows))
    return Folded("specs of the arms, and what differs in their recipes", [table])


def _freeze_map(found: list[Arm]) -> Table | None:
    """Return what is frozen of each part, with bars where a share can be told."""
    known = [arm for arm in found if arm.frozen is not None]
    parts = list(dict.fromkeys(part for arm in known for part in arm.frozen or ()))
    if not parts:
        return None
    rows = [[text_cell(arm.name), *(_frozen(arm, part) for part in parts)] for arm in known]
    return Table("What is frozen of each part", [Column("arm"), *map(Column, parts)], rows)


def _frozen(arm: Arm, part: str) -> Cell:
    said = (arm.frozen or {}).get(part, "nothing")
    counted = _PART.search(said)
    if counted is not None and int(counted[2]):
        return Cell(said, bar=min(1.0, int(counted[1]) / int(counted[2])))
    return Cell(said, bar=_WHOLE.get(said))


# --- runs -------------------------------------------------------------------------------------------------------------


def runs(results: Results) -> Section:
    """Return what each run cost."""
    if not results.runs:
        return Section("runs", "What each run cost")
    done = [run for run in results.runs if run.state == "done"]
    seconds = sum(run.seconds or 0 for run in done)
    flops = sum(run.flops or 0 for run in done)
    said = f"{count(len(done))} of {count(len(results.runs))} runs are done; they took {duration(seconds)}"
    said += f" and {short(flops)} FLOPs." if flops else "."
    known = {key: value for key, value in (results.machine or {}).items() if value is not None}
    machine = [(key.replace("_", " "), str(value)) for key, value in known.items()]
    columns = [Column("run", "code"), Column("arms"), Column("stage"), Column("seeds"), Column("state")]
    columns += [Column("time", "number"), Column("FLOPs", "number")]
    table = Table("All runs", columns, [_run_row(run) for run in results.runs])
    folded = Folded(f"all {count(len(results.runs))} runs", [table])
    return Section("runs", "What each run cost", [Paragraph(said), *([Facts(machine)] if machine else []), folded])


def _run_row(run: Run) -> list[Cell]:
    return [
        text_cell(run.id),
        text_cell(", ".join(run.arms)),
        text_cell(run.stage),
        text_cell(", ".join(map(str, run.seeds))),
        text_cell(run.state),
        number_cell(duration(run.seconds), run.seconds),
        number_cell(short(run.flops), run.flops),
    ]


def reproduce(results: Results) -> Section:
    """Return the commands behind the numbers, and the digests that show that nothing was changed since."""
    study = results.study
    blocks: list[Block] = [
        Paragraph(
            "The whole study: runs that are done are not repeated, and the seeds of each are part of its recipe. The "
            "report is made of results.json alone, and made again has the same bytes."
        ),
        Command(study.command),
        Facts([("renaissance", study.version), ("study.yaml, SHA-256", study.digest or "not known")]),
    ]
    done = [run for run in results.runs if run.state == "done"]
    if done:
        stages = listed(dict.fromkeys(run.stage for run in done))
        blocks.append(
            Paragraph(
                f"Each number of an arm in a stage ({stages}) comes from the runs of that arm and stage below, in the "
                "order of their seeds; a single run is made again by its command. A score stands in the scores.json of "
                f"its run, whose SHA-256 begins as shown ({_DIGEST} of its 64 digits)."
            )
        )
        columns = [Column("run", "code"), Column("arms"), Column("stage"), Column("seeds")]
        columns += [Column("scores.json", "code"), Column("command", "code")]
        table = Table("Runs, digests and commands", columns, [_source_row(run) for run in done])
        blocks.append(Folded(f"{count(len(done))} runs with their commands", [table]))
    return Section("reproduce", "How to reproduce each number", blocks)


def _source_row(run: Run) -> list[Cell]:
    names = run.id, ", ".join(run.arms), run.stage, ", ".join(map(str, run.seeds))
    return [*map(text_cell, (*names, (run.scores_sha256 or NOTHING)[:_DIGEST], run.command))]
