"""EfficientNet-Lite0 as a vision backbone: timm's modules, weights from a package.

Letters in shapes: V images, N tokens, D width, C channels, H and W pixels, h and w of a feature map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from renaissance.api import Features, SavedBackbone, VisionInput, Weights
from renaissance.errors import CapabilityError, ModelFileError
from renaissance.toolkit.building import build_empty
from renaissance.toolkit.images import ImageProcessor
from renaissance.toolkit.layered import LayerState, layer_indices
from renaissance_plugin_packaged.entries import EfficientNetOptions
from renaissance_plugin_packaged.files import EFFICIENTNET_WEIGHTS

ARCHITECTURE = "tf_efficientnet_lite0"
# the weights were trained on (x - 127) / 128 of pixels from 0 to 255
MEAN, STD = 127 / 255, 128 / 255


class EfficientNet(nn.Module):
    """The stem, the stages and the last convolution of EfficientNet-Lite0; its blocks are the stages."""

    class_token = False
    revision: str | None = None

    def __init__(self, model: Any, processor: ImageProcessor) -> None:
        """Take the parts of timm's model that come before its pooling."""
        super().__init__()
        self.stem = nn.Sequential(model.conv_stem, model.bn1)
        self.stages = cast(nn.Sequential, model.blocks)
        self.head = nn.Sequential(model.conv_head, model.bn2)
        self.embeddings: Sequence[nn.Module] = (self.stem,)
        self.blocks: Sequence[nn.Module] = tuple(self.stages)
        self.final: Sequence[nn.Module] = (self.head,)
        self.width: int = model.num_features
        self.processor = processor

    def forward(self, inputs: VisionInput, layers: Sequence[int] = ()) -> Features:
        """Encode pixels [V, 3, H, W]; return tokens [V, N, D], and each stage asked for as tokens [V, h * w, C].

        Raises:
            CapabilityError: the images are padded or masked.
            SpecError: there is no such stage.
        """
        wanted = layer_indices(layers, len(self.stages))
        outputs: list[Tensor] = []
        state = self.embed(inputs)
        for index in range(len(self.stages)):
            state = self.step(index, state)
            outputs.append(state.hidden)
        return replace(self.finish(state), layers=tuple(outputs[index] for index in wanted))

    def embed(self, inputs: VisionInput) -> LayerState:
        """Return the feature map before the first stage, as tokens [V, h * w, C] row by row.

        Raises:
            CapabilityError: the images are padded or masked.
        """
        if inputs.mask is not None or inputs.masked_patches is not None:
            raise CapabilityError(
                "packaged:efficientnet-lite0 takes no padded images and no masked patches. Choose another backbone."
            )
        dtype = next(self.parameters()).dtype
        return _state(self.stem(self.processor.normalise(inputs.pixels).to(dtype)))

    def step(self, index: int, state: LayerState) -> LayerState:
        """Run one stage on a feature map, given and returned as tokens [V, h * w, C]."""
        return _state(self.stages[index](_map(state)))

    def finish(self, state: LayerState) -> Features:
        """Return the tokens [V, N, D] of the last feature map, and their mean [V, D]."""
        last = _state(self.head(_map(state)))
        return Features(last.hidden, last.mask, last.hidden.mean(dim=1))

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write the preprocessing; return the config from which `build` builds the backbone again."""
        self.processor.save(folder)
        return {"architecture": ARCHITECTURE}


def build(options: EfficientNetOptions, *, weights: Weights, saved: SavedBackbone | None = None) -> EfficientNet:
    """Return EfficientNet-Lite0 as a backbone.

    Raises:
        MissingPackageError: the package with the weights is not installed.
        ModelFileError: its file is damaged, or a saved model is not one of this backbone.
    """
    match weights:
        case "pretrained":
            return EfficientNet(_pretrained(), _processor(options))
        case "random":
            return EfficientNet(_create(), _processor(options))
        case "none":
            assert saved is not None, "weights='none' builds from a saved config"
            return _rebuilt(saved)


def _create() -> Any:
    return timm.create_model(ARCHITECTURE)


def _rebuilt(saved: SavedBackbone) -> EfficientNet:
    if dict(saved.config) != {"architecture": ARCHITECTURE}:
        raise ModelFileError(
            f"The saved config {dict(saved.config)!r} is not one of packaged:efficientnet-lite0. "
            "Save or download the model again."
        )
    return EfficientNet(build_empty(_create), ImageProcessor.load(saved.folder))


def _processor(options: EfficientNetOptions) -> ImageProcessor:
    return ImageProcessor(
        (options.image_size, options.image_size),
        crop=options.crop,
        resize=options.resize,
        interpolation="bicubic",
        mean=(MEAN, MEAN, MEAN),
        std=(STD, STD, STD),
    )


def _pretrained() -> Any:
    """Return timm's model with the weights of the package.

    Their names differ but for the last word ("running_mean"), and both list the tensors in the order of the forward:
    last word, shape and dtype of each must fit.
    """
    path = EFFICIENTNET_WEIGHTS.locate()
    given: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    model = build_empty(_create)
    expected = model.state_dict()
    if _outline(given) != _outline(expected):
        raise ModelFileError(
            f"The tensors of {path.name} do not fit {ARCHITECTURE} of timm {timm.__version__}. "
            "Install the version of timm that renaissance was tested with."
        )
    model.load_state_dict(dict(zip(expected, given.values(), strict=True)), strict=True, assign=True)
    return model


def _outline(tensors: Mapping[str, Tensor]) -> list[tuple[str, torch.Size, torch.dtype]]:
    return [(name.rpartition(".")[2], tensor.shape, tensor.dtype) for name, tensor in tensors.items()]


def _state(feature_map: Tensor) -> LayerState:
    """Return a feature map [V, C, h, w] as tokens [V, h * w, C], row by row."""
    tokens = feature_map.flatten(2).transpose(1, 2)
    return LayerState(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device), ())


def _map(state: LayerState) -> Tensor:
    """Return the feature map [V, C, h, h] of a state; images are square.

    Contiguous, as tokens that were read of a store are not laid out like those that a stage gave, and convolutions
    choose their kernel by that.
    """
    side = math.isqrt(state.hidden.shape[1])
    return state.hidden.transpose(1, 2).unflatten(2, (side, side)).contiguous()
