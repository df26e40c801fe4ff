"""Models of open_clip: both towers, their projections to the shared space, and scale and bias of the similarities.

Letters in shapes: D width of a tower, W of the shared space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch

from renaissance.api import Modality
from renaissance.assemble import Assembly, assemble
from renaissance.builtin.open_clip_library import chosen_config
from renaissance.errors import ModelFileError, SpecError
from renaissance.importing.checkpoint import Checkpoint, Target
from renaissance.importing.importers import DualEncoderOptions
from renaissance.importing.towers import fill_number
from renaissance.registry import Registry
from renaissance.resolve import resolve

LIBRARY = "open-clip:"
BIAS = "logit_bias"  # of models trained with SigLIP's loss


class Projection(NamedTuple):
    """A projection to the shared space in open_clip: its name in the tower, stored as [D, W] or as [W, D]."""

    name: str
    stored: Literal["D W", "W D"]


class Tower(NamedTuple):
    """Where a tower stands here and in open_clip, with its module, and what its projection may be called."""

    ours: str
    theirs: str
    projections: tuple[Projection, ...]


VISION = Tower("encoder.vision.visual.", "visual.", (Projection("proj", "D W"), Projection("head.proj.weight", "W D")))
TEXT_PROJECTIONS = (Projection("text_projection", "D W"), Projection("text_projection.weight", "W D"))


def convert(checkpoint: Checkpoint, options: DualEncoderOptions, registry: Registry) -> Assembly:
    """Return the two-tower model with the head `dual` and the task `itc` that holds these weights.

    Raises:
        SpecError: the architecture or an option of it is wrong.
        ModelFileError: a tensor is missing, misshaped or left over.
    """
    checkpoint.leave_out(options.leave_out)
    biased = BIAS in checkpoint
    plan = resolve(_spec(options), {"itc": {"loss": "sigmoid" if biased else "softmax"}}, registry=registry)
    assembly = assemble(plan)
    # a model with a text tower of its own kind keeps it in `text`; a plain CLIP is the text tower
    prefix = "text." if any(name.startswith("text.") for name in checkpoint.names) else ""
    target = Target(assembly)
    _convert_tower(checkpoint, target, VISION, "vision")
    _convert_tower(checkpoint, target, Tower("encoder.text.tower.", prefix, TEXT_PROJECTIONS), "text")
    fill_number(checkpoint, target, "logit_scale", "tasks.itc.log_scale")
    if biased:
        fill_number(checkpoint, target, BIAS, "tasks.itc.bias")
    checkpoint.done()  # before Target.done: it says more
    target.done()
    return assembly


def _convert_tower(checkpoint: Checkpoint, target: Target, tower: Tower, modality: Modality) -> None:
    for name in target.under(tower.ours):
        target.copy(checkpoint, tower.theirs + name, tower.ours + name)
    _convert_projection(checkpoint, target, tower, f"encoder.fusion.{modality}_projection.weight")


def _convert_projection(checkpoint: Checkpoint, target: Target, tower: Tower, ours: str) -> None:
    """Fill `ours` [W, D] with the projection that our tower dropped, or with the identity if it kept it or has none."""
    dropped = [found for found in tower.projections if tower.theirs + found.name in checkpoint.names]
    if dropped:
        copy = target.copy if dropped[0].stored == "W D" else target.copy_transposed
        copy(checkpoint, tower.theirs + dropped[0].name, ours)
        return
    shared, width = target.shape(ours)
    if shared != width:
        raise _without_projection(checkpoint, tower, width, shared)
    target.fill(ours, torch.eye(shared))


def _without_projection(checkpoint: Checkpoint, tower: Tower, width: int, shared: int) -> ModelFileError:
    names = " or ".join(f"'{tower.theirs}{found.name}'" for found in tower.projections)
    left = [name for name in checkpoint.names if name.startswith(tower.theirs or "text")]
    instead = f" It has '{checkpoint.called(left[0])}' instead, which `dual` cannot hold." if left else ""
    return ModelFileError(
        f"{checkpoint.source} lacks the tensor {names}, from features {width} wide to a shared space of {shared}."
        f"{instead} Only towers with a linear projection without bias can be imported."
    )


def _spec(options: DualEncoderOptions) -> dict[str, Any]:
    """Return the spec of the model: both towers random, as the checkpoint brings the weights."""
    name = options.model if options.model.startswith(LIBRARY) else LIBRARY + options.model
    width = _shared_width(name.removeprefix(LIBRARY), options)
    return {
        "architecture": "two-tower",
        "vision": {"name": name, "options": options.vision},
        "text": {"name": name, "options": options.text},
        "fusion": {"name": "dual", "options": {"width": width}},
        "rules": [{"action": "random", "part": {"name": "both"}}],
    }


def _shared_width(model: str, options: DualEncoderOptions) -> int:
    """Return the width of the shared space.

    Raises:
        SpecError: the towers disagree.
    """
    name, _, tag = model.partition("@")
    widths = {
        "vision": chosen_config(name, tag or None, "vision", _overrides(options.vision))["embed_dim"],
        "text": chosen_config(name, tag or None, "text", _overrides(options.text))["embed_dim"],
    }
    if widths["vision"] != widths["text"] or type(widths["text"]) is not int:
        raise SpecError(
            f"open-clip:{model}: embed_dim is {widths['vision']} for vision and {widths['text']} for text. Override it "
            "in both towers, with the one width of the shared space."
        )
    return int(widths["text"])


def _overrides(options: Mapping[str, Any]) -> Mapping[str, Any]:
    overrides = options.get("overrides", {})
    return overrides if isinstance(overrides, Mapping) else {}  # what is wrong with others, `resolve` says
