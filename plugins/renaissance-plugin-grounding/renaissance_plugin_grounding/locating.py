"""Asking a trained model where things are, picture by picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image

from renaissance.api import Box
from renaissance.errors import CapabilityError, SpecError
from renaissance.toolkit.devices import moved
from renaissance.toolkit.modes import evaluating
from renaissance_plugin_grounding.boxes import pixels


def locate(model: Any, images: Sequence[Image], texts: Sequence[str]) -> list[Box]:
    """Return the box (left, top, width, height) in pixels of what text i names in RGB image i.

    model: what `renaissance.from_pretrained` gives.

    Raises:
        CapabilityError: the model was not trained for grounding.
        SpecError: there are not as many images as texts, or none.
    """
    if "grounding" not in model.tasks:
        there = ", ".join(model.tasks) or "none"
        raise CapabilityError(f"locate needs a model trained for 'grounding', and this one has the tasks: {there}.")
    if not texts or len(images) != len(texts):
        raise SpecError(
            f"locate finds text i in image i, and there are {len(images)} images and {len(texts)} texts. Give as many "
            "of each, at least one."
        )
    encoder, device = model.encoder, next(model.parameters()).device
    with evaluating(model), torch.inference_mode():
        vision = encoder.encode_vision(moved(encoder.vision.processor(list(images)), device))
        text = encoder.encode_text(moved(encoder.text.processor(list(texts)), device))
        joint = encoder.fuse(vision, text, frozenset({"vision"}))
        boxes = model.tasks["grounding"].predict(joint.vision).tolist()
    return [pixels(box, image.size) for box, image in zip(boxes, images, strict=True)]
