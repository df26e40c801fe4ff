"""Two new processes of one gloo group, as the tests of what is gathered need them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.distributed as dist

LONGEST = 300.0  # seconds, on a busy machine


def in_two_processes(work: Callable[..., None], folder: Path, *given: object) -> None:
    """Run work(rank, folder, *given) in both processes of a group; each has a copy of its own of what is given."""
    # not forked: autograd's threads do not come along. Pickled here: a process would share the memory of tensors
    packed = pickle.dumps(given)
    context = get_context("spawn")
    processes = [context.Process(target=_started, args=(work, rank, str(folder), packed)) for rank in range(2)]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(LONGEST)
        assert [process.exitcode for process in processes] == [0, 0]
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
                process.join()
            process.close()


def _started(work: Callable[..., None], rank: int, folder: str, packed: bytes) -> None:
    torch.set_num_threads(1)
    # what `torchrun` says to each process; they meet in a file, which takes no port that others could take
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "OMP_NUM_THREADS": 1}
    os.environ.update({name: str(value) for name, value in own.items()})
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    work(rank, folder, *pickle.loads(packed))
    dist.barrier()
    dist.destroy_process_group()
