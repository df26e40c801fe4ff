"""FLOPs of retrieval: of encoding an image and a text, of comparing them, and of fusing and matching a pair."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from renaissance.api import Features, TextInput, VisionInput
from renaissance.assemble import Assembly
from renaissance.builtin.retrieval import Costs
from renaissance.cost.counting import FlopCount
from renaissance.toolkit.modes import evaluating

POOLED: frozenset[Any] = frozenset({"pooled"})


def retrieval_costs(assembly: Assembly, *, text_tokens: int = 32) -> Costs:
    """Return the FLOPs of retrieval by ITC and ITM, counted on one image and one text of `text_tokens` tokens.

    The model has the tasks `itc` and `itm`.
    """
    encoder: Any = assembly.encoder
    head, matching = cast(Any, assembly.tasks["itc"]), cast(Any, assembly.tasks["itm"])
    device = next(assembly.parameters()).device
    rows, columns = encoder.vision.processor.image_size
    pixels = VisionInput(torch.zeros(1, 3, rows, columns, dtype=torch.uint8, device=device))
    ids = torch.full((1, text_tokens), encoder.text.processor.facts.pad_id, device=device)
    words = TextInput(ids, torch.ones_like(ids, dtype=torch.bool))
    found: dict[str, Any] = {}

    def embedded(name: str, features: Features) -> None:
        found[name] = features
        found[f"{name} vector"] = head.embed(encoder.represent(features, name), name)

    with evaluating(assembly), torch.no_grad():
        image = _flops(lambda: embedded("vision", encoder.encode_vision(pixels)))
        text = _flops(lambda: embedded("text", encoder.encode_text(words)))
        product = _flops(lambda: found["vision vector"] @ found["text vector"].T)
        pair = _flops(lambda: matching.predict(encoder.fuse(found["vision"], found["text"], POOLED)))
    return Costs(image=image, text=text, product=product, pair=pair)


def _flops(action: Callable[[], object]) -> int:
    with sdpa_kernel(SDPBackend.MATH), FlopCount() as count:
        action()
    return int(count.total)
