"""`cost`: parameters, FLOPs and memory of a spec, without its weights."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from renaissance.cli.output import JsonFlag, given_spec, print_facts, print_json, print_table

if TYPE_CHECKING:
    from renaissance.cost import Cost

SpecArgument = Annotated[
    str,
    typer.Argument(
        metavar="SPEC",
        help="One line of shorthand, a spec as JSON, or a preset: two-tower-1b, -3b, -8b, one-tower-1b, -3b, -8b.",
        show_default=False,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add this group's command."""
    example = "Example: renaissance cost 'vit-base + bert-base, frozen text' --tasks mlm,itm --batch 64"
    app.command("cost", epilog=example)(cost)


def cost(
    line: SpecArgument,
    tasks: Annotated[str, typer.Option(help="What it is trained for, with commas between.")] = "mlm,itm",
    batch: Annotated[
        int, typer.Option(min=1, help="Pairs or items of a step, each with its own images and text.")
    ] = 32,
    text_tokens: Annotated[int, typer.Option(min=3, help="Tokens of each text, special ones included.")] = 32,
    masked: Annotated[
        int | None,
        typer.Option(min=0, help="Tokens of a batch that mlm predicts; by default 15%.", show_default=False),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what training a spec would cost: parameters, FLOPs and memory. Nothing is downloaded, no weight is made."""
    from renaissance.cost import cost as cost_of

    given = given_spec(line)
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    found = cost_of(given, names, batch=batch, text_tokens=text_tokens, masked=masked)
    if as_json:
        print_json(_as_data(found))
        return
    _print(found)


def _as_data(found: Cost) -> dict[str, Any]:
    """Return a cost as JSON has it; FLOPs and bytes are those of a step of the whole batch."""
    from renaissance.cost import SHARDS

    data = asdict(found)
    data["flops"]["training"] = found.flops.training
    data["memory"]["total"] = found.memory.total
    data["memory"]["sharded"] = {str(shards): found.memory.sharded(shards) for shards in SHARDS}
    return data


def _print(found: Cost) -> None:
    from renaissance.cost import SHARDS

    rows = [*found.parts.items(), ("total", found.parameters)]
    print_table(
        ("part", "parameters", "trainable"),
        [(name, f"{part.total:,}", f"{part.trainable:,}") for name, part in rows],
        right=("parameters", "trainable"),
    )
    flops, memory = found.flops, found.memory
    print()
    print_facts(
        [
            ("step", f"{found.batch} pairs or items, {found.text_tokens} tokens a text, {found.masked} tokens masked"),
            ("forward FLOPs a sample", f"{flops.forward / found.batch / 1e9:,.3f} G"),
            ("training FLOPs a sample", f"{flops.training / found.batch / 1e9:,.3f} G"),
            ("of these in attention", f"{100 * flops.attention / max(flops.training, 1):.1f}%"),
        ]
    )
    print()
    parts = ("weights", "gradients", "optimiser", "activations", "total")
    print_table(("memory, fp32", "GiB"), [(part, _gib(getattr(memory, part))) for part in parts], right=("GiB",))
    print()
    print_table(
        ("FSDP shards", "GiB per GPU"),
        [(str(shards), _gib(memory.sharded(shards))) for shards in SHARDS],
        right=("FSDP shards", "GiB per GPU"),
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:,.2f}"
