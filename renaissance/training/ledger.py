"""The ledger of a training: what was computed, read and waited for; counted while it goes on, and through resumes.

FLOPs are counted at the first call of each shape that a part of the model has, and known from then on.
"""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from renaissance.api import Batch, Features, Modality, Prefix, TextInput, VisionInput
from renaissance.cost.flops import StepCount, Storage, Storages, Taken
from renaissance.cost.shapes import without_values
from renaissance.toolkit.canonical import (
    IMAGES_A_CALL,
    bucket_lengths,
    encode_canonical,
    prefix_canonical,
    texts_a_call,
)
from renaissance.toolkit.devices import moved
from renaissance.toolkit.resuming import blank_images
from renaissance.training.metering import Inputs, Meter, Part, Stored
from renaissance.training.phases import Phases

Result = TypeVar("Result")
PARTS: tuple[Part, ...] = ("vision", "text", "fusion", "heads")
PHASES: Mapping[Part, str] = {"vision": "towers", "text": "towers", "fusion": "fusion", "heads": "heads"}
PEAK = "peak/"  # figures of which the greatest counts, and not the sum
WALL = "wall/"  # and those of which only the first process's count


class Ledger(Meter):
    """Counts what one process does in a training; `totals` are those of all of them. It is the meter of a `TrainStep`.

    spares: whether to find out what towers would have taken for what a store gave, by running them once a shape.
    """

    def __init__(self, device: torch.device, *, spares: bool = True) -> None:
        self.phases = Phases(device)
        self._device, self.spares = device, spares
        self._before: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._late: dict[str, Tensor] = {}  # on the device; asking for them would make it wait
        self._known: dict[Hashable, Taken] = {}
        self._counting: list[StepCount | None] = []
        self._varying = Storages()  # what the parts of this update made

    # --- what is counted ----------------------------------------------------------------------------------------------

    def restore(self, totals: Mapping[str, float]) -> None:
        """Go on counting from the totals that a checkpoint holds."""
        self._before = Counter(dict(totals))

    def begin_stage(self) -> None:
        """Forget what shapes took: other parts train from here on."""
        self._known.clear()

    def update(self, parts: list[Batch]) -> None:
        """Note the batches of an update."""
        self._varying.clear()
        self._counts["updates"] += 1
        self._counts["samples"] += sum(len(part.ids) for part in parts)
        self._counts["bytes/images"] += sum(part.bytes_read for part in parts)

    def run(
        self,
        part: Part,
        call: Callable[[], Result],
        *,
        shape: Hashable = None,
        filled: float = 1.0,
        taught: bool = False,
    ) -> Result:
        """Run a part of a step, and count it; see `Meter.run`."""
        key = None if shape is None else (part, shape, torch.is_grad_enabled())
        with self.phases(PHASES[part]), self._aside():
            if key in self._known:
                result, taken = self._as_known(call), self._known[key]
            else:
                result, taken = self._counted(call, StepCount(self._varying, trains=not taught))
                if key is not None:
                    self._known[key] = taken
        self._take(part, taken, filled)
        if not taught:
            self._varying.update(_storages(result))
        return result

    def encoding(self, encoder: Any, modality: Modality, inputs: Inputs, stored: Stored) -> None:
        """Note what a tower is about to encode, or to go on from."""
        rows = _rows(inputs) if stored is None else len(stored.tokens)
        if not isinstance(stored, Features):
            self._counts[f"encoded/{modality}"] += rows
            self._counts[f"calls/{modality}"] += 1
        if isinstance(inputs, TextInput):
            self._later("tokens/real", inputs.mask.sum())
            self._counts["tokens/padded"] += inputs.mask.numel()
        if stored is not None:
            self._counts[f"stored/{modality}"] += rows
            self._varying.update(_storages(stored))
            self._later("bytes/store", stored.mask.sum() * _bytes_a_token(stored))
            if self.spares:
                self._spare(encoder, modality, inputs, stored)
            else:
                self._counts["unspared"] += rows

    def predicted(self, task: str, count: Tensor) -> None:
        """Note of how many predictions a task's loss is."""
        self._later(f"predicted/{task}", count.detach())

    # --- what it comes to ---------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Ask for what the device has counted, and for the greatest memory so far."""
        for name, count in self._late.items():
            self._counts[name] += int(count)
        self._late.clear()
        self.phases.settle()
        self._counts[f"{PEAK}rss"] = max(self._counts[f"{PEAK}rss"], _greatest_rss())
        if self._device.type == "cuda":
            self._counts[f"{PEAK}gpu"] = torch.cuda.max_memory_allocated(self._device)

    def totals(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the figures of all processes and of all parts of a resumed training; all processes call this."""
        self.settle()
        own = dict(self._counts) | {f"cpu/{phase}": seconds for phase, seconds in self.phases.cpu.items()}
        if accelerator.is_main_process:
            own |= {f"{WALL}{phase}": seconds for phase, seconds in self.phases.wall.items()}
        totals = Counter(self._before)
        for figures in gather_object([own]):
            for name, value in figures.items():
                totals[name] = max(totals[name], value) if name.startswith(PEAK) else totals[name] + value
        return dict(totals)

    def flops(self, accelerator: Accelerator) -> int:
        """Return the FLOPs of all processes so far, and those before a resume; all processes call this."""
        own = sum(value for name, value in self._counts.items() if name.startswith("flops/"))
        shared = gather_object([own]) if accelerator.num_processes > 1 else [own]
        return sum(shared) + sum(value for name, value in self._before.items() if name.startswith("flops/"))

    # --- counting -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Keep what counts the part around this one from counting it too."""
        if self._counting and (count := self._counting[-1]) is not None:
            with count.aside():
                yield
        else:
            yield

    def _as_known(self, call: Callable[[], Result]) -> Result:
        self._counting.append(None)
        try:
            return call()
        finally:
            self._counting.pop()

    def _counted(self, call: Callable[[], Result], count: StepCount) -> tuple[Result, Taken]:
        self._counting.append(count)
        try:
            with count:
                result = call()
        finally:
            self._counting.pop()
        return result, count.taken

    def _take(self, part: Part, taken: Taken, filled: float) -> None:
        self._counts[f"flops/{part}/forward"] += taken.forward
        self._counts[f"flops/{part}/backward"] += taken.backward
        self._counts[f"flops/{part}/recomputed"] += taken.recomputed
        self._counts["unfrozen/flops"] += taken.whole - round(taken.still * (1 - filled))

    def _spare(self, encoder: Any, modality: Modality, inputs: Inputs, stored: Features | Prefix) -> None:
        """Note what the frozen tower would have taken for what a store gave."""
        tower, layers = getattr(encoder, modality), range(-encoder.needs.layers, 0)
        depth = stored.depth if isinstance(stored, Prefix) else None
        for length, rows, one in _calls(tower, inputs, stored):
            key = "spared", modality, depth, length
            if key not in self._known:

                def encode(tower: Any, one: VisionInput | TextInput = one) -> object:
                    given = moved(one, stored.tokens.device)
                    if depth is None:
                        return encode_canonical(tower, given, layers)
                    return prefix_canonical(tower, given, depth)

                with self._aside():
                    self._known[key] = self._without_values(tower, encode)
            size = IMAGES_A_CALL if modality == "vision" else texts_a_call(length)
            self._counts["spared/flops"] += self._known[key].forward * -(-rows // size)
            self._counts["unfrozen/flops"] += self._known[key].whole * rows // size

    def _without_values(self, tower: Any, encode: Callable[[Any], object]) -> Taken:
        """Return what a tower takes, found on a copy without values, or on itself if it does not run without them."""
        try:
            ghost = without_values(tower)
            return self._counted(lambda: encode(ghost), StepCount())[1]
        except RuntimeError:
            return self._counted(lambda: encode(tower), StepCount())[1]

    def _later(self, name: str, count: Tensor) -> None:
        self._late[name] = self._late[name] + count if name in self._late else count


def _calls(tower: Any, inputs: Inputs, stored: Features | Prefix) -> Iterator[tuple[int, int, Any]]:
    """Yield in which length how many inputs are encoded, and one of them."""
    if isinstance(inputs, TextInput):
        lengths = bucket_lengths(tower, inputs)
        for length, rows in sorted(Counter(lengths.tolist()).items()):
            row = int((lengths == length).nonzero()[0])
            chosen = {field.name: getattr(inputs, field.name) for field in fields(inputs)}
            one: dict[str, Any] = {name: value[row : row + 1] for name, value in chosen.items() if value is not None}
            yield length, rows, replace(inputs, **one)
    else:
        yield 0, len(stored.tokens), blank_images(tower, 1)


def _storages(value: object) -> Iterator[Storage]:
    """Yield the memory of all tensors of features and the like."""
    if isinstance(value, Tensor):
        yield value.untyped_storage()
    elif isinstance(value, tuple):
        for one in value:
            yield from _storages(one)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _storages(getattr(value, field.name))


def _rows(inputs: Inputs) -> int:
    assert inputs is not None, "images, or what was stored of them"
    return len(inputs.pixels if isinstance(inputs, VisionInput) else inputs.token_ids)


def _bytes_a_token(stored: Features | Prefix) -> int:
    layers = len(stored.layers) if isinstance(stored, Features) else 0
    return stored.tokens.shape[2] * (1 + layers) * stored.tokens.element_size()


def _greatest_rss() -> int:
    """Return the most bytes that this process had in memory so far."""
    status = Path("/proc/self/status")
    if status.exists():  # `getrusage` counts what the process was before it began to run this program, too
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None)
        if line is not None:
            return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
