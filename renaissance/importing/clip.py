"""CLIPModel of Hugging Face transformers: its tensors under open_clip's names, then as open_clip's.

Letters in shapes: D width of a tower, W of the shared space.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from renaissance.assemble import Assembly
from renaissance.importing import open_clip
from renaissance.importing.checkpoint import Checkpoint
from renaissance.importing.importers import DualEncoderOptions
from renaissance.registry import Registry

# theirs -> open_clip's, outside of the blocks
WHOLE = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "logit_scale": "logit_scale",
}
# stored as [W, D] there and as [D, W] in open_clip
TRANSPOSED = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}
# theirs -> open_clip's, within a block
BLOCK = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
BLOCKS = {"vision_model.encoder.layers.": "visual.", "text_model.encoder.layers.": ""}
# older versions of transformers saved the numbers of the positions
POSITION_IDS = {
    "vision_model.embeddings.position_ids": "vision_model.embeddings.position_embedding.weight",
    "text_model.embeddings.position_ids": "text_model.embeddings.position_embedding.weight",
}

Renamed = tuple[str, str, Tensor]


def convert(checkpoint: Checkpoint, options: DualEncoderOptions, registry: Registry) -> Assembly:
    """Return the two-tower model with the head `dual` and the task `itc` that holds these weights.

    Raises:
        SpecError: the architecture or an option of it is wrong.
        ModelFileError: a tensor is missing, misshaped or left over.
    """
    checkpoint.leave_out(options.leave_out)
    renamed = list(_renamed(checkpoint))
    _take_position_ids(checkpoint)
    tensors = {name: tensor for name, _, tensor in renamed}
    layout = checkpoint.replaced(tensors, {name: theirs for name, theirs, _ in renamed})
    return open_clip.convert(layout, options.model_copy(update={"leave_out": ()}), registry)


def _renamed(checkpoint: Checkpoint) -> Iterator[Renamed]:
    """Yield open_clip's name of each tensor, its name here, and the tensor in open_clip's form."""
    for theirs, name in WHOLE.items():
        yield name, theirs, checkpoint.take(theirs)
    for theirs, name in TRANSPOSED.items():
        yield name, theirs, checkpoint.take(theirs).T
    for prefix, tower in BLOCKS.items():
        index = 0
        while f"{prefix}{index}.layer_norm1.weight" in checkpoint:
            yield from _block(checkpoint, f"{prefix}{index}.", f"{tower}transformer.resblocks.{index}.")
            index += 1


def _block(checkpoint: Checkpoint, theirs: str, name: str) -> Iterator[Renamed]:
    for leaf in ("weight", "bias"):
        for inner, renamed in BLOCK.items():
            yield f"{name}{renamed}.{leaf}", f"{theirs}{inner}.{leaf}", checkpoint.take(f"{theirs}{inner}.{leaf}")
        out = f"{theirs}self_attn.out_proj.{leaf}"
        yield f"{name}attn.out_proj.{leaf}", out, checkpoint.take(out)
        # open_clip stacks the three projections: [3 D, D]
        parts = [f"{theirs}self_attn.{part}_proj.{leaf}" for part in "qkv"]
        stacked = torch.cat([checkpoint.take(part) for part in parts])
        yield f"{name}attn.in_proj_{leaf}", parts[0], stacked


def _take_position_ids(checkpoint: Checkpoint) -> None:
    for theirs, table in POSITION_IDS.items():
        if theirs in checkpoint:
            numbers = torch.arange(len(checkpoint.taken[table]))
            checkpoint.take_equal(theirs, numbers.unsqueeze(0))
