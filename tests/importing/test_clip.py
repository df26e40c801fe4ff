from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

import renaissance
from renaissance.errors import ModelFileError
from renaissance.importing import import_checkpoint
from tests.importing.open_clip_models import CAPTIONS, SIZE, noise_pictures, stirred

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
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    return folder / "model.safetensors"


def test_an_imported_model_embeds_as_transformers_does(tmp_path: Path) -> None:
    whole, pictures = clip_model(), noise_pictures()
    import_checkpoint("clip", written(whole.state_dict(), tmp_path), tmp_path / "out", **OPTIONS)
    model: Any = renaissance.from_pretrained(tmp_path / "out")
    pixels = torch.stack([open_clip.image_transform(SIZE, is_train=False)(picture) for picture in pictures])
    ids = open_clip.tokenize(list(CAPTIONS))
    with torch.no_grad():
        expected = whole(input_ids=ids, pixel_values=pixels)
    found = model.embed(pictures, list(CAPTIONS))
    torch.testing.assert_close(found.images, expected.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.texts, expected.text_embeds, atol=1e-5, rtol=0)
    logits = found.images @ found.texts.T * model.tasks["itc"].log_scale.exp().detach()
    torch.testing.assert_close(logits, expected.logits_per_image, atol=1e-4, rtol=1e-5)


def test_saved_numbers_of_positions_are_taken_and_checked(tmp_path: Path) -> None:
    name = "text_model.embeddings.position_ids"
    state = {**clip_model().state_dict(), name: torch.arange(77).unsqueeze(0)}
    import_checkpoint("clip", written(state, tmp_path), tmp_path / "out", **OPTIONS)
    state[name] = state[name].flip(1)
    with pytest.raises(ModelFileError, match=f"'{name}' is not what"):
        import_checkpoint("clip", written(state, tmp_path), tmp_path / "out", **OPTIONS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text_projection.weight", "lacks the tensor 'text_projection.weight'"),
        ("vision_model.encoder.layers.1.self_attn.k_proj.bias", "lacks the tensor 'vision_model.*k_proj.bias'"),
    ],
)
def test_a_missing_tensor_is_named_as_the_file_would(name: str, message: str, tmp_path: Path) -> None:
    state = clip_model().state_dict()
    del state[name]
    with pytest.raises(ModelFileError, match=message):
        import_checkpoint("clip", written(state, tmp_path), tmp_path / "out", **OPTIONS)


def test_a_block_too_many_is_named_as_the_file_does(tmp_path: Path) -> None:
    fewer = {"overrides": {**OPTIONS["text"]["overrides"], "layers": 2}}
    with pytest.raises(ModelFileError, match=r"takes the tensor 'text_model\.encoder\.layers\.2\.layer_norm1\.weight'"):
        import_checkpoint(
            "clip", written(clip_model().state_dict(), tmp_path), tmp_path / "out", **{**OPTIONS, "text": fewer}
        )
