"""The folder of a run: what it is made of, and whose it is.

recipe.yaml        the resolved recipe          environment.json   versions, machine, threads
metrics.jsonl      one line every few updates   checkpoints/       step-N folders
scores.json        what was measured            model/             the saved model
ledger.json        what the training took: FLOPs, samples, seconds, memory
surgery.json       of a start from a saved model: tensors copied, new, dropped
run.json           format, id and state ("running", "done")
.lock              held by the process that writes the run (`training.lock`)
"""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from renaissance.durable import sync_folder, write_atomically
from renaissance.errors import CheckpointError, OutputError
from renaissance.recipe import Recipe, load_recipe
from renaissance.spec import shown

STATE = "run.json"
RECIPE = "recipe.yaml"
# what to do with bad samples may be decided when they have stopped the run; processes divide the same batches however
# they share the model, and checkpoints are of the whole; the others change no weight
MAY_CHANGE = (
    "on_bad_sample", "skip_budget", "distributed", "workers", "checkpoint_every", "keep_checkpoints", "trackers",
)  # fmt: skip
_PACKAGES = (
    "renaissance-vl", "torch", "torchvision", "transformers", "tokenizers", "timm", "open-clip-torch", "accelerate",
    "safetensors", "numpy", "pillow", "datasets", "huggingface-hub", "pydantic",
)  # fmt: skip


def choose_folder(recipe: Recipe, out: Path | None, *, resume: bool) -> Path:
    """Return the folder of a run; nothing is made yet.

    A new run takes `out`, or the first free of runs/<name>, runs/<name>-2 ...; one that goes on takes `out`, or the
    newest unfinished of these.

    Raises:
        OutputError: `out` is taken.
        CheckpointError: there is no run to continue.
    """
    if resume:
        return out or _newest_run(recipe)
    folder = out or _free(Path("runs"), recipe.name)
    if is_run(folder):
        raise OutputError(f"'{folder}' is a run already; add --resume to continue it, or choose another --out.")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(f"'{folder}' exists and is not a run; choose another --out, or empty it yourself.")
    except OSError as error:
        raise OutputError(f"'{shown(folder)}' cannot be used: {error.strerror}; choose another --out.") from None
    return folder


def recipe_text(recipe: Recipe) -> str:
    """Return a recipe as YAML, every key of it, as `renaissance run` reads it."""
    return yaml.safe_dump(recipe.dump(), sort_keys=False, allow_unicode=True)


def create_folder(recipe: Recipe, folder: Path) -> None:
    """Make the folder of a new run.

    Raises:
        OutputError: it cannot be made or written.
    """
    staging = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        staging.mkdir(parents=True)
        write_atomically(staging / RECIPE, recipe_text(recipe))
        write_atomically(staging / "environment.json", json.dumps(environment(), indent=1) + "\n")
        set_state(staging, "running")
        staging.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        if staging.exists() and is_run(folder):  # made by another process in the meantime
            raise OutputError(f"'{shown(folder)}' is a run already; choose another --out.") from None
        raise OutputError(f"'{shown(folder)}' cannot be made: {error.strerror}; choose another --out.") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_same(recipe: Recipe, folder: Path) -> None:
    """Check that the run in `folder`, which is to be continued, is one of this recipe.

    Raises:
        CheckpointError: it is no run, or the run of another recipe.
    """
    if not is_run(folder):
        raise CheckpointError(f"'{folder}' is not a run, so there is nothing to resume; leave out --resume.")
    own = load_recipe(folder / RECIPE)
    keys = [key for key in Recipe.model_fields if key not in MAY_CHANGE]
    differ = [key for key in keys if getattr(own, key) != getattr(recipe, key)]
    if differ:
        raise CheckpointError(
            f"'{folder}' is the run of another recipe (they differ in: {', '.join(differ)}); choose another --out."
        )


def _newest_run(recipe: Recipe) -> Path:
    """Return the newest unfinished run of this recipe's name, or the newest one."""
    own = re.compile(rf"{re.escape(recipe.name)}(-[0-9]+)?")
    runs = [path for path in Path("runs").glob("*") if own.fullmatch(path.name) and is_run(path)]
    runs.sort(key=lambda path: (path / STATE).stat().st_mtime)
    if not runs:
        raise CheckpointError(f"There is no run of '{recipe.name}' below 'runs' to resume; leave out --resume.")
    return next((run for run in reversed(runs) if state(run) == "running"), runs[-1])


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a run."""
    try:
        return (folder / STATE).is_file()
    except OSError:  # a name that no file system takes
        return False


def state(folder: Path) -> str:
    """Return "running" or "done"; a file that cannot be read is taken for that of a run that was cut off."""
    try:
        return str(json.loads((folder / STATE).read_text())["state"])
    except (OSError, ValueError, KeyError, TypeError):
        return "running"


def run_id(folder: Path) -> str | None:
    """Return what tells this run from all others; None where its file cannot be read."""
    try:
        return str(json.loads((folder / STATE).read_text())["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def set_state(folder: Path, name: str, *, run: str | None = None) -> None:
    """Note the state of a run; its id stays, or becomes `run`."""
    known = run or run_id(folder) or secrets.token_hex(8)
    write_atomically(folder / STATE, json.dumps({"format": 1, "id": known, "state": name}, indent=1) + "\n")


def environment() -> dict[str, Any]:
    """Return versions and machine facts that can change a result; no path and no name of a person or host."""
    import torch

    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _free(parent: Path, name: str) -> Path:
    folder, number = parent / name, 1
    while folder.exists():
        number += 1
        folder = parent / f"{name}-{number}"
    return folder
