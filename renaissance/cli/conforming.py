"""`conform`: the conformance kit on what is installed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from renaissance.cli.output import JsonFlag, print_json, print_table


def add_to(app: typer.Typer) -> None:
    """Add this group's command."""
    app.command("conform", epilog="Example: renaissance conform lxmert")(conform)


def conform(
    name: Annotated[str, typer.Argument(help="A component that 'list' shows, or a plugin: all of its components.")],
    as_json: JsonFlag = False,
) -> None:
    """Check a component, or all of a plugin's, against the rules of the conformance kit.

    Components are built at their tiny size, with random weights. The exit code is 6 if a rule is broken.
    """
    from renaissance.testing import conform as report_on

    report = report_on(name)
    if as_json:
        print_json({"held": not report.failures, "findings": [asdict(finding) for finding in report.findings]})
    else:
        rows = [(found.entry, found.rule, found.outcome, found.reason) for found in report.findings]
        print_table(("component", "rule", "outcome", "why"), rows)
    report.check()
