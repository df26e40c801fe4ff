from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from renaissance.cli import main
from renaissance.container import load
from renaissance.errors import ModelFileError, SpecError
from renaissance.importing import import_checkpoint
from tests.importing.meter_models import meter, options, written


def test_sizes_come_from_the_tensors(tmp_path: Path) -> None:
    state = meter().state_dict()
    done = import_checkpoint("meter", written(state, tmp_path), tmp_path / "out", **options(tmp_path))
    assert "co-attention(layers=3, width=48, mlp_ratio=2.0)" in done.spec
    assert done.tensors + len(done.left_out) == len(state)


def test_what_meter_never_runs_is_left_out_and_named(tmp_path: Path) -> None:
    done = import_checkpoint("meter", written(meter().state_dict(), tmp_path), tmp_path / "out", **options(tmp_path))
    assert set(done.left_out) == {
        "text_transformer.pooler.dense.weight",
        "text_transformer.pooler.dense.bias",
        "vit_model.token_embedding.weight",
        "vit_model.positional_embedding",
        "vit_model.ln_final.weight",
        "vit_model.ln_final.bias",
    }


def test_the_vision_transformer_may_stand_alone_with_its_projection(tmp_path: Path) -> None:
    state = {name.replace("vit_model.visual.", "vit_model."): tensor for name, tensor in meter().state_dict().items()}
    for name in ("token_embedding.weight", "ln_final.weight", "ln_final.bias"):
        del state[f"vit_model.{name}"]
    state["vit_model.positional_embedding"] = meter().state_dict()["vit_model.visual.positional_embedding"]
    state["vit_model.proj"] = torch.ones(32, 16)
    done = import_checkpoint("meter", written(state, tmp_path), tmp_path / "out", **options(tmp_path))
    assert "vit_model.proj" in done.left_out


@pytest.mark.parametrize(("head", "left"), [("mlm_score.", {"itm"}), ("itm_score.", {"mlm"}), ("m_score.", set())])
def test_only_heads_that_are_there_become_tasks(head: str, left: set[str], tmp_path: Path) -> None:
    heads = ("mlm_score.", "itm_score.") if head == "m_score." else (head,)
    state = {name: tensor for name, tensor in meter().state_dict().items() if not name.startswith(heads)}
    import_checkpoint("meter", written(state, tmp_path), tmp_path / "out", **options(tmp_path))
    assert set(load(tmp_path / "out").tasks) == left


@pytest.mark.parametrize(
    "name",
    [
        "token_type_embeddings.weight",
        "cross_modal_image_layers.1.crossattention.self.key.bias",
        "vit_model.visual.ln_post.weight",
        "itm_score.fc.weight",
        "mlm_score.decoder.weight",
    ],
)
def test_a_missing_tensor_is_named_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    state = dict(meter().state_dict())
    del state[name]
    with pytest.raises(ModelFileError, match=f"lacks the tensor '{name}'"):
        import_checkpoint("meter", written(state, tmp_path), tmp_path / "out", **options(tmp_path))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name",
    [
        "cross_modal_text_transform.weight",
        "cross_modal_text_transform.bias",
        "token_type_embeddings.weight",
        "cross_modal_text_layers.2.crossattention.self.query.weight",
        "cross_modal_image_layers.0.attention.output.LayerNorm.weight",
        "cross_modal_image_pooler.dense.weight",
        "text_transformer.encoder.layer.1.attention.self.value.weight",
        "text_transformer.embeddings.LayerNorm.bias",
        "vit_model.visual.class_embedding",
        "vit_model.visual.transformer.resblocks.1.mlp.c_fc.bias",
        "mlm_score.decoder.weight",
        "mlm_score.bias",
        "itm_score.fc.weight",
        "itm_score.fc.bias",
    ],
)
def test_a_misshaped_tensor_is_named_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    state = dict(meter().state_dict())
    state[name] = torch.cat([state[name], state[name][:1]])
    with pytest.raises(ModelFileError, match=rf"'{re.escape(name)}' has the shape .*, and the model needs"):
        import_checkpoint("meter", written(state, tmp_path), tmp_path / "out", **options(tmp_path))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", ["text_transformer.encoder.layer.2.output.dense.bias", "vit_model.visual.ln_post.scale", "queue"]
)
def test_a_tensor_too_many_is_named_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    path = written({**meter().state_dict(), name: torch.ones(2)}, tmp_path)
    with pytest.raises(ModelFileError, match=rf"no part of the model takes the tensor '{re.escape(name)}'"):
        import_checkpoint("meter", path, tmp_path / "out", **options(tmp_path))
    assert not (tmp_path / "out").exists()


def test_the_command_reads_a_pickled_meter_only_when_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, state = tmp_path / "meter.ckpt", meter().state_dict()
    torch.save({"epoch": 3, "state_dict": state}, path)
    sets = [part for key, value in options(tmp_path).items() for part in ("--set", f"{key}={value}")]
    command = ["import", "meter", str(path), str(tmp_path / "out"), *sets]
    assert main(command) == ModelFileError.exit_code
    assert "--from-pickle" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*command, "--from-pickle"]) == 0
    import_checkpoint("meter", written(state, tmp_path), tmp_path / "again", **options(tmp_path))
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_tensor_too_many_is_left_out_only_by_name(tmp_path: Path) -> None:
    path = written({**meter().state_dict(), "rank_output.bias": torch.ones(1)}, tmp_path)
    with pytest.raises(ModelFileError, match=r"takes the tensor 'rank_output\.bias'"):
        import_checkpoint("meter", path, tmp_path / "out", **options(tmp_path))
    import_checkpoint("meter", path, tmp_path / "out", **options(tmp_path), leave_out=["rank_output.bias"])


def test_heads_that_do_not_divide_the_width_are_refused(tmp_path: Path) -> None:
    path = written(meter().state_dict(), tmp_path)
    with pytest.raises(SpecError, match="5 heads do not divide a width of 48"):
        import_checkpoint("meter", path, tmp_path / "out", **{**options(tmp_path), "fusion_heads": 5})
