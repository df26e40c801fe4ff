"""One set of names for the sizes of a `transformers` config, whatever its model type calls them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from renaissance.api import TokenizerFacts
from renaissance.builtin.transformers_vision_types import IMAGE_SIZE, VISION_TYPES
from renaissance.errors import ModelFileError, SpecError
from renaissance.toolkit.quiet import quiet

# position ids of these start after the padding id; MPNet's after 1, whatever its padding id is
OFFSET_POSITIONS = frozenset(
    {"roberta", "xlm-roberta", "camembert", "data2vec-text", "ibert", "xmod", "longformer", "roberta-prelayernorm"}
    | {"luke", "lilt", "xlm-roberta-xl", "clap_text_model", "esm"}
)
MPNET_OFFSET = 2

# what a config computes itself, or what says nothing of the model
DERIVED = frozenset(
    {"stage_names", "out_features", "out_indices", "architectures", "id2label", "label2id", "transformers_version"}
    | {"_name_or_path", "dtype", "torch_dtype"}
)

DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout",
    "attention_dropout",
    "embedding_dropout",
    "mlp_dropout",
)
# what sets the sizes of stages that differ, by the names of one family or another
STAGE_FIELDS = ("depths", "depth", "hidden_sizes", "embed_dim", "embed_dims", "width_coefficient", "depth_multiplier")
# what configs call the hidden channels of an MLP
MLP_WIDTHS = ("intermediate_size", "hidden_dim", "d_ff", "encoder_ffn_dim", "d_inner", "feed_forward_size")
OTHER_TOKENS = (
    "bos_token_id",
    "eos_token_id",
    "cls_token_id",
    "sep_token_id",
    "decoder_start_token_id",
)


def config_values(config: PreTrainedConfig) -> dict[str, Any]:
    """Return a config as JSON-able values, complete, so that later defaults of the library change nothing."""
    values: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return {name: value for name, value in values.items() if name not in DERIVED}


def config_from(values: Mapping[str, Any]) -> PreTrainedConfig:
    """Return the config that `config_values` described.

    Raises:
        ModelFileError: the installed library does not know this model type, or not these values.
    """
    others = {name: value for name, value in values.items() if name != "model_type"}
    try:
        with quiet():
            return AutoConfig.for_model(values["model_type"], **others)
    except (KeyError, ValueError, TypeError, StrictDataclassError) as error:
        raise ModelFileError(
            f"The saved config of a {values.get('model_type')!r} backbone does not fit the installed transformers "
            f"({error}). Install the version that the model was saved with."
        ) from None


def is_model_type(name: str) -> bool:
    """Say whether a name is a bare model type, such as 'bert'."""
    return name in CONFIG_MAPPING


def text_sizes(config: PreTrainedConfig) -> dict[str, Any]:
    """Return the sizes of a text config by the names of our options."""
    sizes = _block_sizes(config)
    if (positions := getattr(config, "max_position_embeddings", None) or 0) > 0:  # XLNet says -1: any number
        sizes["max_tokens"] = positions - _offset(config.model_type, config.pad_token_id)
    return sizes


def vision_sizes(config: PreTrainedConfig) -> dict[str, Any]:
    """Return the sizes of a vision config by the names of our options; those that it does not name are left out."""
    sizes: dict[str, Any] = {"image_size": _side(getattr(config, "image_size", IMAGE_SIZE))}
    if hasattr(config, "patch_size"):
        sizes["patch_size"] = _side(config.patch_size)
    if _blocks_are_alike(config):
        return sizes | _block_sizes(config)
    if config.model_type != "swin":
        return sizes
    heads, depths = list(config.num_heads), list(config.depths)
    return sizes | {"width": config.hidden_size, "depths": depths, "heads": heads, "window": config.window_size}


def _blocks_are_alike(config: PreTrainedConfig) -> bool:
    return all(hasattr(config, name) for name in ("hidden_size", "num_hidden_layers")) and not hasattr(config, "depths")


def with_overrides(config: PreTrainedConfig, overrides: Mapping[str, Any]) -> PreTrainedConfig:
    """Return the config with these fields of its own.

    Raises:
        SpecError: it has no such field, or not this value of it.
    """
    if not overrides:
        return config
    values = config_values(config)
    fields = sorted(set(values) - _follows(values) - {"model_type"})
    for name in overrides:
        if name not in fields:
            near = get_close_matches(name, fields, 1, cutoff=0.0)[0]
            raise SpecError(
                f"{config.model_type}: its config has no field {name!r} to override. Did you mean {near!r}?"
            )
    kept = {name: values[name] for name in ("model_type", *fields)}
    try:
        return config_from(kept | dict(overrides))
    except Exception as error:  # a wrong value may fail anywhere in the library's code
        raise SpecError(f"{config.model_type}: overrides={dict(overrides)} do not fit: {error}") from None


def _follows(values: Mapping[str, Any]) -> set[str]:
    """Return the fields that follow from the others: the width after the last of several stages, and their number."""
    return {"hidden_size", "num_layers", "num_hidden_layers"} & set(values) if "depths" in values else set()


def with_sizes(config: PreTrainedConfig, changes: Mapping[str, Any]) -> PreTrainedConfig:
    """Return the config with other sizes, by the names of our options.

    Raises:
        SpecError: the model type has no such size, or not this value of it.
    """
    values = config_values(config)
    change = _change_of(config)
    # the widths of Swin's stages and of DINOv2's MLP follow from the other sizes
    for name, value in sorted(changes.items(), key=lambda item: ("mlp" in item[0], item[0] == "width")):
        if name == "dropout":
            values |= _dropouts(config, values, value)
        elif name == "image_size" and name not in values:
            continue  # nothing in the model depends on it
        elif name in ("image_size", "patch_size") and name in values:
            values[name] = [value, value] if isinstance(values[name], list) else value
        else:
            change(config, values, name, value)
    if "width" in changes and "pooler_output_size" in values:
        values["pooler_output_size"] = changes["width"]  # the library fills it with the width that the config had
    try:
        changed = config_from(values)
    except ModelFileError as error:
        raise SpecError(f"{config.model_type}: these sizes do not fit each other: {error}") from None
    _check_heads(changed)
    return changed


def _change_of(config: PreTrainedConfig) -> Callable[[PreTrainedConfig, dict[str, Any], str, Any], None]:
    """Return what changes a size in the values of a config."""
    if config.model_type == "swin":
        return _change_swin
    staged = config.model_type in VISION_TYPES and not _blocks_are_alike(config)
    return _refuse_size if staged else _change_blocks


def _refuse_size(config: PreTrainedConfig, values: dict[str, Any], name: str, value: Any) -> None:
    fields = [field for field in STAGE_FIELDS if field in values]
    raise SpecError(
        f"{config.model_type} has no size called {name!r}, for its stages differ. Leave it out; with random weights, "
        f"'overrides' changes the fields of its config{': ' * bool(fields)}{', '.join(fields)}."
    )


def _dropouts(config: PreTrainedConfig, values: Mapping[str, Any], probability: float) -> dict[str, Any]:
    fields = [name for name in DROPOUTS if name in values]
    if not fields and config.model_type in VISION_TYPES:
        raise SpecError(f"{config.model_type} has no dropout. Leave dropout out.")
    return dict.fromkeys(fields, probability)


def _check_heads(config: PreTrainedConfig) -> None:
    """Check what the library would find out while it builds, with an error of its own."""
    if _change_of(config) is _refuse_size:
        return
    if config.model_type == "swin":
        blocks = [(config.embed_dim * 2**stage, heads) for stage, heads in enumerate(config.num_heads)]
    else:
        sizes = _block_sizes(config)
        own_width = getattr(config, "d_kv", None)  # T5's heads are as wide as they like
        blocks = [] if own_width else [(sizes["width"], sizes["heads"])]
    for width, heads in blocks:
        if heads and width % heads:
            raise SpecError(
                f"{config.model_type}: {heads} heads cannot share a width of {width}. Give a width that they divide, "
                f"such as width={max(1, round(width / heads)) * heads}."
            )


def with_vocabulary(config: PreTrainedConfig, facts: TokenizerFacts) -> PreTrainedConfig:
    """Return the config for another tokenizer: its vocabulary, padding id, and as many positions as before."""
    values = config_values(config)
    old = _offset(config.model_type, config.pad_token_id)
    alias = {own: name for name, own in getattr(config, "attribute_map", {}).items()}
    given = {"vocab_size": facts.vocabulary, "pad_token_id": facts.pad_id}
    if facts.mask_id is not None:
        given["mask_token_id"] = facts.mask_id
    values |= {name: value for name, value in given.items() if name in values}
    values |= {alias[name]: value for name, value in given.items() if alias.get(name) in values}
    if (values.get("max_position_embeddings") or 0) > 0:
        values["max_position_embeddings"] += _offset(config.model_type, facts.pad_id) - old
    unknown = [name for name in (*OTHER_TOKENS, "mask_token_id") if (values.get(name) or 0) >= facts.vocabulary]
    # a decoder starts with a token in any case; the one of an encoder's model is never run
    values |= {name: facts.pad_id if name == "decoder_start_token_id" else None for name in unknown}
    return config_from(values)


def _block_sizes(config: PreTrainedConfig) -> dict[str, Any]:
    mlp = next((getattr(config, name) for name in MLP_WIDTHS if isinstance(getattr(config, name, None), int)), None)
    if mlp is None and hasattr(config, "mlp_ratio"):
        mlp = int(config.hidden_size * config.mlp_ratio)
    heads = getattr(config, "num_attention_heads", None)
    return {"layers": config.num_hidden_layers, "width": config.hidden_size, "heads": heads, "mlp_width": mlp}


def _change_blocks(config: PreTrainedConfig, values: dict[str, Any], name: str, value: Any) -> None:
    alias = getattr(config, "attribute_map", {})
    key = {"layers": "num_hidden_layers", "width": "hidden_size", "heads": "num_attention_heads"}.get(name)
    if key is not None and alias.get(key, key) in values:
        values[alias.get(key, key)] = value
    elif name == "max_tokens":
        if (values.get("max_position_embeddings") or 0) > 0:  # else the tokenizer alone sets a bound
            values["max_position_embeddings"] = value + _offset(config.model_type, values["pad_token_id"])
    elif name == "mlp_width":
        _change_mlp(config, values, value)
    else:
        raise SpecError(f"{config.model_type} has no size called {name!r}. Leave it out.")
    if name == "layers" and values.get("layer_types"):
        values["layer_types"] = values["layer_types"][:value] if value <= len(values["layer_types"]) else None
    if name == "heads" and values.get("num_key_value_heads"):
        values["num_key_value_heads"] = math.gcd(value, values["num_key_value_heads"])
    if name == "width" and values.get("embedding_size"):
        values["embedding_size"] = min(values["embedding_size"], value)


def _change_mlp(config: PreTrainedConfig, values: dict[str, Any], mlp_width: int) -> None:
    if "mlp_ratio" not in values:
        own = next((name for name in MLP_WIDTHS if name in values), None)
        if own is None:
            raise SpecError(f"{config.model_type} has no size called 'mlp_width'. Leave it out.")
        values[own] = mlp_width
        return
    width = values["hidden_size"]
    if mlp_width % width:
        nearest = max(1, round(mlp_width / width)) * width
        raise SpecError(
            f"{config.model_type}: mlp_width={mlp_width} is no multiple of width={width}. Use mlp_width={nearest}."
        )
    values["mlp_ratio"] = mlp_width // width


def _change_swin(config: PreTrainedConfig, values: dict[str, Any], name: str, value: Any) -> None:
    if name == "width":
        values["embed_dim"] = value // 2 ** (len(values["depths"]) - 1)
    elif name in ("depths", "heads", "window"):
        if isinstance(value, int) and name != "window":
            raise SpecError(f"{config.model_type}: {name} differ from stage to stage. Leave {name} out.")
        values[{"depths": "depths", "heads": "num_heads", "window": "window_size"}[name]] = value
    else:
        raise SpecError(f"{config.model_type} has no size called {name!r}, for its stages differ. Leave it out.")
    values.pop("hidden_size", None)
    values.pop("num_layers", None)


def _offset(model_type: str, pad_id: int | None) -> int:
    if model_type == "mpnet":
        return MPNET_OFFSET
    return (pad_id or 0) + 1 if model_type in OFFSET_POSITIONS else 0


def _side(size: Any) -> int:
    sides = set(size) if isinstance(size, (list, tuple)) else {size}
    if len(sides) != 1 or not math.isfinite(side := sides.pop()):
        raise SpecError(f"Only square images and patches are supported, not {size}. Choose another model.")
    return int(side)
