"""Vision encoders of `transformers`, each at a small size from its model type alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.sweep.cases import Case

BLOCKS: Mapping[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "layers": 2,
    "width": 32,
    "heads": 2,
    "mlp_width": 64,
    "dropout": 0.1,
}
WITHOUT_DROPOUT = {name: value for name, value in BLOCKS.items() if name != "dropout"}


def _blocks(model: str, family: str, **overrides: Any) -> Case:
    return Case(f"transformers:{model}", "vision", family, {**BLOCKS, "overrides": overrides})


def _stages(model: str, family: str, image_size: int, **overrides: Any) -> Case:
    return Case(f"transformers:{model}", "vision", family, {"image_size": image_size, "overrides": overrides})


PYRAMID: Mapping[str, Any] = {
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [8, 16, 16, 32],
    "num_attention_heads": [1, 2, 2, 2],
    "mlp_ratios": [2, 2, 2, 2],
    "drop_path_rate": 0.1,
}
WINDOWS: Mapping[str, Any] = {
    "embed_dim": 16,
    "depths": [2, 1],
    "num_heads": [1, 2],
    "window_size": 4,
    "drop_path_rate": 0.1,
}

CASES: tuple[Case, ...] = (
    _blocks("vit", "ViT"),
    _blocks("deit", "DeiT"),
    _blocks("dinov2", "DINOv2", drop_path_rate=0.1),
    _blocks("dinov2_with_registers", "DINOv2 with registers", num_register_tokens=3),
    _blocks("dinov3_vit", "DINOv3", num_register_tokens=2, drop_path_rate=0.1),
    _blocks("beit", "BEiT", use_relative_position_bias=True, use_mean_pooling=False),
    _blocks("ijepa", "I-JEPA"),
    _blocks("vit_msn", "ViT-MSN"),
    _blocks("vit_mae", "ViT-MAE"),
    _blocks("clip_vision_model", "CLIP"),
    _blocks("chinese_clip_vision_model", "Chinese-CLIP"),
    _blocks("siglip_vision_model", "SigLIP"),
    _blocks("data2vec-vision", "Data2Vec", use_relative_position_bias=True),
    _blocks("internvl_vision", "InternVL"),
    Case(
        "transformers:vitdet",
        "vision",
        "ViTDet",
        {
            **{name: value for name, value in WITHOUT_DROPOUT.items() if name != "mlp_width"},
            "overrides": {"pretrain_image_size": 32, "drop_path_rate": 0.1},
        },
    ),
    _stages("swin", "Swin", 32, **WINDOWS),
    _stages("swinv2", "Swin v2", 32, **WINDOWS),
    _stages("donut-swin", "Donut-Swin", 32, **WINDOWS),
    _stages(
        "focalnet",
        "FocalNet",
        32,
        embed_dim=16,
        depths=[1, 1],
        hidden_sizes=[16, 32],
        focal_levels=[1, 1],
        focal_windows=[3, 3],
    ),
    _stages(
        "hiera",
        "Hiera",
        64,
        embed_dim=16,
        depths=[1, 1],
        num_heads=[1, 2],
        num_query_pool=1,
        masked_unit_size=[4, 4],
        masked_unit_attention=[True, False],
    ),
    _stages("pvt", "PVT", 96, **PYRAMID),
    _stages("pvt_v2", "PVT v2", 96, **PYRAMID),
    _stages("segformer", "SegFormer", 96, **PYRAMID),
    _stages("glpn", "GLPN", 96, **PYRAMID),
    _stages("poolformer", "PoolFormer", 96, depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 16, 32], drop_path_rate=0.1),
    _stages("cvt", "CvT", 64, embed_dim=[8, 16, 32], num_heads=[1, 2, 2], depth=[1, 2, 3]),
    _stages(
        "mobilevit",
        "MobileViT",
        224,
        hidden_sizes=[16, 16, 16],
        neck_hidden_sizes=[8, 8, 16, 16, 16, 16, 32],
        num_attention_heads=2,
    ),
    _stages("swiftformer", "SwiftFormer", 96, depths=[1, 1, 1, 1], embed_dims=[8, 16, 16, 32], drop_path_rate=0.1),
    _stages("convnext", "ConvNeXt", 32, hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, drop_path_rate=0.1),
    _stages("convnextv2", "ConvNeXt v2", 32, hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, drop_path_rate=0.1),
    _stages("dinov3_convnext", "DINOv3 ConvNeXt", 96, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1]),
    _stages("resnet", "ResNet", 32, embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1]),
    _stages("regnet", "RegNet", 32, embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1], groups_width=8),
    _stages("bit", "BiT", 32, embedding_size=32, hidden_sizes=[32, 64], depths=[1, 1], num_groups=4),
    _stages("efficientnet", "EfficientNet", 224, width_coefficient=0.25, depth_coefficient=0.25, hidden_dim=320),
    _stages("mobilenet_v1", "MobileNet v1", 224, depth_multiplier=0.5),
    _stages("mobilenet_v2", "MobileNet v2", 224, depth_multiplier=0.5),
    _stages("textnet", "TextNet", 224, hidden_sizes=[16, 16, 32, 64, 128], stem_out_channels=16),
)
