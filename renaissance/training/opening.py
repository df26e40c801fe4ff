"""The folder of a run is opened: made or continued, kept from other processes, and its newest checkpoint found."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object

from renaissance.errors import CheckpointError
from renaissance.progress import Progress
from renaissance.recipe import Recipe
from renaissance.training.checkpoint import newest_checkpoint, remove_partial, run_of
from renaissance.training.folder import check_same, create_folder, run_id, set_state
from renaissance.training.lock import locked


@dataclass(frozen=True, slots=True)
class Opened:
    """A run's folder while this run writes it: its id, and the checkpoint from which it goes on."""

    folder: Path
    run: str
    checkpoint: Path | None


@contextmanager
def opened(
    recipe: Recipe, folder: Path, accelerator: Accelerator, progress: Progress, *, resume: bool
) -> Iterator[Opened]:
    """Make a run's folder, or find where it goes on; no other process writes it while what is inside runs.

    Raises:
        OutputError: it cannot be made, or another process writes it.
        CheckpointError: it is the run of another recipe, or the processes see different checkpoints.
    """
    with ExitStack() as held:
        if resume:
            check_same(recipe, folder)
        if accelerator.is_main_process:
            if not resume:
                create_folder(recipe, folder)
            held.enter_context(locked(folder))
            _tidy(folder)
        accelerator.wait_for_everyone()
        run = run_id(folder)
        if run is None:
            raise CheckpointError(f"'{folder}' is not the same folder for all processes; choose a shared --out.")
        checkpoint = find_checkpoint(folder, run, accelerator, progress) if resume else None
        yield Opened(folder, run, checkpoint)


def find_checkpoint(folder: Path, run: str, accelerator: Accelerator, progress: Progress) -> Path | None:
    """Return the newest whole checkpoint of a training, and say which newer ones were passed over.

    Raises:
        CheckpointError: the processes see different ones.
    """
    found, faults = newest_checkpoint(folder / "checkpoints", run)
    for fault in faults:
        progress.say(f"Passed over a checkpoint: {fault}.")
    if len(set(gather_object([found and found.name]))) > 1:
        raise CheckpointError(f"The processes see different checkpoints in '{folder}'; choose an --out that all share.")
    return found


def _tidy(folder: Path) -> None:
    """Drop what a kill left half-written, and give the run its id again if its file was damaged."""
    checkpoints = folder / "checkpoints"
    remove_partial(checkpoints)
    # files and folders that were to be renamed, in the run and beside it; a model that was being replaced is saved anew
    for left in (*folder.glob(".*.tmp"), *folder.glob(".*.old"), *folder.parent.glob(f".{escape(folder.name)}.*.tmp")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    if run_id(folder) is None:
        newest, _ = newest_checkpoint(checkpoints)
        set_state(folder, "running", run=None if newest is None else run_of(newest))
