"""What a training tells while it goes on: metrics.jsonl, the trackers, the text beside the bar."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from accelerate import Accelerator

from renaissance.durable import write_atomically
from renaissance.errors import OutputError
from renaissance.progress import Progress
from renaissance.training.train_step import StepOutput

LOG_EVERY = 10


class Log:
    """metrics.jsonl, the trackers, and the text beside the bar."""

    def __init__(self, folder: Path, accelerator: Accelerator, batch_size: int, first: int) -> None:
        self._path, self._accelerator, self._batch_size = folder / "metrics.jsonl", accelerator, batch_size
        self._steps = 0
        if accelerator.is_main_process:
            _forget_later_steps(self._path, first)

    def write(
        self, step: int, output: StepOutput, lr: float, seconds: float, progress: Progress, *, last: bool
    ) -> None:
        """Note the figures of an update, counted from 1: every `LOG_EVERY` ones, and the last."""
        self._steps += 1
        if step % LOG_EVERY and not last:
            return
        losses = {f"loss/{name}": round(float(loss), 6) for name, loss in output.losses.items()}
        metrics = {name: round(float(value), 6) for name, value in output.metrics.items()}
        rate = self._steps * self._batch_size / seconds
        figures = {**losses, **metrics, "lr": lr, "samples_per_second": round(rate, 3)}
        progress.note(" ".join(f"{name.removeprefix('loss/')} {value:.3f}" for name, value in losses.items()))
        self.note(step, figures)

    def note(self, step: int, figures: Mapping[str, float]) -> None:
        """Note figures of an update, or measured after it, in metrics.jsonl and in the trackers.

        Raises:
            OutputError: metrics.jsonl cannot be written.
        """
        self._accelerator.log(dict(figures), step=step)
        if not self._accelerator.is_main_process:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **figures}) + "\n")
        except OSError as error:
            raise OutputError(f"'{self._path}' cannot be written ({error}); free some space, then --resume.") from None


def _forget_later_steps(path: Path, first: int) -> None:
    """Drop what an interrupted run noted after the checkpoint from which it goes on."""
    # a power cut may leave anything in the last lines
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    write_atomically(path, "".join(f"{line}\n" for line in lines if _step_of(line) <= first))


def _step_of(line: str) -> float:
    """Return the update that a line of metrics.jsonl is of; one that a kill cut off is of none."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
