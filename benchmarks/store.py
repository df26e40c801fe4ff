"""Random reads of stored features, beside a plain memory-mapped array of the same numbers.

python benchmarks/store.py [--rounds N] [--samples N] [--batch N] [--folder FOLDER] [--size full|tiny]

Features of DeiT-tiny (197 tokens of width 192), fp32 and fp16, in batches of random samples; the files are in the
system's cache. Plain: `array[rows]` of a `numpy.memmap`, which knows neither lengths nor checksums. First read: the
store is opened anew, and each sample is compared with its checksum; in a training that is the first epoch.

Letters in shapes: S samples, N tokens, D width.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from paired import Spread, Timings, table, take_turns

from renaissance.api import Features, VisionInput
from renaissance.features.keys import content_digest
from renaissance.features.store import FeatureStore, build_or_open

SHAPES: Mapping[str, tuple[int, int]] = {"full": (197, 192), "tiny": (5, 8)}
DTYPES: Mapping[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16}
HEADER = ("kept in", "samples", "batch", "store, samples/s", "first read, samples/s", "store, GB/s", "plain, GB/s")
HEADER += ("ratio to plain", "first read, ratio")
AIMS = "Aims: a ratio to plain of 0.5, and 10,000 samples/s a core."


def features(rows: Sequence[int], shape: tuple[int, int], dtype: torch.dtype) -> Features:
    """Return numbers [S, N, D] that stand for what a tower gave."""
    tokens = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(row)) for row in rows])
    return Features(tokens.to(dtype), torch.ones(tokens.shape[:2], dtype=torch.bool))


def store_of(folder: Path, samples: int, shape: tuple[int, int], dtype: torch.dtype) -> FeatureStore:
    """Build a store of so many samples."""
    digests = [content_digest(str(row)) for row in range(samples)]

    def load(rows: Sequence[int]) -> VisionInput:
        return VisionInput(torch.tensor(list(rows)))

    def encode(inputs: VisionInput) -> Features:
        return features(inputs.pixels.tolist(), shape, dtype)

    return build_or_open(folder / ("0" * 64), encode, digests, load, about={})  # type: ignore[arg-type]  # images alone


def plain_of(folder: Path, samples: int, shape: tuple[int, int], dtype: torch.dtype) -> np.ndarray:
    """Write the same numbers as one array [S, N, D], and map it."""
    path = folder / "plain"
    kind = torch.zeros(0, dtype=dtype).numpy().dtype
    array = np.memmap(path, kind, "w+", shape=(samples, *shape))
    for row in range(samples):
        array[row] = features([row], shape, dtype).tokens[0].numpy()
    array.flush()
    return np.memmap(path, kind, "r", shape=(samples, *shape))


def batches(samples: int, size: int) -> list[list[int]]:
    """Return every sample once, in batches of random order."""
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(0)).tolist()
    return [order[start : start + size] for start in range(0, samples, size)]


def actions(store: FeatureStore, plain: np.ndarray, order: list[list[int]]) -> dict[str, Callable[[], object]]:
    """Return the ways to read all batches."""

    def read_all(read: Callable[[list[int]], object]) -> None:
        for rows in order:
            read(rows)

    return {
        "store": lambda: read_all(store.read),
        "plain": lambda: read_all(lambda rows: torch.from_numpy(plain[rows])),
        "first": lambda: read_all(FeatureStore.open(store.folder).read),
    }


def line(dtype: str, samples: int, batch: int, size: int, timings: Timings) -> list[str]:
    """Return a row of the table; size: bytes of all samples."""
    seconds = {name: Spread.of(timings.seconds[name]).median for name in timings.seconds}
    return [
        dtype,
        f"{samples:,}",
        str(batch),
        f"{samples / seconds['store']:,.0f}",
        f"{samples / seconds['first']:,.0f}",
        f"{size / seconds['store'] / 1e9:.2f}",
        f"{size / seconds['plain'] / 1e9:.2f}",
        str(timings.ratio("plain", "store")),
        str(timings.ratio("plain", "first")),
    ]


def measure(folder: Path, *, rounds: int, samples: int, batch: int, shape: tuple[int, int]) -> list[list[str]]:
    """Return a row for each dtype."""
    rows = []
    for name, dtype in DTYPES.items():
        place = folder / name
        place.mkdir(parents=True)
        store, plain = store_of(place, samples, shape, dtype), plain_of(place, samples, shape, dtype)
        order = batches(samples, batch)
        row_of = [store.rows[content_digest(str(sample))] for sample in range(samples)]
        assert row_of == list(range(samples)), "both sides read the same"
        timings = take_turns(actions(store, plain, order), rounds)
        rows.append(line(name, samples, batch, plain.nbytes, timings))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--size", choices=SHAPES, default="full")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        shape = SHAPES[given.size]
        rows = measure(Path(folder), rounds=given.rounds, samples=given.samples, batch=given.batch, shape=shape)
    print(table(HEADER, rows))
    print(AIMS)


if __name__ == "__main__":
    main()
