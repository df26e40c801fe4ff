"""Tiny models to explain, of which no parameter is at a value that an initialisation leaves."""

from __future__ import annotations

import torch

from renaissance.pretrained import Model, build
from renaissance.registry import Registry

VISION = "tiny-vit(layers=2, width=32, heads=2, mlp_width=64, image_size=32, patch_size=8)"
TEXT = "tiny-bert(layers=2, width=32, heads=2, mlp_width=64)"
FUSIONS = {
    "lxmert": "lxmert(layers=2, width=32, heads=2)",
    "co-attention": "co-attention(layers=2, width=32, heads=2)",
    "bridge": "bridge(layers=2, width=32, heads=2)",
    "merged-attention": "merged-attention(layers=2, width=32, heads=2)",
    "own token": "merged-attention(layers=2, width=32, heads=2, class_token=true)",
    "concat": "concat(width=32)",
}
LINES = {name: f"{VISION} + {TEXT}, frozen vision, random both, {head}" for name, head in FUSIONS.items()} | {
    "one-tower on vision": f"{VISION}, one-tower, random encoder",
    "one-tower on text": f"{TEXT}, one-tower(image_size=32, patch_size=8), random encoder",
}


def made(line: str, *tasks: str, seed: int = 0) -> Model:
    """Return a model with the tasks `itm` and `itc`, or others."""
    model = build(line, tasks=tasks or ("itm", "itc"), registry=Registry())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model.eval()
