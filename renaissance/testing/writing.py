"""A new plugin's package, written from the templates that the plugin `example` is written from. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from renaissance.durable import replacing
from renaissance.errors import OutputError, SpecError
from renaissance.registry import BUILTIN, GROUP, Kind, Registry, default_registry
from renaissance.spec import LIBRARIES, shown
from renaissance.testing.describing import TRIED

PREFIX = "renaissance-plugin-"
TEMPLATES = Path(__file__).parent / "templates"
_NAME = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"
_LONGEST = 40


@dataclass(frozen=True, slots=True)
class Template:
    """What a kind of plugin starts from: its component, the file that computes, a spec, and tasks of a model."""

    component: str
    file: str
    description: str
    spec: str
    tasks: tuple[str, ...]


TEMPLATES_OF: Mapping[Kind, Template] = {
    "backbone": Template(
        "patches",
        "patches.py",
        "A vision backbone for renaissance: each patch of the image, projected.",
        "{name}:patches(grid=4, patch_size=8, width=32) + tiny-bert, random both, concat(width=32)",
        ("itm",),
    ),
    "fusion-head": Template(
        "gated",
        "gated.py",
        "A fusion head for renaissance: each stream scaled by a gate that the other opens.",
        "tiny-vit + tiny-bert, random both, {name}:gated(width=32)",
        ("itm", "mlm"),
    ),
    "task": Template(
        "caption-words",
        "caption_words.py",
        "A task for renaissance: predict from an image alone which words its caption has.",
        "tiny-vit + tiny-bert, random both, concat(width=32)",
        ("{name}:caption-words",),
    ),
}


def write_plugin(name: str, kind: Kind, out: Path, *, registry: Registry | None = None) -> Path:
    """Write the package of a new plugin into the folder `out`, all of it or nothing; return its own folder.

    Raises:
        SpecError: the name cannot be a plugin's, or is taken.
        OutputError: its folder exists, or cannot be written.
    """
    name = name.removeprefix(PREFIX)
    check_name(name, registry or default_registry())
    folder = out / f"{PREFIX}{name}"
    if folder.exists():
        raise OutputError(f"'{folder}' exists; choose another name, or another folder with --out.")
    with replacing(folder) as draft:
        for path, text in rendered(name, kind).items():
            (draft / path).parent.mkdir(parents=True, exist_ok=True)
            (draft / path).write_text(text)
    return folder


def check_name(name: str, registry: Registry) -> None:
    """Refuse what cannot be a plugin's name, or is one already.

    Raises:
        SpecError: saying what is wrong with it.
    """
    if not re.fullmatch(_NAME, name) or len(name) > _LONGEST:
        raise SpecError(
            f"'{shown(name)}' cannot be the name of a plugin: use lower-case letters, digits and single hyphens, a "
            f"letter first, at most {_LONGEST}, as 'my-plugin'."
        )
    if name in (BUILTIN, *LIBRARIES, TRIED):
        raise SpecError(f"The name '{name}' is reserved; choose another.")
    plugin = registry.plugin(name)
    if plugin is not None:
        raise SpecError(f"The plugin '{name}' is installed already ({plugin.distribution}); choose another name.")


def rendered(name: str, kind: Kind) -> dict[str, str]:
    """Return the files of a new plugin's package: path and text."""
    template, module = TEMPLATES_OF[kind], f"renaissance_plugin_{name.replace('-', '_')}"
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    tasks = ", ".join(f'"{task.format(name=name)}"' for task in template.tasks)
    facts = {
        "name": name,
        "module": module,
        "group": GROUP,
        "component": template.component,
        "description": template.description,
        "spec": template.spec.format(name=name),
        "tasks": f"[{tasks}]",
    }
    sources = {
        "pyproject.toml": "pyproject.toml.txt",
        "README.md": "README.md.txt",
        f"{module}/__init__.py": f"{kind}/__init__.py.txt",
        f"{module}/{template.file}": f"{kind}/{template.file}.txt",
        f"tests/test_{name.replace('-', '_')}.py": "tests.py.txt",
    }
    texts = {path: environment.get_template(source).render(facts) for path, source in sources.items()}
    return {**texts, f"{module}/py.typed": ""}
