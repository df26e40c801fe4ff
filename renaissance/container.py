"""The saved form of a model: a folder with its config, its weights, its processors and a manifest of all of them.

    config.json                 what it is: spec, tasks, the backbones' library configs, the plugins it needs
    model.safetensors           the weights; past 5 GB in shards with model.safetensors.index.json
    vision/, text/              the processors' files
    manifest.json               size, SHA-256 and xxh3 of each file
    selftest.safetensors        a small input, with what the model gives of it
    README.md                   the model card
    recipe.yaml, scores.json, ledger.json               where whoever saves it has them

The same model gives the same bytes. Loading verifies the manifest and runs the self-test; it downloads nothing and
initialises nothing, but for towers that were left out on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch

from renaissance.api import API_VERSION, SavedBackbone
from renaissance.assemble import Assembly, assemble
from renaissance.durable import replacing
from renaissance.errors import ModelFileError, OutputError, RenaissanceError, SpecError
from renaissance.left_out import check_sources, names_of, pinned, sources
from renaissance.manifest import (
    AGAIN,
    CARD,
    CONFIG,
    EXTRAS,
    TOWERS,
    check_processor_files,
    files_in,
    is_model_file,
    is_saved_model,
    read_manifest,
    verify_files,
    write_json,
    write_manifest,
)
from renaissance.plans import AnyPlan
from renaissance.registry import Registry, default_registry
from renaissance.saved_config import FORMAT, SavedConfig, StoredType, read_config, saved_plan
from renaissance.selftest import check_selftest, write_selftest
from renaissance.shorthand import format_spec
from renaissance.spec import shown
from renaissance.tensor_headers import StoredState, read_state
from renaissance.tensors import load_state, save_state

# how parameters may be stored; whatever it is, they are loaded as the model has them
FLOATS: Mapping[str, torch.dtype] = {name: getattr(torch, name) for name in get_args(StoredType)}


def stored_type(name: str | torch.dtype) -> torch.dtype:
    """Return the type of torch in which weights are stored, from its name or itself.

    Raises:
        SpecError: there is no such one.
    """
    name = str(name).removeprefix("torch.")
    if name not in FLOATS:
        raise SpecError(f"'{shown(name)}' is no type that weights are stored in; use one of: {', '.join(FLOATS)}.")
    return FLOATS[name]


# --- saving ---------------------------------------------------------------------------------------------------------


def save(
    assembly: Assembly,
    folder: str | Path,
    *,
    extra: Mapping[str, bytes] | None = None,
    dtype: StoredType = "float32",
    trained_only: bool = False,
) -> None:
    """Write a model to `folder`, wholly or not at all; a model that is there already is replaced.

    `extra` are further files by name: README.md, recipe.yaml, scores.json or ledger.json. `dtype` is how parameters
    are stored; a model is loaded as float32 whatever it is. `trained_only` leaves towers out that are pretrained and
    wholly frozen: the model then names their source, from which they are taken when it is loaded.

    Raises:
        SpecError: there is no such dtype; or `trained_only`, and there is no such tower.
        OutputError: `folder` holds something else than a model, or cannot be written.
        NonFiniteError: a weight is NaN or infinite, or would be as `dtype`.
        ModelFileError: what was written would not load again as it is, such as weights that were cast to another type.
    """
    stored = stored_type(dtype)
    left_out = sources(assembly) if trained_only else {}
    target = Path(folder).absolute()
    for name in extra or {}:
        if name not in EXTRAS:
            raise OutputError(f"'{shown(name)}' is no file that a saved model can hold beside its own.")
    _check_target(target)
    with replacing(target) as staging:
        config = {**_write_processors(assembly, staging), "dtype": dtype}
        for tower, source in left_out.items():
            config["resolved"][tower]["source"] = source.model_dump(mode="json")
        write_json(staging / CONFIG, config)
        absent, state = names_of(assembly, left_out), assembly.state_dict(keep_vars=True)
        kept = {name: tensor for name, tensor in state.items() if name not in absent}
        save_state(kept, staging, dtype=stored)
        (staging / CARD).write_text(_card(assembly.plan), encoding="utf-8")
        for name, data in (extra or {}).items():
            (staging / name).write_bytes(data)
        _prove(assembly, staging)
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


def _prove(assembly: Assembly, staging: Path) -> None:
    """Load what was written, note what it gives, and compare that with what the model itself gives on a CPU."""
    config = read_config(staging)
    loaded = _filled(assembly.plan, config, read_state(staging))
    write_selftest(loaded, staging)
    if config.dtype == "float32" and all(parameter.device.type == "cpu" for parameter in assembly.parameters()):
        try:
            check_selftest(assembly, staging)
        except ModelFileError as error:
            raise ModelFileError(
                f"The model was not saved, for it would give something else when it is loaded: {error} Report it to "
                "whoever offers its parts."
            ) from None


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


# --- loading --------------------------------------------------------------------------------------------------------


def load(
    folder: str | Path, *, registry: Registry | None = None, verify: bool = True, intact: bool = False
) -> Assembly:
    """Return the model that a folder holds, in evaluation mode, its weights mapped into memory.

    `verify=False` skips the manifest's sizes and digests and the self-test, never names, shapes and types; `intact`
    skips sizes and digests alone, for a caller that has just compared them.

    Raises:
        ModelFileError: the folder is damaged, hostile or of a newer format, its tensors do not fit its config, or the
            model fails its self-test.
        PluginError: a plugin that the model needs is not installed.
        HubError: a tower that was left out cannot be had.
    """
    folder = Path(folder)
    config = read_config(folder)
    manifest = read_manifest(folder)
    if verify and not intact:
        verify_files(folder, manifest)
    check_processor_files(folder, manifest)
    stored = read_state(folder)  # a damaged header is told before anything is built
    assembly = _filled(saved_plan(config, folder, registry or default_registry()), config, stored)
    if verify:
        check_selftest(assembly, folder)
    return assembly


def _filled(plan: AnyPlan, config: SavedConfig, stored: StoredState) -> Assembly:
    """Return the model of a plan with what is stored in a folder, in evaluation mode."""
    assembly = _assembled(plan, config, stored.folder)
    check_sources(assembly, config.left_out)
    load_state(assembly, stored, dtype=FLOATS[config.dtype], there=names_of(assembly, config.left_out))
    _check_filled(assembly, stored.folder)
    return assembly.eval()


def _assembled(plan: AnyPlan, config: SavedConfig, folder: Path) -> Assembly:
    """Build a model without weights from its saved configs; towers that were left out, with theirs."""
    kept = [tower for tower in TOWERS if tower not in config.left_out]
    saved = {str(tower): SavedBackbone(config.resolved[tower].config, folder / tower) for tower in kept}
    try:
        assembly = assemble(pinned(plan, config.left_out), saved=saved)
        assembly.plan = plan
        return assembly
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
