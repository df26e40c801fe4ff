"""ViLT of Hugging Face transformers: a one-tower model of ViT's blocks and BERT's embeddings, with the heads it has.

Letters in shapes: D width, N patches, K labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from renaissance.assemble import Assembly, assemble
from renaissance.errors import ModelFileError, SpecError
from renaissance.importing.beside import check_sizes, own_tokenizer, read_config
from renaissance.importing.checkpoint import Checkpoint, Target
from renaissance.importing.importers import ViltOptions
from renaissance.registry import Registry
from renaissance.resolve import resolve

IMAGES = "encoder.base.model.embeddings."
WORDS = "encoder.other.embedder.model.embeddings."
BLOCKS = "encoder.base.blocks."
GRID = f"{IMAGES}position_embeddings"
PATCHES = f"{IMAGES}patch_embeddings.projection.weight"
# theirs -> ours, outside of the blocks
WHOLE = {
    "embeddings.cls_token": f"{IMAGES}cls_token",
    "embeddings.position_embeddings": GRID,
    "embeddings.patch_embeddings.projection.weight": PATCHES,
    "embeddings.patch_embeddings.projection.bias": f"{IMAGES}patch_embeddings.projection.bias",
    "embeddings.text_embeddings.word_embeddings.weight": f"{WORDS}word_embeddings.weight",
    "embeddings.text_embeddings.position_embeddings.weight": f"{WORDS}position_embeddings.weight",
    "embeddings.text_embeddings.token_type_embeddings.weight": f"{WORDS}token_type_embeddings.weight",
    "embeddings.text_embeddings.LayerNorm.weight": f"{WORDS}LayerNorm.weight",
    "embeddings.text_embeddings.LayerNorm.bias": f"{WORDS}LayerNorm.bias",
    "layernorm.weight": "encoder.base.model.layernorm.weight",
    "layernorm.bias": "encoder.base.model.layernorm.bias",
    "pooler.dense.weight": "encoder.pooler.weight",
    "pooler.dense.bias": "encoder.pooler.bias",
}
# the modality of each token: text, image, and the second image of two
TYPES = "embeddings.token_type_embeddings.weight"
# older versions of transformers saved the numbers of the positions
POSITION_IDS = "embeddings.text_embeddings.position_ids"
# theirs -> ours, within a block
BLOCK = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "layernorm_before": "layernorm_before",
    "layernorm_after": "layernorm_after",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
# theirs -> ours, within a head
MLM = {"transform.dense": "head.0", "transform.LayerNorm": "head.2"}
# what config.json may not say, as ours is built with it
FIXED = {"hidden_act": ("gelu",), "layer_norm_eps": (1e-12,)}
HEADS = 12

Renamed = dict[str, tuple[str, Tensor]]  # ours -> theirs and the tensor, as ours has it


def convert(checkpoint: Checkpoint, options: ViltOptions, registry: Registry) -> Assembly:
    """Return the one-tower model with these weights, and the tasks whose heads the checkpoint has.

    Raises:
        SpecError: the architecture or an option of it is wrong.
        ModelFileError: a tensor is missing, misshaped or left over, or config.json is of another model.
    """
    config = read_config(checkpoint, "vilt", FIXED)
    checkpoint.leave_out(options.leave_out)
    renamed: Renamed = dict(_whole(checkpoint))
    tasks = _take_heads(checkpoint, renamed, options, config)
    _take_types(checkpoint, renamed, pair="nlvr2" in tasks)
    checkpoint.done()  # before the sizes: it says more
    check_sizes(checkpoint, _sizes(checkpoint, renamed))
    spec = _spec(checkpoint, renamed, options, config)
    assembly = assemble(resolve(spec, tasks, registry=registry))
    target = Target(assembly)
    theirs, table = renamed[GRID]
    renamed[GRID] = theirs, _resized(table, target.shape(GRID))
    layout = checkpoint.replaced(
        {ours: tensor for ours, (_, tensor) in renamed.items()}, {ours: theirs for ours, (theirs, _) in renamed.items()}
    )
    for name in layout.names:
        target.copy(layout, name, name)
    target.done()
    return assembly


# --- what is known of the model -------------------------------------------------------------------------------------


def _spec(
    checkpoint: Checkpoint, renamed: Renamed, options: ViltOptions, config: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the spec of the model: all parts random, as the checkpoint brings the weights."""
    width, _, _, patch = _shape(checkpoint, renamed, PATCHES, 4)
    layers = sum(name.endswith("layernorm_before.weight") for name in renamed)
    mlp_width, _ = _shape(checkpoint, renamed, f"{BLOCKS}0.mlp.fc1.weight", 2)
    max_tokens, _ = _shape(checkpoint, renamed, f"{WORDS}position_embeddings.weight", 2)
    common = {
        "width": width,
        "heads": options.heads or config.get("num_attention_heads", HEADS),
        "dropout": config.get("hidden_dropout_prob", 0.0),
    }
    side = _side(checkpoint, renamed)
    base = {
        "image_size": options.image_size or patch * side,
        "patch_size": patch,
        "layers": layers,
        "mlp_width": mlp_width,
        **common,
    }
    # the blocks of the donor are let go as soon as they are built
    donor = {"max_tokens": max_tokens, "layers": 1, "mlp_width": 1, **common}
    tokenizer = options.tokenizer or own_tokenizer(checkpoint)
    if tokenizer is not None:
        donor["tokenizer"] = tokenizer
    return {
        "architecture": "one-tower",
        "base": {"name": "transformers:vit", "options": base},
        "donor": {"name": "bert-base", "options": donor},
        "rules": [{"action": "random", "part": {"name": name}} for name in ("encoder", "text")],
    }


def _sizes(checkpoint: Checkpoint, renamed: Renamed) -> dict[str, int]:
    """Return the sizes of the tensors, by the names that they have in the config."""
    width, _, _, patch = _shape(checkpoint, renamed, PATCHES, 4)
    tables = {"vocab_size": "word", "max_position_embeddings": "position", "type_vocab_size": "token_type"}
    return {
        "hidden_size": width,
        "num_hidden_layers": sum(name.endswith("layernorm_before.weight") for name in renamed),
        "intermediate_size": _shape(checkpoint, renamed, f"{BLOCKS}0.mlp.fc1.weight", 2)[0],
        "patch_size": patch,
        "image_size": patch * _side(checkpoint, renamed),
        **{
            name: _shape(checkpoint, renamed, f"{WORDS}{table}_embeddings.weight", 2)[0]
            for name, table in tables.items()
        },
    }


def _shape(checkpoint: Checkpoint, renamed: Renamed, ours: str, dims: int) -> tuple[int, ...]:
    return checkpoint.shape(renamed[ours][0], dims)


def _side(checkpoint: Checkpoint, renamed: Renamed) -> int:
    """Return the patches along a side of the images that the table of positions is for."""
    _, rows, _ = _shape(checkpoint, renamed, GRID, 3)
    side = math.isqrt(max(rows - 1, 0))
    if side < 1 or side**2 != rows - 1:
        raise ModelFileError(
            f"{checkpoint.source}: the table of positions has {rows} rows, which is not one and a square of patches. "
            "Only models of square images can be imported."
        )
    return side


# --- theirs to ours -------------------------------------------------------------------------------------------------


def _whole(checkpoint: Checkpoint) -> Iterator[tuple[str, tuple[str, Tensor]]]:
    """Yield our name, their name and the tensor of all but the types and the heads."""
    prefix = _prefix(checkpoint)
    for theirs, ours in WHOLE.items():
        yield ours, (prefix + theirs, checkpoint.take(prefix + theirs))
    index = 0
    while index == 0 or f"{prefix}encoder.layer.{index}.layernorm_before.weight" in checkpoint:
        for inner, ours in BLOCK.items():
            for leaf in ("weight", "bias"):
                theirs = f"{prefix}encoder.layer.{index}.{inner}.{leaf}"
                yield f"{BLOCKS}{index}.{ours}.{leaf}", (theirs, checkpoint.take(theirs))
        index += 1
    if prefix + POSITION_IDS in checkpoint:
        count, _ = checkpoint.shape(f"{prefix}embeddings.text_embeddings.position_embeddings.weight", 2)
        checkpoint.take_equal(prefix + POSITION_IDS, torch.arange(count).unsqueeze(0))


def _prefix(checkpoint: Checkpoint) -> str:
    """Return what the names of a ViltModel begin with: nothing, or the name it has under a head."""
    return "vilt." if "vilt.embeddings.cls_token" in checkpoint else ""


def _take_types(checkpoint: Checkpoint, renamed: Renamed, *, pair: bool) -> None:
    """Take the types [2 or 3, D]; ours of the second image of a pair adds to that of images."""
    theirs, width = _prefix(checkpoint) + TYPES, _shape(checkpoint, renamed, "encoder.pooler.weight", 2)[0]
    types = checkpoint.take(theirs, (3 if pair else 2, width))
    renamed["encoder.types.weight"] = theirs, types[:2]
    if pair:
        second = types[2].float() - types[1].float()
        renamed["encoder.slots.weight"] = theirs, torch.stack([torch.zeros_like(second), second])


def _resized(table: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return positions [1, 1 + N, D] for another square of patches, interpolated as ViLT does it.

    What is no such table is returned as it is, to be refused as any misshaped tensor.
    """
    _, rows, width = shape
    if table.shape[1] == rows or table.shape[::2] != (1, width) or not table.is_floating_point():
        return table
    old, new = math.isqrt(table.shape[1] - 1), math.isqrt(rows - 1)
    grid = table[:, 1:].float().transpose(1, 2).reshape(1, -1, old, old)  # [1, D, rows, columns]
    grid = functional.interpolate(grid, size=(new, new), mode="bilinear", align_corners=True)
    return torch.cat((table[:, :1].float(), grid.flatten(2).transpose(1, 2)), dim=1)


# --- heads ----------------------------------------------------------------------------------------------------------


def _take_heads(
    checkpoint: Checkpoint, renamed: Renamed, options: ViltOptions, config: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Take the heads that the checkpoint has; return the tasks that they are of, with their options."""
    tasks: dict[str, dict[str, Any]] = {}
    if any(name.startswith("mlm_score.") for name in checkpoint.names):
        _take_mlm(checkpoint, renamed)
        tasks["mlm"] = {}
    if any(name.startswith("rank_output.") for name in checkpoint.names):
        _take_matching(checkpoint, renamed)
        tasks["itm"] = {}
    if "classifier.0.weight" in checkpoint:
        name, count = _take_classifier(checkpoint, renamed)
        tasks[name] = _labelled(name, count, options, config)
    return tasks


def _take(checkpoint: Checkpoint, renamed: Renamed, theirs: str, ours: str) -> None:
    renamed[ours] = theirs, checkpoint.take(theirs)


def _take_mlm(checkpoint: Checkpoint, renamed: Renamed) -> None:
    """Take the head of masked words, whose decoder is the table of words [vocabulary, D] once more."""
    for theirs, ours in MLM.items():
        for leaf in ("weight", "bias"):
            _take(checkpoint, renamed, f"mlm_score.{theirs}.{leaf}", f"tasks.mlm.{ours}.{leaf}")
    # older versions of transformers kept the bias beside the decoder, or at both places
    names = [name for name in ("mlm_score.decoder.bias", "mlm_score.bias") if name in checkpoint]
    first = names[0] if names else "mlm_score.decoder.bias"
    _take(checkpoint, renamed, first, "tasks.mlm.decoder.bias")
    for name in names[1:]:
        checkpoint.take_equal(name, checkpoint.taken[first])
    words = renamed[f"{WORDS}word_embeddings.weight"]
    if "mlm_score.decoder.weight" in checkpoint:
        checkpoint.take_equal("mlm_score.decoder.weight", words[1])
    renamed["tasks.mlm.decoder.weight"] = words


def _take_matching(checkpoint: Checkpoint, renamed: Renamed) -> None:
    """Take the head of matching: one logit, or those of no match and match, whose difference says the same."""
    for leaf in ("weight", "bias"):
        tensor = checkpoint.take(f"rank_output.{leaf}")
        if tensor.shape[:1] == (2,):
            tensor = tensor[1:].float() - tensor[:1].float()
        renamed[f"tasks.itm.head.{leaf}"] = f"rank_output.{leaf}", tensor


def _take_classifier(checkpoint: Checkpoint, renamed: Renamed) -> tuple[str, int]:
    """Take the classifier; return its task and K. That of questions reads one pooled vector [D], that of pairs two."""
    width = _shape(checkpoint, renamed, "encoder.pooler.weight", 2)[1]
    inner = checkpoint.take("classifier.0.weight")
    name = "vqa" if inner.ndim == 2 and inner.shape[1] == width else "nlvr2"
    renamed[f"tasks.{name}.inner.weight"] = "classifier.0.weight", inner
    _take(checkpoint, renamed, "classifier.0.bias", f"tasks.{name}.inner.bias")
    for theirs, ours in (("1", "norm"), ("3", "outer")):
        for leaf in ("weight", "bias"):
            _take(checkpoint, renamed, f"classifier.{theirs}.{leaf}", f"tasks.{name}.{ours}.{leaf}")
    return name, _shape(checkpoint, renamed, f"tasks.{name}.outer.bias", 1)[0]


def _labelled(name: str, count: int, options: ViltOptions, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a task of `count` labels: as given, as config.json has them, or numbers.

    Raises:
        SpecError: another number of labels is given, here or there.
    """
    saved = config.get("id2label")
    labels = options.labels
    if labels is None and isinstance(saved, Mapping):
        # JSON sorts the numbers as words: 0, 1, 10, 2
        labels = tuple(str(saved[key]) for key in map(str, range(len(saved))) if key in saved)
    if labels is None:
        # the task's own labels are those of NLVR2
        return {} if (name, count) == ("nlvr2", 2) else {"labels": [str(index) for index in range(count)]}
    if len(labels) != count:
        raise SpecError(
            f"import vilt: the classifier has {count} labels, and {len(labels)} are given. Name each, in its order."
        )
    return {"labels": list(labels)}
