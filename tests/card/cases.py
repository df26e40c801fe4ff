"""What tests of model cards share: small models, and how their cards are read and changed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from renaissance.assemble import assemble
from renaissance.card.sources import Sources
from renaissance.container import save
from renaissance.manifest import write_manifest
from renaissance.recipe import load_recipe, validate_recipe
from renaissance.registry import Registry
from renaissance.resolve import resolve

SIZES = "layers=1, width=32, heads=2, mlp_width=32"

VISION = f"tiny-vit({SIZES}, image_size=32, patch_size=8)"

TEXT = f"tiny-bert({SIZES})"

TOWERS = f"{VISION} + {TEXT}"

FUSION = "lxmert(layers=1, width=32, heads=2)"

LABELS = {"labels": ["yes", "no"]}


def with_recipe(sources: Sources, **changes: Any) -> Sources:
    """Return the sources with keys of the recipe changed, and its evaluation as by default."""
    assert sources.recipe is not None
    return replace(sources, recipe=validate_recipe({**sources.recipe.dump(), "evaluation": {}, **changes}))


def saved(folder: Path, spec: str, tasks: Mapping[str, Mapping[str, Any]], *, registry: Registry | None = None) -> Path:
    """Save an untrained model that has no scores, no ledger and no recipe."""
    save(assemble(resolve(spec, tasks, registry=registry or Registry())), folder)
    return folder


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def metadata(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    return read


def tables(text: str) -> list[list[list[str]]]:
    """Return the tables of a card: rows of cells, the line below the heading left out."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    cells = [[[cell.strip() for cell in row.strip("|").split("|")] for row in block.splitlines()] for block in blocks]
    return [[block[0], *block[2:]] for block in cells]


def named_table(text: str, column: str) -> list[dict[str, str]]:
    """Return the rows of the table with such a column."""
    heading, *rows = next(block for block in tables(text) if column in block[0])
    return [dict(zip(heading, row, strict=True)) for row in rows]


def with_data(model: Path, data: Mapping[str, Any]) -> None:
    recipe = {**load_recipe(model / "recipe.yaml").dump(), "data": dict(data), "evaluation": {}}
    (model / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    write_manifest(model)
