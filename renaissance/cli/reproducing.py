"""`reproduce`: whether a released checkpoint gives its published figures here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from renaissance.cli.output import JsonFlag, note, print_facts, print_json, print_table
from renaissance.cli.quiet import quiet
from renaissance.errors import SpecError

if TYPE_CHECKING:
    from renaissance.anchors.report import Outcome, Reproduction

NameArgument = Annotated[
    str | None, typer.Argument(metavar="NAME", help="An anchor's name, or a YAML file of one.", show_default=False)
]


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    example = "Example: renaissance reproduce clip-b32-winoground --data prepared/winoground"
    app.command("reproduce", epilog=example)(reproduce)


def reproduce(
    name: NameArgument = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="The prepared data of its layout.", show_default=False),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show the anchors, and what each takes.")] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Another branch, tag or commit of the checkpoint.")
    ] = None,
    from_pickle: Annotated[
        bool, typer.Option("--from-pickle", help="Read a pickled file; nothing in it is run.")
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Measure a part of the data too, without a verdict.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Keep the imported model in this folder.", show_default=False)
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps; default: the GPU if there is one.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Download a released checkpoint, import and measure it, and compare with the figures that were published of it.

    The checkpoint comes from the Hub (HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE are honoured), the data from
    you. A figure that is not as published ends with exit code 14.
    """
    from renaissance.anchors.anchor import as_anchor

    if list_:
        _print_anchors(as_json=as_json)
        return
    if name is None or data is None:
        raise SpecError(
            "Say which anchor, and where its data are: renaissance reproduce NAME --data PREPARED. See --list."
        )
    anchor = as_anchor(name)
    with quiet():
        from renaissance.anchors.running import reproduce
        from renaissance.progress import Bars, closing

        with closing(Bars()) as progress:
            found = reproduce(
                anchor,
                data,
                revision=revision,
                from_pickle=from_pickle,
                partial=partial,
                out=out,
                device=device,
                progress=progress,
            )
    if as_json:
        print_json(found.report())
    else:
        _print(found)
    found.require()


def _print_anchors(*, as_json: bool) -> None:
    from renaissance.anchors.anchor import COLUMNS, anchor_names, as_anchor, cost, rows

    if not as_json:
        print_table(COLUMNS, rows(), right=COLUMNS[-2:])
        return
    anchors = [as_anchor(name) for name in anchor_names()]
    print_json(
        {
            "anchors": [
                {
                    **anchor.model_dump(mode="json"),
                    "page": anchor.data.published.page,
                    "cost": cost(anchor)._asdict(),
                }
                for anchor in anchors
            ]
        }
    )


def _print(found: Reproduction) -> None:
    """Print with what it was measured, then one row a figure, then what is known to differ."""
    fetched, imported = found.fetched, found.imported
    weights = f"{', '.join(fetched.weights)} ({fetched.size / 1e6:,.1f} MB with what is beside them)"
    facts = [
        ("anchor", f"{found.anchor.name}: {found.anchor.summary}"),
        ("checkpoint", f"{fetched.repo} at commit {fetched.commit}"),
        ("weights", weights),
        ("imported", f"{imported.tensors} tensors as {imported.spec}"),
        ("left out", ", ".join(imported.left_out) or "nothing"),
        ("data", f"{found.data}: {', '.join(f'{split} {part.told()}' for split, part in found.parts.items())}"),
        ("device", found.device),
        ("versions", ", ".join(f"{name} {number}" for name, number in found.versions.items())),
    ]
    print_facts(facts)
    numbers = ("published", "tolerance", "measured [95%]")
    rows = [_row(outcome) for outcome in found.outcomes]
    print_table(("split", "score", *numbers, "verdict"), rows, right=numbers)
    for outcome in found.outcomes:
        if outcome.figure.why is not None:
            note(f"{outcome.figure.metric}: nothing to compare with: {outcome.figure.why}")
    for line in found.anchor.differs:
        note(f"Known to differ: {line}")


def _row(outcome: Outcome) -> tuple[str, ...]:
    figure, score = outcome.figure, outcome.score
    expected = "none" if figure.expected is None else f"{figure.expected:.2f}"
    tolerance = "" if figure.tolerance is None else f"{figure.tolerance:.2f}"
    measured = f"{score.value:.2f} [{score.low:.2f}, {score.high:.2f}]"
    return figure.split, figure.metric, expected, tolerance, measured, outcome.verdict
