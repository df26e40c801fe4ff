"""A small CLIPModel with random weights, its checkpoint, and the options that describe it to the importer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

from tests.importing.open_clip_models import SIZE, stirred

OPTIONS: dict[str, Any] = {
    "model": "ViT-B-32-quickgelu",
    "vision": {
        "image_size": SIZE,
        "overrides": {"width": 48, "layers": 2, "heads": 2, "patch_size": 8, "embed_dim": 24},
    },
    "text": {"overrides": {"width": 32, "layers": 3, "heads": 2, "embed_dim": 24}},
}


def clip_model() -> Any:
    vision = {"hidden_size": 48, "num_hidden_layers": 2, "intermediate_size": 192, "image_size": SIZE, "patch_size": 8}
    text = {"hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 128, "eos_token_id": 49407}
    config = CLIPConfig(
        text_config={**text, "num_attention_heads": 2},
        vision_config={**vision, "num_attention_heads": 2},
        projection_dim=24,
    )
    return stirred(CLIPModel(config))


def written(state: dict[str, torch.Tensor], folder: Path) -> Path:
    """Write a checkpoint into `folder`; return its path."""
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    return folder / "model.safetensors"
