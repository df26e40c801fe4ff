"""VisionTextDualEncoderModel of Hugging Face transformers: any two towers, their poolers, and two projections."""

from __future__ import annotations

from typing import Any

from renaissance.assemble import Assembly, assemble
from renaissance.importing.checkpoint import Checkpoint, Target
from renaissance.importing.importers import DescribedOptions
from renaissance.importing.towers import VISION_LAYOUTS, Description, fill_number, fill_tower
from renaissance.registry import Registry
from renaissance.resolve import resolve

# CLIP's vision model was wrapped once more when it was saved by older versions
WRAPPED = "vision_model.vision_model."
POOLER = "pooler.dense.weight"


def convert(checkpoint: Checkpoint, options: DescribedOptions, registry: Registry) -> Assembly:
    """Return the two-tower model with the head `dual` and the task `itc` that holds these weights.

    Raises:
        SpecError: its config is of another kind, or cannot be built.
        ModelFileError: a tensor is missing, misshaped or left over.
    """
    checkpoint.leave_out(options.leave_out)
    vision = WRAPPED if any(name.startswith(WRAPPED) for name in checkpoint.names) else "vision_model."
    described = Description(checkpoint, options.folder)
    plan = resolve(_spec(checkpoint, described, vision), {"itc": {}}, registry=registry)
    assembly = assemble(plan)
    described.prepare(assembly)
    target = Target(assembly)
    fill_tower(checkpoint, target, "encoder.vision.", vision, VISION_LAYOUTS)
    fill_tower(checkpoint, target, "encoder.text.", "text_model.")
    target.copy(checkpoint, "visual_projection.weight", "encoder.fusion.vision_projection.weight")
    target.copy(checkpoint, "text_projection.weight", "encoder.fusion.text_projection.weight")
    fill_number(checkpoint, target, "logit_scale", "tasks.itc.log_scale")
    checkpoint.done()  # before Target.done: it says more
    target.done()
    return assembly


def _spec(checkpoint: Checkpoint, described: Description, vision: str) -> dict[str, Any]:
    """Return the spec; CLIP's vision model, and text models of some types, have no pooler with weights."""
    return {
        "architecture": "two-tower",
        "vision": described.vision(pooler=vision + POOLER in checkpoint),
        "text": described.text(pooler=f"text_model.{POOLER}" in checkpoint),
        "fusion": {"name": "dual", "options": {"width": checkpoint.shape("visual_projection.weight", 2)[0]}},
        "rules": [{"action": "random", "part": {"name": "both"}}],
    }
