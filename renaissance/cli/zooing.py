"""`zoo`: the models that ship, what they score and cost; `zoo publish` pushes them. Listing imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from renaissance.cli.output import JsonFlag, note, print_json, print_table
from renaissance.cli.quiet import quiet
from renaissance.errors import SpecError
from renaissance.registry import default_registry
from renaissance.saved_config import read_config, saved_plan
from renaissance.shorthand import format_spec
from renaissance.spec import did_you_mean, shown, validate_spec
from renaissance.zoo import COUNTED, ORGANISATION, Card, cards

HINT = " See 'renaissance zoo'."
COLUMNS = ("model", *(name for name, _ in COUNTED), "parameters", "MB", "training GFLOP", "architecture")


def add_to(zoo: typer.Typer) -> None:
    """Add this group's commands; without one, it lists."""
    zoo.callback()(list_models)
    zoo.command("publish", epilog="Example: renaissance zoo publish --all --organisation my-name")(publish_models)


def list_models(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List the trained models that ship with renaissance: scores with 95% intervals, sizes, FLOPs of the training."""
    if context.invoked_subcommand is not None:
        return
    found = cards()
    if as_json:
        print_json({"models": [_facts(card) for card in found]})
        return
    print_table(COLUMNS, [_cells(card) for card in found], right=COLUMNS[1:-1])
    note(f"Load one: renaissance.from_pretrained('{found[0].repository}')." if found else "No model ships.")
    for domain in dict.fromkeys(card.domain for card in found):
        note(f"{', '.join(card.name for card in found if card.domain == domain)}: {domain}")


def publish_models(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="Models that 'zoo' lists.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    organisation: Annotated[str, typer.Option(help="Whose repositories they become.")] = ORGANISATION,
    private: Annotated[bool, typer.Option("--private", help="Make new repositories private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say where they would go, and send nothing.")] = False,
) -> None:
    """Push models that ship to the Hub (HF_ENDPOINT), each by one commit, or none where it is there already."""
    chosen = _chosen(names or [], everything)
    for card in chosen:  # a plugin that is missing is told before the first model is sent
        saved_plan(read_config(card.folder), card.folder, default_registry())
    with quiet():
        from renaissance.publishing import publish

        for card in chosen:
            done = publish(card.folder, f"{organisation}/{card.name}", private=private, dry_run=dry_run)
            told = "sent nothing (--dry-run)" if dry_run else done.commit if done.changed else "was there already"
            print(f"{done.url}: {told}")


def _chosen(names: Sequence[str], everything: bool) -> list[Card]:
    known = {card.name: card for card in cards()}
    if everything == bool(names):
        raise SpecError(f"Name models to publish, or say --all. There are: {', '.join(known)}.")
    for name in names:
        if name not in known:
            raise SpecError(f"No model that ships is called '{shown(name)}'.{did_you_mean(name, known) or HINT}")
    return [known[name] for name in names] if names else list(known.values())


def _facts(card: Card) -> dict[str, Any]:
    return {
        "name": card.repository,
        "spec": format_spec(validate_spec(card.config["spec"])),
        "tasks": list(card.tasks),
        "domain": card.domain,
        "parameters": card.parameters,
        "bytes": card.size,
        "training_flops": card.flops,
        "training_seconds": card.seconds,
        "scores": [row for row in card.scores["scores"] if row["model"] == "trained"],
    }


def _cells(card: Card) -> list[str]:
    scores = [_score(card.score(name)) for _, name in COUNTED]
    sizes = [f"{card.parameters:,}", f"{card.size / 1e6:.2f}", f"{card.flops / 1e9:,.0f}"]
    return [card.repository, *scores, *sizes, card.config["spec"]["architecture"]]


def _score(row: Mapping[str, Any] | None) -> str:
    return "" if row is None else f"{row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"
