"""BridgeTower of Hugging Face transformers: both towers, the bridges between them, and the heads that are there.

Its vision tower is CLIP's, so it becomes open_clip's; its text tower is RoBERTa. What it adds to a stream to tell the
modalities apart is constant, so it goes into the biases of the projections.

Letters in shapes: D width of a tower, W of the fusion, S of the shared space.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from renaissance.assemble import Assembly, assemble
from renaissance.errors import ModelFileError
from renaissance.importing.bridgetower_sizes import TEXT, VISUAL, Found, found_in, spec_of, tasks_in
from renaissance.importing.checkpoint import Checkpoint, Target
from renaissance.importing.importers import BridgeTowerOptions
from renaissance.registry import Registry
from renaissance.resolve import resolve

# ours -> theirs, where the names differ
VISION_NAMES = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
}
ATTENTION = {
    "attention.query": "self.query",
    "attention.key": "self.key",
    "attention.value": "self.value",
    "attention.output": "output.dense",
    "end.norm": "output.LayerNorm",
}
MLP = {"inner": "intermediate.dense", "outer": "output.dense", "end.norm": "output.LayerNorm"}
# within a fusion layer: our parts of a stream, theirs, and what is in each
PARTS = (("self", "attention.", ATTENTION), ("cross", "crossattention.", ATTENTION), ("mlp", "", MLP))
# older versions of transformers saved the numbers of the positions, and zeros
POSITIONS = {
    f"{TEXT}embeddings.position_ids": f"{TEXT}embeddings.position_embeddings.weight",
    f"{VISUAL}embeddings.position_ids": f"{VISUAL}embeddings.position_embedding.weight",
}
ZEROS = f"{TEXT}embeddings.token_type_ids"
# what BridgeTower has and never reads, and the head of the contrast with fused pairs, which `itc` does not have
UNREAD = (f"{TEXT}pooler.", f"{VISUAL}ln_separate.", f"{VISUAL}transformer.resblocks.")
CROSS_HEAD = "itc_cross_modal_head."


class Stream(NamedTuple):
    """One stream of the fusion: its name here, its name there, and its row in the token types."""

    ours: str
    theirs: str
    kind: int


STREAMS = (Stream("text", "text", 0), Stream("vision", "image", 1))


def convert(checkpoint: Checkpoint, options: BridgeTowerOptions, registry: Registry) -> Assembly:
    """Return the two-tower model with the head `bridge`, and the tasks whose heads are there, with these weights.

    Raises:
        SpecError: an option is wrong.
        ModelFileError: a tensor is missing, misshaped or left over, or config.json asks for another architecture.
    """
    checkpoint.leave_out(options.leave_out)
    found = found_in(checkpoint, options)
    assembly = assemble(resolve(spec_of(found), tasks_in(checkpoint), registry=registry))
    tower: Any = assembly.encoder.get_submodule("vision")
    tower.processor = replace(tower.processor, **found.images)
    target = Target(assembly)
    _convert_towers(checkpoint, target, found.prefix)
    _convert_fusion(checkpoint, target, found.prefix)
    if "mlm" in assembly.tasks:
        _convert_mlm(checkpoint, target, found)
    if "itm" in assembly.tasks:
        _convert_itm(checkpoint, target)
    if "itc" in assembly.tasks:
        _convert_itc(checkpoint, target, found.prefix)
    _take_constants(checkpoint, found.prefix)
    _refuse_unread(checkpoint, found.prefix)
    checkpoint.done()  # before Target.done: it says more
    target.done()
    return assembly


# --- the encoder ----------------------------------------------------------------------------------------------------


def _convert_towers(checkpoint: Checkpoint, target: Target, prefix: str) -> None:
    vision = "encoder.vision.visual."
    for name in target.under(vision):
        target.copy(checkpoint, f"{prefix}{VISUAL}{VISION_NAMES.get(name, name)}", vision + name)
    for ours, theirs in (("encoder.text.model.", TEXT), ("encoder.text.blocks.", f"{TEXT}encoder.layer.")):
        for name in target.under(ours):
            target.copy(checkpoint, f"{prefix}{theirs}{name}", ours + name)


def _convert_fusion(checkpoint: Checkpoint, target: Target, prefix: str) -> None:
    types = checkpoint.take(
        f"{prefix}token_type_embeddings.weight", (2, *target.shape("encoder.fusion.text_links.norms.0.weight"))
    )
    for stream in STREAMS:
        links = f"encoder.fusion.{stream.ours}_links."
        _convert_projections(
            checkpoint, target, f"{prefix}cross_modal_{stream.theirs}_transform", links, types[stream.kind]
        )
        theirs = f"{prefix}cross_modal_{stream.theirs}_"
        _copy_pair(checkpoint, target, f"{theirs}layernorm", f"{links}norms.0")
        for index in range(1, _modules(target, f"{links}norms.")):
            _copy_pair(checkpoint, target, f"{theirs}link_tower.{index - 1}.LayerNorm", f"{links}norms.{index}")
        _convert_layers(checkpoint, target, f"{theirs}layers.", stream.ours)
        _copy_pair(checkpoint, target, f"{theirs}pooler.dense", f"encoder.fusion.{stream.ours}_pooler.dense")
    for leaf in ("weight", "bias"):  # of the tower's last norm, which norms each block's output for the fusion too
        target.fill(f"encoder.fusion.vision_links.before.{leaf}", checkpoint.taken[f"{prefix}{VISUAL}ln_post.{leaf}"])


def _convert_projections(checkpoint: Checkpoint, target: Target, theirs: str, links: str, kind: Tensor) -> None:
    """Copy the projections of a stream, with its token type [W] added to their biases."""
    shared = f"{theirs}.weight" in checkpoint
    for index in range(_modules(target, f"{links}projections.")):
        name, ours = theirs if shared else f"{theirs}.{index}", f"{links}projections.{index}"
        target.copy(checkpoint, f"{name}.weight", f"{ours}.weight")
        bias = checkpoint.take(f"{name}.bias", target.shape(f"{ours}.bias"))
        target.fill(f"{ours}.bias", bias.float() + kind.float())


def _convert_layers(checkpoint: Checkpoint, target: Target, theirs: str, stream: str) -> None:
    layers = "encoder.fusion.layers."
    for index in range(_modules(target, layers)):
        for part, place, names in PARTS:
            for ours, name in names.items():
                _copy_pair(
                    checkpoint, target, f"{theirs}{index}.{place}{name}", f"{layers}{index}.{stream}_{part}.{ours}"
                )


def _modules(target: Target, before: str) -> int:
    """Return how many numbered modules there are."""
    return len({name.partition(".")[0] for name in target.under(before)})


def _copy_pair(checkpoint: Checkpoint, target: Target, theirs: str, ours: str) -> None:
    for leaf in ("weight", "bias"):
        target.copy(checkpoint, f"{theirs}.{leaf}", f"{ours}.{leaf}")


# --- the heads ------------------------------------------------------------------------------------------------------


def _convert_mlm(checkpoint: Checkpoint, target: Target, found: Found) -> None:
    _copy_pair(checkpoint, target, "mlm_score.transform.dense", "tasks.mlm.head.0")
    _copy_pair(checkpoint, target, "mlm_score.transform.LayerNorm", "tasks.mlm.head.2")
    target.copy(checkpoint, "mlm_score.bias", "tasks.mlm.decoder.bias")
    decoder = "mlm_score.decoder.weight"
    if not found.tied:
        target.copy(checkpoint, decoder, "tasks.mlm.decoder.weight")
        return
    words = checkpoint.taken[f"{found.prefix}{TEXT}embeddings.word_embeddings.weight"]
    if decoder in checkpoint:
        checkpoint.take_equal(decoder, words)
    target.fill("tasks.mlm.decoder.weight", words)


def _convert_itm(checkpoint: Checkpoint, target: Target) -> None:
    """Fill the one logit with the difference of the two classes'; its input has vision first, theirs text."""
    ours = "tasks.itm.head"
    _, width = target.shape(f"{ours}.weight")  # [1, 2 W]
    weight = checkpoint.take("itm_score.fc.weight", (2, width)).double()
    bias = checkpoint.take("itm_score.fc.bias", (2,)).double()
    target.fill(f"{ours}.weight", (weight[1:] - weight[:1]).roll(width // 2, dims=1))
    target.fill(f"{ours}.bias", bias[1:] - bias[:1])


def _convert_itc(checkpoint: Checkpoint, target: Target, prefix: str) -> None:
    """Fill both projections; BridgeTower's images pass the fusion's projection before their own, as one linear map."""
    _copy_pair(checkpoint, target, "itc_text_head.fc", "tasks.itc.text_projection.linear")
    target.copy(checkpoint, "logit_scale", "tasks.itc.log_scale")
    transform = checkpoint.taken.get(f"{prefix}cross_modal_image_transform.weight")
    if transform is None:
        raise ModelFileError(
            f"{checkpoint.source}: a contrastive BridgeTower has one projection for all blocks of a tower, and this "
            "has one for each. Leave out the tensors of 'itc_' and 'logit_scale' to import the others."
        )
    ours = "tasks.itc.vision_projection.linear"
    width = len(transform)
    weight = checkpoint.take("itc_image_head.fc.weight", (target.shape(f"{ours}.bias")[0], width)).double()  # [S, W]
    bias = checkpoint.take("itc_image_head.fc.bias", target.shape(f"{ours}.bias")).double()
    types = checkpoint.taken[f"{prefix}token_type_embeddings.weight"][1].double()
    before = checkpoint.taken[f"{prefix}cross_modal_image_transform.bias"].double() + types  # [W]
    target.fill(f"{ours}.weight", weight @ transform.double())  # [S, D]
    target.fill(f"{ours}.bias", weight @ before + bias)


# --- what is left ---------------------------------------------------------------------------------------------------


def _take_constants(checkpoint: Checkpoint, prefix: str) -> None:
    for theirs, table in POSITIONS.items():
        if prefix + theirs in checkpoint:
            numbers = torch.arange(len(checkpoint.taken[prefix + table]))
            checkpoint.take_equal(prefix + theirs, numbers.unsqueeze(0))
    if prefix + ZEROS in checkpoint:
        words = checkpoint.taken[f"{prefix}{TEXT}embeddings.position_embeddings.weight"]
        checkpoint.take_equal(prefix + ZEROS, torch.zeros(1, len(words), dtype=torch.int64))


def _refuse_unread(checkpoint: Checkpoint, prefix: str) -> None:
    """Refuse to drop in silence what has no place here.

    Raises:
        ModelFileError: naming all of it, and how to say that it may go.
    """
    known = (CROSS_HEAD, *(prefix + start for start in UNREAD))
    left = [name for name in checkpoint.names if name.startswith(known)]
    if left and len(left) == len(checkpoint.names):
        raise ModelFileError(
            f"{checkpoint.source}: no part of the model takes {len(left)} tensors, which BridgeTower itself does not "
            "read, or which are its head of fused pairs for contrast. Say that they may go: "
            f"--set 'leave_out=[{', '.join(left)}]'."
        )
