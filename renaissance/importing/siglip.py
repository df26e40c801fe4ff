"""SiglipModel of Hugging Face transformers: both towers with their poolers, the scale and the bias of its sigmoid loss.

Its poolers end in the shared space, so that `dual` is the identity.
"""

from __future__ import annotations

from typing import Any

import torch

from renaissance.assemble import Assembly, assemble
from renaissance.errors import ModelFileError
from renaissance.importing.checkpoint import Checkpoint, Target
from renaissance.importing.importers import DescribedOptions
from renaissance.importing.towers import Description, fill_number, fill_tower
from renaissance.registry import Registry
from renaissance.resolve import resolve

TEXT_HEAD = "text_model.head.weight"
VISION_HEAD = "vision_model.head.layernorm.weight"


def convert(checkpoint: Checkpoint, options: DescribedOptions, registry: Registry) -> Assembly:
    """Return the two-tower model with the head `dual` and the task `itc`, sigmoid loss, that holds these weights.

    Raises:
        SpecError: its config is of another kind, or cannot be built.
        ModelFileError: a tensor is missing, misshaped or left over.
    """
    checkpoint.leave_out(options.leave_out)
    described = Description(checkpoint, options.folder)
    plan = resolve(_spec(checkpoint, described), {"itc": {"loss": "sigmoid"}}, registry=registry)
    assembly = assemble(plan)
    described.prepare(assembly)
    target = Target(assembly)
    fill_tower(checkpoint, target, "encoder.vision.", "vision_model.")
    fill_tower(checkpoint, target, "encoder.text.", "text_model.")
    for modality in ("vision", "text"):
        projection = f"encoder.fusion.{modality}_projection.weight"
        target.fill(projection, torch.eye(target.shape(projection)[0]))
    fill_number(checkpoint, target, "logit_scale", "tasks.itc.log_scale")
    fill_number(checkpoint, target, "logit_bias", "tasks.itc.bias")
    checkpoint.done()  # before Target.done: it says more
    target.done()
    return assembly


def _spec(checkpoint: Checkpoint, described: Description) -> dict[str, Any]:
    return {
        "architecture": "two-tower",
        "vision": described.vision(pooler=True),
        "text": described.text(pooler=False),  # its head belongs to its usual pooling
        "fusion": {"name": "dual", "options": {"width": _shared_width(checkpoint)}},
        "rules": [{"action": "random", "part": {"name": "both"}}],
    }


def _shared_width(checkpoint: Checkpoint) -> int:
    """Return the width of the shared space.

    Raises:
        ModelFileError: the towers do not end in it with their own widths, or a head is missing.
    """
    projected, width = checkpoint.shape(TEXT_HEAD, 2)
    if (projected, *checkpoint.shape(VISION_HEAD, 1)) != (width, width):
        raise ModelFileError(
            f"{checkpoint.source}: '{TEXT_HEAD}' maps {width} channels to {projected}, and `dual` cannot hold its "
            "bias. Only models whose towers have one width can be imported."
        )
    return width
