"""The pages say what is: their code runs, their specs resolve, and their tables are those of the code."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import renaissance
from renaissance import anchors, errors
from renaissance.api import Entry
from renaissance.cli import main
from renaissance.cli.listing import type_text
from renaissance.data import captions, decode
from renaissance.data.readers import webdataset
from renaissance.data.readers.published import LAYOUTS, published_counts
from renaissance.errors import RenaissanceError, SpecError
from renaissance.plain_yaml import parse_yaml
from renaissance.recipe import Recipe, validate_recipe
from renaissance.registry import Registry, default_registry
from renaissance.resolve import resolve
from renaissance.rules import LoraOptions
from renaissance.studies import library
from renaissance.studies.design import Study
from renaissance.testing.rules import all_rules

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "plugins" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(
    r"(?:<!-- (?P<mark>no-run|refused)(?:: (?P<reason>[^\n]+?))? -->\n)?"
    r"```(?P<kind>\w+)(?: file=(?P<file>\S+))?\n(?P<code>.*?)```",
    re.S,
)
TABLE = re.compile(r"<!-- table: (?P<name>[a-z ]+) -->\n(?P<body>.*?)<!-- /table -->", re.S)
BAR = "\\|"
SMALLEST: Mapping[str, Any] = {"start": "vit-base + bert-base", "tasks": {"itm": {}}}


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a page; `mark` is the comment above it."""

    page: str
    line: int
    kind: str
    code: str
    mark: str | None
    reason: str | None
    file: str | None


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = [(match, text[: match.start("code")].count("\n") + 1) for match in FENCE.finditer(text)]
    return [
        Block(page.name, line, match["kind"], match["code"], match["mark"], match["reason"], match["file"])
        for match, line in found
    ]


ALL = [block for page in PAGES for block in blocks(page)]


def named(kind: str) -> pytest.MarkDecorator:
    chosen = [block for block in ALL if block.kind == kind]
    return pytest.mark.parametrize("block", chosen, ids=[f"{block.page}:{block.line}" for block in chosen])


# --- code -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in an empty folder, with a cache of its own and without the plugins of a page before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RENAISSANCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    default_registry.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith("renaissance_plugin_patches"):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_the_code_of_a_page_runs_from_top_to_bottom(
    page: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    for block in blocks(page):
        if block.mark == "no-run":
            continue
        match block.kind:
            case "python" if block.file:
                _write(elsewhere / block.file, block.code)
            case "python":
                capsys.readouterr()
                exec(compile(block.code, f"{block.page}:{block.line}", "exec"), names)
                said = re.findall(r"^print\(.*\)  # -> (.*)$", block.code, re.M)
                assert not said or capsys.readouterr().out.splitlines() == said
            case "toml":
                _install(elsewhere, block.code)
            case "bash" if block.code.startswith("renaissance "):
                for line in block.code.replace("\\\n", " ").splitlines():
                    assert main(shlex.split(line, comments=True)[1:]) == 0, f"{block.page}:{block.line}: {line}"


def _write(path: Path, code: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(code)


def _install(folder: Path, project: str) -> None:
    """Write what pip would note of a project: its name, its version and its entry points."""
    described = tomllib.loads(project)["project"]
    info = folder / f"{described['name'].replace('-', '_')}-{described['version']}.dist-info"
    info.mkdir()
    about = f"Metadata-Version: 2.1\nName: {described['name']}\nVersion: {described['version']}\n"
    (info / "METADATA").write_text(about)
    for group, points in described["entry-points"].items():
        lines = "".join(f"{name} = {value}\n" for name, value in points.items())
        (info / "entry_points.txt").write_text(f"[{group}]\n{lines}")
    default_registry.cache_clear()


@named("spec")
def test_each_spec_of_a_page_resolves_or_is_refused_as_said(block: Block) -> None:
    for line in block.code.splitlines():
        if block.mark == "refused":
            with pytest.raises(SpecError, match="cannot be built yet"):
                resolve(line)
        else:
            resolve(line)


@named("yaml")
def test_each_recipe_of_a_page_is_valid(block: Block) -> None:
    validate_recipe({**SMALLEST, **parse_yaml(block.code.encode(), what=block.page)})


def test_a_block_that_does_not_run_says_why() -> None:
    assert all(block.reason for block in ALL if block.mark == "no-run")
    assert sum(block.mark == "no-run" for block in ALL) < len(ALL) / 4


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)  # code has brackets of its own
        for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


# --- tables ---------------------------------------------------------------------------------------------------------


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    heading = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"
    return heading + "".join(f"| {' | '.join(cell.replace('|', BAR) for cell in row)} |\n" for row in rows)


def backbone_table() -> str:
    entries = [component.entry for component in Registry().components("backbone")]
    rows = [(_named(entry), str(getattr(entry, "modality", "")), entry.summary) for entry in entries]
    return table(("backbone", "tower", "what it is"), rows)


def _named(entry: Entry) -> str:
    return f"`{entry.name}{':MODEL' if getattr(entry, 'library', False) else ''}`"


def fusion_table() -> str:
    rows = [(_named(component.entry), component.entry.summary) for component in Registry().components("fusion-head")]
    return table(("fusion head", "what it is"), rows)


def task_table() -> str:
    rows = [(_named(component.entry), component.entry.summary) for component in Registry().components("task")]
    return table(("task", "what it is"), rows)


def error_table() -> str:
    lines = [line for line in (errors.__doc__ or "").splitlines() if line.startswith("|")]
    return "\n".join(lines) + "\n"


def recipe_table() -> str:
    """Return one table a section of the schema of recipes."""
    schema = Recipe.model_json_schema()
    return "\n".join(_sections("", schema, schema["$defs"]))


def _sections(prefix: str, section: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[str]:
    rows: list[tuple[str, ...]] = []
    inner: list[tuple[str, Mapping[str, Any]]] = []
    for name, field in section["properties"].items():
        parts = list(_models(field, definitions))
        if name == "start":
            parts = [part for part in parts if part["title"] == "SavedStart"]
        inner += [(_path(prefix, name, field, part, len(parts)), part) for part in parts]
        meaning = field.get("description") or (parts[0]["description"].split("\n")[0] if len(parts) == 1 else "")
        kind = "text, or section" if name == "start" else _type(field, definitions, parts)
        rows.append((f"`{name}`", kind, _default(name, field, section), meaning))
    title = f"### `{prefix}`\n\n{section['description']}\n\n" if prefix else ""
    yield title + table(("key", "type", "default", "meaning"), rows)
    for path, part in inner:
        yield from _sections(path, part, definitions)


def _path(prefix: str, name: str, field: Mapping[str, Any], part: Mapping[str, Any], alternatives: int) -> str:
    """Return the heading of a section: the path of its keys, and which of several kinds it is."""
    path = f"{prefix}.{name}" if prefix else name
    if isinstance(field.get("additionalProperties"), dict) or "patternProperties" in field:
        path += ".NAME"
    if "items" in field:
        path += "[]"
    kind = part["properties"].get("kind", {}).get("const")
    return f"{path} (kind: {kind})" if alternatives > 1 and kind else path


def _models(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the sections that a key leads to."""
    if "$ref" in field:
        part = definitions[field["$ref"].rsplit("/", 1)[-1]]
        if "properties" in part:
            yield part
    for option in (*field.get("anyOf", ()), *field.get("oneOf", ())):
        yield from _models(option, definitions)
    for key in ("items", "additionalProperties"):
        if isinstance(field.get(key), dict):
            yield from _models(field[key], definitions)
    for inner in field.get("patternProperties", {}).values():
        yield from _models(inner, definitions)


def _type(field: Mapping[str, Any], definitions: Mapping[str, Any], parts: list[Mapping[str, Any]]) -> str:
    if not parts:
        return type_text(field, definitions)
    by_name = "sections by name" if {"additionalProperties", "patternProperties"} & set(field) else "section"
    kind = "list of sections" if "items" in field else by_name
    optional = any(option.get("type") == "null" for option in field.get("anyOf", ()))
    return f"{kind}, or null" if optional else kind


def _default(name: str, field: Mapping[str, Any], section: Mapping[str, Any]) -> str:
    if name in section.get("required", ()):
        return "required"
    default = field.get("default", [] if field.get("type") == "array" else {})
    return "" if isinstance(default, dict) else f"`{json.dumps(default)}`"


def layout_table() -> str:
    """The published layouts: what must be below the root, and in brackets what is read where it is there."""

    def names(files: Sequence[str], form: str) -> str:
        return form.format(", ".join(f"`{name}`" for name in files)) if files else ""

    lines = [
        "| layout | what it is | below ROOT | published items (texts) | where these were read | download page |",
        "|---|---|---|---|---|---|",
    ]
    for layout in LAYOUTS.values():
        below = f"{names(layout.files, '{}')} {names(layout.optional, '({})')}".strip()
        counts = f"{published_counts(layout)} | {layout.counted}"
        lines.append(f"| `{layout.name}` | {layout.summary} | {below} | {counts} | {layout.page} |")
    return "\n".join(lines) + "\n"


def told(module: ModuleType) -> str:
    """The table in the docstring of a module."""
    assert module.__doc__ is not None
    return "".join(f"{line}\n" for line in module.__doc__.splitlines() if line.startswith("|"))


def anchor_table() -> str:
    return table(anchors.COLUMNS, [(f"`{name}`", *cells) for name, *cells in anchors.rows()])


def lora_table() -> str:
    fields = LoraOptions.model_fields.items()
    rows = [(f"`{name}`", f"`{json.dumps(field.default)}`", str(field.description)) for name, field in fields]
    return table(("option", "default", "meaning"), rows)


def rule_table() -> str:
    """The rules of the conformance kit, by what they are for."""
    return table(
        ("rule", "of", "what holds"),
        [(f"`{name}`", kind, says) for kind, rules in all_rules().items() for name, says in rules.items()],
    )


def study_table() -> str:
    """The studies that ship, with what each size of them is."""
    rows = []
    for name in library.names():
        content = library.load(name).content
        if isinstance(content, Study):
            sizes = [f"`{size}`: {preset.about}" for size, preset in content.presets.items()]
            rows.append((f"`{name}`", content.question, "; ".join(sizes)))
        else:
            rows.append((f"`{name}`", content.about, f"of {', '.join(f'`{one}`' for one in content.studies)}"))
    return table(("study", "question", "presets"), rows)


TABLES: Mapping[str, Callable[[], str]] = {
    "lora": lora_table,
    "backbones": backbone_table,
    "fusion heads": fusion_table,
    "tasks": task_table,
    "exit codes": error_table,
    "recipe": recipe_table,
    "layouts": layout_table,
    "images": lambda: told(decode),
    "captions": lambda: told(captions),
    "tar members": lambda: told(webdataset),
    "anchors": anchor_table,
    "rules": rule_table,
    "studies": study_table,
}


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_the_tables_of_a_page_are_those_of_the_code(page: Path) -> None:
    text = page.read_text()
    fresh = TABLE.sub(lambda match: f"<!-- table: {match['name']} -->\n{TABLES[match['name']]()}<!-- /table -->", text)
    if os.environ.get("RENAISSANCE_UPDATE_DOCS"):
        page.write_text(fresh)
    else:
        assert text == fresh, "run this test with RENAISSANCE_UPDATE_DOCS=1 to write the tables anew"


def test_all_places_give_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = parse_yaml((ROOT / "CITATION.cff").read_bytes(), what="CITATION.cff")
    assert {project["version"], citation["version"]} == {renaissance.__version__}


def test_every_error_class_stands_in_the_table_with_its_exit_code() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, RenaissanceError)]
    for error in classes:
        if "exit_code" in vars(error) and error is not RenaissanceError:
            assert f"| {error.exit_code} | `{error.__name__}`:" in error_table()
    codes = {error.exit_code for error in classes}
    assert codes == set(range(1, len(codes) + 1))
