"""`explain`: what a model looks at, and what its layers know."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from renaissance.cli.models import ModelPlace, Revision, Trust
from renaissance.cli.output import JsonFlag, print_facts, print_json, print_table
from renaissance.cli.quiet import quiet

EXAMPLE = 'Example: renaissance explain renaissance/two-tower-frozen-vit --image cup.jpg --text "a red cup" --out why'


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("explain", epilog=EXAMPLE)(explain)


def explain(
    model: ModelPlace,
    out: Annotated[Path, typer.Option("--out", help="The folder to write, a new one.")] = Path("explanation"),
    image: Annotated[Path | None, typer.Option("--image", help="A picture to explain, with --text.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="A text to explain, with --image.")] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="A folder of prepared data, or 'world': drawn scenes, with boxes and labels."),
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Of prepared data; by default a held-out one.")] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="The model that it started from, or another, to compare with.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="Whose output is explained; itm before itc.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="The label of a task that has several.")] = None,
    samples: Annotated[
        int, typer.Option("--samples", min=1, help="Pairs of the data; probes take four times it of the world.")
    ] = 64,
    probes: Annotated[
        int | None,
        typer.Option("--probes", min=0, help="Drawn scenes for linear probes, with any data.", show_default=False),
    ] = None,
    pointing: Annotated[
        int | None,
        typer.Option("--pointing", min=0, help="Drawn scenes for the pointing game, any data.", show_default=False),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of each part of integrated gradients.")] = 16,
    baseline: Annotated[
        Literal["mean", "white"], typer.Option("--baseline", help="The picture that attributions start from.")
    ] = "mean",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Draws scenes, exchanges and splits.")] = 0,
    revision: Revision = None,
    trust: Trust = None,
    as_json: JsonFlag = False,
) -> None:
    """Write what a model looks at and what its layers know: attributions, rollout, shares, CKA, drift, probes."""
    with quiet():
        from renaissance.explaining import explain as write
        from renaissance.progress import Bars, closing

        with closing(Bars()) as progress:
            done = write(
                model,
                out,
                image=image,
                text=text,
                data=data,
                split=split,
                against=against,
                task=task,
                label=label,
                samples=samples,
                probes=probes,
                pointing=pointing,
                steps=steps,
                baseline=baseline,
                seed=seed,
                revision=revision,
                trust=tuple(trust or ()),
                progress=progress,
            )
    if as_json:
        print_json(done.facts)
        return
    _print(done.folder, done.facts)


def _print(folder: Path, facts: Mapping[str, Any]) -> None:
    print_facts([("folder", str(folder)), ("explained", facts["output"]["name"]), *_told(facts)])
    if facts["sample"] is not None:
        print()
        rows = [(row["word"], f"{row['attribution']:+.4f}", _share(row["rollout"])) for row in facts["sample"]["words"]]
        print_table(("word", "adds", "rollout"), rows, right=("adds", "rollout"))
    if facts["pointing"]:
        print()
        columns = ("map", "hits %", "chance %", "other things %")
        pointed = [
            (name, f"{row['hits']:.1f}", f"{row['chance']:.1f}", f"{row['other_things']:.1f}")
            for name, row in facts["pointing"].items()
            if name != "incomplete"
        ]
        print_table(columns, pointed, right=columns[1:])
    for what, why in facts["unavailable"].items():
        print(f"\nwithout {what}: {why}")


def _told(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    told: list[tuple[str, str]] = []
    sample, shares = facts["sample"], facts["shares"]
    if sample is not None:
        told.append(("output", f"{sample['output']:.4f}; without picture and words {sample['baseline']:.4f}"))
        told.append(("added by", f"picture {sample['added_by_image']:+.4f}, words {sample['added_by_text']:+.4f}"))
    if shares is not None:
        low, high = shares["image_share_interval"]
        told.append(("image's share", f"{100 * shares['image_share']:.1f}% ({100 * low:.1f} to {100 * high:.1f})"))
    if facts["drift"] is not None:
        moved = max(facts["drift"], key=lambda row: row["weights"] or 0)
        told.append(("moved most", f"{moved['layer']}, weights by {100 * (moved['weights'] or 0):.1f}%"))
    if facts["probes"]:
        best: dict[str, Any] = {}
        for row in facts["probes"]:
            key = f"{row['layer'].partition('.')[0]} {row['target']}"
            best[key] = max(best.get(key, row), row, key=lambda one: one["accuracy"])
        told += [
            (f"{key} read best", f"{row['layer']}: {row['accuracy']:.1f}% (commonest {row['majority']:.1f}%)")
            for key, row in best.items()
        ]
    return [*told, ("pictures", ", ".join(picture["file"] for picture in facts["pictures"]) or "none")]


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}%"
