"""Time and FLOPs of a training step by what is frozen, with and without the store: a table, and a picture.

python benchmarks/freezing_cost.py [--rounds N] [--size small|tiny] [--out FILE]

The model, its captions and its batch are those of step.py. All arms take turns in one process, on one thread; seconds
are CPU seconds, medians over the rounds with their least and greatest. FLOPs are those that the ledger counts.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import torch
from accelerate import Accelerator
from paired import Spread, table, take_turns
from trials import CASES, SIZES, Trial, make_trials

from renaissance.training.ledger import Ledger

mpl.use("svg")
from matplotlib import pyplot as plt  # after the choice of what draws

FIGURE = Path(__file__).parent / "figures" / "freezing_cost.svg"
STORES = {"renaissance": "no store", "stored": "with the store"}
COLOURS = {"no store": "#80a9d6", "with the store": "#d95f02"}


@dataclass(frozen=True, slots=True)
class Arm:
    """One bar: what is frozen, from where its features come, and what a step takes."""

    frozen: str
    store: str
    seconds: Spread
    flops: int


def main() -> None:
    """Print the table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which every arm does one step")
    parser.add_argument("--size", choices=list(SIZES), default="small", help="tiny: for tests")
    parser.add_argument("--out", type=Path, default=FIGURE, help="the picture")
    given = parser.parse_args()
    torch.set_num_threads(1)
    arms = measured(given.size, given.rounds)
    print(report(arms, given.rounds))
    draw(arms, given.out, f"{' + '.join(SIZES[given.size].towers)}, batch {SIZES[given.size].batch}")


def measured(size: str, rounds: int) -> list[Arm]:
    """Return what a step of each arm takes."""
    trials = {
        (case, STORES[name]): trial
        for case in CASES
        for name, trial in make_trials(case, size=size).items()
        if name in STORES
    }
    flops = {key: _flops(trial) for key, trial in trials.items()}
    timings = take_turns({str(key): trial.step for key, trial in trials.items()}, rounds)
    return [Arm(*key, timings.spread(str(key)), flops[key]) for key in trials]


def report(arms: list[Arm], rounds: int) -> str:
    """Return the table; shares are of the step with nothing frozen."""
    whole = arms[0]
    rows = [
        (
            arm.frozen,
            arm.store,
            str(arm.seconds),
            f"{arm.seconds.median / whole.seconds.median:.2f}",
            f"{arm.flops / 1e9:.1f}",
            f"{arm.flops / whole.flops:.2f}",
        )
        for arm in arms
    ]
    header = ("frozen", "features", "CPU s", "share of the time", "GFLOP", "share of the FLOPs")
    return f"medians of {rounds} rounds (least to greatest)\n{table(header, rows)}"


def draw(arms: list[Arm], path: Path, title: str) -> None:
    """Draw the arms side by side; equal figures give an equal file."""
    mpl.rcParams |= {"svg.hashsalt": "renaissance", "svg.fonttype": "none", "font.size": 9}
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for axis, what in zip(axes, ("CPU seconds a step", "GFLOP a step"), strict=True):
        _bars(axis, arms, seconds=what.startswith("CPU"))
        axis.set_ylabel(what)
        axis.set_xlabel("frozen")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.suptitle(title)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _bars(axis: Any, arms: list[Arm], *, seconds: bool) -> None:
    cases = list(CASES)
    for store, colour in COLOURS.items():
        own = [arm for arm in arms if arm.store == store]
        shift = {"no store": -0.2, "with the store": 0.2}[store]
        places = [cases.index(arm.frozen) + shift for arm in own]
        heights = [arm.seconds.median if seconds else arm.flops / 1e9 for arm in own]
        axis.bar(places, heights, 0.4, color=colour, label=store)
        if seconds:
            low = [arm.seconds.median - arm.seconds.low for arm in own]
            high = [arm.seconds.high - arm.seconds.median for arm in own]
            axis.errorbar(places, heights, [low, high], fmt="none", ecolor="black", linewidth=0.8)
    axis.set_xticks(range(len(cases)), cases)


def _flops(trial: Trial) -> int:
    """Return the FLOPs of a step, forward and backward."""
    step, ledger = cast(Any, trial.model), Ledger(torch.device("cpu"))
    before, step.meter = step.meter, ledger
    trial.loss()
    step.meter = before
    return ledger.flops(Accelerator(cpu=True))


if __name__ == "__main__":
    main()
