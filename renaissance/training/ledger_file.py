"""`ledger.json`: what a training took, what was expected, and what it would have taken otherwise."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from renaissance.durable import write_atomically
from renaissance.errors import ModelFileError
from renaissance.features.layout import Cost
from renaissance.training.ledger import PARTS, PEAK, WALL

NAME = "ledger.json"
FORMAT = 1
DIRECTIONS = ("forward", "backward", "recomputed")


def ledger_facts(
    totals: Mapping[str, float],
    forecast: Mapping[str, Any],
    store: Cost,
    *,
    name: str,
    batch: int,
    processes: int,
) -> dict[str, Any]:
    """Return what `ledger.json` holds, of the totals of a ledger. store: what the building of its stores took."""
    flops = {part: {way: int(totals.get(f"flops/{part}/{way}", 0)) for way in DIRECTIONS} for part in PARTS}
    whole = {way: sum(part[way] for part in flops.values()) for way in DIRECTIONS}
    actual, known = sum(whole.values()), "unspared" not in totals
    updates = int(totals.get("updates", 0))
    return {
        "format": FORMAT,
        "name": name,
        "batch_size": batch,
        "updates": updates,
        "samples": int(totals.get("samples", 0)),
        "encoded": _group(totals, "encoded/"),
        "tower_calls": _group(totals, "calls/"),
        "from_store": _group(totals, "stored/"),
        "text_tokens": _group(totals, "tokens/"),
        "predicted": _group(totals, "predicted/"),
        "flops": {**flops, "total": {**whole, "training": actual}},
        "forecast": {**forecast, "actual": {"updates": updates, "flops": actual}},
        "compared": {
            "nothing frozen": int(totals.get("unfrozen/flops", 0)) if known else None,
            "frozen, no store": actual + int(totals.get("spared/flops", 0)) if known else None,
            "as run": actual,
            "as run, store built": None if store.flops is None else actual + store.flops,
        },
        "store": {"flops": store.flops, "seconds": round(store.seconds, 3)},
        "wall_seconds": _seconds(totals, WALL),
        "cpu_seconds": _seconds(totals, "cpu/"),
        "peak_memory_bytes": _group(totals, PEAK),
        "bytes_read": _group(totals, "bytes/"),
        "machine": machine(processes),
    }


def machine(processes: int) -> dict[str, Any]:
    """Return on what a training ran."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "gpu": gpu,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write_ledger(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the ledger of a run.

    Raises:
        OutputError: it cannot be written.
    """
    write_atomically(folder / NAME, json.dumps(facts, indent=1) + "\n")


def read_ledger(folder: Path) -> dict[str, Any]:
    """Return the ledger of a run's folder.

    Raises:
        ModelFileError: there is none, or it is damaged.
    """
    path = folder / NAME
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise ModelFileError(f"'{path}' is of format {facts['format']}, and this version reads {FORMAT}; upgrade.")
        if not set(PARTS) <= set(facts["flops"]):
            raise KeyError("flops")
    except OSError as error:
        raise ModelFileError(
            f"'{path}' cannot be read ({error.strerror}); give the folder of a run that is done."
        ) from None
    except (ValueError, LookupError, TypeError):
        raise ModelFileError(
            f"'{path}' is no ledger, or is damaged; copy it again from where it was written."
        ) from None
    return facts


def _group(totals: Mapping[str, float], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): int(value) for name, value in sorted(totals.items()) if name.startswith(prefix)}


def _seconds(totals: Mapping[str, float], prefix: str) -> dict[str, float]:
    named = {name.removeprefix(prefix): value for name, value in sorted(totals.items()) if name.startswith(prefix)}
    return {name: round(value, 3) for name, value in named.items()}


def _processor() -> str:
    """Return the name of the processor, as Linux knows it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
