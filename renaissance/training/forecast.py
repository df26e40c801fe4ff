"""What an update will take, known before the first: one forward pass of the model without its values."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from renaissance.api import Batch
from renaissance.assemble import Assembly
from renaissance.cost.flops import StepCount
from renaissance.cost.shapes import synthetic_batch, without_pixels, without_values
from renaissance.data.records import DataSet, Record
from renaissance.errors import SpecError
from renaissance.features.parts import Stored
from renaissance.recipe import Recipe
from renaissance.toolkit.canonical import prefix_canonical
from renaissance.training.cached import taken
from renaissance.training.train_step import TrainStep

TEXTS = 64  # of the training data, to know how long they are


@dataclass(frozen=True, slots=True)
class Forecast:
    """An update of `batch` pairs or items, and how many the budget holds.

    text_tokens: of the longest text of a micro-batch of one process, to which the others are padded.
    flops_an_update: forward and backward of all processes. updates: None where seconds decide.
    """

    batch: int
    text_tokens: int
    flops_an_update: int
    updates: int | None

    def facts(self) -> dict[str, Any]:
        """Return it as the ledger has it."""
        return asdict(self) | {"flops": None if self.updates is None else self.updates * self.flops_an_update}


def forecast(
    recipe: Recipe, assembly: Assembly, data: DataSet, parts: Mapping[Any, Stored], steps: int | None, *, padded: int
) -> Forecast:
    """Return what an update of a recipe takes; `parts` are stored, steps: the updates where they are known before.

    padded: how many samples are padded to the longest text of them, those of one process in a micro-batch.

    Raises:
        SpecError: no batch can be made up for its tasks; or the budget of FLOPs does not hold one update.
    """
    length, mean = _text_tokens(assembly, data, padded)
    ghost = without_values(assembly).eval()  # dropout multiplies no matrices
    if "mlm" in ghost.tasks:
        options: Any = ghost.tasks["mlm"].options
        masked = round(options.probability * recipe.batch.size * (mean - 2))
        ghost.tasks["mlm"].options = options.model_copy(update={"probability": 1.0})  # the batch says which
    else:
        masked = None
    batch = synthetic_batch(ghost, recipe.batch.size, length, masked)
    step = TrainStep(ghost, dict.fromkeys(recipe.tasks, 1.0))
    with sdpa_kernel(SDPBackend.MATH):
        given = _with_stored(without_pixels(batch, ghost), ghost, parts)
        with StepCount() as count:
            step(given)
    flops = count.taken.forward + count.taken.backward
    budget = recipe.budget
    if budget.flops is not None and budget.flops < flops:
        raise SpecError(
            f"budget.flops is {budget.flops:.4g}, and one update of {recipe.batch.size} takes about {flops:.4g}; give "
            "more, or a smaller batch.size."
        )
    updates = -(-int(budget.flops) // flops) if budget.flops is not None else steps
    return Forecast(recipe.batch.size, length, flops, updates)


def forecast_facts(
    recipe: Recipe, assembly: Assembly, data: DataSet, parts: Mapping[Any, Stored], steps: int, *, padded: int
) -> dict[str, Any]:
    """Return the forecast as the ledger has it, see `forecast`; where there can be none, the reason.

    Raises:
        SpecError: the budget of FLOPs does not hold one update, or it cannot be known whether it does.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of copies of tensors without values, such as a teacher's
            found = forecast(recipe, assembly, data, parts, steps if recipe.budget.counted else None, padded=padded)
    except SpecError as error:
        if recipe.budget.flops is not None:
            raise
        return {"unknown": str(error)}
    except RuntimeError as error:  # a backbone that asks for the values of what it computes
        if recipe.budget.flops is not None:
            raise SpecError(
                "budget.flops: this model does not run without values; give 'steps' or 'seconds'."
            ) from error
        return {"unknown": f"the model does not run without values ({type(error).__name__})"}
    return found.facts()


def _with_stored(batch: Batch, ghost: Assembly, parts: Mapping[Any, Stored]) -> Batch:
    """Return a batch with what a store will give of it: one row of it is run, and all have its shape."""
    encoder: Any = ghost.encoder
    found: dict[str, Any] = {}
    for modality, part in parts.items():
        inputs: Any = batch.images if modality == "vision" else batch.texts
        one = taken(inputs, slice(1))
        if part.depth is None:
            stored = getattr(encoder, f"encode_{modality}")(one)
        else:
            stored = prefix_canonical(getattr(encoder, modality), one, part.depth)
        each = (inputs.pixels if modality == "vision" else inputs.token_ids).flatten(1)[:, 0].long().mul(0)
        found[f"stored_{modality}"] = taken(stored, each)
    return replace(batch, **found)


def _text_tokens(assembly: Assembly, data: DataSet, padded: int) -> tuple[int, float]:
    """Return how many tokens the longest of so many texts has, and the mean text; of a stream, yet to come, 16.

    Both are taken from some of the training texts: of samples in turn the first caption, the second and so on, since
    each epoch draws another one.
    """
    processor: Any = assembly.encoder.text.processor
    samples: Sequence[Any] = data.train if isinstance(data.train, Sequence) else ()
    some = samples[:: max(1, len(samples) // TEXTS)][:TEXTS]
    told = [sample.captions if isinstance(sample, Record) else sample.texts[:1] for sample in some]
    texts = [texts[turn % len(texts)] for turn, texts in enumerate(told) if texts]
    lengths = processor(texts).mask.sum(1).double() if texts else torch.full((1,), 16.0)
    longest = torch.stack([part.amax() for part in lengths.split(padded)]).mean()
    return min(max(3, round(float(longest))), int(processor.facts.max_tokens)), max(3.0, float(lengths.mean()))
