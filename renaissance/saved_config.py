"""config.json of a saved model: its form, and what it needs to be built again."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue, ValidationError

from renaissance.api import API_VERSION, Modality
from renaissance.errors import ModelFileError
from renaissance.left_out import SavedSource
from renaissance.manifest import AGAIN, CONFIG, TOWERS, check_no_code, read_object
from renaissance.spec import LIBRARIES, Strict, explain

FORMAT = 1
StoredType = Literal["float32", "float16", "bfloat16"]


class SavedTask(Strict):
    """A task's options."""

    options: dict[str, JsonValue] = Field(default_factory=dict)


class SavedTower(Strict):
    """What a backbone's library needs to build it again, and the commit that its weights came from.

    source: where the tower itself comes from, if its tensors were left out.
    """

    config: dict[str, JsonValue]
    revision: str | None
    source: SavedSource | None = None


class SavedConfig(Strict):
    """config.json. dtype: what parameters are stored as; they are loaded as float32."""

    library: Literal["renaissance"]
    format: Literal[1]
    api: int
    dtype: StoredType = "float32"
    spec: dict[str, JsonValue]
    tasks: dict[str, SavedTask]
    resolved: dict[Modality, SavedTower]
    plugins: dict[str, str]


def read_config(folder: Path) -> SavedConfig:
    """Return config.json, checked in form.

    Raises:
        ModelFileError: it is missing, damaged, no model of ours, or of a newer format.
    """
    path = folder / CONFIG
    raw = read_object(path)
    if raw.get("library") != "renaissance":
        raise ModelFileError(f"{folder} holds no renaissance model: its {CONFIG} is another library's.")
    for key, known in (("format", FORMAT), ("api", API_VERSION)):
        if type(raw.get(key)) is int and raw[key] > known:
            raise ModelFileError(
                f"{path} is of {key} {raw[key]}, and this renaissance knows up to {known}. "
                "Try: pip install --upgrade renaissance-vl"
            )
    try:
        config = SavedConfig.model_validate(raw)
    except ValidationError as error:
        raise ModelFileError(f"{explain(error, SavedConfig.model_json_schema(), what=str(path))} {AGAIN}.") from None
    if set(config.resolved) != set(TOWERS):
        raise ModelFileError(f"{path}: 'resolved' must describe both towers. {AGAIN}.")
    for tower in config.resolved.values():
        check_no_code(tower.config, path, frozenset())
    return config


def needed_plugins(config: SavedConfig) -> dict[str, str]:
    """Return the third-party plugins that a saved model names, with the distribution if it says so."""
    spec = config.spec
    parts = [part for key in ("vision", "text", "fusion", "base", "donor") if isinstance(part := spec.get(key), dict)]
    names = [str(part.get("name", "")) for part in parts] + list(config.tasks)
    qualifiers = {name.partition(":")[0] for name in names if ":" in name} - set(LIBRARIES)
    return {**dict.fromkeys(sorted(qualifiers), ""), **config.plugins}
