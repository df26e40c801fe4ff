"""A component in a whole tiny model, and batches for it: as the engine runs it.

Letters in shapes: V images, T texts, P pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from renaissance.api import BackboneEntry, Batch, FusionHeadEntry
from renaissance.assemble import Assembly, assemble
from renaissance.data.captions import caption_key
from renaissance.registry import Component, Registry
from renaissance.resolve import resolve
from renaissance.spec import FusionSpec, Part, PartRule, TowerSpec, TwoTowerSpec
from renaissance.testing.subjects import made_up

VISION: Mapping[str, Any] = {"layers": 2, "width": 32, "heads": 2, "mlp_width": 64, "image_size": 32, "patch_size": 8}
TEXT: Mapping[str, Any] = {"layers": 2, "width": 32, "heads": 2, "mlp_width": 64, "dropout": 0.0}
FUSION: Mapping[str, Any] = {"layers": 1, "width": 32, "heads": 2, "dropout": 0.0}
CAPTIONS = (
    ("a red cup on a table", "a cup"),
    ("two blue cups", "two cups that are blue"),
    ("a green tree beside a small white house", "a tree"),
    ("a brown dog runs", "a dog"),
    ("a yellow square above a circle", "shapes"),
    ("one black cat sleeps", "a cat"),
)
SEED = 104_729


def model_with(
    component: Component, registry: Registry, tasks: Mapping[str, Mapping[str, Any]], *, frozen: bool = False
) -> Assembly:
    """Return a tiny model, the component one of its parts where it is no task, frozen or not, with random weights."""
    entry = component.entry
    vision, text, fusion = (
        TowerSpec(name="tiny-vit", options=dict(VISION)),
        TowerSpec(name="tiny-bert", options=dict(TEXT)),
        FusionSpec(name="lxmert", options=dict(FUSION)),
    )
    part: Literal["vision", "text", "fusion", "encoder"] = "encoder"
    match entry:
        case BackboneEntry(modality="vision"):
            part, vision = "vision", _tower(component)
        case BackboneEntry():
            part, text = "text", _tower(component)
        case FusionHeadEntry():
            part, fusion = "fusion", FusionSpec(name=component.qualified, options=dict(entry.tiny))
    rules = [PartRule(action="random", part=Part(name="both"))]
    if frozen:
        rules.append(PartRule(action="frozen", part=Part(name=part)))
    spec = TwoTowerSpec(vision=vision, text=text, fusion=fusion, rules=tuple(rules))
    return assemble(resolve(spec, tasks, registry=registry), seed=0)


def _tower(component: Component) -> TowerSpec:
    entry: Any = component.entry
    options = dict(entry.tiny)
    if not entry.library:
        return TowerSpec(name=component.qualified, options=options)
    model, revision = options.pop("model"), options.pop("revision", None)
    return TowerSpec(name=f"{entry.name}:{model}{f'@{revision}' if revision else ''}", options=options)


def caption_batch(model: Assembly, order: Sequence[int] = tuple(range(len(CAPTIONS)))) -> Batch:
    """Return a batch of random pictures, each with one of its captions, in this order."""
    encoder: Any = model.encoder
    pixels = made_up(encoder.vision.processor, "vision", len(CAPTIONS))
    rows, count = torch.tensor(order), len(order)
    captions = [CAPTIONS[index] for index in order]
    return Batch(
        images=type(pixels)(pixels.pixels[rows]),
        texts=encoder.text.processor([told[0] for told in captions]),
        pairs=torch.arange(count).unsqueeze(1).expand(count, 2),
        slots=torch.zeros(count, dtype=torch.int64),
        items=torch.arange(count),
        seeds=rows * 7919 + SEED,
        caption_keys=torch.tensor([[caption_key(caption) for caption in told] for told in captions]),
        text_keys=torch.tensor([caption_key(told[0]) for told in captions]),
        image_keys=rows + 1,
        view_keys=rows + 1,
    )
