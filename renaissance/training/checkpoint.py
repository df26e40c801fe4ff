"""Checkpoints: immutable `step-N` folders of safetensors and JSON, the manifest written last.

A folder is written under another name, synced, and renamed: a kill at any moment leaves the older ones as they were.
Its manifest names the run, the step and every file with its size and SHA-256, so that what was changed, cut, or put
there from another step or run is found before a tensor of it is used.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from renaissance.durable import sha256_of, sync_file, sync_folder
from renaissance.errors import CheckpointError, OutputError
from renaissance.training.averaging import Average
from renaissance.training.sharded import like, whole

MANIFEST = "manifest.json"
MODEL, OPTIMISER, AVERAGE, STATE = "model.safetensors", "optimiser.safetensors", "average.safetensors", "state.json"
FORMAT = 2


def save_checkpoint(
    folder: Path,
    *,
    step: int,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    facts: Mapping[str, Any],
    keep: int,
    run: str = "",
    average: Average | None = None,
    besides: Collection[int] = (),
    main: bool = True,
) -> Path:
    """Write `folder/step-N` and drop all but the newest `keep`; `facts` are kept with it, JSON-able.

    run: the id of the run. besides: further steps that are kept, such as the best one. main: whether this process
    writes; all of them call this together, for a divided model is gathered.

    Raises:
        OutputError: it cannot be written (a full disk, no permission); nothing of it is left.
    """
    final = _place(folder, step)
    held = {MODEL: model.state_dict(), OPTIMISER: _optimiser_tensors(model, optimiser)}
    if average is not None:
        held[AVERAGE] = average.tensors()
    tensors = {name: whole(content, keep=main) for name, content in held.items()}
    if not main or (final.exists() and fault_of(final, run) is None):
        return final
    partial = folder / f".{final.name}.{secrets.token_hex(4)}"
    try:
        partial.mkdir(parents=True)
        for name, content in tensors.items():
            _write_tensors(partial / name, content)
        _write_text(partial / STATE, json.dumps({"format": FORMAT, "step": step, **facts}))
        _write_text(partial / MANIFEST, json.dumps(_manifest(partial, [*tensors, STATE], run, step), indent=1))
        sync_folder(partial)
        shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step; the whole ones are older
        partial.rename(final)
        sync_folder(folder)
        sync_folder(folder.parent)  # where the folder of checkpoints may be new
        for old in _superseded(folder, step, keep, besides):
            shutil.rmtree(old)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as an error of its own
        raise OutputError(_cannot_write(final, tensors, error)) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final


def remove_partial(folder: Path) -> None:
    """Delete what a kill left of a checkpoint that was being written; call it where nobody else writes."""
    for path in folder.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def newest_checkpoint(folder: Path, run: str | None = None) -> tuple[Path | None, list[str]]:
    """Return the newest checkpoint that is whole, and what is wrong with each newer one.

    run: the id that it must have; None: any.
    """
    faults: list[str] = []
    for path in reversed(_steps(folder)):
        fault = fault_of(path, run)
        if fault is None:
            return path, faults
        faults.append(f"{path.name}: {fault}")
    return None, faults


def run_of(path: Path) -> str:
    """Return the id of the run that a whole checkpoint is of."""
    return str(json.loads((path / MANIFEST).read_text())["run"])


def checkpoint_at(folder: Path, step: int, run: str) -> Path:
    """Return the checkpoint of a step.

    Raises:
        CheckpointError: it is not there, or not whole.
    """
    path = _place(folder, step)
    fault = fault_of(path, run)
    if fault is not None:
        raise CheckpointError(f"The best checkpoint, '{path}', cannot be used: {fault}. Start a new run.")
    return path


def load_checkpoint(
    path: Path, *, model: nn.Module, optimiser: torch.optim.Optimizer, average: Average | None = None
) -> dict[str, Any]:
    """Put a checkpoint's weights, optimiser state and averaged weights back; return its step and facts.

    Raises:
        CheckpointError: it is not of this model.
    """
    load_weights(path, model)
    _load_optimiser(load_file(path / OPTIMISER), model, optimiser)
    if average is not None:
        average.load(load_file(path / AVERAGE))
    state: dict[str, Any] = json.loads((path / STATE).read_text())
    return state


def load_weights(path: Path, model: nn.Module) -> None:
    """Put a checkpoint's weights back.

    Raises:
        CheckpointError: it is not of this model.
    """
    tensors = load_file(path / MODEL)
    own = model.state_dict()
    wrong = sorted(set(tensors) ^ set(own)) or [name for name in own if own[name].shape != tensors[name].shape]
    if wrong:
        raise CheckpointError(
            f"'{path}' is not of this model: '{wrong[0]}' does not fit (of {len(wrong)}); resume with its own recipe."
        )
    model.load_state_dict({name: like(tensor, own[name]) for name, tensor in tensors.items()}, strict=True)


def fault_of(path: Path, run: str | None = None) -> str | None:
    """Return what is wrong with a checkpoint, in words; None where it is whole, and of this run."""
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text())
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except OSError as error:
        return f"{MANIFEST} cannot be read ({error.strerror})"
    except ValueError:
        return f"{MANIFEST} is no JSON"
    try:
        files: dict[str, dict[str, Any]] = manifest["files"]
        if manifest["format"] != FORMAT:
            return f"it is of another format ({manifest['format']})"
        if run is not None and manifest["run"] != run:
            return "it is of another run"
        if path.name != _place(path.parent, manifest["step"]).name:
            return f"it holds step {manifest['step']}"
        missing = {MODEL, OPTIMISER, STATE} - set(files)
        if missing:
            return f"its manifest lacks {min(missing)}"
        for name, known in files.items():
            if not (path / name).is_file():
                return f"{name} is missing"
            if (path / name).stat().st_size != known["size"] or sha256_of(path / name) != known["sha256"]:
                return f"{name} was changed"
    except OSError as error:
        return f"{Path(str(error.filename)).name} cannot be read ({error.strerror})"
    except (ValueError, LookupError, TypeError, AttributeError):
        return f"{MANIFEST} is not that of a checkpoint"
    return None


def _manifest(folder: Path, names: Collection[str], run: str, step: int) -> dict[str, Any]:
    files = {name: {"size": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in names}
    return {"format": FORMAT, "run": run, "step": step, "files": files}


def _superseded(folder: Path, step: int, keep: int, besides: Collection[int]) -> list[Path]:
    """Return what `step` replaces: all but the newest `keep`, and later ones, which a resumed run passed over."""
    own = _place(folder, step)
    kept = {_place(folder, other).name for other in besides}
    upto = [path for path in _steps(folder) if path.name <= own.name]
    later = [path for path in _steps(folder) if path.name > own.name]
    return [path for path in upto[:-keep] if path.name not in kept] + later


def _cannot_write(path: Path, tensors: Mapping[str, Mapping[str, Tensor]], error: Exception) -> str:
    needed = sum(tensor.numel() * tensor.element_size() for content in tensors.values() for tensor in content.values())
    there = next(above for above in path.parents if above.is_dir())
    return (
        f"The checkpoint '{path}' cannot be written ({error}): it needs {needed:,} bytes, and the disk has "
        f"{shutil.disk_usage(there).free:,} free. Free some space, then --resume."
    )


def _optimiser_tensors(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{names[id(parameter)]}/{key}": value
        for parameter, state in optimiser.state.items()
        for key, value in state.items()
    }


def _load_optimiser(tensors: Mapping[str, Tensor], model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    parameters = dict(model.named_parameters())
    for name, value in tensors.items():
        parameter_name, _, key = name.rpartition("/")
        parameter = parameters[parameter_name]
        moment = value.shape == parameter.shape and parameter.dim() > 0  # and not a count of updates
        optimiser.state[parameter][key] = like(value, parameter) if moment else value.to(parameter.device)


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path)
    sync_file(path)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    sync_file(path)


def _place(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _steps(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir())
