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

Letters in shapes: V images, N tokens, D width, H and W height and width in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn

from renaissance.api import Features, SavedBackbone, VisionInput, Weights
from renaissance.builtin.open_clip_kinds import Kind, State, best_pooling, kind_of
from renaissance.builtin.open_clip_library import (
    chosen_config,
    create_tower,
    pretrained_commit,
    pretrained_state,
    refusal,
    weights_config,
)
from renaissance.errors import CapabilityError, ModelFileError, RenaissanceError, SpecError
from renaissance.toolkit.building import build_empty, drop_parts, unused_parts
from renaissance.toolkit.images import ImageProcessor
from renaissance.toolkit.layered import layer_indices

if TYPE_CHECKING:
    from renaissance.builtin.open_clip_entries import OpenClipVisionOptions

RESIZE_MODES = {"shortest": "shortest", "squash": "squash"}


class OpenClipVision(nn.Module):
    """The vision tower of an open_clip model.

    grid: rows and columns of tokens, None where the tokens are no grid; num_prefix_tokens: tokens before the grid.
    """

    def __init__(
        self, visual: Any, processor: ImageProcessor, *, facts: Mapping[str, Any], revision: str | None = None
    ) -> None:
        super().__init__()
        self.visual = visual
        self.processor = processor
        self.width: int = facts["width"]
        self.grid: tuple[int, int] | None = tuple(facts["grid"]) if facts["grid"] else None
        self.num_prefix_tokens: int = facts["num_prefix_tokens"]
        self.class_token: bool = facts["class_token"]
        self.revision = revision
        self._facts = dict(facts)
        self._kind: Kind = kind_of(visual)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The blocks of a transformer in order; empty for others."""
        return self._kind.blocks(self.visual)

    @property
    def embeddings(self) -> Sequence[nn.Module]:
        """What comes before the blocks: modules, and a view of the parameters that sit on the tower itself."""
        return self._kind.embeddings(self.visual)

    @property
    def final(self) -> Sequence[nn.Module]:
        """The modules after the last block; with a view of the projection, if it is kept."""
        return self._kind.final(self.visual)

    def forward(self, inputs: VisionInput, layers: Sequence[int] = ()) -> Features:
        """Encode pixels [V, 3, H, W]; return tokens [V, N, D].

        Raises:
            SpecError: the size of the images is not the tower's, or a layer does not exist.
            CapabilityError: the images are padded or masked, or the tower has no layers to give.
        """
        depth = len(self.blocks)
        if layers and not depth:
            raise CapabilityError(
                f"open-clip:{self._name} cannot give its layers. Choose another backbone for this head."
            )
        wanted = layer_indices(layers, depth)
        state = self.embed(inputs)
        outputs = {}
        for index in range(depth):
            state = self.step(index, state)
            if index in wanted:
                outputs[index] = state[0]
        return self._features(state, tuple(outputs[index] for index in wanted))

    def embed(self, inputs: VisionInput) -> State:
        """Return tokens [V, N, D] before the first block, and what all blocks share or None."""
        return self._kind.embed(self.visual, self._normalised(inputs))

    def step(self, index: int, state: State) -> State:
        """Run one block."""
        return self._kind.step(self.visual, index, state)

    def finish(self, state: State) -> Features:
        """Return the tokens after the final norm, and the pooled vector."""
        return self._features(state, ())

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write `preprocessor.json` into `folder`; return the config from which `build` builds the tower again."""
        self.processor.save(folder)
        return {**self._facts, "commit": self.revision}

    def _features(self, state: State, layers: tuple[Tensor, ...]) -> Features:
        output = self._kind.finish(self.visual, state)
        pooled = self._kind.pool(self.visual, output, self._facts["pooling"])  # [V, D]
        mask = torch.ones(output.tokens.shape[:2], dtype=torch.bool, device=output.tokens.device)
        return Features(output.tokens, mask, pooled, layers)

    def _normalised(self, inputs: VisionInput) -> Tensor:
        """Return pixels [V, 3, H, W] as the tower takes them."""
        if inputs.mask is not None or inputs.masked_patches is not None:
            raise CapabilityError(
                f"open-clip:{self._name} takes no padded images and no masked patches. Choose another."
            )
        size = tuple(inputs.pixels.shape[-2:])
        if size != self.processor.image_size:
            raise SpecError(
                f"open-clip:{self._name} was built for images of {self.processor.image_size}, these have {size}. "
                "Prepare them with its processor, or build it with image_size."
            )
        return self.processor.normalise(inputs.pixels).to(next(self.parameters()).dtype)

    @property
    def _name(self) -> str:
        name: str = self._facts["model"]
        return name


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
    if options.image_size is not None:
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
        facts = _measure(visual, processor, options, config)
    except RenaissanceError:
        raise
    except Exception as error:  # open_clip checks little: a wrong option may fail anywhere in its code
        raise SpecError(refusal(options.model, error)) from error
    commit = pretrained_commit(options.model, options.revision) if weights == "pretrained" else None
    return OpenClipVision(visual, processor, facts=facts, revision=commit)


def _rebuild(saved: SavedBackbone) -> OpenClipVision:
    """Return the tower without weights: nothing is initialised that loading overwrites."""
    facts = {key: value for key, value in saved.config.items() if key != "commit"}
    processor = ImageProcessor.load(saved.folder)
    try:
        visual = build_empty(lambda: _created(facts["config"], processor))
        kind_of(visual).cut(visual, facts["depth"])
        drop_parts(visual, facts["unused"])
        return OpenClipVision(visual, processor, facts=facts, revision=saved.config.get("commit"))
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
        state = kind.embed(visual, torch.linspace(-1, 1, math.prod(shape)).reshape(shape))
        for index in range(len(kind.blocks(visual))):
            state = kind.step(visual, index, state)
        output = kind.finish(visual, state)
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
