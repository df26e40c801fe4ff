"""Building image models of the timm library as vision backbones.

Models whose only final norm stands behind their pooling (BEiT, EVA-02) have it applied to each token instead.
Classifiers, poolers and whatever else the tokens do not depend on are dropped.

Letters in shapes: N tokens, D width, H and W height and width in pixels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from renaissance.api import SavedBackbone, Weights
from renaissance.builtin.timm_blocks import enumeration_of, let_others_join
from renaissance.builtin.timm_library import (
    create_pretrained,
    create_random,
    image_processor,
    pretrained_commit,
    refusal,
    resolve_name,
)
from renaissance.builtin.timm_towers import LayeredTimmVision, TimmVision
from renaissance.builtin.timm_towers import row_major as row_major  # open_clip has timm models inside
from renaissance.builtin.timm_towers import vit_embeddings as vit_embeddings
from renaissance.builtin.vision_base import resized_facts, shapes
from renaissance.errors import ModelFileError, RenaissanceError, SpecError
from renaissance.toolkit.building import build_empty, drop_parts, unused_parts
from renaissance.toolkit.images import ImageProcessor

if TYPE_CHECKING:
    from renaissance.builtin.timm_entries import TimmOptions


def build(options: TimmOptions, *, weights: Weights, saved: SavedBackbone | None = None) -> TimmVision:
    """Return a timm model as a backbone.

    Raises:
        UnknownComponentError: timm has no such model.
        SpecError: the model does not accept the options, or gives no tokens.
        HubError: its weights cannot be fetched.
        ModelFileError: `saved` is not what `TimmVision.save` returned, or does not fit the installed timm.
    """
    if weights == "none":
        assert saved is not None, "weights='none' builds from a saved config"
        return _rebuild(options, saved)
    name = resolve_name(options.model)
    model = _created(name, options, pretrained=weights == "pretrained")
    _move_norm_to_tokens(model)
    _cut(model, options.layers, name)
    processor = image_processor(model, options.image_size)
    facts = _measure(model, processor, name, options)
    if weights == "pretrained" and options.image_size is not None:
        before = shapes(build_empty(lambda: create_random(name, options, None)))
        facts |= resized_facts(before, model, "model")
    revision = pretrained_commit(model, options.revision) if weights == "pretrained" else None
    return _tower(model, processor, facts, revision)


def _tower(model: Any, processor: ImageProcessor, facts: dict[str, Any], revision: str | None) -> TimmVision:
    enumeration = enumeration_of(model)
    if enumeration is None:
        return TimmVision(model, processor, facts=facts, revision=revision)
    let_others_join(model)
    tower = LayeredTimmVision(model, enumeration, processor, facts=facts, revision=revision)
    if facts.get("embeddings_only", False):
        tower.keep_embeddings()
    return tower


def _created(name: str, options: TimmOptions, *, pretrained: bool) -> Any:
    if pretrained:
        return create_pretrained(name, options, options.image_size)
    try:
        return create_random(name, options, options.image_size)
    except RenaissanceError:
        raise
    except Exception as error:  # timm checks little: a wrong option may fail anywhere in its code
        raise SpecError(refusal(name, error)) from error


def _rebuild(options: TimmOptions, saved: SavedBackbone) -> TimmVision:
    """Return the model without weights: nothing is initialised that loading overwrites."""
    facts = {key: value for key, value in saved.config.items() if key != "revision"}
    processor = ImageProcessor.load(saved.folder)
    try:
        chosen = options.model_validate(facts["options"])
        model = build_empty(lambda: create_random(chosen.model, chosen, _side(processor.image_size)))
        _move_norm_to_tokens(model)
        _cut(model, chosen.layers, chosen.model)
        drop_parts(model, facts["unused"])
        return _tower(model, processor, facts, saved.config.get("revision"))
    except Exception as error:  # whatever fails here, the saved config and the installed timm do not fit each other
        raise ModelFileError(
            f"The saved config of a timm model does not fit the installed timm ({type(error).__name__}: {error}). "
            "Install the version of timm that the model was saved with."
        ) from error


def _side(size: tuple[int, int]) -> int | tuple[int, int]:
    return size[0] if size[0] == size[1] else size


def _measure(model: Any, processor: ImageProcessor, name: str, options: TimmOptions) -> dict[str, Any]:
    """Run the model once, drop what its tokens do not depend on, and return its facts, JSON-able."""
    output = _probe(model, processor, name)
    unused = unused_parts(model, (output,))
    drop_parts(model, unused)
    if unused and not output.is_meta:
        assert torch.equal(_probe(model, processor, name), output), f"timm:{name} uses a part that seemed unused"
    tokens = row_major(model, output)
    grid = token_grid(model, output, processor.image_size)
    if grid is None:
        raise SpecError(f"timm:{name} gives {tokens.shape[1]} tokens that are no grid. Choose another vision backbone.")
    prefix = tokens.shape[1] - grid[0] * grid[1]
    settings = getattr(model, "pretrained_cfg", None) or {}
    return {
        "options": options.model_copy(update={"model": name}).model_dump(mode="json"),
        "fixed_size": bool(settings.get("fixed_input_size", False)),
        "width": tokens.shape[-1],
        "grid": list(grid),
        "num_prefix_tokens": prefix,
        "class_token": prefix > 0 and has_class_token(model),
        "unused": list(unused),
    }


def _probe(model: Any, processor: ImageProcessor, name: str) -> Tensor:
    """Return what the model makes of one image, [1, N, D], [1, D, H, W] or [1, H, W, D], with its graph."""
    shape = (1, 3, *processor.image_size)
    # the device is named, as transformers swaps torch.linspace while it loads: the context of a device, which notes
    # torch's functions at its first use, then no longer knows it
    pixels = torch.linspace(-1, 1, math.prod(shape), device=next(model.parameters()).device).reshape(shape)
    was_training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            output = model.forward_features(pixels)
    except Exception as error:  # timm checks little: a size that does not fit may fail anywhere in its code
        raise SpecError(refusal(name, error)) from error
    finally:
        model.train(was_training)
    if not isinstance(output, Tensor) or output.dim() not in (3, 4):
        raise SpecError(f"timm:{name} gives neither tokens nor a feature map. Choose another vision backbone.")
    return output


def token_grid(model: Any, output: Tensor, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """Return rows and columns of the token grid, or None; nothing in timm tells them for every model."""
    if output.dim() == 4:
        rows, columns = output.shape[1:3] if getattr(model, "output_fmt", "NCHW") == "NHWC" else output.shape[2:]
        return rows, columns
    cells = output.shape[1] - getattr(model, "num_prefix_tokens", max(map(len, _class_tokens(model)), default=0))
    if cells < 1:
        return None
    reduction = model.feature_info[-1]["reduction"] if getattr(model, "feature_info", None) else 1
    height, width = image_size
    candidates = (
        getattr(getattr(model, "patch_embed", None), "grid_size", None),
        (height // reduction, width // reduction),
        (math.isqrt(cells), math.isqrt(cells)),
    )
    for candidate in candidates:
        if candidate is not None and candidate[0] * candidate[1] == cells:
            return candidate[0], candidate[1]
    return None


def has_class_token(model: nn.Module) -> bool:
    """Whether the model has a class token, which then is token 0."""
    return bool(_class_tokens(model))


def _class_tokens(model: nn.Module) -> list[Tensor]:
    """Return its class tokens [1, D], or several in one tensor; models of several scales (CoaT) number theirs."""
    named = ((name.rpartition(".")[2], parameter) for name, parameter in model.named_parameters())
    return [parameter.flatten(0, -2) for name, parameter in named if name.rstrip("0123456789") == "cls_token"]


def _move_norm_to_tokens(model: Any) -> None:
    """Let tokens end in a norm: some ViT-like models have theirs behind the pooling, which is dropped."""
    behind_pooling = getattr(model, "fc_norm", None)
    if isinstance(getattr(model, "norm", None), nn.Identity) and behind_pooling is not None:
        model.norm, model.fc_norm = behind_pooling, nn.Identity()


def _cut(model: Any, layers: int | None, name: str) -> None:
    """Keep the first `layers` blocks.

    Raises:
        SpecError: the model is no fold of blocks, or has fewer.
    """
    if layers is None:
        return
    if enumeration_of(model) is None:
        raise SpecError(f"timm:{name} is not made of equal blocks, so it cannot be cut. Drop the slice.")
    if layers > len(model.blocks):
        raise SpecError(f"timm:{name} has {len(model.blocks)} blocks; {layers} cannot be kept. Ask for fewer.")
    model.blocks = model.blocks[:layers]
