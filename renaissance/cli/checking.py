"""`check` and `schema`: specs and recipes, without building anything. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from renaissance import spec
from renaissance.api import Options, Unknown
from renaissance.cli.listing import capabilities
from renaissance.cli.output import JsonFlag, given_spec, json_text, print_facts, print_json, print_table, shown_value
from renaissance.plans import AnyPlan, OneTowerPlan, Plan, TowerPlan
from renaissance.resolve import resolve
from renaissance.shorthand import ONE_TOWER, format_spec

if TYPE_CHECKING:
    from renaissance.cost import Parameters

SpecArgument = Annotated[
    str, typer.Argument(metavar="SPEC", help="One line of shorthand, or a spec as JSON, in quotes.", show_default=False)
]
TaskOption = Annotated[
    list[str] | None, typer.Option("--task", help="A task that the model is for; may be given several times.")
]


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    example = "Example: renaissance check 'vit-base + bert-base, two-tower, frozen text' --task mlm --deep"
    app.command("check", epilog=example)(check)
    app.command("schema", epilog="Example: renaissance schema recipe > recipe.schema.json")(schema)


def check(
    line: SpecArgument,
    task: TaskOption = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Build it as well, as shapes without weights, and count its parameters.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Check a spec, and its tasks, against what is installed; show what would be built.

    What only the build can tell is marked 'checked at build'; --deep builds the whole model on the meta device to find
    out: nothing is downloaded but the config of a model that only the Hub knows, and no weight is made or loaded.
    """
    given = given_spec(line)
    plan = resolve(given, tuple(task or ()))
    counts = _built(plan) if deep else {}
    parts = _parts(plan)
    if as_json:
        print_json(
            {
                "canonical": format_spec(plan.spec),
                "spec": plan.spec.model_dump(mode="json"),
                "parts": parts,
                "tasks": [
                    {"name": use.name, "options": use.options.model_dump(mode="json")} for use in plan.tasks.values()
                ],
                "plugins": dict(plan.plugins),
                **({"parameters": {part: asdict(count) for part, count in counts.items()}} if deep else {}),
            }
        )
        return
    _print_plan(plan, parts, built=deep)
    if deep:
        print()
        _print_counts(counts)


def schema(
    of: Annotated[Literal["spec", "recipe"], typer.Argument(help="What to describe.", show_default=False)],
    as_json: JsonFlag = False,
) -> None:
    """Print the JSON Schema of specs or of recipes; it is JSON with or without --json."""
    from renaissance import recipe

    print_json(spec.json_schema() if of == "spec" else recipe.json_schema())


# --- the build ----------------------------------------------------------------------------------------------------


def _built(plan: AnyPlan) -> dict[str, Parameters]:
    """Build the model without weights; return the parameters of each part and of all.

    Raises:
        SpecError: the parts do not fit.
        HubError: a model is named whose config only the Hub has.
    """
    from renaissance.cost import assemble_on_meta, counted, counted_parts

    assembly = assemble_on_meta(plan)
    return {**counted_parts(assembly), "total": counted(assembly)}


def _print_counts(counts: Mapping[str, Parameters]) -> None:
    print_table(
        ("part", "parameters", "trainable"),
        [(part, f"{count.total:,}", f"{count.trainable:,}") for part, count in counts.items()],
        right=("parameters", "trainable"),
    )


# --- the plan -------------------------------------------------------------------------------------------------------


def _parts(plan: AnyPlan) -> dict[str, dict[str, Any]]:
    parts = _one_tower(plan) if isinstance(plan, OneTowerPlan) else _two_tower(plan)
    held = {name: [str(rule) for rule in plan.rules if rule.part.name == name] for name in parts}
    return {name: {**part, "rules": ", ".join(held[name]) or None} for name, part in parts.items()}


def _one_tower(plan: OneTowerPlan) -> dict[str, dict[str, Any]]:
    """Return the base and where the other modality's embeddings come from."""
    other = "text" if plan.base.entry.modality == "vision" else "vision"
    if plan.donor is not None:
        return {"encoder": _tower(plan.base), other: _tower(plan.donor)}
    chosen = plan.spec.model_dump(include=set(ONE_TOWER) - {"pooling", "modality"}, exclude_none=True)
    new = {"name": "new embeddings", "weights": "random", "options": chosen, "chosen": chosen, "facts": {}}
    return {"encoder": _tower(plan.base), other: new}


def _two_tower(plan: Plan) -> dict[str, dict[str, Any]]:
    parts = {name: _tower(tower) for name, tower in (("vision", plan.vision), ("text", plan.text))}
    parts["fusion"] = {
        "name": plan.fusion.name,
        "weights": "random",
        "options": plan.fusion.options.model_dump(mode="json"),
        "chosen": _chosen(plan.fusion.options),
        "facts": {"outputs": sorted(plan.fusion.entry.outputs)},
    }
    return parts


def _tower(tower: TowerPlan) -> dict[str, Any]:
    named = {"model", "revision"} if tower.entry.library else set()
    return {
        "name": tower.name,
        "weights": tower.start,
        "options": tower.options.model_dump(mode="json", exclude=named),
        "chosen": _chosen(tower.options, named),
        "facts": capabilities(tower.facts),
    }


def _chosen(options: Options, named: set[str] | None = None) -> dict[str, Any]:
    """Return the options that differ from their defaults."""
    return options.model_dump(mode="json", exclude_defaults=True, exclude=named)


def _print_plan(plan: AnyPlan, parts: Mapping[str, Mapping[str, Any]], *, built: bool) -> None:
    print(format_spec(plan.spec))
    print()
    rows = [
        [
            part,
            row["name"],
            row["weights"],
            row["rules"] or "all of it",
            ", ".join(f"{k}={json_text(v)}" for k, v in row["chosen"].items()),
        ]
        for part, row in parts.items()
    ]
    print_table(("part", "component", "weights", "trained", "options"), rows)
    print()
    print_facts(_facts(plan, parts, built))


def _facts(plan: AnyPlan, parts: Mapping[str, Mapping[str, Any]], built: bool) -> Iterator[tuple[str, str]]:
    for part in (name for name in parts if name != "fusion"):
        facts = parts[part]["facts"]
        known = [
            f"{name.replace('_', ' ')} {shown_value(value)}"
            for name, value in facts.items()
            if not isinstance(value, Unknown) and value != ""
        ]
        beside = _beside_the_point(facts)
        unknown = [
            name.replace("_", " ")
            for name, value in facts.items()
            if isinstance(value, Unknown) and name not in beside and not built
        ]
        if known:
            yield part, "; ".join(known)
        if unknown:
            yield part, f"checked at build: {', '.join(unknown)}"
    if built:
        yield "built", "on the meta device: all parts fit"
    if plan.tasks:
        yield "tasks", ", ".join(task.name for task in plan.tasks.values())
    if plan.plugins:
        yield "plugins", ", ".join(plan.plugins.values())


def _beside_the_point(facts: Mapping[str, Any]) -> set[str]:
    """Return facts that no build tells either: the depth of what lists no layers, positions of what is no base."""
    names = {"depth"} if facts.get("layered") is False else set()
    return names | ({"positions"} if facts.get("base") is False else set())
