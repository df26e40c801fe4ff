"""Checkpoints: immutable `step-N` folders of safetensors and JSON, the manifest written last.

A folder is written under another name, synced, and renamed: a kill at any moment leaves the older ones as they were.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from renaissance.durable import sha256_of, sync_file, sync_folder
from renaissance.errors import CheckpointError, OutputError

MANIFEST = "manifest.json"


def save_checkpoint(
    folder: Path,
    *,
    step: int,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    facts: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write `folder/step-N` and drop all but the newest `keep`; `facts` are kept with it, JSON-able.

    Raises:
        OutputError: it cannot be written (a full disk, no permission); nothing of it is left.
    """
    final = folder / f"step-{step:08d}"
    if final.exists() and _fault(final) is None:
        return final
    partial = folder / f".{final.name}.{secrets.token_hex(4)}"
    try:
        partial.mkdir(parents=True)
        _write_tensors(partial / "model.safetensors", model.state_dict())
        _write_tensors(partial / "optimiser.safetensors", _optimiser_tensors(model, optimiser))
        _write_text(partial / "state.json", json.dumps({"format": 1, "step": step, **facts}))
        names = ("model.safetensors", "optimiser.safetensors", "state.json")
        _write_text(partial / MANIFEST, json.dumps({name: sha256_of(partial / name) for name in names}, indent=1))
        sync_folder(partial)
        shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step
        partial.rename(final)
        sync_folder(folder)
        for old in _superseded(folder, step, keep):
            shutil.rmtree(old)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as an error of its own
        raise OutputError(
            f"The checkpoint '{final}' cannot be written ({error}); free some space, then --resume."
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final


def _superseded(folder: Path, step: int, keep: int) -> list[Path]:
    """Return what `step` replaces: all but the newest `keep`, and later ones, which a resumed run passed over."""
    own = folder / f"step-{step:08d}"
    upto = [path for path in _steps(folder) if path.name <= own.name]
    return upto[:-keep] + [path for path in _steps(folder) if path.name > own.name]


def remove_partial(folder: Path) -> None:
    """Delete what a kill left of a checkpoint that was being written; call it where nobody else writes."""
    for path in folder.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def newest_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """Return the newest checkpoint that is whole, and what is wrong with each newer one."""
    faults: list[str] = []
    for path in reversed(_steps(folder)):
        fault = _fault(path)
        if fault is None:
            return path, faults
        faults.append(f"{path.name}: {fault}")
    return None, faults


def load_checkpoint(path: Path, *, model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Put a checkpoint's weights and optimiser state back; return its step and facts.

    Raises:
        CheckpointError: it is not of this model.
    """
    tensors = load_file(path / "model.safetensors")
    own = model.state_dict()
    wrong = sorted(set(tensors) ^ set(own)) or [name for name in own if own[name].shape != tensors[name].shape]
    if wrong:
        raise CheckpointError(
            f"'{path}' is not of this model: '{wrong[0]}' does not fit (of {len(wrong)}); resume with its own recipe."
        )
    model.load_state_dict(tensors, strict=True)
    _load_optimiser(load_file(path / "optimiser.safetensors"), model, optimiser)
    state: dict[str, Any] = json.loads((path / "state.json").read_text())
    return state


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
        optimiser.state[parameter][key] = value.to(parameter.device)


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path)
    sync_file(path)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    sync_file(path)


def _steps(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def _fault(path: Path) -> str | None:
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text())
        for name, digest in manifest.items():
            if sha256_of(path / name) != digest:
                return f"{name} was changed"
    except (OSError, ValueError, AttributeError) as error:
        return f"it is not whole ({type(error).__name__})"
    return None
