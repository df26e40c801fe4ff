"""Train for half an hour, kill and resume all the while, and see that nothing grows and that nothing is left behind.

python benchmarks/soak.py [--minutes N] [--least S] [--most S] [--workers N] [--seed N]

One run, of the recipe of `resume.py` without an end. Each start is killed by SIGKILL after a random time between
`least` and `most` seconds, and the next one resumes; the last quarter of the time nobody kills, and SIGTERM ends it.
Every second: the memory of the training and of its loader processes (without mapped files), its open files, its
threads, and the files in /dev/shm. A start is looked at from its second checkpoint on. It fails (exit code 1) if memory
rises by a megabyte a minute or more, if open files, threads or /dev/shm grow, if a file is left that belongs to
nothing, or if a start does not go on. Linux.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import psutil
from paired import table
from resume import RECIPE, STOPPED, TERMINATED, begun, ended

from renaissance.training.lock import LOCK

MOST_RISE = 1.0  # MB a minute
SETTLES = 2  # checkpoints, until when a start takes what it goes on with
EVERY = 5  # updates between two checkpoints
SHARED = Path("/dev/shm")
ENDLESS = 10**6  # updates
KEPT = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """What a training held at a moment; `at` counts seconds from the beginning of all, `memory` MB."""

    at: float
    memory: float
    files: int
    threads: int
    shared: int


@dataclass(slots=True)
class Life:
    """One start: what was seen of it after it settled, how it ended, and the update of the last checkpoint it left."""

    samples: list[Sample] = field(default_factory=list)
    code: int = 0
    step: int = 0


# --- what is seen ---------------------------------------------------------------------------------------------------


def sample(process: int, began: float) -> Sample | None:
    """Return what a training and its loader processes hold; None: it has ended."""
    try:
        own = psutil.Process(process)
        family = [own, *own.children(recursive=True)]
        memory = sum(own_memory(one.pid) for one in family) / 1e6
        found = Sample(time.monotonic() - began, memory, own.num_fds(), own.num_threads(), shared_files())
    except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied, OSError):
        return None
    return None if own.status() == psutil.STATUS_ZOMBIE else found


def own_memory(process: int) -> int:
    """Return the bytes of memory that a process holds, without mapped files.

    What it has from the process that it was forked from counts whole: its part grows as either writes to it, and
    that of mapped libraries as other processes end that map them.
    """
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("Anonymous:", "Pss_Shmem:")))


def shared_files() -> int:
    return len(list(SHARED.iterdir())) if SHARED.is_dir() else 0


def rise(lives: Sequence[Sequence[Sample]]) -> float:
    """Return by how many MB a minute memory rises within lives: least squares, each life about its own mean."""
    products = squares = 0.0
    for samples in lives:
        if not samples:
            continue
        minute, held = mean(one.at for one in samples) / 60, mean(one.memory for one in samples)
        products += sum((one.at / 60 - minute) * (one.memory - held) for one in samples)
        squares += sum((one.at / 60 - minute) ** 2 for one in samples)
    return products / squares if squares else 0.0


def between(lives: Sequence[Sequence[Sample]]) -> float:
    """Return by how many MB a minute what lives hold on average rises from one life to the next."""
    means = [
        Sample(
            sum(one.at for one in samples) / len(samples), sum(one.memory for one in samples) / len(samples), 0, 0, 0
        )
        for samples in lives
        if samples
    ]
    return rise([means])


# --- what is done ---------------------------------------------------------------------------------------------------


def recipe_of(workers: int) -> dict[str, Any]:
    return {
        **RECIPE,
        "name": "soaked",
        "budget": {"steps": ENDLESS},
        "batch": {"size": 4, "accumulation": 2},
        "workers": workers,
        "checkpoint_every": EVERY,
        "keep_checkpoints": KEPT,
        "evaluation": {"untrained": False, "every": 50, "validation": 4},
    }


def live(recipe: dict[str, Any], folder: Path, seconds: float, began: float, end: int, every: float) -> Life:
    """Start a training, or resume it, look at it for so many seconds, and end it with this signal."""
    settled = last_update(folder) + SETTLES * EVERY
    life, process, since = Life(), begun(recipe, folder), time.monotonic()
    try:
        while time.monotonic() - since < seconds:
            time.sleep(every)
            if (seen := sample(process, began)) is None:
                break
            if last_update(folder) >= settled:
                life.samples.append(seen)
    finally:
        with suppress(ProcessLookupError):
            os.kill(process, end)
        life.code = ended(process)
    life.step = last_update(folder)
    return life


def last_update(folder: Path) -> int:
    """Return the update of the newest checkpoint of a run."""
    return max((int(place.name.removeprefix("step-")) for place in (folder / "checkpoints").glob("step-*")), default=0)


def soak(
    place: Path, *, seconds: float, least: float, most: float, workers: int, seed: int, every: float = 1.0
) -> list[Life]:
    """Kill and resume one run for three quarters of the seconds, let it go on, and stop it; return its lives."""
    draw, recipe, folder = random.Random(seed), recipe_of(workers), place / "run"
    began, lives = time.monotonic(), list[Life]()
    while time.monotonic() - began < 0.75 * seconds:
        lives.append(live(recipe, folder, draw.uniform(least, most), began, signal.SIGKILL, every))
        if lives[-1].code != -signal.SIGKILL:  # it ended by itself: what `faults` tells
            return lives
    lives.append(live(recipe, folder, 0.25 * seconds, began, signal.SIGTERM, every))
    return lives


# --- what it comes to -----------------------------------------------------------------------------------------------


def strays(place: Path) -> list[str]:
    """Return the files of a run that belong to nothing: temporary ones, and checkpoints that should have gone."""
    hidden = [path.name for path in place.rglob(".*") if path.name != LOCK]
    steps = sorted(path.name for path in (place / "run" / "checkpoints").glob("step-*"))
    return hidden + steps[: -(KEPT + 1)]  # the best one may be beside the newest


def faults(lives: Sequence[Life], place: Path, shared: int) -> list[str]:
    """Return what grew, and what went wrong."""
    found = []
    for number, (before, life) in enumerate(pairwise([Life(), *lives]), start=1):
        if life.code not in ((STOPPED, TERMINATED) if number == len(lives) else (-signal.SIGKILL,)):
            found.append(f"start {number} ended with {life.code}")
        if life.step < before.step:
            found.append(f"start {number} fell back from update {before.step} to {life.step}")
    seen = [life.samples for life in lives]
    if max(rise(seen), between(seen)) >= MOST_RISE:
        found.append("memory rises")
    for what in ("files", "threads"):
        # the last life is the longest: what it mostly holds in its second half, it has held in its first
        half = len(seen[-1]) // 2
        early, late = ([getattr(one, what) for one in part] for part in (seen[-1][:half], seen[-1][half:]))
        if early and median(late) > max(early):
            found.append(f"open {what} grow from {max(early)} to {median(late):g}")
    if shared_files() > shared:
        found.append(f"{shared_files() - shared} files are left in {SHARED}")
    return found + [f"{name} is left" for name in strays(place)]


def report(lives: Sequence[Life]) -> str:
    """Return a table of what was seen."""
    seen = [life.samples for life in lives]
    every = [one for samples in seen for one in samples]

    def span(what: str) -> str:
        values = [round(getattr(one, what)) for one in every]
        return f"{min(values)} to {max(values)}" if values else "-"

    kills = sum(life.code == -signal.SIGKILL for life in lives)
    rows = [
        ("kills", f"{kills}"),
        ("updates at the end", f"{lives[-1].step:,}"),
        ("memory, MB", span("memory")),
        ("rise within a start, MB a minute", f"{rise(seen):.2f}"),
        ("rise from start to start, MB a minute", f"{between(seen):.2f}"),
        ("open files", span("files")),
        ("threads", span("threads")),
        ("files in /dev/shm", span("shared")),
    ]
    return table(("of all starts", "figure"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--least", type=float, default=20.0, help="seconds before a start is killed, at least")
    parser.add_argument("--most", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["RENAISSANCE_CACHE"] = f"{temporary}/cache"
        place, shared = Path(temporary) / "runs", shared_files()
        place.mkdir()
        lives = soak(
            place,
            seconds=60 * given.minutes,
            least=given.least,
            most=given.most,
            workers=given.workers,
            seed=given.seed,
        )
        found = faults(lives, place, shared)
    print(report(lives))
    for fault in found:
        print(fault, file=sys.stderr)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
