"""Scores unit by unit, in a run's outcomes.safetensors: what paired tests, nested bootstraps and variance splits need.

Each score that is a mean over units has three tensors, named "model/split/task/metric" (the values, float32 [U]),
"weights/..." (float64 [U]) and "units/..." (int64 [U]); the metadata say of which samples. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from renaissance.api import Outcomes
from renaissance.durable import write_atomically
from renaissance.errors import DataError

if TYPE_CHECKING:
    from renaissance.evaluation.splits import SplitScores

FILE = "outcomes.safetensors"
SAMPLES, WEIGHTS, UNITS = "samples", "weights/", "units/"


def write_outcomes(folder: Path, found: Mapping[str, Sequence[SplitScores]]) -> None:
    """Write the outcomes of all scores, by model, that have some.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors: dict[str, np.ndarray] = {}
    samples: dict[str, str] = {}
    for key, outcomes in _named(found):
        tensors[key] = outcomes.values.astype(np.float32)
        tensors[WEIGHTS + key] = outcomes.weights.astype(np.float64)
        tensors[UNITS + key] = outcomes.units.astype(np.int64)
        samples[key] = outcomes.samples
    write_atomically(folder / FILE, save(tensors, metadata={SAMPLES: json.dumps(samples)}))


def read_outcomes(folder: str | Path) -> dict[str, Outcomes]:
    """Return the outcomes that a run kept, by "model/split/task/metric": those of "trained/test/itm/accuracy".

    Raises:
        DataError: it kept none, or their file is damaged.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise DataError(f"'{path}' is not there: the run kept no outcomes. Run it with evaluation.outcomes: true.")
    try:
        with safe_open(path, framework="numpy") as file:
            samples: dict[str, str] = json.loads((file.metadata() or {})[SAMPLES])
            read = file.get_tensor
            return {
                key: Outcomes(read(UNITS + key), read(key), read(WEIGHTS + key), samples[key])
                for key in sorted(samples)
            }
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise DataError(f"'{path}' holds no outcomes that can be read ({error}). Run its recipe again.") from None


def _named(found: Mapping[str, Sequence[SplitScores]]) -> Iterator[tuple[str, Outcomes]]:
    for model, splits in found.items():
        for split in splits:
            for task, scores in split.scores.items():
                for score in scores:
                    if score.outcomes is not None:
                        key = "/".join((model, split.name, task, score.name))
                        yield key, replace(score.outcomes, samples=split.samples)
