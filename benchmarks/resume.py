"""Kill a training, resume it, kill it again, and compare its end with that of one that was never stopped.

python benchmarks/resume.py [--chains N] [--kills N] [--seed N] [--rows NAME ...] [--json]

A chain is one run that is killed up to `kills` times and resumed each time, then left alone. What ends it:

operation    SIGKILL at one of the file operations in the run's folder, drawn from all that a whole run makes: each
             state in which a kill can leave the disk lies between two of them
time         SIGKILL at a random moment
terminate    SIGTERM at a random moment: a checkpoint, if it trains, and a documented exit code

The model is tiny and trains with dropout, augmentation, masking, averaged weights, accumulation, evaluations in
training and the best checkpoint kept. Workers: loader processes; where several numbers stand, each start has another.

survived: the next start went on by itself. identical: at the end of a chain the weights, the averages, the optimiser
and the log are those of the uninterrupted run, bit for bit, and no temporary file is left.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from paired import table

import renaissance
from renaissance.training import run as _imported_before_forking  # noqa: F401  # seconds, for each start
from renaissance.training.folder import is_run, state
from renaissance.training.lock import LOCK

STOPPED, TERMINATED = 15, 128 + signal.SIGTERM
OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")
RECIPE: dict[str, Any] = {
    "name": "resumed",
    "start": "tiny-vit(layers=1, width=16, heads=2, mlp_width=32, image_size=16, patch_size=8, dropout=0.1) + "
    "tiny-bert(layers=1, width=16, heads=2, mlp_width=32, dropout=0.1), random both, "
    "lxmert(layers=1, width=16, heads=2, dropout=0.1)",
    "tasks": {"mlm": {}, "itm": {}},
    "data": {"kind": "world", "train": 28, "test": 4, "captions": 2, "image_size": 16},
    "augmentation": {"crop": [0.5, 1.0], "randaugment": 1},
    "budget": {"steps": 12},
    "schedule": {"warmup_steps": 2},
    "optimiser": {"lr": 0.002},
    "evaluation": {"untrained": False, "every": 5, "validation": 4},
    "checkpoint_every": 3,
    "keep_best": "validation/itm/accuracy",
    "ema": {"decay": 0.9},
}


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of chain: what ends a start, loader processes of each start in turn, micro-batches an update."""

    ended: str
    workers: tuple[int, ...]
    accumulation: int

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{self.ended}, workers {'-'.join(map(str, self.workers))}, accumulation {self.accumulation}"


@dataclass(slots=True)
class Counts:
    """What chains came to."""

    kills: int = 0
    survived: int = 0
    chains: int = 0
    identical: int = 0


ROWS = [
    Row(ended, workers, accumulation)
    for ended in ("operation", "time", "terminate")
    for workers, accumulation in (((0,), 1), ((1,), 2), ((2,), 1), ((0, 2, 1), 2))
]


# --- one start ------------------------------------------------------------------------------------------------------


def recipe_of(row: Row, start: int) -> dict[str, Any]:
    batch = {"size": 4, "accumulation": row.accumulation}
    return {**RECIPE, "batch": batch, "workers": row.workers[start % len(row.workers)]}


def begun(recipe: dict[str, Any], folder: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Start a run, or go on with it, in a process group of its own; return its process id."""
    process = os.fork()
    if process == 0:
        os.setpgid(0, 0)
        prepare()
        _run_and_leave(recipe, folder)
    return process


def _run_and_leave(recipe: dict[str, Any], folder: Path) -> NoReturn:
    code = 1
    try:
        renaissance.run(recipe, out=folder, resume=is_run(folder))
        code = 0
    except renaissance.errors.RenaissanceError as error:
        code = error.exit_code
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(process: int) -> int:
    """Wait for a start; return its exit code, negative for a signal, and leave none of its group behind."""
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)  # loader processes notice by themselves, but only after seconds
    return code


def watching(folder: Path, at: int | None, tell: Path | None = None) -> Callable[[], None]:
    """Return what makes a process count its file operations in a folder, and kill itself at one of them."""

    def prepare() -> None:
        own, count = os.getpid(), 0

        def heard(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            # folders that are new get their first name beside their last
            if event not in OPERATIONS or folder.name not in str(arguments[0]) or os.getpid() != own:
                return
            count += 1
            if tell is not None and str(arguments[0]) != str(tell):
                tell.write_text(str(count))
            if count == at:
                os.kill(own, signal.SIGKILL)

        sys.addaudithook(heard)

    return prepare


# --- chains ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reference:
    """An uninterrupted run: what it ends with, its file operations and seconds."""

    digest: str
    operations: int
    seconds: float


def reference(row: Row, place: Path) -> Reference:
    folder, told = place / "whole", place / "count"
    began = time.perf_counter()
    code = ended(begun(recipe_of(row, 0), folder, watching(folder, None, told)))
    assert code == 0, f"the uninterrupted run of '{row.name}' ended with {code}"
    return Reference(digest_of(folder), int(told.read_text()), time.perf_counter() - began)


def digest_of(folder: Path) -> str:
    """Return a digest of all that a run ends with and that time does not change."""
    last = max((folder / "checkpoints").glob("step-*"))
    digest = hashlib.sha256()
    for path in (folder / "model" / "model.safetensors", *sorted(last.glob("*.safetensors"))):
        digest.update(path.read_bytes())
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        figures = {key: value for key, value in json.loads(line).items() if key != "samples_per_second"}
        digest.update(json.dumps(figures, sort_keys=True).encode())
    return digest.hexdigest()


def chain(row: Row, whole: Reference, folder: Path, kills: int, draw: random.Random, counts: Counts) -> None:
    """End a run up to `kills` times, then let it finish, and compare."""
    counts.chains += 1
    for start, code in enumerate(starts(row, whole, folder, kills, draw)):
        counts.survived += bool(start)  # it went on after the one before
        if code == 0:
            break
        if code not in (-signal.SIGKILL, STOPPED, TERMINATED):
            print(f"'{row.name}': start {start + 1} ended with {code}", file=sys.stderr)
            counts.survived -= bool(start)
            return
        counts.kills += 1
    stray = [path for path in folder.parent.rglob(".*") if path.name != LOCK]
    if stray or state(folder) != "done" or digest_of(folder) != whole.digest:
        print(f"'{row.name}': {folder.name} differs, or left {stray}", file=sys.stderr)
    else:
        counts.identical += 1


def starts(row: Row, whole: Reference, folder: Path, kills: int, draw: random.Random) -> Iterator[int]:
    """Yield the exit code of each start; after `kills` of them nothing ends one."""
    for start in range(kills):
        recipe = recipe_of(row, start)
        if row.ended == "operation":
            yield ended(begun(recipe, folder, watching(folder, draw.randint(1, whole.operations))))
            continue
        process = begun(recipe, folder)
        time.sleep(draw.uniform(0, whole.seconds))
        if row.ended == "time":
            os.kill(process, signal.SIGKILL)
        else:
            os.killpg(process, signal.SIGTERM)
        yield ended(process)
    yield ended(begun(recipe_of(row, kills), folder))


def measured(rows: Sequence[Row], chains: int, kills: int, seed: int) -> dict[str, Counts]:
    """Return the counts of each row."""
    found: dict[str, Counts] = {}
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["RENAISSANCE_CACHE"] = f"{temporary}/cache"
        for number, row in enumerate(rows):
            draw, counts = random.Random(f"{seed} {row.name}"), Counts()
            place = Path(temporary) / f"row-{number}"
            place.mkdir()
            whole = reference(row, place)
            for index in range(chains):
                chain(row, whole, place / f"chain-{index}", kills, draw, counts)
            found[row.name] = counts
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", type=int, default=1)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", nargs="*", default=[], help="parts of names of rows")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = [row for row in ROWS if not given.rows or any(part in row.name for part in given.rows)]
    found = measured(rows, given.chains, given.kills, given.seed)
    if given.json:
        print(json.dumps({name: asdict(counts) for name, counts in found.items()}))
        return
    total = Counts(
        *(sum(column) for column in zip(*(asdict(counts).values() for counts in found.values()), strict=True))
    )
    shown = {**found, "all": total}
    header = ("ended by, how it loads", "kills", "survived", "bit-identical chains")
    print(
        table(
            header,
            [(n, str(c.kills), f"{c.survived}/{c.kills}", f"{c.identical}/{c.chains}") for n, c in shown.items()],
        )
    )


if __name__ == "__main__":
    main()
