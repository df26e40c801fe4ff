"""Small open_clip models with random weights, their checkpoints, and pictures with captions of different lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

CAPTIONS = ("a cup", "two very long cats that sleep upon a green mat beside the door", "red!")
SIZE = 32


def stirred(model: nn.Module) -> Any:
    """Move every parameter off the zeros and ones that some start from, where wrong wiring could not show."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model.eval()


class Case:
    """An open_clip model, its checkpoint, and the options that describe it to the importer."""

    def __init__(
        self, kind: str, name: str, vision: dict[str, Any], text: dict[str, Any], *, custom: bool, folder: Path
    ) -> None:
        self.kind = kind
        self.reference = "open_clip.CustomTextCLIP" if custom else "open_clip.CLIP"
        config = open_clip.get_model_config(name)
        width = vision.pop("embed_dim")
        whole_kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
        bias = {"init_logit_bias": -10.0} if kind == "SigLIP-like" else {}
        vision_config = {**config["vision_cfg"], **vision, "image_size": SIZE, "timm_model_pretrained": False}
        whole = whole_kind(width, vision_config, {**config["text_cfg"], **text}, **bias)
        if hasattr(whole.visual, "set_input_size"):
            whole.visual.set_input_size((SIZE, SIZE))
        self.whole = stirred(whole)
        heads = {"heads": vision["width"] // vision["head_width"]} if "head_width" in vision else {}
        fields = {key: value for key, value in vision.items() if key != "head_width"}
        self.options: dict[str, Any] = {
            "model": name,
            "vision": {"image_size": SIZE, "overrides": {**fields, **heads, "embed_dim": width}},
            "text": {"overrides": {**text, "embed_dim": width}},
        }
        self.path = folder / "open_clip_model.safetensors"
        self.write(self.whole.state_dict())

    def write(self, state: dict[str, torch.Tensor]) -> None:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, self.path)

    def features(self, pictures: list[Image.Image], texts: tuple[str, ...] = CAPTIONS) -> tuple[Any, Any]:
        """Return open_clip's own unit vectors [V, W] and [T, W], with its own preprocessing."""
        transform = open_clip.image_transform(SIZE, is_train=False)
        with torch.no_grad():
            images = self.whole.encode_image(torch.stack([transform(picture) for picture in pictures]), normalize=True)
            return images, self.whole.encode_text(open_clip.tokenize(list(texts)), normalize=True)


KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any], bool]] = {
    "ViT-B-32": (
        "ViT-B-32",
        {"width": 48, "layers": 2, "head_width": 24, "patch_size": 16, "embed_dim": 32},
        {"width": 32, "layers": 2, "heads": 2},
        False,
    ),
    "towers narrower than the space": (
        "ViT-B-32",
        {"width": 32, "layers": 1, "head_width": 16, "patch_size": 8, "pool_type": "avg", "embed_dim": 48},
        {"width": 16, "layers": 1, "heads": 2},
        False,
    ),
    "timm vision": (
        "convnext_base",
        {"timm_model_name": "test_convnext", "embed_dim": 32},
        {"width": 16, "layers": 2, "heads": 2},
        False,
    ),
    "projection by an MLP": (
        "convnext_base",
        {"timm_model_name": "test_convnext", "timm_proj": "mlp", "embed_dim": 32},
        {"width": 16, "layers": 1, "heads": 2},
        False,
    ),
    "SigLIP-like": (
        "ViT-B-32",
        {"timm_model_name": "test_vit3", "timm_pool": "map", "timm_proj": "none", "embed_dim": 96},
        {"width": 96, "layers": 2, "heads": 2, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
        True,
    ),
}


def case_of(kind: str, folder: Path) -> Case:
    """Make an open_clip model of a kind, and write its checkpoint into `folder`."""
    name, vision, text, custom = KINDS[kind]
    return Case(kind, name, dict(vision), dict(text), custom=custom, folder=folder)


def noise_pictures(count: int = 3) -> list[Image.Image]:
    """Return pictures of noise, as large as the towers take them."""
    noise = np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return [Image.fromarray(pixels) for pixels in noise]
