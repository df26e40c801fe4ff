"""What the manifests of prepared corpora say of them, for the results of a run that trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from renaissance.data.prepared import manifest_of
from renaissance.recipe.data import Data, MixtureData, PreparedData

# keys of a manifest that say of what, how much and in which languages a corpus is, and nothing of where it lies
TOLD = ("layout", "fraction", "languages", "drawn")


def corpora_of(data: Data) -> list[dict[str, Any]]:
    """Return what is known of each prepared corpus in a recipe's data: its name in a mixture, layout and fractions.

    Raises:
        DataError: its folder holds no prepared data any more.
    """
    parts = [("", data)]
    if isinstance(data, MixtureData):
        parts = [(name, part.data) for name, part in zip(data.names, data.parts, strict=True)]
    return [
        {"name": name, **_told(Path(part.path).expanduser())}
        for name, part in parts
        if isinstance(part, PreparedData) and part.path is not None
    ]


def _told(folder: Path) -> dict[str, Any]:
    manifest = manifest_of(folder)
    return {key: manifest[key] for key in TOLD if key in manifest}
