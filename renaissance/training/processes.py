"""The processes of a training: the Accelerator, how the model is wrapped for them, and the model as one again."""

from __future__ import annotations

import gc
import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, ProjectConfiguration
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from renaissance.assemble import Assembly
from renaissance.errors import MissingPackageError, SpecError
from renaissance.recipe import Recipe
from renaissance.training.sharded import Shell, fit_to_freezing, shard
from renaissance.training.train_step import TrainStep

# one process builds stores and measures while the others wait
LONGEST_WAIT = timedelta(hours=24)


class Processes:
    """The processes of a run, as this one sees them.

    Raises:
        SpecError: they were not started as the recipe needs them.
        MissingPackageError: a tracker is not installed.
    """

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        check_launch(os.environ)
        self.settings, self.bf16 = recipe.distributed, recipe.precision == "bf16"
        if self.settings.offload and torch.cuda.is_available() and "RANK" in os.environ and not dist.is_initialized():
            # sums over weights in the memory of the host need a backend of their own
            dist.init_process_group("cpu:gloo,cuda:nccl", timeout=timedelta(seconds=self.settings.timeout))
        self.accelerator = _accelerator(recipe, folder)
        if self.settings.strategy == "fsdp" and not dist.is_initialized():
            raise SpecError(
                "'strategy: fsdp' divides a model among processes, and this is one without others. Start it with "
                "'torchrun --nproc-per-node N -m renaissance run ...', or say 'strategy: ddp'."
            )
        self._shells: dict[int, Shell] = {}
        # where processes wait for hours; sums of gradients do not, so that one that stopped is noticed there
        self._waiting: Any = dist.new_group(backend="gloo", timeout=LONGEST_WAIT) if dist.is_initialized() else None

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and measures."""
        return bool(self.accelerator.is_main_process)

    def wait(self) -> None:
        """Wait until all processes are here, however long one of them works alone."""
        if self._waiting is not None:
            dist.barrier(group=self._waiting)

    @contextmanager
    def first_one_first(self) -> Iterator[None]:
        """Let the first process go through what is inside before the others."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def divide(self, step: TrainStep, assembly: Assembly) -> None:
        """Divide the model of a train step among the processes, where the recipe says so.

        Its parameters are new ones then: optimisers and averages are made after it.

        Raises:
            SpecError: it cannot be divided.
        """
        if self.settings.strategy == "fsdp":
            self._shells[id(assembly)] = Shell(assembly)
            shard(step, self.settings, bf16=self.bf16)

    def wrap(self, step: TrainStep) -> nn.Module:
        """Return what trains the model on all processes, from here on with what is frozen now; it may wrap it anew."""
        if self.settings.strategy == "fsdp":
            fit_to_freezing(step, self.settings)
            return step
        self.accelerator.free_memory()  # lets go of how it was wrapped before: DDP keeps hooks on parameters
        gc.collect()
        wrapped: nn.Module = self.accelerator.prepare(step)
        return wrapped

    @contextmanager
    def whole(self, assembly: Assembly) -> Iterator[Assembly]:
        """Give the model that was wrapped with all its weights, in the first process; all of them call this."""
        shell = self._shells.get(id(assembly))
        if shell is None:
            yield assembly
            return
        try:
            yield shell.fill(assembly, keep=self.first)
        finally:
            shell.empty()


def no_sync(model: nn.Module) -> AbstractContextManager[None]:
    """Return what keeps gradients from being summed over processes before the last part of an update.

    FSDP sums them at each part, for it keeps none that are whole.
    """
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def check_launch(environment: Mapping[str, str]) -> None:
    """Refuse to run as one process where several were asked for.

    Raises:
        SpecError: a launcher other than `torchrun` asked for them, or a part of what `torchrun` says is missing.
    """
    asked = int(environment.get("WORLD_SIZE", "1"))
    if asked > 1 and "RANK" not in environment:
        raise SpecError(f"WORLD_SIZE asks for {asked} processes, and RANK does not say which this one is. {_TORCHRUN}")
    # `accelerate launch` names an address where it is asked for several processes, and on a CPU starts one
    launched = "ACCELERATE_MIXED_PRECISION" in environment and "MASTER_ADDR" in environment
    if launched and "WORLD_SIZE" not in environment:
        raise SpecError(f"'accelerate launch' was asked for several processes, and has started one. {_TORCHRUN}")


_TORCHRUN = "Start runs with 'torchrun --nproc-per-node N -m renaissance run ...'."


def _accelerator(recipe: Recipe, folder: Path) -> Accelerator:
    for tracker in recipe.trackers:
        if importlib.util.find_spec(tracker) is None:
            raise MissingPackageError(f"The tracker '{tracker}' is not installed. Try: pip install {tracker}")
    return Accelerator(
        cpu=not torch.accelerator.is_available(),
        log_with=list(recipe.trackers) or None,
        project_config=ProjectConfiguration(logging_dir=str(folder)),
        # which parameters a step uses depends on the tasks' outputs and on how a tower pools
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=timedelta(seconds=recipe.distributed.timeout)),
        ],
    )
