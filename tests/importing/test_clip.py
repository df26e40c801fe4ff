from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from renaissance.errors import ModelFileError
from renaissance.importing import import_checkpoint
from tests.importing.clip_models import OPTIONS, clip_model, written


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


@pytest.mark.parametrize(
    "name",
    [
        "visual_projection.weight",
        "text_projection.weight",
        "text_model.embeddings.token_embedding.weight",
        "text_model.encoder.layers.1.self_attn.q_proj.weight",
        "text_model.final_layer_norm.weight",
        "vision_model.embeddings.position_embedding.weight",
        "vision_model.embeddings.patch_embedding.weight",
        "vision_model.encoder.layers.1.mlp.fc2.weight",
    ],
)
def test_a_misshaped_tensor_is_named_as_the_file_does_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    state = dict(clip_model().state_dict())
    state[name] = torch.cat([state[name], state[name][:1]])
    with pytest.raises(ModelFileError, match=rf"'{re.escape(name)}'"):
        import_checkpoint("clip", written(state, tmp_path), tmp_path / "out", **OPTIONS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["queue", "vision_model.pre_layrnorm.scale", "text_model.encoder.layers.3.x"])
def test_a_tensor_too_many_is_named_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    path = written({**clip_model().state_dict(), name: torch.ones(2)}, tmp_path)
    with pytest.raises(ModelFileError, match=rf"'{re.escape(name)}'"):
        import_checkpoint("clip", path, tmp_path / "out", **OPTIONS)
    assert not (tmp_path / "out").exists()
