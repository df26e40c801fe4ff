"""The page of a collection: the claims of a paper, and the verdicts of the studies that judge them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import renaissance
from renaissance.report.blocks import Block, Cell, Column, Command, Facts, Figure, Link, Paragraph, Section, Table
from renaissance.report.blocks import words as text_cell
from renaissance.report.effects import effect_plot
from renaissance.report.facts import Claim, Results
from renaissance.report.rendering import Page
from renaissance.report.verdicts import SAMPLING, WEIGHTS, claims_told, hypothesis_told
from renaissance.report.wording import BADGES, count, listed


def collection_page(
    studies: Mapping[str, Results], claims: Sequence[Claim], reports: Mapping[str, str], name: str = "", about: str = ""
) -> Page:
    """Return the page: claims first, then each study by its name; `reports`: where the own report of a study is."""
    found = [claim.verdict for claim in claims]
    told = [f"{count(found.count(verdict))} {verdict}" for verdict in dict.fromkeys(found)]
    counted = f"{count(len(claims))} claims: {listed(told)}." if claims else "No claims are stated."
    whole = [name for name, results in studies.items() if not results.study.complete]
    given = [Section("claims", "Claims", [_overview(claims), *claims_told(claims)])] if claims else []
    return Page(
        kind="report of a collection of studies",
        title=name or (listed(studies) if len(studies) < 3 else f"{count(len(studies))} studies"),
        asked=" ".join([*([f"{about.rstrip('.')}."] if about else []), counted]),
        meta=f"Studies: {listed(studies)}. A verdict holds for the worlds and the towers of its studies alone.",
        answer=None,
        warning=f"Runs are still to come in: {listed(whole)}." if whole else "",
        version=renaissance.__version__,
        footer="Made from the results.json of each study. Made again, it has the same bytes.",
        given=[*given, *(_study(name, results, reports.get(name)) for name, results in studies.items())],
    )


def _overview(claims: Sequence[Claim]) -> Table:
    columns = [Column("claim", "number"), Column("verdict"), Column("what it says")]
    rows = [
        [
            Cell(str(claim.number), claim.number),
            Cell("", badge=BADGES[claim.verdict]),
            text_cell(claim.claim),
        ]
        for claim in claims
    ]
    return Table("All claims", columns, rows)


def _study(name: str, results: Results, report: str | None) -> Section:
    """Return a study: its question, its effects and its verdicts; its own report has the rest."""
    study, anchor = results.study, re.sub(r"[^a-z0-9-]", "-", name.lower())
    facts = [("question", study.question), ("scope", study.scope), ("preset", study.preset)]
    plot = effect_plot(results.ranked, name=f"effects-{anchor}")
    blocks: list[Block] = [Facts([*facts, ("verdicts", WEIGHTS[study.verdicts])])]
    blocks += [Link("Its own report has scores, compute, curves, runs and commands.", report)] if report else []
    blocks += [Figure(plot)] if plot is not None else []
    blocks += [hypothesis_told(hypothesis, prefix=f"{anchor}-") for hypothesis in results.ranked]
    blocks.append(Paragraph(SAMPLING, quiet=True))
    return Section(f"study-{anchor}", name, [*blocks, Command(study.command)])
