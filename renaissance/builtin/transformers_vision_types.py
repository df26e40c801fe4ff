"""What is known of each type of `transformers` vision encoder without torch and without the library.

`side` of a type tells the side of a token in pixels from the values of a config, where images must be its multiples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from renaissance.api import Positions

Values = Mapping[str, Any]
Side = Callable[[Values], int]

IMAGE_SIZE = 224
BASE = {"hidden_size": 768, "num_hidden_layers": 12}

SWIN_REFUSED = (
    "its windows and its down-sampling need a grid of patches: a text has no place in it; the paper's Swin arm cannot "
    "be reproduced faithfully"
)
WINDOWS = "its windows and its down-sampling need a grid of patches: a text has no place in it"
CONVOLUTIONS = "its convolutions and its down-sampling need a grid of pixels: a text has no place in it"
DOWN_SAMPLING = "it down-samples the grid of its patches from stage to stage: a text has no place in it"
NO_MASK = "its blocks take no mask, so that nothing could keep the padding of texts out"


@dataclass(frozen=True, slots=True)
class VisionType:
    """What is known of a model type.

    positions: None where its config decides. refused: why no one-tower model can be based on it, "" where one can.
    class_token: None where its config decides. side: None where it takes images of any size. defaults: the library's
    values of what `side` reads, of the image size, and of width and depth where all blocks are alike.
    """

    positions: Positions | None = "absolute"
    refused: str = ""
    class_token: bool | None = True
    side: Side | None = lambda values: one(values["patch_size"])
    defaults: Values = field(default_factory=lambda: {**BASE, "patch_size": 16})

    def size_step(self, changes: Values) -> int | None:
        """Return what image sides must be multiples of where the config has these values; None: any size will do."""
        return None if self.side is None else self.side({**self.defaults, **changes})

    def size(self, name: str, changes: Values) -> int | None:
        """Return the size that a config with these values has by this name; None: the config alone tells."""
        value = changes.get(name, self.defaults.get(name))
        return value if isinstance(value, int) else None

    def image_size(self, changes: Values) -> int:
        """Return the side of the images in pixels where the config has these values."""
        return one(changes.get("image_size", self.defaults.get("image_size", IMAGE_SIZE)))


def one(size: Any) -> int:
    """Return the side of a square that a config gives as a number or as a pair."""
    return int(size[0] if isinstance(size, (list, tuple)) else size)


def doubling(values: Values) -> int:
    """Return the side after stages of which each but the first doubles it."""
    return one(values["patch_size"]) << (len(values["depths"]) - 1)


def product_of(name: str) -> Side:
    """Return the side where the config lists the stride of each stage under this name."""
    return lambda values: math.prod(values[name])


def pooled_queries(values: Values) -> int:
    """Return the side in Hiera, whose queries are pooled after some of its stages."""
    return math.prod([one(values["patch_stride"]), *[one(values["query_stride"])] * int(values["num_query_pool"])])


STAGES = {"patch_size": 4, "depths": [2, 2, 6, 2]}


def _down_sampling(
    refused: str, side: Side | None, defaults: Values, *, class_token: bool = False, positions: Positions = "none"
) -> VisionType:
    return VisionType(positions, refused, class_token, side, defaults)


def _any_size(image_size: int = IMAGE_SIZE) -> VisionType:
    return _down_sampling(CONVOLUTIONS, None, {"image_size": image_size})


_STRIDES = {"strides": [4, 2, 2, 2]}
_PATCHES_14 = {**BASE, "patch_size": 14}
_PATCHES_32 = {**BASE, "patch_size": 32}

VISION_TYPES: Mapping[str, VisionType] = {
    # one by one in blocks that are alike
    "vit": VisionType(),
    "deit": VisionType(),
    "dinov2": VisionType(defaults=_PATCHES_14),
    "dinov2_with_registers": VisionType(),
    "dinov3_vit": VisionType(
        positions="rope", defaults={"hidden_size": 384, "num_hidden_layers": 12, "patch_size": 16}
    ),
    "beit": VisionType(positions=None, class_token=None),
    "ijepa": VisionType(class_token=False),
    "vit_msn": VisionType(),
    "vit_mae": VisionType(),
    "clip": VisionType(defaults=_PATCHES_32),
    "clip_vision_model": VisionType(defaults=_PATCHES_32),
    "chinese_clip": VisionType(defaults=_PATCHES_32),
    "chinese_clip_vision_model": VisionType(defaults=_PATCHES_32),
    "siglip": VisionType(class_token=False),
    "siglip_vision_model": VisionType(class_token=False),
    # as a whole
    "data2vec-vision": VisionType(positions=None, refused=NO_MASK),
    "internvl_vision": VisionType(refused=NO_MASK, defaults={"patch_size": 14, "image_size": 448}),
    "vitdet": VisionType(positions=None, refused=NO_MASK, class_token=False),
    "swin": _down_sampling(SWIN_REFUSED, doubling, STAGES, positions="relative"),
    "swinv2": _down_sampling(WINDOWS, doubling, STAGES, positions="relative"),
    "donut-swin": _down_sampling(WINDOWS, doubling, STAGES, positions="relative"),
    "focalnet": _down_sampling(DOWN_SAMPLING, doubling, STAGES),
    "hiera": _down_sampling(
        WINDOWS, pooled_queries, {"patch_stride": [4, 4], "query_stride": [2, 2], "num_query_pool": 3}
    ),
    "pvt": _down_sampling(DOWN_SAMPLING, product_of("strides"), _STRIDES, class_token=True, positions="absolute"),
    "pvt_v2": _down_sampling(DOWN_SAMPLING, product_of("strides"), _STRIDES),
    "segformer": _down_sampling(DOWN_SAMPLING, product_of("strides"), _STRIDES),
    "glpn": _down_sampling(DOWN_SAMPLING, product_of("strides"), _STRIDES),
    "poolformer": _down_sampling(DOWN_SAMPLING, product_of("strides"), _STRIDES),
    "cvt": _down_sampling(DOWN_SAMPLING, product_of("patch_stride"), {"patch_stride": [4, 2, 2]}, class_token=True),
    "mobilevit": _down_sampling(
        DOWN_SAMPLING, lambda values: int(values["output_stride"]), {"output_stride": 32, "image_size": 256}
    ),
    "swiftformer": _down_sampling(DOWN_SAMPLING, lambda values: 32, {}),
    "convnext": _down_sampling(CONVOLUTIONS, doubling, {"patch_size": 4, "depths": [3, 3, 9, 3]}),
    "convnextv2": _down_sampling(CONVOLUTIONS, doubling, {"patch_size": 4, "depths": [3, 3, 9, 3]}),
    "dinov3_convnext": _down_sampling(
        CONVOLUTIONS, lambda values: 4 << (len(values["depths"]) - 1), {"depths": [3, 3, 9, 3]}, class_token=True
    ),
    "resnet": _any_size(),
    "regnet": _any_size(),
    "bit": _any_size(),
    "efficientnet": _any_size(600),
    "mobilenet_v1": _any_size(),
    "mobilenet_v2": _any_size(),
    "textnet": _any_size(640),
}
