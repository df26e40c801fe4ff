"""`list`, `show` and `plugins`: what is installed. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, Literal, cast

import typer

import renaissance
from renaissance.api import BackboneEntry, Capabilities, Entry, FusionHeadEntry, Modality, TaskEntry
from renaissance.cli.output import JsonFlag, json_text, note, print_facts, print_json, print_table, shown_value
from renaissance.components import checked_options, described
from renaissance.errors import UnknownComponentError
from renaissance.registry import BUILTIN, Component, Kind, Plugin, Registry, default_registry, key_of
from renaissance.spec import LIBRARIES, did_you_mean, shown

KindOption = Annotated[
    Literal["backbone", "fusion-head", "task"] | None, typer.Option("--kind", help="Only components of this kind.")
]
_PLACES: tuple[tuple[Kind, Modality | None], ...] = (
    ("backbone", "vision"), ("backbone", "text"), ("fusion-head", None), ("task", None),
)  # fmt: skip
NO_LIMIT = 1e9  # a limit as far away as this only keeps numbers sane
_FILLED_BY_NAME = ("model", "revision")


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("list", epilog="Example: renaissance list --kind task")(list_components)
    app.command("show", epilog="Example: renaissance show bert-base")(show)
    app.command("plugins", epilog="Example: renaissance plugins --json")(plugins)


def list_components(kind: KindOption = None, as_json: JsonFlag = False) -> None:
    """List the backbones, fusion heads and tasks that can be named."""
    registry = default_registry()
    rows = [_row(component) for component in registry.components(kind)]
    failed = [plugin.name for plugin in registry.plugins() if plugin.failure]
    if as_json:
        print_json({"components": rows, "failed_plugins": failed})
        return
    columns = ("name", "kind", "plugin", "summary")
    print_table(
        columns, [[row["name"], _kind(row["kind"], row["modality"]), row["plugin"], row["summary"]] for row in rows]
    )
    if failed:
        note(f"Plugins that failed: {', '.join(failed)} (see 'renaissance plugins').")


def show(
    name: Annotated[str, typer.Argument(help="A name that 'list' shows, such as bert-base or timm:resnet18.")],
    as_json: JsonFlag = False,
) -> None:
    """Show a component: what it is, its options, and what is known of it before it is built."""
    described = [_described(component, name) for component in _named(name, default_registry())]
    if as_json:
        print_json({"components": described})
        return
    for number, component in enumerate(described):
        if number:
            print()
        _print_component(component)


def plugins(as_json: JsonFlag = False) -> None:
    """List the installed plugins, what each offers, and why one failed."""
    registry = default_registry()
    clashes = registry.clashes()  # imports all of them, the built-in one too
    found = [_plugin_row(plugin) for plugin in (registry.builtin, *registry.plugins())]
    if as_json:
        shared = [{**key._asdict(), "offered_as": names, "bare": _bare(names)} for key, names in clashes.items()]
        print_json({"plugins": found, "clashes": shared})
        return
    columns = ("plugin", "distribution", "version", "API", "entries")
    print_table(columns, [_plugin_cells(row) for row in found])
    for key, names in clashes.items():
        kept = _bare(names)
        told = f"'{key.name}' stays the built-in" if kept else f"'{key.name}' alone is an error"
        note(f"{told}; say {' or '.join(repr(name) for name in names if name != kept)}.")


# --- list -----------------------------------------------------------------------------------------------------------


def _row(component: Component) -> dict[str, Any]:
    entry = component.entry
    library = getattr(entry, "library", False)
    return {
        "name": f"{component.qualified}:<model>" if library else component.qualified,
        "kind": key_of(entry).kind,
        "modality": getattr(entry, "modality", None),
        "plugin": component.plugin,
        "summary": entry.summary,
    }


def _kind(kind: str, modality: str | None) -> str:
    return f"{modality} {kind}" if modality else kind.replace("-", " ")


# --- show -----------------------------------------------------------------------------------------------------------


def _named(name: str, registry: Registry) -> list[Component]:
    """Return every component of this name; a vision and a text backbone may share one."""
    library, _, _ = name.partition(":")
    wanted = library if library in LIBRARIES else name.removesuffix(":<model>")
    found = list(_found(wanted, registry))
    if found:
        return found
    if ":" in wanted:
        registry.find("backbone", wanted, "vision")  # raises, and says which plugin to install or what it offers
    names = {component.entry.name for component in registry.components()}
    raise UnknownComponentError(
        f"Nothing installed is called '{shown(name)}'.{did_you_mean(name, names)} See 'renaissance list'."
    )


def _found(name: str, registry: Registry) -> Iterator[Component]:
    for kind, modality in _PLACES:
        try:
            yield registry.find(kind, name, modality)
        except UnknownComponentError:
            continue


def _described(component: Component, name: str) -> dict[str, Any]:
    entry = component.entry
    plugin = default_registry().plugin(component.plugin)
    facts = _facts(component, name)
    return {
        **_row(component),
        "distribution": plugin.distribution if plugin else "renaissance-vl",
        "version": plugin.version if plugin else renaissance.__version__,
        "factory": entry.factory,
        "facts": facts,
        "options": _options(entry),
        "schema": entry.options.model_json_schema(),
    }


def _facts(component: Component, name: str) -> dict[str, Any] | None:
    """Return what an entry says of itself; None for a library without a model."""
    entry = component.entry
    if isinstance(entry, BackboneEntry):
        given: dict[str, Any] = {}
        if entry.library:
            _, _, model = name.partition(":")
            model, _, revision = model.partition("@")
            if not model or model == "<model>":
                return None
            given = {"model": model, "revision": revision or None}
        return capabilities(described(component, checked_options(entry, given, of=name)))
    if isinstance(entry, FusionHeadEntry):
        return {"outputs": sorted(entry.outputs), "shared_space": entry.shared_space}
    task = cast(TaskEntry, entry)
    return {
        "trains": task.trains,
        "evaluates": task.evaluates,
        "reads of the fusion": sorted(task.outputs),
        "needs tasks": list(task.needs),
        "needs one of": list(task.needs_any),
        "reads": "images with captions" if task.data == "captions" else "items of prepared data",
        "layouts": list(task.layouts),
        "scores": list(task.metrics),
        "architectures": sorted(task.architectures),
    }


def capabilities(known: Capabilities) -> dict[str, Any]:
    """Return the facts of a backbone by name; those that do not concern it (None) are left out."""
    values = {field.name: getattr(known, field.name) for field in fields(known)}
    return {name: value for name, value in values.items() if value is not None}


def _options(entry: Entry) -> dict[str, dict[str, Any]]:
    """Return each option that a spec can give: its type, its default, and what it does."""
    schema = entry.options.model_json_schema()
    hidden = _FILLED_BY_NAME if getattr(entry, "library", False) else ()
    required = schema.get("required", [])
    return {
        name: {
            "type": type_text(field, schema.get("$defs", {})),
            **({"required": True} if name in required else {"default": field.get("default", _empty(field))}),
            "description": field.get("description", ""),
        }
        for name, field in schema.get("properties", {}).items()
        if name not in hidden
    }


def _empty(field: Mapping[str, Any]) -> object:
    """Return the default that a schema leaves out: that of a factory, which makes an empty container."""
    return [] if field.get("type") == "array" else {}


def type_text(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return the type of a JSON Schema field in words, with its limits: 'integer, at least 1'."""
    if "$ref" in field:
        return type_text(definitions[str(field["$ref"]).rsplit("/", 1)[-1]], definitions)
    alternatives = field.get("anyOf") or field.get("oneOf")
    if alternatives:
        words = dict.fromkeys(type_text(option, definitions) for option in alternatives)
        return " or ".join(word for word in words if word != "null") + (", or null" if "null" in words else "")
    if "enum" in field:
        *others, last = (f'"{value}"' for value in field["enum"])
        return f"{', '.join(others)} or {last}" if others else last
    if "const" in field:
        return f'"{field["const"]}"'
    name = field.get("type", "any")
    if name == "array":
        return _list_text(field, definitions)
    words = {"object": "mapping", "boolean": "true or false", "string": "text"}
    return ", ".join([words.get(name, name), *_limits(field)])


def _list_text(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    items = field.get("prefixItems")
    if items:
        return f"list of {len(items)}: {type_text(items[0], definitions)}"
    return f"list of {type_text(field.get('items', {}), definitions)}"


def _limits(field: Mapping[str, Any]) -> Iterator[str]:
    names = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    for key, words in names.items():
        if key in field and abs(field[key]) < NO_LIMIT:
            yield f"{words} {field[key]:,}"


def _print_component(component: Mapping[str, Any]) -> None:
    print(f"{component['name']}: {_kind(component['kind'], component['modality'])}")
    print(component["summary"])
    print()
    source = component["plugin"] if component["plugin"] != "renaissance" else "built in"
    facts = component["facts"]
    known = [(name.replace("_", " "), shown_value(value)) for name, value in (facts or {}).items()]
    print_facts([("from", f"{source} ({component['distribution']} {component['version']})"), *known])
    if facts is None:
        print(f"To see what is known of a model of this library, name it: '{component['name']}'.")
    if component["options"]:
        print()
        print_table(("option", "type", "default", "what it does"), map(_option_cells, component["options"].items()))


def _option_cells(item: tuple[str, Mapping[str, Any]]) -> list[str]:
    name, option = item
    default = "required" if option.get("required") else json_text(option["default"])
    return [name, option["type"], default, option["description"]]


# --- plugins --------------------------------------------------------------------------------------------------------


def _plugin_row(plugin: Plugin) -> dict[str, Any]:
    own = plugin is default_registry().builtin
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": renaissance.__version__ if own else plugin.version,
        "api": plugin.api,
        "entries": [key._asdict() for key in plugin.entries],
        "failure": plugin.failure,
    }


def _bare(names: Sequence[str]) -> str | None:
    """Return what the bare name stands for where several offer it: the built-in, or nothing."""
    return names[0] if ":" not in names[0] else None


def _plugin_cells(row: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys(entry["name"] for entry in row["entries"])
    listed = f"{len(names)} components: see 'renaissance list'" if row["name"] == BUILTIN else ", ".join(names)
    told = f"failed: {row['failure']}" if row["failure"] else listed
    return [row["name"], row["distribution"], row["version"], row["api"], told]
