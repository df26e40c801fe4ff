from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import renaissance
from renaissance.errors import ModelFileError
from renaissance.importing import import_checkpoint
from renaissance.selftest import unproven
from tests.importing.described_models import TEXTS, saved, siglip_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(siglip_model(), tmp_path / "theirs")


def test_every_tensor_is_used(folder: Path, tmp_path: Path) -> None:
    done = import_checkpoint("siglip", folder, tmp_path / "out")
    assert done.tensors == len(load_file(folder / "model.safetensors"))
    assert done.left_out == ()


def test_texts_are_cut_where_the_tower_ends(folder: Path, tmp_path: Path) -> None:
    import_checkpoint("siglip", folder, tmp_path / "out")
    assert renaissance.from_pretrained(tmp_path / "out").text.processor.facts.max_tokens == TEXTS
    assert unproven(tmp_path / "out") == {}


def test_the_loss_is_the_sigmoid_loss_with_its_scale_and_bias(folder: Path, tmp_path: Path) -> None:
    import_checkpoint("siglip", folder, tmp_path / "out")
    state, model = load_file(folder / "model.safetensors"), renaissance.from_pretrained(tmp_path / "out")
    contrast: Any = model.tasks["itc"]
    assert torch.equal(contrast.bias, state["logit_bias"].squeeze())
    assert torch.equal(contrast.log_scale, state["logit_scale"].squeeze())


@pytest.mark.parametrize("name", ["logit_bias", "vision_model.head.probe", "text_model.head.bias"])
def test_a_missing_tensor_is_named_and_nothing_is_written(name: str, folder: Path, tmp_path: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state[name]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ModelFileError, match=f"lacks the tensor '{name}'"):
        import_checkpoint("siglip", folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_scale_that_is_no_single_number_is_refused(folder: Path, tmp_path: Path) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({**state, "logit_scale": torch.ones(2)}, folder / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"'logit_scale' has the shape \[2\], and the model needs a single number"):
        import_checkpoint("siglip", folder, tmp_path / "out")


def test_towers_of_two_widths_are_refused(tmp_path: Path) -> None:
    folder = saved(siglip_model(text_width=16), tmp_path / "theirs")
    with pytest.raises(ModelFileError, match="maps 16 channels to 32"):
        import_checkpoint("siglip", folder, tmp_path / "out")


def test_a_checkpoint_without_its_config_is_told_where_to_get_it(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").rename(tmp_path / "config.json")
    with pytest.raises(ModelFileError, match=r"has no config\.json.*--set folder="):
        import_checkpoint("siglip", folder / "model.safetensors", tmp_path / "out")
    (tmp_path / "config.json").rename(folder / "config.json")
    (folder / "model.safetensors").rename(tmp_path / "alone.safetensors")
    done = import_checkpoint("siglip", tmp_path / "alone.safetensors", tmp_path / "out", folder=str(folder))
    assert "siglip_vision_model" in done.spec


def test_images_of_another_size_than_the_towers_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "preprocessor_config.json").write_text('{"size": {"height": 64, "width": 64}}')
    with pytest.raises(ModelFileError, match=r"prepared in the size \(64, 64\), and the model takes \(32, 32\)"):
        import_checkpoint("siglip", folder, tmp_path / "out")
