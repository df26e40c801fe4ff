"""What BLIP and ALBEF have in common: a ViT, BERT blocks with cross attention to it, and heads for ITM and ITC.

Letters in shapes: D width of the vision tower, W width of the text tower, S of the shared space, N tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from renaissance.assemble import Assembly, assemble
from renaissance.builtin.transformers_sizes import config_values
from renaissance.errors import ModelFileError, SpecError
from renaissance.importing.beside import own_tokenizer
from renaissance.importing.checkpoint import Checkpoint, Target
from renaissance.importing.importers import FusedTextOptions
from renaissance.importing.towers import default_heads
from renaissance.registry import Registry
from renaissance.resolve import resolve
from renaissance.toolkit.images import ImageProcessor
from renaissance.toolkit.text import TOKENIZER_FILE

LEAVES = ("weight", "bias")
# theirs -> ours, in cross attention
CROSS = {
    "self.query": "attention.query",
    "self.key": "attention.key",
    "self.value": "attention.value",
    "output.dense": "attention.output",
    "output.LayerNorm": "end.norm",
}
EMBEDDINGS = "encoder.text.model.embeddings."
POSITIONS = "position_embeddings.weight"
# how both prepare their images
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Vit(NamedTuple):
    """Where a checkpoint keeps what tells the sizes of its ViT; `blocks` is a weight of a block, with {} for which."""

    patches: str
    positions: str
    inner: str
    blocks: str


class Text(NamedTuple):
    """The text encoder of a checkpoint: what its names begin with, and its dropout in training.

    own: blocks of the text tower; fused: those with cross attention, which are the same ("shared") or follow them.
    """

    prefix: str
    own: int
    fused: int
    blocks: Literal["shared", "inherited"]
    dropout: float


def count(checkpoint: Checkpoint, pattern: str, start: int = 0) -> int:
    """Return how many tensors of the names `pattern.format(index)` follow one another, from `start` on."""
    index = start
    while pattern.format(index) in checkpoint:
        index += 1
    return index - start


def vision_options(checkpoint: Checkpoint, vit: Vit, heads: int | None) -> dict[str, Any]:
    """Return the options of timm's ViT for the one of a checkpoint.

    Raises:
        ModelFileError: a tensor is missing, or has no shape of a ViT's.
    """
    width, _, patch_size, _ = checkpoint.shape(vit.patches, 4)
    positions = checkpoint.shape(vit.positions, 3)[1] - 1
    side = math.isqrt(max(positions, 0))
    if side**2 != positions or not positions:
        raise ModelFileError(
            f"{checkpoint.source}: the tensor '{checkpoint.called(vit.positions)}' holds {positions + 1} positions, "
            "which are no class token and a square of patches. Check that the checkpoint is of this kind."
        )
    overrides = {
        "embed_dim": width,
        "depth": count(checkpoint, vit.blocks),
        "num_heads": heads or default_heads(width),
        "patch_size": patch_size,
        "mlp_ratio": checkpoint.shape(vit.inner, 2)[0] / width,
    }
    return {"image_size": side * patch_size, "overrides": overrides}


def text_options(checkpoint: Checkpoint, text: Text, heads: int | None, tokenizer: str) -> dict[str, Any]:
    """Return the options of a BERT for the text tower of a checkpoint.

    Raises:
        ModelFileError: a tensor is missing, or has no shape of a BERT's.
    """
    longest, width = checkpoint.shape(f"{text.prefix}embeddings.{POSITIONS}", 2)
    return {
        "layers": text.own,
        "width": width,
        "heads": heads or default_heads(width),
        "mlp_width": checkpoint.shape(f"{text.prefix}encoder.layer.0.intermediate.dense.weight", 2)[0],
        "max_tokens": longest,
        "tokenizer": tokenizer,
        "pooling": "first",
        "dropout": text.dropout,
    }


def chosen_tokenizer(checkpoint: Checkpoint, options: FusedTextOptions) -> str:
    """Return the folder of the tokenizer.

    Raises:
        SpecError: it is not said, and there is none beside the checkpoint.
    """
    tokenizer = options.tokenizer or own_tokenizer(checkpoint)
    if tokenizer is None:
        raise SpecError(
            f"There is no {TOKENIZER_FILE} beside {checkpoint.source}. Say where that of its text tower is (for the "
            "published models that of bert-base-uncased), with --set tokenizer=FOLDER."
        )
    return tokenizer


def build(
    checkpoint: Checkpoint,
    text: Text,
    towers: tuple[Mapping[str, Any], Mapping[str, Any]],
    tasks: Sequence[str],
    registry: Registry,
) -> Assembly:
    """Return the model for a checkpoint, with random weights; `towers`: name and options of vision and of text.

    Raises:
        SpecError: a size cannot be built.
        ModelFileError: the tokenizer is not that of the text tower.
    """
    vision, words = towers
    heads = words["options"]["heads"]
    fusion = {"layers": text.fused, "heads": heads, "text_blocks": text.blocks, "pooler": "none"}
    spec = {
        "architecture": "two-tower",
        "vision": vision,
        "text": words,
        "fusion": {"name": "text-cross-attention", "options": {**fusion, "dropout": text.dropout}},
        "rules": [{"action": "random", "part": {"name": "both"}}],
    }
    shared = checkpoint.shape("vision_proj.weight", 2)[0]
    uses = {task: {"width": shared} if task == "itc" else {} for task in tasks}
    assembly = assemble(resolve(spec, uses, registry=registry))
    encoder: Any = assembly.encoder
    size = encoder.vision.processor.image_size
    encoder.vision.processor = ImageProcessor(size, resize="squash", mean=CLIP_MEAN, std=CLIP_STD)
    rows = checkpoint.shape(f"{text.prefix}embeddings.word_embeddings.weight", 2)[0]
    fit_words(checkpoint, encoder.text, rows)
    return assembly


def fit_words(checkpoint: Checkpoint, text: Any, rows: int) -> None:
    """Give a text tower as many word embeddings as the checkpoint has: some are of words that no tokenizer gives.

    Raises:
        ModelFileError: the tokenizer gives more, or too few to be the one of this model.
    """
    vocabulary = text.processor.facts.vocabulary
    if not rows / 2 <= vocabulary <= rows:
        raise ModelFileError(
            f"{checkpoint.source} has {rows} word embeddings, and the tokenizer {vocabulary} entries: they do not "
            "belong together. Name the folder of the model's own tokenizer, with --set tokenizer=FOLDER."
        )
    words = text.model.embeddings.word_embeddings
    words.weight = nn.Parameter(words.weight.new_zeros(rows, words.embedding_dim))
    words.num_embeddings = text.model.config.vocab_size = rows
    text.config = {**text.config, "transformers": config_values(text.model.config)}


def fill_text(checkpoint: Checkpoint, target: Target, text: Text, *, without: Sequence[str] = ()) -> None:
    """Fill text tower and fusion; `without` are those of our embeddings that the checkpoint has none for.

    Raises:
        ModelFileError: a tensor is missing or misshaped.
    """
    layers = f"{text.prefix}encoder.layer."
    for name in target.under(EMBEDDINGS):
        if name not in without:
            target.copy(checkpoint, f"{text.prefix}embeddings.{name}", EMBEDDINGS + name)
    for name in target.under("encoder.text.blocks."):
        target.copy(checkpoint, layers + name, f"encoder.text.blocks.{name}")
    first = 0 if text.blocks == "shared" else text.own
    for index in range(text.fused):
        block = f"encoder.fusion.blocks.{index}.block."  # none of them where they are shared
        for name in target.under(block):
            target.copy(checkpoint, f"{layers}{first + index}.{name}", block + name)
        for theirs, ours in CROSS.items():
            cross = f"{layers}{first + index}.crossattention.{theirs}"
            copy_module(checkpoint, target, cross, f"encoder.fusion.cross.{index}.{ours}")
    _take_position_ids(checkpoint, text)


def fill_heads(checkpoint: Checkpoint, target: Target) -> None:
    """Fill the projections of `itc`, and the one logit of `itm`: class 1, a match, over class 0.

    Raises:
        ModelFileError: a tensor is missing or misshaped.
    """
    copy_module(checkpoint, target, "vision_proj", "tasks.itc.vision_projection.linear")
    copy_module(checkpoint, target, "text_proj", "tasks.itc.text_projection.linear")
    for leaf in LEAVES:
        ours = f"tasks.itm.head.{leaf}"
        classes = numbers(checkpoint, f"itm_head.{leaf}", (2, *target.shape(ours)[1:]))
        target.fill(ours, classes[1:] - classes[:1])


def copy_module(checkpoint: Checkpoint, target: Target, theirs: str, ours: str) -> None:
    """Fill weight and bias of a module.

    Raises:
        ModelFileError: one is missing or misshaped.
    """
    for leaf in LEAVES:
        target.copy(checkpoint, f"{theirs}.{leaf}", f"{ours}.{leaf}")


def numbers(checkpoint: Checkpoint, name: str, shape: Sequence[int]) -> Tensor:
    """Return a tensor as fp32, to compute with.

    Raises:
        ModelFileError: it is missing or misshaped, or does not hold floating-point numbers.
    """
    tensor = checkpoint.take(name, shape)
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ModelFileError(
            f"{checkpoint.source}: the tensor '{checkpoint.called(name)}' holds {kind}, and the model needs floating-"
            "point numbers. Check that it is of this kind, and is not quantised."
        )
    return tensor.float()


def _take_position_ids(checkpoint: Checkpoint, text: Text) -> None:
    """Take the numbers of the positions, which older versions of transformers saved."""
    theirs = f"{text.prefix}embeddings.position_ids"
    if theirs in checkpoint:
        table = checkpoint.taken[f"{text.prefix}embeddings.{POSITIONS}"]
        checkpoint.take_equal(theirs, torch.arange(len(table)).unsqueeze(0))
