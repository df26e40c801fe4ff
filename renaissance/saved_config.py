"""config.json of a saved model: its form, what it needs to be built again, and its plan. Imports no torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints, ValidationError

from renaissance.api import API_VERSION, Modality
from renaissance.errors import ModelFileError, PluginError, SpecError
from renaissance.manifest import AGAIN, CONFIG, TOWERS, check_no_code, read_object, refuse_newer
from renaissance.plans import AnyPlan
from renaissance.registry import Registry
from renaissance.resolve import resolve
from renaissance.spec import LIBRARIES, Strict, explain, shown, validate_spec

FORMAT = 1
StoredType = Literal["float32", "float16", "bfloat16"]


class SavedTask(Strict):
    """A task's options."""

    options: dict[str, JsonValue] = Field(default_factory=dict)


class SavedSource(Strict):
    """Where a tower that was left out comes from.

    name: as specs have it. repository: on the Hub, where the name tells it. distribution: the package, with its
    version, that offers it. revision: the commit of its weights. digest: SHA-256 over its tensors.
    """

    name: str
    repository: str | None
    distribution: str
    revision: str | None
    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


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

    @property
    def left_out(self) -> dict[Modality, SavedSource]:
        """The towers whose tensors are not there, with where they come from."""
        return {tower: saved.source for tower, saved in self.resolved.items() if saved.source is not None}


def read_config(folder: Path) -> SavedConfig:
    """Return config.json, checked in form.

    Raises:
        ModelFileError: it is missing, damaged, no model of ours, or of a newer format.
    """
    path = folder / CONFIG
    raw = read_object(path)
    if raw.get("library") != "renaissance":
        raise ModelFileError(f"{folder} holds no renaissance model: its {CONFIG} is another library's.")
    refuse_newer(raw, path, format=FORMAT, api=API_VERSION)
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


def saved_plan(config: SavedConfig, folder: Path, registry: Registry) -> AnyPlan:
    """Return the plan of a saved model, from what is installed.

    Raises:
        PluginError: a plugin that it needs is not installed.
        ModelFileError: its spec or its tasks cannot be.
    """
    missing = {name: found for name, found in needed_plugins(config).items() if registry.plugin(name) is None}
    if missing:
        names = ", ".join(f"'{shown(name)}'" for name in missing)
        wanted = " ".join(_requirement(name, distribution) for name, distribution in missing.items())
        raise PluginError(f"{folder} needs the plugin{'s' * (len(missing) > 1)} {names}. Try: pip install {wanted}")
    tasks = {name: task.options for name, task in config.tasks.items()}
    try:
        return resolve(validate_spec(config.spec), tasks, registry=registry)
    except SpecError as error:
        raise ModelFileError(f"{folder / CONFIG}: {error}") from None


def _requirement(plugin: str, distribution: str) -> str:
    """Return what pip is asked for a plugin; a distribution of another name than the plugin's own is not repeated."""
    name, _, version = distribution.partition(" ")
    own = f"renaissance-plugin-{shown(plugin)}"
    pinned = name == own and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+!\-]{0,40}", version)
    return f"{own}{f'=={version}' if pinned else ''}"
