"""Studies whose runs never ran: folders with scores, ledgers, curves and outcomes that are planted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from renaissance.features.layout import Cost
from renaissance.studies.arms import Design, expand
from renaissance.studies.design import Study
from renaissance.studies.folder import Fault, Record, StudyFolder
from renaissance.studies.results import Figure, Finished, Results
from renaissance.training.ledger_file import ledger_facts

METRIC = "finetune/test/itm/accuracy"
ITEMS, UPDATES, BATCH, EVERY = 40, 200, 8, 20
# of a run's training, and what freezing takes off it
FLOPS, SPARED, STORE = 1_000_000, 400_000, 50_000

Plant = Callable[[str, tuple[int, ...]], float]

NO_LOSS = {
    "name": "no-loss",
    "kind": "no-loss",
    "says": "Freezing the vision tower costs nothing.",
    "metric": METRIC,
    "arm": "frozen",
    "reference": "trained",
    "floor": "no-vlp",
    "expected": {"sd": 1.0, "gain": 10.0},
}


def greater(name: str = "better", **changes: Any) -> dict[str, Any]:
    """Return the hypothesis that freezing scores higher."""
    says = "Freezing scores higher."
    weights = {"frozen": 1, "trained": -1}
    expected = {"sd": 1.0, "gain": 2.0}
    stated = {"name": name, "kind": "greater", "says": says, "metric": METRIC, "weights": weights}
    return {**stated, "expected": expected, **changes}


def alike(**changes: Any) -> dict[str, Any]:
    """Return the hypothesis that freezing makes no difference."""
    stated = {"name": "alike", "kind": "alike", "says": "Both score alike.", "metric": METRIC, "margin": 2.0}
    return {**stated, "arm": "frozen", "other": "trained", "expected": {"sd": 1.0}, **changes}


def study(
    line: str,
    hypotheses: Sequence[Mapping[str, Any]] = (NO_LOSS,),
    *,
    seeds: int = 8,
    fine: int = 1,
    verdicts: str = "confirmatory",
    **changes: Any,
) -> Design:
    """Return a design of the arms 'trained' and 'frozen' and the floor 'no-vlp'; the first hypothesis is primary."""
    every = {"every": EVERY, "validation": BATCH}
    recipe = {"tasks": {"itm": {}}, "batch": {"size": BATCH}, "budget": {"steps": UPDATES}, "evaluation": every}
    given: dict[str, Any] = {
        "name": "planted",
        "question": "What does freezing cost?",
        "scope": "In drawn scenes, with tiny towers.",
        "stages": {"pretrain": {**recipe, "start": line}, "finetune": {**recipe, "start": {"model": "@pretrain"}}},
        "seeds": {"pretrain": seeds, "finetune": fine},
        "factors": {
            "vision": {
                "about": "Whether the vision tower trains.",
                "varies": ["pretrain.start"],
                "levels": {"trained": {}, "frozen": {"pretrain.start": f"{line}, frozen vision"}},
            }
        },
        "controls": {
            "no-vlp": {
                "about": "Straight to fine-tuning.",
                "varies": ["finetune.start"],
                "settings": {"finetune.start": line},
                "skips": ["pretrain"],
            }
        },
        "hypotheses": list(hypotheses),
        "primary": hypotheses[0]["name"],
        "reference": "trained",
        "presets": {"cpu": {"about": "All of it.", "verdicts": verdicts}},
    }
    return expand(Study.model_validate({**given, **changes}), "cpu")


def scattered(means: Mapping[str, float], *, sd: float = 0.5, seed: int = 0) -> Plant:
    """Return scores around the mean of each arm; what is common to the arms of a seed scatters ten times as far."""

    def plant(arm: str, seeds: tuple[int, ...]) -> float:
        common = np.random.default_rng([seed, 99, seeds[0]]).normal(0, 10 * sd)
        own = np.random.default_rng([seed, *arm.encode(), *seeds]).normal(0, sd)
        return means[arm] + float(common + own)

    return plant


def planted(design: Design, plant: Plant, *, failed: Iterable[str] = (), waiting: Iterable[str] = ()) -> Results:
    """Return results as if they had been read: without a folder, so without curves and outcomes."""
    fault = Record(
        format=1, id="", state="failed", sha256={}, seconds=2.0, error=Fault(type="E", message="", exit_code=3)
    )
    done = {}
    for run in design.runs.values():
        if run.id not in (*failed, *waiting):
            arm = design.arms_of(run.id)[0]
            record = Record(format=1, id=run.id, state="done", sha256={}, seconds=2.0, error=None)
            score = {("test", "itm", "accuracy", "trained"): Figure(plant(arm, run.seeds), 50.0)}
            flops = {"flops_as_run": float(FLOPS - SPARED if arm == "frozen" else FLOPS)}
            done[run.id] = Finished(Path("none"), record, score, flops, {})
    return Results(design, done, dict.fromkeys(failed, fault), tuple(waiting))


def fill(
    folder: StudyFolder,
    design: Design,
    plant: Plant,
    *,
    failed: Iterable[str] = (),
    waiting: Iterable[str] = (),
    more: bool = False,
    backwards: bool = False,
) -> StudyFolder:
    """Write what the runs of a design would have, but for those that failed or have not run; more: curves, outcomes."""
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.study.write_text("name: planted\n")
    for run in sorted(design.runs.values(), key=lambda run: run.id, reverse=backwards):
        if run.id in waiting:
            continue
        if run.id in failed:
            fault = Fault(type="NonFiniteError", message=f"The loss in {folder.path}/x is NaN.", exit_code=3)
            folder.record_file(run.id).parent.mkdir(parents=True, exist_ok=True)
            folder.record_failed(run.id, 2.0, fault)
            continue
        arm = design.arms_of(run.id)[0]
        write_run(folder, run.id, plant(arm, run.seeds), arm=arm, more=more)
    return folder


def write_run(folder: StudyFolder, run: str, score: float, *, arm: str, more: bool = False) -> None:
    """Write and record one run; more: its learning curve and its outcomes, too."""
    place = folder.run(run)
    place.mkdir(parents=True)
    folder.record_file(run).parent.mkdir(parents=True, exist_ok=True)
    rows = [
        _row("untrained", "test", "accuracy", 50.0),
        _row("trained", "test", "accuracy", score),
        _row("trained", "test", "odd", math.nan),
        {**_row("trained", "test", "accuracy", 70.0), "data": "beside"},
    ]
    seconds = {"training": 10.0 if arm == "frozen" else 20.0, "evaluation": 2.0}
    (place / "scores.json").write_text(json.dumps({"format": 1, "scores": rows, "seconds": seconds}))
    (place / "ledger.json").write_text(json.dumps(_ledger(arm)))
    if more:
        lines = [{"step": step, "loss/itm": 1 / step, "lr": 0.1} for step in range(1, UPDATES + 1)]
        lines += [
            {"step": step, "validation/itm/accuracy": score - 40 + step / 5} for step in range(EVERY, UPDATES, EVERY)
        ]
        (place / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        write_outcomes(place, score)
    folder.record_done(run)


def write_outcomes(place: Path, score: float, *, items: int = ITEMS, samples: str = "these") -> None:
    """Write outcomes that have a score as their mean: the same items are hard for every run."""
    from safetensors.numpy import save_file

    key = "trained/test/itm/accuracy"
    hard = np.linspace(-20, 20, items)
    tensors = {
        key: (score + hard).astype(np.float32),
        f"weights/{key}": np.full(items, 1 / items),
        f"units/{key}": np.arange(items),
    }
    save_file(tensors, place / "outcomes.safetensors", metadata={"samples": json.dumps({key: samples})})


def _row(model: str, split: str, name: str, value: float) -> dict[str, Any]:
    return {"model": model, "split": split, "task": "itm", "name": name, "value": value, "chance": 50.0}


def _ledger(arm: str) -> dict[str, Any]:
    frozen = arm == "frozen"
    totals = {
        "updates": UPDATES,
        "samples": UPDATES * BATCH,
        "flops/fusion/forward": FLOPS - SPARED if frozen else FLOPS,
        "spared/flops": SPARED // 2 if frozen else 0,
        "unfrozen/flops": FLOPS,
        "peak/rss": 1000 if frozen else 2000,
    }
    store = Cost(1.5, STORE) if frozen else Cost()
    return {**ledger_facts(totals, {}, store, name=arm, batch=BATCH, processes=1), "machine": {"processor": "planted"}}
