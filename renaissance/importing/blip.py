"""BlipForImageTextRetrieval of Hugging Face transformers: one text encoder, with and without its cross attention.

Its ViT is timm's, in other words; its text encoder is a BERT without token types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import BlipConfig

from renaissance.assemble import Assembly
from renaissance.builtin.transformers_loading import preprocessing_from
from renaissance.errors import ModelFileError
from renaissance.importing.beside import (
    CONFIG_FILE,
    PREPROCESSOR_FILE,
    check_sizes,
    folder_of,
    read_config,
    read_json,
)
from renaissance.importing.checkpoint import Checkpoint, Target
from renaissance.importing.importers import FusedTextOptions
from renaissance.importing.text_cross import (
    EMBEDDINGS,
    Text,
    Vit,
    build,
    chosen_tokenizer,
    copy_module,
    count,
    fill_heads,
    fill_text,
    text_options,
    vision_options,
)
from renaissance.registry import Registry
from renaissance.toolkit.quiet import quiet

PREFIX = "text_encoder."
VIT = Vit(
    patches="vision_model.embeddings.patch_embedding.weight",
    positions="vision_model.embeddings.position_embedding",
    inner="vision_model.encoder.layers.0.mlp.fc1.weight",
    blocks="vision_model.encoder.layers.{}.layer_norm1.weight",
)
# timm's plain ViT by what LayerNorm adds to the variance; that of CLIP has a norm before its blocks, which is left out
VISION_EPS = 1e-5
VITS: dict[float, tuple[str, dict[str, Any]]] = {
    1e-5: ("timm:vit_base_patch16_clip_384", {"pre_norm": False}),
    1e-6: ("timm:vit_base_patch16_384", {}),
}
# what a config may say, as our towers are built with it; what it does not say is the first of these
KNOWN = {
    "vision_config.hidden_act": ("gelu",),
    "vision_config.layer_norm_eps": tuple(VITS),
    "text_config.hidden_act": ("gelu",),
    "text_config.layer_norm_eps": (1e-12,),
}
# theirs -> timm's
TABLES = {"embeddings.class_embedding": "cls_token", "embeddings.position_embedding": "pos_embed"}
MODULES = {"embeddings.patch_embedding": "patch_embed.proj", "post_layernorm": "norm"}
BLOCK = {
    "layer_norm1": "norm1",
    "self_attn.qkv": "attn.qkv",
    "self_attn.projection": "attn.proj",
    "layer_norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
TOKEN_TYPES = "token_type_embeddings.weight"


def convert(checkpoint: Checkpoint, options: FusedTextOptions, registry: Registry) -> Assembly:
    """Return the two-tower model with shared text blocks and the tasks `itm` and `itc` that holds these weights.

    Raises:
        SpecError: an option is wrong.
        ModelFileError: a tensor is missing, misshaped or left over, or the config is not of a BLIP that can be built.
    """
    checkpoint.leave_out(options.leave_out)
    config = described(checkpoint)
    layers = count(checkpoint, PREFIX + "encoder.layer.{}.output.dense.weight")
    text = Text(PREFIX, layers, layers, "shared", 0.0 if config is None else config.text_config.hidden_dropout_prob)
    towers = _towers(checkpoint, text, options, config)
    check_sizes(checkpoint, _sizes(checkpoint, *towers))
    assembly = build(checkpoint, text, towers, ("itm", "itc"), registry)
    encoder: Any = assembly.encoder
    encoder.vision.processor = _preprocessing(checkpoint, encoder.vision.processor)
    target = Target(assembly)
    _fill_vision(checkpoint, target)
    fill_text(checkpoint, target, text, without=(TOKEN_TYPES,))
    target.fill(EMBEDDINGS + TOKEN_TYPES, torch.zeros(target.shape(EMBEDDINGS + TOKEN_TYPES)))
    fill_heads(checkpoint, target)
    itc: Any = assembly.tasks["itc"]
    target.fill("tasks.itc.log_scale", itc.log_scale.detach())  # this form of BLIP has no temperature
    checkpoint.done()  # before Target.done: it says more
    target.done()
    return assembly


def described(checkpoint: Checkpoint) -> Any:
    """Return the BlipConfig beside the weights, or None.

    Raises:
        ModelFileError: it cannot be read, or describes something else than a BLIP that can be built.
    """
    values = read_config(checkpoint, BlipConfig.model_type, KNOWN)
    if not values:
        return None
    try:
        with quiet():
            return BlipConfig.from_dict(values)
    except Exception as error:  # the library's checks of a config raise classes of their own
        path = folder_of(checkpoint) / CONFIG_FILE
        raise ModelFileError(f"{path} cannot be read ({type(error).__name__}). Download it again.") from None


def _towers(
    checkpoint: Checkpoint, text: Text, options: FusedTextOptions, config: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return name and options of the towers."""
    vision_heads, text_heads, eps = options.vision_heads, options.text_heads, VISION_EPS
    if config is not None:
        eps = config.vision_config.layer_norm_eps
        vision_heads = vision_heads or config.vision_config.num_attention_heads
        text_heads = text_heads or config.text_config.num_attention_heads
    name, changes = VITS[eps]
    vision = vision_options(checkpoint, VIT, vision_heads)
    vision["overrides"] |= changes
    words = text_options(checkpoint, text, text_heads, chosen_tokenizer(checkpoint, options))
    return {"name": name, "options": vision}, {"name": "transformers:bert", "options": words}


def _sizes(checkpoint: Checkpoint, vision: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, int]:
    """Return the sizes of the tensors, by the names that they have in the config."""
    image, words = vision["options"], text["options"]
    cut = image["overrides"]
    return {
        "image_text_hidden_size": checkpoint.shape("vision_proj.weight", 2)[0],
        "vision_config.hidden_size": cut["embed_dim"],
        "vision_config.num_hidden_layers": cut["depth"],
        "vision_config.intermediate_size": round(cut["mlp_ratio"] * cut["embed_dim"]),
        "vision_config.patch_size": cut["patch_size"],
        "vision_config.image_size": image["image_size"],
        "text_config.vocab_size": checkpoint.shape(f"{PREFIX}embeddings.word_embeddings.weight", 2)[0],
        "text_config.hidden_size": words["width"],
        "text_config.num_hidden_layers": words["layers"],
        "text_config.intermediate_size": words["mlp_width"],
        "text_config.max_position_embeddings": words["max_tokens"],
    }


def _preprocessing(checkpoint: Checkpoint, published: Any) -> Any:
    """Return how images are prepared: as the file beside the weights says, else as published."""
    path = folder_of(checkpoint) / PREPROCESSOR_FILE
    values = read_json(path)
    if not values:
        return published
    try:
        processor = preprocessing_from(values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{path} cannot be read ({type(error).__name__}). Download it again.") from None
    return processor.resized(published.image_size)


def _fill_vision(checkpoint: Checkpoint, target: Target) -> None:
    theirs, ours = "vision_model.", "encoder.vision.model."
    for name, table in TABLES.items():
        target.copy(checkpoint, theirs + name, ours + table)
    modules = dict(MODULES)
    for index in range(count(checkpoint, VIT.blocks)):
        modules |= {f"encoder.layers.{index}.{name}": f"blocks.{index}.{part}" for name, part in BLOCK.items()}
    for name, part in modules.items():
        copy_module(checkpoint, target, theirs + name, ours + part)
