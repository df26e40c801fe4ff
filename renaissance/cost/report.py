"""The cost of one training step of a spec: parameters, FLOPs and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from renaissance.assemble import Assembly
from renaissance.cost.counting import Flops, measured, reads_layers, runs_of
from renaissance.cost.shapes import PRESETS, assemble_without_weights, masked_tokens, synthetic_batch, without_pixels
from renaissance.registry import Registry
from renaissance.resolve import TaskUses, resolve
from renaissance.training.train_step import TrainStep

SHARDS = (1, 2, 4, 8, 16, 32, 64)
BYTES = 4  # fp32, as training keeps weights, gradients and both moments of AdamW
MOMENTS = 2


@dataclass(frozen=True, slots=True)
class Parameters:
    """How many parameters there are, each shared tensor counted once, and how many of them are trained."""

    total: int
    trainable: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes in fp32. optimiser: the moments of AdamW. activations: what autograd keeps for the backward of a step."""

    weights: int
    gradients: int
    optimiser: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimiser + self.activations

    def sharded(self, shards: int) -> int:
        """Return the bytes of one of `shards` FSDP processes, each with a batch of its own."""
        return -(-(self.weights + self.gradients + self.optimiser) // shards) + self.activations


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one training step of `batch` pairs, each with an image and a text of its own, or of `batch` items."""

    batch: int
    text_tokens: int
    masked: int
    parameters: Parameters
    parts: Mapping[str, Parameters]
    flops: Flops
    memory: Memory


def cost(
    spec: object,
    tasks: Sequence[str] | TaskUses = ("mlm", "itm"),
    *,
    batch: int = 32,
    text_tokens: int = 32,
    masked: int | None = None,
    registry: Registry | None = None,
) -> Cost:
    """Return what a training step of a spec, or of one of the `PRESETS`, costs.

    `masked` tokens are predicted by 'mlm' in a batch; None: 15% of those that are not special. Tasks on items are
    counted with `batch` items, each with images and texts of its own as the task reads them.

    Raises:
        SpecError: the spec is wrong, or the batch cannot be had.
        HubError: a library's model is named whose config only the Hub has.
    """
    line = PRESETS.get(spec, spec) if isinstance(spec, str) else spec
    plan = resolve(line, _all_masked(tasks), registry=registry)
    assembly = assemble_without_weights(plan).train()
    given = without_pixels(synthetic_batch(assembly, batch, text_tokens, masked), assembly)
    step = TrainStep(assembly, {name: 1.0 for name, task in plan.tasks.items() if task.entry.trains})
    parameters = counted(assembly)
    flops, activations = measured(step, given, () if reads_layers(plan) else tuple(runs_of(assembly.encoder)))
    return Cost(
        batch=batch,
        text_tokens=text_tokens,
        masked=masked_tokens(batch, text_tokens, masked) if "mlm" in plan.tasks else 0,
        parameters=parameters,
        parts=counted_parts(assembly),
        flops=flops,
        memory=Memory(
            weights=BYTES * parameters.total,
            gradients=BYTES * parameters.trainable,
            optimiser=BYTES * MOMENTS * parameters.trainable,
            activations=activations,
        ),
    )


def counted(module: nn.Module) -> Parameters:
    """Return how many parameters a module has, each shared tensor counted once."""
    parameters = list(module.parameters())
    return Parameters(
        sum(parameter.numel() for parameter in parameters),
        sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
    )


def counted_parts(assembly: Assembly) -> dict[str, Parameters]:
    """Return how many parameters each part of the encoder and each task has."""
    named = [*assembly.encoder.named_children(), *((f"task {name}", task) for name, task in assembly.tasks.items())]
    return {name: counted(part) for name, part in named}


def _all_masked(tasks: Sequence[str] | TaskUses) -> TaskUses:
    """Return the tasks with 'mlm' predicting every token that is not special: the batch says how many those are."""
    uses = dict(tasks) if isinstance(tasks, Mapping) else {name: {} for name in tasks}
    return {name: {**options, "probability": 1.0} if name == "mlm" else options for name, options in uses.items()}
