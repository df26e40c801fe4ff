"""METER (arXiv 2111.02387): RoBERTa, CLIP's vision transformer, co-attention layers, and the heads for MLM and ITM.

Letters in shapes: W width of the fusion.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from renaissance.assemble import Assembly, assemble
from renaissance.importing.checkpoint import Checkpoint, Target
from renaissance.importing.importers import MeterOptions
from renaissance.importing.towers import default_heads, fill_tower
from renaissance.registry import Registry
from renaissance.resolve import resolve

TEXT = "text_transformer."
# METER keeps of CLIP's text side, and of the poolers, what it never runs
UNUSED_TEXT = ("pooler.dense.weight", "pooler.dense.bias")
UNUSED_VISION = ("token_embedding.weight", "positional_embedding", "ln_final.weight", "ln_final.bias")
UNUSED_VISUAL = ("proj",)
# rows of the position table before the first token's: RoBERTa counts from its padding id on
FIRST_POSITION = {"roberta-base": 2, "bert-base": 0}
TYPES = {"text": 0, "vision": 1}  # rows of the token types
STREAMS = {"text": "text", "vision": "image"}  # ours -> theirs
SUBLAYERS = {"self": "attention", "cross": "crossattention"}  # ours -> theirs
ATTENTION = {
    "attention.query": "self.query",
    "attention.key": "self.key",
    "attention.value": "self.value",
    "attention.output": "output.dense",
    "end.norm": "output.LayerNorm",
}
MLP = {"inner": "intermediate.dense", "outer": "output.dense", "end.norm": "output.LayerNorm"}
MLM = {
    "head.0.weight": "transform.dense.weight",
    "head.0.bias": "transform.dense.bias",
    "head.2.weight": "transform.LayerNorm.weight",
    "head.2.bias": "transform.LayerNorm.bias",
    "decoder.weight": "decoder.weight",
    "decoder.bias": "bias",
}


def convert(checkpoint: Checkpoint, options: MeterOptions, registry: Registry) -> Assembly:
    """Return the two-tower model with the head `co-attention`, and `mlm` and `itm` where their heads are there.

    Raises:
        SpecError: an option is wrong.
        ModelFileError: a tensor is missing, misshaped or left over.
    """
    checkpoint.leave_out(options.leave_out)
    visual = "vit_model.visual." if "vit_model.visual.conv1.weight" in checkpoint else "vit_model."
    _leave_out_unused(checkpoint, visual)
    tasks = [task for task, head in (("mlm", "mlm_score.bias"), ("itm", "itm_score.fc.bias")) if head in checkpoint]
    plan = resolve(_spec(checkpoint, options, visual), {task: {} for task in tasks}, registry=registry)
    assembly = assemble(plan)
    target = Target(assembly)
    fill_tower(checkpoint, target, "encoder.text.", TEXT)
    for name in target.under("encoder.vision.visual."):
        target.copy(checkpoint, visual + name, f"encoder.vision.visual.{name}")
    _fill_projections(checkpoint, target)
    for theirs, ours in _fusion_names(_layers(checkpoint)):
        target.copy(checkpoint, theirs, ours)
    if "mlm" in tasks:
        for name, theirs in MLM.items():
            target.copy(checkpoint, f"mlm_score.{theirs}", f"tasks.mlm.{name}")
    if "itm" in tasks:
        _fill_matching(checkpoint, target)
    checkpoint.done()  # before Target.done: it says more
    target.done()
    return assembly


def _leave_out_unused(checkpoint: Checkpoint, visual: str) -> None:
    """Leave out what METER keeps but never runs: the rest of CLIP, and the text tower's pooler."""
    unused = [f"{TEXT}{name}" for name in UNUSED_TEXT] + [f"{visual}{name}" for name in UNUSED_VISUAL]
    if visual != "vit_model.":
        unused += [f"vit_model.{name}" for name in UNUSED_VISION]
    checkpoint.leave_out([name for name in unused if name in checkpoint])


def _spec(checkpoint: Checkpoint, options: MeterOptions, visual: str) -> dict[str, Any]:
    """Return the spec of the model: both towers random, as the checkpoint brings the weights."""
    return {
        "architecture": "two-tower",
        "vision": {"name": f"open-clip:{options.vision}", "options": _vision(checkpoint, options, visual)},
        "text": {"name": options.text, "options": _text(checkpoint, options)},
        "fusion": {"name": "co-attention", "options": _fusion(checkpoint, options)},
        "rules": [{"action": "random", "part": {"name": "both"}}],
    }


def _vision(checkpoint: Checkpoint, options: MeterOptions, visual: str) -> dict[str, Any]:
    width, _, _, patch_size = checkpoint.shape(f"{visual}conv1.weight", 4)
    side = math.isqrt(checkpoint.shape(f"{visual}positional_embedding", 2)[0] - 1)
    hidden = checkpoint.shape(f"{visual}transformer.resblocks.0.mlp.c_fc.weight", 2)[0]
    overrides = {
        "width": width,
        "layers": _count(checkpoint, f"{visual}transformer.resblocks.", ".ln_1.weight"),
        "heads": options.vision_heads or default_heads(width),
        "patch_size": patch_size,
        "mlp_ratio": hidden / width,
    }
    return {"image_size": side * patch_size, "overrides": overrides}


def _text(checkpoint: Checkpoint, options: MeterOptions) -> dict[str, Any]:
    positions, width = checkpoint.shape(f"{TEXT}embeddings.position_embeddings.weight", 2)
    sizes = {
        "layers": _count(checkpoint, f"{TEXT}encoder.layer.", ".intermediate.dense.weight"),
        "width": width,
        "heads": options.text_heads or default_heads(width),
        "mlp_width": checkpoint.shape(f"{TEXT}encoder.layer.0.intermediate.dense.weight", 2)[0],
        "max_tokens": positions - FIRST_POSITION[options.text],
    }
    return sizes if options.tokenizer is None else {**sizes, "tokenizer": options.tokenizer}


def _fusion(checkpoint: Checkpoint, options: MeterOptions) -> dict[str, Any]:
    hidden, width = checkpoint.shape("cross_modal_text_layers.0.intermediate.dense.weight", 2)
    return {
        "layers": _layers(checkpoint),
        "width": width,
        "heads": options.fusion_heads or default_heads(width),
        "mlp_ratio": hidden / width,
    }


def _count(checkpoint: Checkpoint, prefix: str, suffix: str) -> int:
    """Return how many blocks a checkpoint has in a row, from 0."""
    count = 0
    while f"{prefix}{count}{suffix}" in checkpoint:
        count += 1
    return count


def _layers(checkpoint: Checkpoint) -> int:
    return _count(checkpoint, "cross_modal_text_layers.", ".intermediate.dense.weight")


def _fill_projections(checkpoint: Checkpoint, target: Target) -> None:
    """Fill the projections [W, D]; what tells the modalities apart is added to all tokens, so it goes to the biases."""
    width = target.shape("encoder.fusion.text_projection.bias")[0]
    types = checkpoint.take("token_type_embeddings.weight", (len(TYPES), width))
    for ours, theirs in STREAMS.items():
        name = f"encoder.fusion.{ours}_projection"
        target.copy(checkpoint, f"cross_modal_{theirs}_transform.weight", f"{name}.weight")
        bias = checkpoint.take(f"cross_modal_{theirs}_transform.bias", (width,))
        target.fill(f"{name}.bias", bias.float() + types[TYPES[ours]].float())


def _fusion_names(layers: int) -> Iterator[tuple[str, str]]:
    """Yield METER's name and ours of each tensor of the co-attention layers and the poolers."""
    for ours, theirs in STREAMS.items():
        for index in range(layers):
            layer, name = f"cross_modal_{theirs}_layers.{index}", f"encoder.fusion.layers.{index}.{ours}"
            parts = [(f"{name}_{part}", f"{layer}.{found}", ATTENTION) for part, found in SUBLAYERS.items()]
            for own, found, names in (*parts, (f"{name}_mlp", layer, MLP)):
                yield from _leaves((f"{found}.{inner}", f"{own}.{name}") for name, inner in names.items())
        pooler = (f"cross_modal_{theirs}_pooler.dense", f"encoder.fusion.{ours}_pooler.dense")
        yield from _leaves(iter([pooler]))


def _leaves(modules: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for theirs, ours in modules:
        for leaf in ("weight", "bias"):
            yield f"{theirs}.{leaf}", f"{ours}.{leaf}"


def _fill_matching(checkpoint: Checkpoint, target: Target) -> None:
    """Fill the one logit of matching with the difference of METER's two; METER puts the text's vector first."""
    joint = target.shape("tasks.itm.head.weight")[1]
    weight = checkpoint.take("itm_score.fc.weight", (2, joint)).float()
    bias = checkpoint.take("itm_score.fc.bias", (2,)).float()
    text, vision = (weight[1] - weight[0]).chunk(2)
    target.fill("tasks.itm.head.weight", torch.cat([vision, text]).unsqueeze(0))
    target.fill("tasks.itm.head.bias", (bias[1] - bias[0]).reshape(1))
