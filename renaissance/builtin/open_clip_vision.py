"""Vision towers of open_clip models as vision backbones.

| tower | tokens |
|---|---|
| transformer | class token, then the grid row by row, all after the final norm |
| transformer with attentional pooling (CoCa) | the outputs of the pooling's queries, after the final norm; no grid |
| ResNet | the last feature map row by row |
| timm model | as `forward_features` gives them, a feature map row by row |

The pooled vector is the image feature that the model compares with texts. Where its projection changes the width, the
vector before the projection is given and the projection is dropped; where that too has another width than the tokens,
it is their mean. Only the vision tower is kept, and of it only what these outputs depend on.

Letters in shapes: V images, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from renaissance.api import SavedBackbone, Weights
from renaissance.builtin.open_clip_kinds import best_pooling, kind_of
from renaissance.builtin.open_clip_library import (
    chosen_config,
    create_tower,
    pretrained_commit,
    pretrained_state,
    refusal,
    weights_config,
)
from renaissance.builtin.open_clip_towers import JointOpenClipVision, OpenClipVision
from renaissance.builtin.timm_blocks import let_others_join
from renaissance.builtin.vision_base import resized_facts, shapes
from renaissance.errors import ModelFileError, RenaissanceError, SpecError
from renaissance.toolkit.building import build_empty, drop_parts, unused_parts
from renaissance.toolkit.images import ImageProcessor

if TYPE_CHECKING:
    from renaissance.builtin.open_clip_entries import OpenClipVisionOptions

RESIZE_MODES = {"shortest": "shortest", "squash": "squash"}


def build(options: OpenClipVisionOptions, *, weights: Weights, saved: SavedBackbone | None = None) -> OpenClipVision:
    """Return the vision tower of an open_clip model as a backbone.

    Raises:
        UnknownComponentError: open_clip has no such model, or the model no such weights.
        SpecError: the model does not accept the options.
        HubError: its weights cannot be fetched.
        ModelFileError: `saved` is not what `OpenClipVision.save` returned, or does not fit the installed open_clip.
    """
    if weights == "none":
        assert saved is not None, "weights='none' builds from a saved config"
        return _rebuild(saved)
    if weights == "pretrained" and options.overrides:
        raise SpecError(
            f"open-clip:{options.model}: pretrained weights fit no overrides. Drop these, or add 'random vision'."
        )
    config = chosen_config(options.model, options.revision, "vision", options.overrides)
    before = {}
    if options.image_size is not None:
        before = _shapes_of_weights(config, options) if weights == "pretrained" else {}
        config["vision_cfg"]["image_size"] = options.image_size
    state = None
    if weights == "pretrained":
        state = pretrained_state(options.model, options.revision, "vision", options.image_size)
    processor = _processor(options, config["vision_cfg"].get("image_size", 224))
    try:
        visual = _created(config, processor)
        if state is not None:
            visual.load_state_dict(state, strict=True)
        _cut(visual, options)
        facts = _measure(visual, processor, options, config) | resized_facts(before, visual, "visual")
    except RenaissanceError:
        raise
    except Exception as error:  # open_clip checks little: a wrong option may fail anywhere in its code
        raise SpecError(refusal(options.model, error)) from error
    commit = pretrained_commit(options.model, options.revision) if weights == "pretrained" else None
    return _tower(visual, processor, facts, commit)


def _tower(visual: Any, processor: ImageProcessor, facts: Mapping[str, Any], commit: str | None) -> OpenClipVision:
    joins = kind_of(visual).positions(visual) is not None
    let_others_join(visual)
    return (JointOpenClipVision if joins else OpenClipVision)(visual, processor, facts=facts, revision=commit)


def _rebuild(saved: SavedBackbone) -> OpenClipVision:
    """Return the tower without weights: nothing is initialised that loading overwrites."""
    facts = {key: value for key, value in saved.config.items() if key != "commit"}
    processor = ImageProcessor.load(saved.folder)
    try:
        visual = build_empty(lambda: _created(facts["config"], processor))
        kind_of(visual).cut(visual, facts["depth"])
        drop_parts(visual, facts["unused"])
        tower = _tower(visual, processor, facts, saved.config.get("commit"))
        if isinstance(tower, JointOpenClipVision) and facts.get("tokens_only", False):
            tower.keep_tokens()
        if isinstance(tower, JointOpenClipVision) and facts.get("embeddings_only", False):
            tower.keep_embeddings()
        return tower
    except Exception as error:  # whatever fails here, the saved config and the installed open_clip do not fit
        raise ModelFileError(
            f"The saved config of an open_clip tower does not fit the installed open_clip ({type(error).__name__}: "
            f"{error}). Install the version of open_clip that the model was saved with."
        ) from error


def _created(config: Mapping[str, Any], processor: ImageProcessor) -> Any:
    visual: Any = create_tower(config, "vision")
    if hasattr(visual, "set_input_size"):  # open_clip builds timm towers at timm's size
        visual.set_input_size(processor.image_size)
    return visual


def _shapes_of_weights(config: Mapping[str, Any], options: OpenClipVisionOptions) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the published tensors: those of a tower at its own image size."""
    processor = _processor(options, config["vision_cfg"].get("image_size", 224))
    return shapes(build_empty(lambda: _created(config, processor)))


def _processor(options: OpenClipVisionOptions, image_size: int | Sequence[int]) -> ImageProcessor:
    """Return the preprocessing that the weights were evaluated with, or that of OpenAI's CLIP."""
    settings = weights_config(options.model, options.revision)
    mode, interpolation = settings.get("resize_mode", "shortest"), settings.get("interpolation", "bicubic")
    if mode not in RESIZE_MODES:
        raise SpecError(f"open_clip prepares images for {options.model} by {mode!r}, which renaissance cannot do.")
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return ImageProcessor(
        (height, width),
        resize=RESIZE_MODES[mode],  # type: ignore[arg-type]  # the table's values are the literals
        interpolation=interpolation,
        mean=tuple(settings.get("mean") or OPENAI_DATASET_MEAN),
        std=tuple(settings.get("std") or OPENAI_DATASET_STD),
    )


def _cut(visual: Any, options: OpenClipVisionOptions) -> None:
    kind = kind_of(visual)
    depth = len(kind.blocks(visual))
    if options.layers is None:
        return
    if options.layers > depth:
        raise SpecError(
            f"open-clip:{options.model} has {depth} blocks to cut; {options.layers} cannot be kept. Ask for fewer."
        )
    kind.cut(visual, options.layers)


def _measure(
    visual: Any, processor: ImageProcessor, options: OpenClipVisionOptions, config: Mapping[str, Any]
) -> dict[str, Any]:
    """Run the tower once, drop what its outputs do not depend on, and return its facts, JSON-able."""
    kind = kind_of(visual)
    shape = (1, 3, *processor.image_size)
    was_training = visual.training
    visual.eval()
    with torch.enable_grad():
        hidden, calls = kind.embed(visual, torch.linspace(-1, 1, math.prod(shape)).reshape(shape))
        for block, call in zip(kind.blocks(visual), calls, strict=True):
            hidden = block(hidden, **call.kwargs)
        output = kind.finish(visual, hidden)
        pooling, pooled = best_pooling(kind, visual, output)
    visual.train(was_training)
    unused = unused_parts(visual, (output.tokens, pooled))
    drop_parts(visual, unused)
    grid = output.grid
    return {
        "model": options.model if options.revision is None else f"{options.model}@{options.revision}",
        "config": {name: config[name] for name in ("embed_dim", "quick_gelu", "vision_cfg")},
        "width": output.tokens.shape[-1],
        "grid": None if grid is None else list(grid),
        "num_prefix_tokens": 0 if grid is None else output.tokens.shape[1] - grid[0] * grid[1],
        "class_token": output.class_token,
        "pooling": pooling,
        "depth": len(kind.blocks(visual)),
        "unused": list(unused),
    }
