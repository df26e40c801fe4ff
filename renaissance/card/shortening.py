"""Local paths in what is published with a card, cut down to their last names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from renaissance.card.private import PLACES, is_local, last_name, names_user, shortened
from renaissance.durable import write_atomically
from renaissance.manifest import CONFIG, LEDGER, RECIPE, SCORES, model_in, read_manifest, read_object, relist
from renaissance.recipe import load_recipe, validate_recipe
from renaissance.training.folder import recipe_text


def shorten_paths(folder: str | Path) -> list[str]:
    """Write local paths in a saved model's recipe, scores, ledger and config as last names; return what they became.

    The config of a model names where its tokenizer came from; the tokenizer itself is saved with it.

    Raises:
        ModelFileError: there is no saved model, or a file of it is damaged.
        SpecError: its recipe is none.
        OutputError: it cannot be written.
    """
    folder = model_in(Path(folder))
    found: list[str] = []
    if (folder / RECIPE).is_file():
        recipe = _shortened(load_recipe(folder / RECIPE).dump(), found)
        _replace(folder, RECIPE, recipe_text(validate_recipe(recipe)), changed=bool(found))
    for name, indent in ((SCORES, 1), (LEDGER, 1), (CONFIG, 2)):
        if (folder / name).is_file():
            before = len(found)
            facts = _shortened(read_object(folder / name), found)
            text = json.dumps(facts, indent=indent, ensure_ascii=False) + "\n"
            _replace(folder, name, text, changed=len(found) > before)
    return found


def _replace(folder: Path, name: str, text: str, *, changed: bool) -> None:
    if changed:
        write_atomically(folder / name, text)
        if name in read_manifest(folder).files:  # what it does not list is not published
            relist(folder, name)


def _shortened(value: Any, found: list[str], key: str = "") -> Any:
    """Return JSON-like data with paths shortened; `found` takes up what they became."""
    if isinstance(value, dict):
        return {inner: _shortened(item, found, inner) for inner, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item, found, key) for item in value]
    if isinstance(value, str) and key in PLACES and (is_local(value) or names_user(value)):
        found.append(last_name(value))
        return found[-1]
    if isinstance(value, str) and is_local(value):
        found.append(shortened(value))
        return found[-1]
    return value
