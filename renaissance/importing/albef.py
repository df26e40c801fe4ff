"""ALBEF as its authors' code saves it: a ViT, the lower blocks of a BERT as text tower, the upper ones as fusion."""

from __future__ import annotations

from typing import Any

import torch

from renaissance.assemble import Assembly
from renaissance.errors import ModelFileError
from renaissance.importing.checkpoint import Checkpoint, Target
from renaissance.importing.importers import FusedTextOptions
from renaissance.importing.text_cross import (
    Text,
    Vit,
    build,
    chosen_tokenizer,
    copy_module,
    count,
    fill_heads,
    fill_text,
    numbers,
    text_options,
    vision_options,
)
from renaissance.registry import Registry

VISION, VISION_OURS = "visual_encoder.", "encoder.vision.model."
# a BERT alone in retrieval, and in pre-training one for masked language modelling
TEXT_PREFIXES = ("text_encoder.", "text_encoder.bert.")
MLM = "text_encoder.cls.predictions."
VIT_NAME = "timm:vit_base_patch16_384"
VIT = Vit(
    patches=f"{VISION}patch_embed.proj.weight",
    positions=f"{VISION}pos_embed",
    inner=f"{VISION}blocks.0.mlp.fc1.weight",
    blocks=VISION + "blocks.{}.norm1.weight",
)
DROPOUT = 0.1
# what its training keeps beside the model: the momentum copies, what joins them, and the queues of their features
MOMENTUM = ("visual_encoder_m.", "text_encoder_m.", "vision_proj_m.", "text_proj_m.", "combine_")
QUEUES = frozenset({"image_queue", "text_queue", "idx_queue", "queue_ptr", "ptr_queue"})


def convert(checkpoint: Checkpoint, options: FusedTextOptions, registry: Registry) -> Assembly:
    """Return the two-tower model with the tasks `itm`, `itc` and, if its head is there, `mlm` that holds these weights.

    Momentum copies and queues are left out.

    Raises:
        SpecError: an option is wrong.
        ModelFileError: a tensor is missing, misshaped or left over.
    """
    checkpoint.leave_out(options.leave_out)
    checkpoint.leave_out([name for name in checkpoint.names if name.startswith(MOMENTUM) or name in QUEUES])
    text = _text(checkpoint)
    words = text_options(checkpoint, text, options.text_heads, chosen_tokenizer(checkpoint, options))
    vision = {"name": VIT_NAME, "options": vision_options(checkpoint, VIT, options.vision_heads)}
    predicts = any(name.startswith(MLM) for name in checkpoint.names)
    tasks = ("itm", "itc", "mlm") if predicts else ("itm", "itc")
    assembly = build(checkpoint, text, (vision, {"name": "transformers:bert", "options": words}), tasks, registry)
    target = Target(assembly)
    for name in target.under(VISION_OURS):
        target.copy(checkpoint, VISION + name, VISION_OURS + name)
    fill_text(checkpoint, target, text)
    fill_heads(checkpoint, target)
    _fill_temperature(checkpoint, target)
    if predicts:
        _fill_mlm(checkpoint, target, text)
    checkpoint.done()  # before Target.done: it says more
    target.done()
    return assembly


def _text(checkpoint: Checkpoint) -> Text:
    """Return where the text encoder is, and which of its blocks attend to vision.

    Raises:
        ModelFileError: it is not the upper ones that do.
    """
    alone, masking = TEXT_PREFIXES
    prefix = masking if any(name.startswith(masking) for name in checkpoint.names) else alone
    block = prefix + "encoder.layer.{}."
    layers = count(checkpoint, block + "output.dense.weight")
    fused = [index for index in range(layers) if f"{block.format(index)}crossattention.self.query.weight" in checkpoint]
    own = layers - len(fused)
    if not fused or not own or fused[0] != own:
        raise ModelFileError(
            f"{checkpoint.source}: of the {layers} blocks under '{prefix}' {len(fused)} attend to vision, and in an "
            "ALBEF the upper ones do. Check that the checkpoint is of this kind."
        )
    return Text(prefix, own, len(fused), "inherited", DROPOUT)


def _fill_temperature(checkpoint: Checkpoint, target: Target) -> None:
    temperature = numbers(checkpoint, "temp", ())
    if not temperature > 0:
        raise ModelFileError(
            f"{checkpoint.source}: the temperature 'temp' is {temperature.item()}, and must be above 0. Check that the "
            "checkpoint is whole."
        )
    target.fill("tasks.itc.log_scale", -torch.log(temperature))


def _fill_mlm(checkpoint: Checkpoint, target: Target, text: Text) -> None:
    """Fill the head of `mlm`; in the checkpoint its last weight is that of the word embeddings under another name."""
    copy_module(checkpoint, target, f"{MLM}transform.dense", "tasks.mlm.head.0")
    copy_module(checkpoint, target, f"{MLM}transform.LayerNorm", "tasks.mlm.head.2")
    target.copy(checkpoint, f"{MLM}bias", "tasks.mlm.decoder.bias")
    if f"{MLM}decoder.bias" in checkpoint:
        checkpoint.take_equal(f"{MLM}decoder.bias", checkpoint.taken[f"{MLM}bias"])
    words: Any = checkpoint.taken[f"{text.prefix}embeddings.word_embeddings.weight"]
    if f"{MLM}decoder.weight" in checkpoint:
        checkpoint.take_equal(f"{MLM}decoder.weight", words)
    target.fill("tasks.mlm.decoder.weight", words)
