"""One MLM + ITM training step of renaissance, beside the same model composed of `transformers` modules by hand.

python benchmarks/step.py [--pairs N] [--batch N] [--case none|vision|text|both] [--size small|base|tiny]
                          [--memory] [--means] [--bounds]

Columns, in one process and on one thread, in turns: renaissance; the composition as first written; that composition
made sensible (composition.py); and, where towers are frozen, renaissance with what they give read from a store. All
compute the same losses from the same weights, captions, masks and pairs; the lines above the table show that they do.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from bounds import bounds_report
from means import means_report
from paired import Spread, Timings, table, take_turns
from torch.nn.attention import SDPBackend, sdpa_kernel
from trials import (
    CASES,
    LENGTHS,
    SIZES,
    Trial,
    check_plain,
    losses_without_dropout,
    make_trials,
    parameters,
    plain_unfrozen,
)

from renaissance.cost.counting import FlopCount

NOTHING_FROZEN = "plain, nothing frozen"
# by size and case: (column, over which its time is taken, at least)
AIMS: Mapping[tuple[str, str], Sequence[tuple[str, str, float]]] = {
    ("small", "none"): [("renaissance", "plain", 2.0), ("renaissance", "sensible", 1.2)],
    ("small", "vision"): [("stored", "plain", 2.2), ("renaissance", "sensible", 1.2)],
    ("small", "text"): [("renaissance", "plain", 1.8), ("renaissance", "sensible", 1.2)],
    ("small", "both"): [("stored", "plain", 2.1), ("renaissance", "sensible", 1.2)],
    ("base", "both"): [
        ("vision stored", "plain", 4.8),
        ("stored", "plain", 6.5),
        ("stored", NOTHING_FROZEN, 10.0),
        ("renaissance", "sensible", 1.2),
    ],
}
MOST_MEMORY = 0.5  # of the plain column's
PEAK_SIDE = 2048  # of the square matrices whose product shows what the machine can do


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="rounds in which every column does one step")
    parser.add_argument("--batch", type=int, help="pairs of an image and a caption in a step; default 8, of base 4")
    parser.add_argument("--case", choices=[*CASES, "all"], default="all", help="which towers are frozen")
    parser.add_argument("--size", choices=list(SIZES), default="small", help="base: ViT-base + BERT-base; tiny: tests")
    parser.add_argument("--memory", action="store_true", help="print peak memory too: a process for each column")
    parser.add_argument("--means", action="store_true", help="print what each means to speed is worth, alone")
    parser.add_argument("--bounds", action="store_true", help="print where the time goes, and what bounds the ratios")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    check_plain()
    cases = list(CASES) if given.case == "all" else [given.case]
    if given.peak_of:
        print(_peak_bytes(make_trials(cases[0], size=given.size, batch=given.batch)[given.peak_of]))
        return
    batch = given.batch or SIZES[given.size].batch
    threads = f"{torch.get_num_threads()} thread, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}"
    libraries = f"torch {torch.__version__}, transformers {version('transformers')}"
    print(f"{libraries}, {threads}, {given.size}, batch {batch}, captions of {LENGTHS} tokens")
    for part in _parts(given, cases, batch):
        print(f"\n{part}", flush=True)


def _parts(given: argparse.Namespace, cases: Sequence[str], batch: int) -> Iterator[str]:
    options: Any = {"size": given.size, "batch": batch, "pairs": given.pairs}
    yield report(cases, **options)
    if given.memory:
        yield _memory(cases, given.size, batch)
    if given.means:
        yield means_report(cases, **options)
    if given.bounds:
        yield bounds_report(cases, **options, flops=_flops, product=_product)


def report(cases: Sequence[str], *, size: str, batch: int, pairs: int) -> str:
    """Time these cases; print for each that the columns agree; return the tables of ratios, of aims and of FLOPs."""
    ratios, work, aims = [], [], []
    unfrozen = plain_unfrozen(size=size, batch=batch)
    for case in cases:
        trials = make_trials(case, size=size, batch=batch)
        print(f"{case} frozen: {_sameness(trials)}", flush=True)
        actions = {name: trial.step for name, trial in trials.items()} | {"peak": _product}
        timings = take_turns(actions | {NOTHING_FROZEN: unfrozen.step}, pairs)
        ratios += [_ratios(case, name, timings) for name in trials if name not in ("plain", "sensible")]
        work += [_work_row(case, name, trial, timings) for name, trial in trials.items()]
        aims += _aims(size, case, timings)
    columns = ("frozen", "of renaissance", "CPU s", "plain / it", "sensible / it", f"{NOTHING_FROZEN} / it")
    shares = ("frozen", "column", "GFLOP a step", "GFLOP a CPU s", "share of a product's rate")
    shown = f"medians of {pairs} rounds (least to greatest)\n{table(columns, ratios)}"
    reached = table(("frozen", "of renaissance", "over it", "aim", "reached", "by the median"), aims)
    return "\n\n".join([shown, *([f"aims\n{reached}"] if aims else []), f"work\n{table(shares, work)}"])


def _aims(size: str, case: str, timings: Timings) -> list[tuple[str, ...]]:
    """Return a row for each aim of this case."""
    rows = []
    for name, other, aim in AIMS.get((size, case), ()):
        found = timings.ratio(other, name)
        rows.append((case, _shown(name), other, f"{aim:g}", str(found), "yes" if found.median >= aim else "no"))
    return rows


def _ratios(case: str, name: str, timings: Timings) -> tuple[str, ...]:
    others = ("plain", "sensible", NOTHING_FROZEN)
    return case, _shown(name), str(timings.spread(name)), *(str(timings.ratio(other, name)) for other in others)


def _shown(name: str) -> str:
    return "as it is" if name == "renaissance" else name


def _work_row(case: str, name: str, trial: Trial, timings: Timings) -> tuple[str, ...]:
    gflop = _flops(trial) / 1e9
    product = 2 * PEAK_SIDE**3 / 1e9
    own = Spread.of([gflop / seconds for seconds in timings.seconds[name]])
    share = Spread.of(
        [
            gflop / seconds / (product / whole)
            for seconds, whole in zip(timings.seconds[name], timings.seconds["peak"], strict=True)
        ]
    )
    return case, name, f"{gflop:.1f}", f"{own.median:.0f}", str(share)


def _flops(trial: Trial) -> int:
    """Return the FLOPs of a step, attention as plain products."""
    with sdpa_kernel(SDPBackend.MATH), FlopCount() as count:
        trial.loss().backward()  # type: ignore[no-untyped-call]
    trial.optimiser.zero_grad(set_to_none=True)
    return count.total


def _product(side: int = PEAK_SIDE) -> float:
    """Do a large product; return its FLOPs."""
    values = torch.ones(side, side)
    torch.mm(values, values)
    return 2.0 * side**3


def _sameness(trials: Mapping[str, Trial]) -> str:
    losses = losses_without_dropout(trials)
    counts = {parameters(trial) for trial in trials.values()}
    if len(counts) != 1 or max(losses.values()) - min(losses.values()) > 1e-4 * max(losses.values()):
        raise RuntimeError(f"The columns do not compute the same: parameters {counts}, losses {losses}")
    total, trained = counts.pop()
    shown = ", ".join(f"{name} {loss:.5f}" for name, loss in losses.items())
    return f"{total:,} parameters each, {trained:,} trained; losses without dropout: {shown}"


# --- memory ---------------------------------------------------------------------------------------------------------


def _memory(cases: Sequence[str], size: str, batch: int) -> str:
    """Return a table of the memory that a step takes above weights and the optimiser's state."""
    rows = []
    for case in cases:
        columns = ["plain", "sensible", "renaissance", *(["stored"] if CASES[case] else [])]
        peaks = {name: _asked(name, case, size, batch) for name in columns}
        rows += [
            (case, name, f"{peak / 2**20 / batch:.0f}", f"{peak / peaks['plain']:.2f}") for name, peak in peaks.items()
        ]
    header = ("frozen", "column", "MiB a pair above the states", f"of plain; aim: at most {MOST_MEMORY}")
    return f"peak memory\n{table(header, rows)}"


def _asked(name: str, case: str, size: str, batch: int) -> int:
    """Return the peak of one column, from a process of its own."""
    options = ["--peak-of", name, "--case", case, "--size", size, "--batch", str(batch)]
    command = [sys.executable, str(Path(__file__)), *options]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _peak_bytes(trial: Trial) -> int:
    """Return by how much the resident memory rises in a step, the greatest of three; Linux tells it."""
    rises = []
    for _ in range(4):
        trial.step()
        trial.optimiser.zero_grad(set_to_none=True)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # begins the high-water mark anew
        trial.step()
        rises.append(_status("VmHWM") - before)
    return max(rises[1:])


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])


if __name__ == "__main__":
    main()
