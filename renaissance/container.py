"""The saved form of a model: a folder with its config, its weights, its processors and a manifest of all of them.

    config.json                 what it is: spec, tasks, the backbones' library configs, the plugins it needs
    model.safetensors           the weights; past 5 GB in shards with model.safetensors.index.json
    vision/, text/              the processors' files
    manifest.json               size, SHA-256 and xxh3 of each file
    README.md                   the model card
    scores.json, ledger.json, selftest.safetensors      where whoever saves it has them

The same model gives the same bytes. Loading verifies the manifest, downloads nothing and initialises nothing.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, ValidationError

from renaissance.api import API_VERSION, Modality, SavedBackbone
from renaissance.assemble import Assembly, assemble
from renaissance.durable import sync_file, sync_folder
from renaissance.errors import ModelFileError, OutputError, PluginError, RenaissanceError, SpecError
from renaissance.manifest import (
    AGAIN,
    CARD,
    CONFIG,
    EXTRAS,
    TOWERS,
    check_no_code,
    check_processor_files,
    files_in,
    is_model_file,
    is_saved_model,
    read_manifest,
    read_object,
    verify_files,
    write_json,
    write_manifest,
)
from renaissance.plans import AnyPlan
from renaissance.registry import Registry, default_registry
from renaissance.resolve import resolve
from renaissance.shorthand import format_spec
from renaissance.spec import LIBRARIES, Strict, explain, shown, validate_spec
from renaissance.tensors import check_fit, load_state, read_state, save_state

FORMAT = 1


class SavedTask(Strict):
    """A task's options."""

    options: dict[str, JsonValue] = Field(default_factory=dict)


class SavedTower(Strict):
    """What a backbone's library needs to build it again, and the commit that its weights came from."""

    config: dict[str, JsonValue]
    revision: str | None


class SavedConfig(Strict):
    """config.json."""

    library: Literal["renaissance"]
    format: Literal[1]
    api: int
    spec: dict[str, JsonValue]
    tasks: dict[str, SavedTask]
    resolved: dict[Modality, SavedTower]
    plugins: dict[str, str]


# --- saving ---------------------------------------------------------------------------------------------------------


def save(assembly: Assembly, folder: str | Path, *, extra: Mapping[str, bytes] | None = None) -> None:
    """Write a model to `folder`, wholly or not at all; a model that is there already is replaced.

    `extra` are further files by name: README.md, scores.json, ledger.json or selftest.safetensors.

    Raises:
        OutputError: `folder` holds something else than a model, or cannot be written.
        NonFiniteError: a weight is NaN or infinite.
        ModelFileError: what was written would not load again, such as weights that were cast to another type.
    """
    target = Path(folder).absolute()
    for name in extra or {}:
        if name not in EXTRAS:
            raise OutputError(f"'{shown(name)}' is no file that a saved model can hold beside its own.")
    _check_target(target)
    with _replacing(target) as staging:
        config = _write_processors(assembly, staging)
        write_json(staging / CONFIG, config)
        save_state(assembly.state_dict(keep_vars=True), staging)
        (staging / CARD).write_text(_card(assembly.plan), encoding="utf-8")
        for name, data in (extra or {}).items():
            (staging / name).write_bytes(data)
        _check_loads(assembly.plan, staging)
        write_manifest(staging)


def _write_processors(assembly: Assembly, staging: Path) -> dict[str, Any]:
    """Write what the backbones' processors need; return config.json."""
    plan, resolved = assembly.plan, {}
    for tower in TOWERS:
        backbone: Any = getattr(assembly.encoder, tower)
        (staging / tower).mkdir()
        config = dict(backbone.save(staging / tower))
        resolved[tower] = {"config": config, "revision": backbone.revision}
    tasks = {task.name: {"options": task.options.model_dump(mode="json")} for task in plan.tasks.values()}
    return {
        "library": "renaissance",
        "format": FORMAT,
        "api": API_VERSION,
        "spec": plan.spec.model_dump(mode="json"),
        "tasks": tasks,
        "resolved": resolved,
        "plugins": dict(sorted(plan.plugins.items())),
    }


def _card(plan: AnyPlan) -> str:
    """Return the least that a model card says: what the model is, and how it is loaded."""
    tasks = ", ".join(plan.tasks) or "none"
    return "\n".join(
        [
            "---",
            "library_name: renaissance",
            "---",
            "",
            "# Vision-language encoder",
            "",
            f"- Spec: `{format_spec(plan.spec)}`",
            f"- Tasks: {tasks}",
            "",
            "```python",
            "import renaissance",
            "",
            'model = renaissance.from_pretrained("this folder, or organisation/name on the Hub")',
            "```",
            "",
        ]
    )


def _check_loads(plan: AnyPlan, staging: Path) -> None:
    """Build the model from what was written, without weights, and compare it with their headers."""
    built = _assembled(plan, read_config(staging), staging)
    check_fit(read_state(staging), built.state_dict(keep_vars=True))


def _check_target(target: Path) -> None:
    """Refuse to replace anything but a model, or a model beside which someone keeps other files."""
    if target.is_dir():
        names = files_in(target)
        if names and not is_saved_model(target):
            raise OutputError(f"{target} exists, and holds no model. Choose another folder, or remove it.")
        odd = next((name for name in names if not is_model_file(name)), None)
        if odd is not None:
            raise OutputError(f"{target} holds '{shown(odd)}', which saving would remove. Choose another folder.")
    elif target.exists() or target.is_symlink():
        raise OutputError(f"{target} exists, and is no folder. Choose another name.")


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`; at the end it takes the place of `target`, on disk for good.

    Whatever goes wrong, no part of it is left, and what was there stays.
    """
    mark = secrets.token_hex(4)
    staging = target.parent / f".{target.name}.{mark}.tmp"
    retired = target.parent / f".{target.name}.{mark}.old"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        yield staging
        for path in (*staging.rglob("*"), staging):
            (sync_folder if path.is_dir() else sync_file)(path)
        if target.is_dir():
            target.rename(retired)
        staging.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        raise OutputError(f"{target} cannot be written ({error.strerror or error}). Choose another folder.") from error
    finally:
        if retired.exists() and not target.exists():
            retired.rename(target)
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)


# --- loading --------------------------------------------------------------------------------------------------------


def load(folder: str | Path, *, registry: Registry | None = None, verify: bool = True) -> Assembly:
    """Return the model that a folder holds, in evaluation mode, its weights mapped into memory.

    `verify=False` skips the manifest's sizes and digests, for a caller that has just checked them.

    Raises:
        ModelFileError: the folder is damaged, hostile or of a newer format, or its tensors do not fit its config.
        PluginError: a plugin that the model needs is not installed.
    """
    folder = Path(folder)
    config = read_config(folder)
    manifest = read_manifest(folder)
    if verify:
        verify_files(folder, manifest)
    check_processor_files(folder, manifest)
    stored = read_state(folder)
    plan = _plan(config, folder, registry or default_registry())
    assembly = _assembled(plan, config, folder)
    load_state(assembly, stored)
    _check_filled(assembly, folder)
    return assembly.eval()


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


def _plan(config: SavedConfig, folder: Path, registry: Registry) -> AnyPlan:
    """Resolve what was saved against what is installed."""
    for name, distribution in needed_plugins(config).items():
        if registry.plugin(name) is None:
            raise PluginError(f"{folder} needs the plugin '{shown(name)}'. Try: {_pip_line(name, distribution)}")
    tasks = {name: task.options for name, task in config.tasks.items()}
    try:
        return resolve(validate_spec(config.spec), tasks, registry=registry)
    except SpecError as error:
        raise ModelFileError(f"{folder / CONFIG}: {error}") from None


def _pip_line(plugin: str, distribution: str) -> str:
    """Return how to install a plugin; a distribution of another name than the plugin's own is not repeated."""
    name, _, version = distribution.partition(" ")
    own = f"renaissance-plugin-{shown(plugin)}"
    pinned = name == own and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+!\-]{0,40}", version)
    return f"pip install {own}{f'=={version}' if pinned else ''}"


def _assembled(plan: AnyPlan, config: SavedConfig, folder: Path) -> Assembly:
    """Build a model without weights from its saved configs."""
    saved = {str(tower): SavedBackbone(config.resolved[tower].config, folder / tower) for tower in TOWERS}
    try:
        return assemble(plan, saved=saved)
    except RenaissanceError:
        raise
    except Exception as error:  # a library meets a config that was changed: nearly anything can come of it
        reason = f"{type(error).__name__}: {shown(error, 200)}"
        raise ModelFileError(f"{folder / CONFIG}: no model can be built from it ({reason}). {AGAIN}.") from error


def _check_filled(assembly: Assembly, folder: Path) -> None:
    """Refuse a model of which a part has no value: nothing was saved for it, and nothing computed it."""
    named = (*assembly.named_parameters(), *assembly.named_buffers())
    empty = next((name for name, tensor in named if tensor.is_meta), None)
    if empty is not None:
        raise ModelFileError(f"{folder}: '{empty}' has no value after loading; report it to whoever offers that part.")
