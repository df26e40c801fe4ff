"""Dealing with the open_clip library itself: names, configs, creation of one tower, weights."""

from __future__ import annotations

import copy
import difflib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import open_clip
from open_clip.pretrained import get_pretrained_cfg
from torch import Tensor, nn

from renaissance.errors import HubError, SpecError, UnknownComponentError
from renaissance.toolkit.messages import either, first_line

Tower = Literal["vision", "text"]
WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors", "pytorch_model.bin")
# the other tower of a model of which one is wanted: never run, never kept
SMALLEST_TEXT = {"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1}
SMALLEST_VISION = {"image_size": 1, "patch_size": 1, "width": 1, "head_width": 1, "layers": 1}


class Silence(logging.Filter):
    """Drops what is logged on the root logger itself; records of other loggers do not pass here."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep nothing."""
        return False


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what open_clip says on the root logger to itself, and the root logger as it was."""
    root, silent, handler = logging.getLogger(), Silence(), logging.NullHandler()
    root.addHandler(handler)  # or logging.info() would set up a handler of its own, for good
    root.addFilter(silent)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(silent)
        root.removeHandler(handler)


def model_config(model: str) -> dict[str, Any]:
    """Return open_clip's config of a model.

    Raises:
        UnknownComponentError: open_clip has no such model.
    """
    with quiet():
        found = open_clip.get_model_config(model) if model in open_clip.list_models() else None
    if found is None:
        near = difflib.get_close_matches(model, open_clip.list_models(), n=3)
        hint = f"Did you mean {either(near)}?" if near else "open_clip.list_models() lists all that there are."
        raise UnknownComponentError(f"open_clip {open_clip.__version__} has no model called {model!r}. {hint}")
    return copy.deepcopy(found)


def weights_config(model: str, tag: str | None) -> Mapping[str, Any]:
    """Return open_clip's facts of these pretrained weights: source, mean, std, quick_gelu; empty without a tag.

    Raises:
        UnknownComponentError: the model has no weights of that tag.
    """
    if tag is None:
        return {}
    found: Mapping[str, Any] = get_pretrained_cfg(model, tag)
    if not found:
        tags = open_clip.list_pretrained_tags_by_model(model)
        near = difflib.get_close_matches(tag, tags, n=3) or tags
        hint = f"Did you mean {either([f'{model}@{name}' for name in near])}?" if near else "It has no weights at all."
        raise UnknownComponentError(f"open_clip's {model!r} has no weights tagged {tag!r}. {hint}")
    return found


def chosen_config(model: str, tag: str | None, tower: Tower, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a model with these fields of one tower replaced.

    Raises:
        UnknownComponentError: open_clip has no such model, or the model no such weights.
        SpecError: an overridden field is none of that tower's.
    """
    config = model_config(model)
    config["quick_gelu"] = weights_config(model, tag).get("quick_gelu", config.get("quick_gelu", False))
    config["vision_cfg"]["timm_model_pretrained"] = False  # else open_clip downloads weights of its own
    fields = config[f"{tower}_cfg"]
    known = {*_fields(tower), *(("heads",) if tower == "vision" else ())}
    for name, value in overrides.items():
        if name == "embed_dim":
            config["embed_dim"] = value
        elif name in known:
            fields[name] = value
        else:
            near = difflib.get_close_matches(name, [*known, "embed_dim"], n=3)
            hint = f"Did you mean {either(near)}?" if near else f"It has {', '.join(sorted(known))}."
            raise SpecError(f"open-clip:{model}: its {tower} tower has no field {name!r}. {hint}")
    if tower == "vision" and "heads" in fields:  # open_clip counts channels for each head instead
        fields["head_width"] = fields.get("width", 768) // fields.pop("heads")
    return config


def create_tower(config: Mapping[str, Any], tower: Tower) -> nn.Module:
    """Return one tower of a model with random weights. What open_clip raises comes through."""
    if tower == "vision":
        parts = {"vision_cfg": config["vision_cfg"], "text_cfg": SMALLEST_TEXT}
    else:
        parts = {"vision_cfg": SMALLEST_VISION, "text_cfg": config["text_cfg"]}
    with quiet():
        model = open_clip.CustomTextCLIP(config["embed_dim"], quick_gelu=config["quick_gelu"], **parts)
    created: nn.Module = model.visual if tower == "vision" else model.text
    return created


def pretrained_state(model: str, tag: str | None, tower: Tower, image_size: int | None = None) -> dict[str, Tensor]:
    """Return the pretrained weights of one tower, named as in `create_tower`.

    Raises:
        SpecError: no tag was given.
        HubError: the weights cannot be fetched.
    """
    if tag is None:
        tags = open_clip.list_pretrained_tags_by_model(model)
        hint = f"Name them: {either([f'open-clip:{model}@{name}' for name in tags])}." if tags else ""
        raise SpecError(
            f"open-clip:{model} does not say which pretrained weights. {hint or 'It has none: add random.'}"
        )
    quick_gelu = weights_config(model, tag).get("quick_gelu", False)
    try:
        with quiet():
            whole = open_clip.create_model(
                model, pretrained=tag, force_quick_gelu=quick_gelu, force_image_size=image_size, require_pretrained=True
            )
    except (OSError, RuntimeError, ValueError) as error:  # each layer of the download raises a class of its own
        raise HubError(
            f"open-clip:{model}@{tag}: its weights could not be fetched ({first_line(error)}). Connect to the Hub once "
            f"to fill the cache, or start from random weights with the clause 'random {tower}'."
        ) from error
    if tower == "vision":
        return dict(whole.visual.state_dict())
    if hasattr(whole, "text"):
        return dict(whole.text.state_dict())
    others = ("visual.", "logit_scale", "logit_bias")  # a plain CLIP holds its text tower in itself
    return {name: value for name, value in whole.state_dict().items() if not name.startswith(others)}


def pretrained_commit(model: str, tag: str | None) -> str | None:
    """Return the commit of the Hub from which the weights in the local cache came; None if they came from elsewhere."""
    from huggingface_hub import try_to_load_from_cache

    repository = weights_config(model, tag).get("hf_hub", "").strip("/")
    if repository.count("/") != 1:
        return None
    for file in WEIGHT_FILES:
        path = try_to_load_from_cache(repository, file)
        if isinstance(path, str):
            return path.replace("\\", "/").split("/snapshots/")[1].split("/")[0]
    return None


def refusal(model: str, error: Exception) -> str:
    """Return the message for options that open_clip does not accept."""
    return f"open-clip:{model} cannot be built with these options ({first_line(error)}). Change its overrides."


def _fields(tower: Tower) -> set[str]:
    config = open_clip.CLIPVisionCfg if tower == "vision" else open_clip.CLIPTextCfg
    return set(config.__dataclass_fields__)
