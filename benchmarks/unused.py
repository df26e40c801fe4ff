"""What looking for unused parameters costs DDP: updates of two gloo processes with it and without it, in turns.

python benchmarks/unused.py [--rounds N]

The model trains whole, with mlm, itm and itc, so that every parameter is used. Milliseconds are CPU time of the first
process, in a forward and a backward pass.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
from paired import Spread, table
from torch.nn.parallel import DistributedDataParallel

from renaissance.assemble import assemble
from renaissance.cost.shapes import synthetic_batch
from renaissance.resolve import resolve
from renaissance.training.train_step import TrainStep

SPEC = (
    "tiny-vit(layers=6, width=128, heads=4, mlp_width=512, image_size=64, patch_size=16) + "
    "tiny-bert(layers=6, width=128, heads=4, mlp_width=512), random both, lxmert(layers=4, width=128, heads=4)"
)
TASKS = {"mlm": {"at_least_one": True}, "itm": {}, "itc": {}}
BATCH, TOKENS = 8, 16


def work(rank: int, folder: str, rounds: int) -> None:
    """Train as one of two processes; the first one writes its seconds, without and with the search."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    models = [assemble(resolve(SPEC, TASKS), seed=0).train() for _ in range(2)]
    batch = synthetic_batch(models[0], BATCH, TOKENS)
    plain, searching = (
        DistributedDataParallel(TrainStep(model, dict.fromkeys(TASKS, 1.0)), find_unused_parameters=searches)
        for model, searches in zip(models, (False, True), strict=True)
    )
    lines = []
    for _ in range(rounds + 2):
        taken = []
        for wrapped in (plain, searching):
            began = time.process_time()
            wrapped(batch).loss.backward()
            taken.append(time.process_time() - began)
            wrapped.zero_grad(set_to_none=True)
        lines.append(" ".join(map(str, taken)))
    if rank == 0:
        Path(folder, "seconds").write_text("\n".join(lines[2:]))
    dist.barrier()
    dist.destroy_process_group()


def measured(rounds: int) -> list[tuple[float, float]]:
    """Return CPU seconds of an update, without and with the search, of each round.

    Raises:
        RuntimeError: a process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        processes = [get_context("spawn").Process(target=work, args=(rank, folder, rounds)) for rank in range(2)]
        for process in processes:
            process.start()
        wait_for(processes)
        lines = Path(folder, "seconds").read_text().splitlines()
    return [(float(line.split()[0]), float(line.split()[1])) for line in lines]


def wait_for(processes: Sequence[BaseProcess]) -> None:
    """Wait until all have ended; one that fails ends the others, which would wait for it.

    Raises:
        RuntimeError: one failed.
    """
    running = {process.sentinel: process for process in processes}
    try:
        while running:
            for sentinel in wait(list(running)):
                process = running.pop(sentinel)
                process.join()
                if process.exitcode != 0:
                    raise RuntimeError(f"A process ended with the exit code {process.exitcode}; it says why above.")
    finally:
        for process in running.values():
            process.kill()
            process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    found = measured(parser.parse_args().rounds)
    plain, searched = (1000 * median(column) for column in zip(*found, strict=True))
    ratio = Spread.of([second / first for first, second in found])
    header = ("update without the search, ms", "with it, ms", "ratio, by pairs")
    print(table(header, [(f"{plain:.1f}", f"{searched:.1f}", str(ratio))]))


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
