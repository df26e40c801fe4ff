"""What a BridgeTower's checkpoint, and the files beside it, say of the model: sizes, heads, tasks, and its spec."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from renaissance.importing.beside import (
    PREPROCESSOR_FILE,
    check_sizes,
    folder_of,
    own_tokenizer,
    read_config,
    read_json,
)
from renaissance.importing.checkpoint import Checkpoint
from renaissance.importing.importers import BridgeTowerOptions

VISUAL, TEXT = "vision_model.visual.", "text_model."
HEADS, PADDING, DROPOUT, EPS = 12, 1, 0.1, 1e-5  # BridgeTower's own, where config.json says nothing
HEAD_WIDTH = 64  # of the vision tower, whatever its width
# in config.json: what alone can be imported
FIXED = {
    "hidden_act": ("gelu",),
    "layer_norm_eps": (EPS,),
    "link_tower_type": ("add",),
    "text_config.hidden_act": ("gelu",),
    "text_config.layer_norm_eps": (EPS,),
    "text_config.is_decoder": (False,),
    "vision_config.layer_norm_eps": (EPS,),
}


@dataclass(frozen=True, slots=True)
class Found:
    """What a checkpoint, the config.json beside it and the options say of a model.

    prefix: what the names of the encoder's tensors begin with. vision, text, fusion: options of these parts. images:
    mean and std of the pictures, where they are told. tied: the MLM decoder is the word embeddings.
    """

    prefix: str
    vision: Mapping[str, Any]
    text: Mapping[str, Any]
    fusion: Mapping[str, Any]
    images: Mapping[str, Any]
    tied: bool


def spec_of(found: Found) -> dict[str, Any]:
    """Return the spec of the model: both towers random, as the checkpoint brings the weights."""
    text = "roberta-base" if found.text["layers"] <= 12 else "roberta-large"
    return {
        "architecture": "two-tower",
        "vision": {"name": "open-clip:ViT-B-16-quickgelu", "options": found.vision},
        "text": {"name": text, "options": found.text},
        "fusion": {"name": "bridge", "options": found.fusion},
        "rules": [{"action": "random", "part": {"name": "both"}}],
    }


def tasks_in(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    """Return the tasks whose heads the checkpoint has, with their options."""
    tasks: dict[str, dict[str, Any]] = {}
    if "mlm_score.bias" in checkpoint:
        tasks["mlm"] = {"norm_eps": EPS}
    if "itm_score.fc.weight" in checkpoint:
        tasks["itm"] = {}
    if "itc_text_head.fc.weight" in checkpoint:
        tasks["itc"] = {"width": checkpoint.shape("itc_text_head.fc.weight", 2)[0]}
    return tasks


def found_in(checkpoint: Checkpoint, options: BridgeTowerOptions) -> Found:
    """Read the sizes off the tensors, and what these do not say off config.json, the options, or BridgeTower."""
    config = read_config(checkpoint, "bridgetower", FIXED)
    text_config, vision_config = config.get("text_config") or {}, config.get("vision_config") or {}
    padding = text_config.get("pad_token_id")
    prefix = "bridgetower." if any(name.startswith("bridgetower.") for name in checkpoint.names) else ""
    heads = options.heads or text_config.get("num_attention_heads", HEADS)
    dropout = text_config.get("hidden_dropout_prob", DROPOUT)
    text = _text_options(checkpoint, prefix, padding if isinstance(padding, int) else PADDING)
    vision = _vision_options(checkpoint, prefix, text["layers"], vision_config.get("image_size"))
    check_sizes(checkpoint, _sizes(checkpoint, prefix, vision, text))
    tokenizer = options.tokenizer or own_tokenizer(checkpoint)
    return Found(
        prefix=prefix,
        vision=vision,
        text={**text, "heads": heads, "dropout": dropout, "tokenizer": tokenizer},
        fusion={**_fusion_options(checkpoint, prefix), "heads": heads, "dropout": dropout},
        images=_images(checkpoint),
        tied=bool(config.get("tie_word_embeddings", False)),
    )


def _sizes(checkpoint: Checkpoint, prefix: str, vision: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, int]:
    """Return the sizes of the tensors, by the names that they have in the config."""
    embeddings, patch = f"{prefix}{TEXT}embeddings.", vision["overrides"]["patch_size"]
    cells, _ = checkpoint.shape(f"{prefix}{VISUAL}embeddings.position_embedding.weight", 2)
    return {
        "vision_config.hidden_size": vision["overrides"]["width"],
        "vision_config.patch_size": patch,
        "vision_config.image_size": math.isqrt(cells - 1) * patch,
        "text_config.vocab_size": checkpoint.shape(f"{embeddings}word_embeddings.weight", 2)[0],
        "text_config.hidden_size": text["width"],
        "text_config.num_hidden_layers": text["layers"],
        "text_config.intermediate_size": text["mlp_width"],
        "text_config.max_position_embeddings": checkpoint.shape(f"{embeddings}position_embeddings.weight", 2)[0],
    }


def _vision_options(checkpoint: Checkpoint, prefix: str, layers: int, image_size: object) -> dict[str, Any]:
    """Return the options of the vision tower; BridgeTower runs as many blocks of it as the text tower has."""
    width, _, patch, _ = checkpoint.shape(f"{prefix}{VISUAL}embeddings.patch_embedding.weight", 4)
    positions, _ = checkpoint.shape(f"{prefix}{VISUAL}embeddings.position_embedding.weight", 2)
    return {
        "image_size": image_size if isinstance(image_size, int) else math.isqrt(positions - 1) * patch,
        "overrides": {
            "width": width,
            "layers": layers,
            "heads": max(1, width // HEAD_WIDTH),
            "patch_size": patch,
            "embed_dim": 1,  # BridgeTower has no projection, and our tower drops one that changes the width
        },
    }


def _text_options(checkpoint: Checkpoint, prefix: str, padding: int) -> dict[str, Any]:
    block = f"{prefix}{TEXT}encoder.layer."
    positions, width = checkpoint.shape(f"{prefix}{TEXT}embeddings.position_embeddings.weight", 2)
    return {
        "layers": _count(checkpoint, block, ".output.dense.weight"),
        "width": width,
        "mlp_width": checkpoint.shape(f"{block}0.intermediate.dense.weight", 2)[0],
        "max_tokens": positions - padding - 1,  # RoBERTa's positions start after the padding's number
    }


def _fusion_options(checkpoint: Checkpoint, prefix: str) -> dict[str, Any]:
    block = f"{prefix}cross_modal_text_layers."
    hidden, width = checkpoint.shape(f"{block}0.intermediate.dense.weight", 2)
    ratio = hidden / max(1, width)  # a width of 0 is refused with the options
    return {
        "layers": _count(checkpoint, block, ".output.dense.weight"),
        "width": width,
        "mlp_ratio": ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf),
        "norm_eps": EPS,
        "shared_projection": f"{prefix}cross_modal_text_transform.weight" in checkpoint,
    }


def _count(checkpoint: Checkpoint, before: str, after: str) -> int:
    """Return how many blocks there are, at least one: of that the tensors are asked for, by name."""
    count = 1
    while f"{before}{count}{after}" in checkpoint:
        count += 1
    return count


def _images(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return mean and std of the pictures, if preprocessor_config.json tells them; CLIP's are BridgeTower's own.

    Raises:
        ModelFileError: it cannot be read.
    """
    values = read_json(folder_of(checkpoint) / PREPROCESSOR_FILE)
    if values.get("do_normalize") is False:
        return {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    told = {"mean": values.get("image_mean"), "std": values.get("image_std")}
    return {name: tuple(numbers) for name, numbers in told.items() if isinstance(numbers, list)}
