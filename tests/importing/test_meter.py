from __future__ import annotations

from pathlib import Path

import pytest
import torch

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


def test_a_tensor_too_many_is_left_out_only_by_name(tmp_path: Path) -> None:
    path = written({**meter().state_dict(), "rank_output.bias": torch.ones(1)}, tmp_path)
    with pytest.raises(ModelFileError, match=r"takes the tensor 'rank_output\.bias'"):
        import_checkpoint("meter", path, tmp_path / "out", **options(tmp_path))
    import_checkpoint("meter", path, tmp_path / "out", **options(tmp_path), leave_out=["rank_output.bias"])


def test_heads_that_do_not_divide_the_width_are_refused(tmp_path: Path) -> None:
    path = written(meter().state_dict(), tmp_path)
    with pytest.raises(SpecError, match="5 heads do not divide a width of 48"):
        import_checkpoint("meter", path, tmp_path / "out", **{**options(tmp_path), "fusion_heads": 5})
