"""What bounds a step of renaissance: where its time goes, and how much faster it could be at most.

A step is profiled operation by operation. Products, attention and convolutions are the work itself; all else passes
over tensors or is Python. Two bounds follow: the ratio to the plain step if all else took nothing, and the ratio if the
work were done at the rate of a large product, which no library reaches on matrices of these shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from paired import Timings, table, take_turns
from torch.profiler import ProfilerActivity, profile
from trials import CASES, Trial, make_trials

# kinds of operations by parts of their names; the first that fits counts
KINDS: Mapping[str, tuple[str, ...]] = {
    "optimiser": ("adam",),
    "attention": ("scaled_dot_product", "flash_attention"),
    "convolution": ("convolution",),
    "products": ("aten::mm", "addmm", "bmm", "aten::linear", "mkldnn_linear"),
    "norms, activations, softmax": ("layer_norm", "gelu", "relu", "tanh", "softmax", "nll_loss", "sigmoid"),
    "random numbers": ("random", "bernoulli", "uniform", "normal_"),
}
OTHER, REST = "sums, copies, indexing", "Python and autograd"
WORK = ("products", "attention", "convolution")
SIXTY = 0.6  # of the rate of a large product: the aim


def kind_of(name: str) -> str:
    """Return the kind of an operation."""
    return next((kind for kind, parts in KINDS.items() if any(part in name.lower() for part in parts)), OTHER)


def shares(step: Callable[[], object], rounds: int) -> dict[str, float]:
    """Return which share of a step's time each kind of operation takes, medians of so many steps."""
    step()
    found = [_shares(step) for _ in range(rounds)]
    return {kind: median(one.get(kind, 0.0) for one in found) for kind in (*KINDS, OTHER, REST)}


def _shares(step: Callable[[], object]) -> dict[str, float]:
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        step()
    events: Iterable[Any] = profiled.events()
    tops = [event for event in profiled.events() if event.cpu_parent is None]
    whole = max(event.time_range.end for event in tops) - min(event.time_range.start for event in tops)
    spent: dict[str, float] = {}
    for event in events:
        if event.name.startswith("aten::") or "mkldnn" in event.name:
            kind = kind_of(event.name)
            spent[kind] = spent.get(kind, 0.0) + event.self_cpu_time_total
    spent[REST] = max(0.0, whole - sum(spent.values()))
    total = sum(spent.values())
    return {kind: time / total for kind, time in spent.items()}


def bounds_report(
    cases: Sequence[str],
    *,
    size: str,
    batch: int,
    pairs: int,
    flops: Callable[[Trial], int],
    product: Callable[[], float],
) -> str:
    """Return two tables: where the time of a step goes, and what it could be at most.

    flops: of a step. product: does a large product, and returns its FLOPs.
    """
    kinds = (*KINDS, OTHER, REST)
    parts, most = [], []
    for case in cases:
        trials = make_trials(case, size=size, batch=batch)
        name = "stored" if CASES[case] else "renaissance"
        trial, count = trials[name], product()
        own = shares(trial.step, pairs)
        actions = {"it": trial.step, "plain": trials["plain"].step, "peak": product}
        timings = take_turns(actions, pairs)
        shown = "from the store" if name == "stored" else "as it is"
        parts.append((case, shown, *(f"{own[kind]:.0%}" for kind in kinds)))
        most.append((case, shown, *_bounds(timings, sum(own[kind] for kind in WORK), flops(trial), count)))
    header = (
        "frozen", "of renaissance", "plain / it", "work, of the time", "rate of the work, of a product's",
        f"plain / it at {SIXTY:.0%} of that rate in all", "plain / it if all but the work took nothing",
        "plain / it at that rate",
    )  # fmt: skip
    told = (
        f"where the time of a step goes; medians of {pairs} steps\n{table(('frozen', 'of renaissance', *kinds), parts)}"
    )
    return f"{told}\n\nand what bounds the ratios; work: {', '.join(WORK)}\n{table(header, most)}"


def _bounds(timings: Timings, share: float, flops: int, count: float) -> tuple[str, ...]:
    """Return the ratio to the plain step as it is, the share of the work and its rate, and the bounds of the ratio."""
    its, plains, peaks = (timings.seconds[name] for name in ("it", "plain", "peak"))
    ideal = median(flops / count * peak / it for it, peak in zip(its, peaks, strict=True))  # of the time, at the peak
    ratio = median(plain / it for it, plain in zip(its, plains, strict=True))
    figures = (ratio * SIXTY / ideal, ratio / share, ratio / ideal)
    return f"{ratio:.2f}", f"{share:.0%}", f"{ideal / share:.0%}", *(f"{figure:.2f}" for figure in figures)
