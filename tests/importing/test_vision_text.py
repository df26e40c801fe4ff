from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import renaissance
from renaissance.errors import ModelFileError
from renaissance.importing import import_checkpoint
from tests.importing.described_models import saved, vision_text_model


def embeds(folder: Path) -> torch.Tensor:
    vectors = renaissance.from_pretrained(folder).embed(texts=["a cup", "two red cats"]).texts
    assert vectors is not None
    return vectors


def test_every_tensor_is_used_and_poolers_are_kept_where_there_are_any(tmp_path: Path) -> None:
    folder = saved(vision_text_model("clip", "bert"), tmp_path / "theirs")
    done = import_checkpoint("vision-text-dual", folder, tmp_path / "out")
    assert done.tensors == len(load_file(folder / "model.safetensors"))
    assert done.spec.count("pooler=true") == 1  # CLIP's has no weights


def test_names_of_older_versions_are_taken(tmp_path: Path) -> None:
    folder = saved(vision_text_model("clip", "bert"), tmp_path / "theirs")
    import_checkpoint("vision-text-dual", folder, tmp_path / "new")
    state = load_file(folder / "model.safetensors")
    ids = torch.arange(len(state["text_model.embeddings.position_embeddings.weight"])).unsqueeze(0)
    old = {name.replace("vision_model.", "vision_model.vision_model.", 1): state[name] for name in state}
    save_file({**old, "text_model.embeddings.position_ids": ids}, folder / "model.safetensors")
    import_checkpoint("vision-text-dual", folder, tmp_path / "old")
    assert torch.equal(embeds(tmp_path / "old"), embeds(tmp_path / "new"))
    save_file({**old, "text_model.embeddings.position_ids": ids.flip(1)}, folder / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"'text_model\.embeddings\.position_ids' is not what"):
        import_checkpoint("vision-text-dual", folder, tmp_path / "out")


@pytest.mark.parametrize("name", ["visual_projection.weight", "vision_model.encoder.layer.1.output.dense.bias"])
def test_a_missing_tensor_is_named_as_the_file_would(name: str, tmp_path: Path) -> None:
    folder = saved(vision_text_model("vit", "bert"), tmp_path / "theirs")
    state = load_file(folder / "model.safetensors")
    del state[name]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ModelFileError, match=f"lacks the tensor '{name}'"):
        import_checkpoint("vision-text-dual", folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_config_of_another_kind_is_refused(tmp_path: Path) -> None:
    whole = vision_text_model("vit", "bert")
    folder = saved(whole, tmp_path / "theirs")
    whole.config.text_config.save_pretrained(folder)
    with pytest.raises(ModelFileError, match="is of a 'bert', and has no vision_config"):
        import_checkpoint("vision-text-dual", folder, tmp_path / "out")
