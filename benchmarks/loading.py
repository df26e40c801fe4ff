"""Load a saved model of 214M parameters, beside `transformers.from_pretrained` of its two towers.

python benchmarks/loading.py [--rounds N] [--size base|tiny]

Each load is in a process of its own that has imported the libraries; its CPU seconds, wall seconds and the rise of its
greatest resident memory are counted from then on. "touched": every weight is read once after the load, as the first
forward pass does. Verifying (sizes and xxh3 of all files) is a row of its own: `transformers` has no such step.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from paired import Spread, table

WAYS = ("transformers, towers", "renaissance, unverified", "renaissance", "verification alone")
LOAD = """
import json, resource, sys, time
from pathlib import Path
import torch, transformers
from transformers import AutoModel
import renaissance
from renaissance.container import load
from renaissance.manifest import read_manifest, verify_files
torch.set_num_threads(1)
way, folder, touched = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "touched"

def greatest():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])

def load_all():
    if way == "verification alone":
        verify_files(folder / "model", read_manifest(folder / "model"))
        return []
    if way.startswith("transformers"):
        return [AutoModel.from_pretrained(folder / name) for name in ("vision", "text")]
    if way == "renaissance":
        return [renaissance.from_pretrained(folder / "model")]
    return [load(folder / "model", verify=False)]

def parameters(model):
    return list(getattr(model, "assembly", model).parameters())

if way != "verification alone":
    # what is imported and built at a first use is no part of a load
    import renaissance.assemble, renaissance.builtin.fusion, renaissance.builtin.itm, renaissance.builtin.mlm
    import renaissance.builtin.transformers_text, renaissance.builtin.transformers_vision
    import transformers.models.bert.modeling_bert, transformers.models.vit.modeling_vit
Path("/proc/self/clear_refs").write_text("5")
before, wall, cpu = greatest(), time.perf_counter(), time.process_time()
models = load_all()
if touched:
    for model in models:
        for parameter in parameters(model):
            parameter.detach().sum()
print(json.dumps([time.process_time() - cpu, time.perf_counter() - wall, greatest() - before]))
"""
SPECS: Mapping[str, str] = {
    "base": 'transformers:vit + transformers:bert(tokenizer="renaissance"), random both, lxmert(layers=6, width=256)',
    "tiny": "tiny-vit + tiny-bert, random both",
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", choices=list(SPECS), default="base", help="tiny: for tests")
    given = parser.parse_args()
    print(f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}, one thread")
    with tempfile.TemporaryDirectory() as folder:
        print(report(Path(folder), SPECS[given.size], given.rounds))


def report(folder: Path, spec: str, rounds: int) -> str:
    """Save a model and its towers to a folder, load them in turns, and return the table."""
    size = _save(folder, spec)
    figures: dict[tuple[str, str], list[list[float]]] = {}
    for turn in range(-1, rounds):
        for reading in ("opened", "touched"):
            for way in WAYS[turn % len(WAYS) :] + WAYS[: turn % len(WAYS)]:
                if way != WAYS[-1] or reading == "opened":
                    found = _loaded(way, folder, reading)
                    if turn >= 0:
                        figures.setdefault((way, reading), []).append(found)
    rows = [_row(way, reading, found, figures[WAYS[0], reading], size) for (way, reading), found in figures.items()]
    header = ("loaded by", "weights", "CPU s", "of transformers' CPU", "wall s", "memory above, of the file")
    return f"a file of {size / 1e6:.0f} MB; medians of {rounds} rounds\n{table(header, sorted(rows))}"


def _row(way: str, reading: str, found: list[list[float]], reference: list[list[float]], size: int) -> tuple[str, ...]:
    cpu, wall, memory = zip(*found, strict=True)
    ratios = Spread.of([own / other[0] for own, other in zip(cpu, reference, strict=True)])
    share = Spread.of([value / size for value in memory])
    return way, reading, str(Spread.of(cpu)), str(ratios), str(Spread.of(wall)), str(share)


def _loaded(way: str, folder: Path, reading: str) -> list[float]:
    command = [sys.executable, "-c", LOAD, way, str(folder), reading]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    figures: list[float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _save(folder: Path, spec: str) -> int:
    """Write the model, and its towers as `transformers` saves them; return the bytes of the model's weights."""
    from typing import Any, cast

    import renaissance

    model = renaissance.build(spec, tasks=("mlm", "itm"))
    model.save(folder / "model")
    encoder = cast(Any, model).assembly.encoder
    for tower in ("vision", "text"):
        getattr(encoder, tower).model.save_pretrained(folder / tower)
    return (folder / "model" / "model.safetensors").stat().st_size


if __name__ == "__main__":
    main()
