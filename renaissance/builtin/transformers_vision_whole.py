"""Vision encoders of `transformers` that run as a whole: their stages differ, or their blocks take no mask.

One reading fits them all: what the library gives, tokens or a feature map, becomes tokens, the class token first (if
there is one) and then the grid row by row. Nothing in a config tells width and grid for every family, so the model is
run once when it is built; what its tokens do not depend on (poolers, the norms of classifiers) is dropped.

Letters in shapes: V images, N tokens, D width, H and W height and width in pixels, h and w of a feature map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from renaissance.api import Features, VisionInput
from renaissance.builtin.transformers_plain import plain_model
from renaissance.builtin.transformers_refusals import refuse_layers
from renaissance.builtin.transformers_vision_pixels import normalised
from renaissance.builtin.vision_base import all_real
from renaissance.errors import RenaissanceError, SpecError
from renaissance.toolkit.building import drop_parts, unused_parts
from renaissance.toolkit.images import ImageProcessor


class WholeVision(nn.Module):
    """A vision encoder that runs as the library runs it; without a class token it pools by the mean.

    grid: rows and columns of its tokens. `config` is what it is built again from.
    """

    def __init__(self, model: nn.Module, processor: ImageProcessor, config: Mapping[str, Any]) -> None:
        super().__init__()
        facts = config["facts"]
        self.model = model
        self.blocks: Sequence[nn.Module] = ()
        self.embeddings: Sequence[nn.Module] = ()
        self.final: Sequence[nn.Module] = ()
        self.width: int = facts["width"]
        self.grid: tuple[int, int] = (facts["side"], facts["side"])
        self.prefix_tokens: int = facts["prefix"]
        self.class_token = self.prefix_tokens > 0
        self.processor = processor
        self.config = config
        self.revision: str | None = config["revision"]

    def forward(self, inputs: VisionInput, layers: Sequence[int] = ()) -> Features:
        """Encode pixels [V, 3, H, W]; return tokens [V, N, D].

        Raises:
            SpecError: the pixels have another size than `processor.image_size`, or layers are asked for.
        """
        refuse_layers(layers)
        tokens = tokens_of(self.model, normalised(inputs, self.processor, self.model))
        return Features(tokens, all_real(tokens), tokens[:, 0] if self.class_token else tokens.mean(1))

    def to_transformers(self) -> nn.Module:
        """Return a copy as a plain model of `transformers`.

        Raises:
            CapabilityError: it has adapters.
        """
        return plain_model(self.model, (), "", self.config, add_pooling_layer=False)

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write the preprocessing; return the config."""
        self.processor.save(folder)
        return self.config


def tokens_of(model: nn.Module, pixels: Tensor) -> Tensor:
    """Return the tokens [V, N, D] that the model makes of pixels [V, 3, H, W]."""
    output = model(pixel_values=pixels)
    tokens: Tensor = output.last_hidden_state
    if tokens.dim() == 4:  # [V, D, h, w]
        tokens = tokens.flatten(2).transpose(1, 2)
    if getattr(output, "cls_token_value", None) is not None:  # CvT's stands beside its map
        tokens = torch.cat([output.cls_token_value, tokens], dim=1)
    return tokens


def measured(model: nn.Module, processor: ImageProcessor, name: str) -> dict[str, Any]:
    """Run the model once and drop what its tokens do not depend on; return its facts, JSON-able.

    Raises:
        SpecError: it cannot take images of this size, or its tokens are no grid.
    """
    tokens = _probe(model, processor, name)
    unused = unused_parts(model, (tokens,))
    drop_parts(model, unused)
    side = math.isqrt(tokens.shape[1])
    prefix = tokens.shape[1] - side * side
    if prefix > 1:
        raise SpecError(f"{name} gives {tokens.shape[1]} tokens that are no square grid. Choose another model.")
    return {"width": tokens.shape[-1], "side": side, "prefix": prefix, "unused": list(unused)}


def _probe(model: nn.Module, processor: ImageProcessor, name: str) -> Tensor:
    """Return the tokens [1, N, D] of one image, with their graph."""
    shape = (1, 3, *processor.image_size)
    pixels = torch.linspace(-1, 1, math.prod(shape), device=next(model.parameters()).device).reshape(shape)
    was_training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            return tokens_of(model, pixels)
    except RenaissanceError:
        raise
    except Exception as error:  # the library checks little: sizes that do not fit may fail anywhere in its code
        height, width = processor.image_size
        raise SpecError(
            f"{name} cannot take images of {height} x {width} pixels with these sizes ({_reason(error)}). Choose "
            "another image_size, or leave out the overrides."
        ) from None
    finally:
        model.train(was_training)


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
