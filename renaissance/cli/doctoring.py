"""`data doctor`: what is wrong with data, and what of the evaluation data has been seen in training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from renaissance.api import Unknown
from renaissance.cli.output import given_spec, note, print_table
from renaissance.errors import DataError, OutputError

if TYPE_CHECKING:
    from renaissance.data.doctor import Report

SHOWN = 3
GivenArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="PREPARED...",
        help="Prepared data or image folders to train on; FOLDER:split,split chooses the splits.",
        show_default=False,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add this group's command."""
    example = "Example: renaissance data doctor prepared/coco --against prepared/flickr30k --json report.json"
    app.command("doctor", epilog=example)(doctor)


def doctor(
    given: GivenArgument,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", help="Data to be evaluated on; may be given several times.", show_default=False),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="SPEC", help="Tell what its backbones were trained on.", show_default=False),
    ] = None,
    vocabulary: Annotated[
        Path | None,
        typer.Option(help="The labels and answers that can be said: a JSON list, or one a line.", show_default=False),
    ] = None,
    waive: Annotated[
        list[str] | None,
        typer.Option("--waive", metavar="NAME", help="Accept a leak, by the name in the report.", show_default=False),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON too.", show_default=False)
    ] = None,
) -> None:
    """Examine data: images that cannot be decoded, duplicates, texts, boxes, answers, and leaks into the evaluation.

    Ends with exit code 4 if there are faults, or leaks that are not waived; what is noted, and overlaps that the
    field's own set-ups have, are no reason to fail.
    """
    from renaissance.data.doctor import examine
    from renaissance.progress import Bars, closing

    with closing(Bars()) as progress:
        report = examine(
            given,
            against or (),
            backbones=_backbones(model or ()),
            vocabulary=None if vocabulary is None else read_vocabulary(vocabulary),
            waived=tuple(waive or ()),
            progress=progress,
        )
    if json_file is not None:
        _write(report, json_file)
    _print(report)
    if report.faults or report.leaks:
        raise DataError(_verdict(report))


def read_vocabulary(path: Path) -> frozenset[str]:
    """Return the labels of a JSON list (or of the keys of an object), or of the lines of a text file.

    Raises:
        DataError: it cannot be read, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            return frozenset(line.strip() for line in text.splitlines() if line.strip())
        found = json.loads(text)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"The vocabulary '{path}' cannot be read ({why}).") from None
    if not isinstance(found, list | dict) or not all(isinstance(label, str) for label in found):
        raise DataError(f"The vocabulary '{path}' is no list of texts. Write a JSON list, or one label a line.")
    return frozenset(found)


def _backbones(lines: list[str] | tuple[str, ...]) -> Mapping[str, tuple[str, ...] | Unknown]:
    """Return what the pretrained backbones of specs were trained on, by name."""
    from renaissance.plans import Plan
    from renaissance.resolve import resolve

    found: dict[str, tuple[str, ...] | Unknown] = {}
    for line in lines:
        plan = resolve(given_spec(line))
        towers = (plan.vision, plan.text) if isinstance(plan, Plan) else (plan.base, plan.donor)
        found |= {tower.name: tower.facts.trained_on for tower in towers if tower is not None and tower.pretrained}
    return found


def _write(report: Report, path: Path) -> None:
    try:
        path.write_text(json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"The report '{path}' cannot be written ({error.strerror or error}).") from None


def _print(report: Report) -> None:
    rows = [
        (name, facts["layout"], split, f"{count:,}", f"{facts['images']:,}")
        for name, facts in report.data.items()
        for split, count in facts["splits"].items()
    ]
    print_table(("data", "layout", "split", "items", "images of the data"), rows, right=("items",))
    if report.findings:
        print()
        print_table(
            ("level", "where", "what", "count", "such as"),
            [
                (found.level, found.where, found.kind, f"{found.count:,}", "; ".join(found.examples[:SHOWN]))
                for found in report.findings
            ],
            right=("count",),
        )
    if report.overlaps:
        print()
        print_table(
            ("level", "name", "images", "by", "why"),
            [
                (
                    f"{found.level}, waived" if found.waived else found.level,
                    found.name,
                    f"{found.images:,} of {found.total:,}",
                    ", ".join(f"{sign} {count:,}" for sign, count in found.by.items() if count),
                    found.reason,
                )
                for found in report.overlaps
            ],
        )
    if report.seen:
        print()
        print_table(
            ("level", "name", "the backbone was trained on"),
            [
                (f"{found.level}, waived" if found.waived else found.level, found.name, found.trained_on)
                for found in report.seen
            ],
        )
    for name in report.unknown:
        note(f"What '{name}' was trained on is not known.")
    if not report.faults and not report.leaks:
        print("\nNo faults, no leaks.")


def _verdict(report: Report) -> str:
    parts = [f"{report.faults:,} faults"] if report.faults else []
    if report.leaks:
        parts.append(f"leaks: {', '.join(report.leaks)} (accept one with --waive NAME)")
    return f"The doctor found {'; '.join(parts)}."
