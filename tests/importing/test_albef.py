from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from renaissance.container import load
from renaissance.errors import ModelFileError
from renaissance.importing import import_checkpoint
from tests.importing.fused_models import albef, written

HEADS: dict[str, Any] = {"vision_heads": 3, "text_heads": 4}
BERT, PREDICTIONS = "text_encoder.bert.", "text_encoder.cls.predictions."


@pytest.fixture
def state() -> Any:
    return albef().checkpoint()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return tensors


def test_momentum_copies_and_queues_are_left_out_and_all_else_is_used(state: Any, tmp_path: Path) -> None:
    state["combine_vision_proj.weight"] = torch.zeros(3)
    done = import_checkpoint("albef", written(state, tmp_path / "theirs"), tmp_path / "ours", **HEADS)
    assert done.tensors + len(done.left_out) == len(state)
    assert all("_m." in name or "queue" in name or name.startswith("combine_") for name in done.left_out)
    assert {"image_queue", "queue_ptr", "combine_vision_proj.weight", "text_proj_m.bias"} <= set(done.left_out)


def test_a_pickled_file_as_its_authors_write_it_gives_the_same_model(state: Any, tmp_path: Path) -> None:
    path = written(state, tmp_path / "theirs")
    import_checkpoint("albef", path, tmp_path / "ours", **HEADS)
    pickled = path.parent / "checkpoint_29.pth"
    torch.save({"model": state, "epoch": 29, "config": {"queue_size": 8}}, pickled)
    with pytest.raises(ModelFileError, match="--from-pickle"):
        import_checkpoint("albef", pickled, tmp_path / "again", **HEADS)
    import_checkpoint("albef", pickled, tmp_path / "again", from_pickle=True, **HEADS)
    first, second = weights(tmp_path / "ours"), weights(tmp_path / "again")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_model_fine_tuned_for_retrieval_has_no_head_for_masked_words(state: Any, tmp_path: Path) -> None:
    tuned = {
        name.replace(BERT, "text_encoder."): tensor
        for name, tensor in state.items()
        if not name.startswith(PREDICTIONS)
    }
    tuned = {name: tensor for name, tensor in tuned.items() if "_m." not in name}
    tuned["idx_queue"] = torch.zeros(1, 8)
    import_checkpoint("albef", written(tuned, tmp_path / "tuned"), tmp_path / "tuned-ours", **HEADS)
    import_checkpoint("albef", written(state, tmp_path / "theirs"), tmp_path / "ours", **HEADS)
    tuned_model, whole = load(tmp_path / "tuned-ours"), load(tmp_path / "ours")
    assert set(tuned_model.tasks) == {"itm", "itc"}
    assert set(whole.tasks) == {"itm", "itc", "mlm"}
    expected = whole.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tuned_model.state_dict().items())


def test_the_temperature_becomes_the_scale_of_the_similarities(state: Any, tmp_path: Path) -> None:
    state["temp"] = torch.tensor(0.02)
    import_checkpoint("albef", written(state, tmp_path / "theirs"), tmp_path / "ours", **HEADS)
    itc: Any = load(tmp_path / "ours").tasks["itc"]
    torch.testing.assert_close(itc.log_scale.exp(), torch.tensor(50.0))


def test_a_word_table_that_is_saved_once_serves_for_predicting_too(state: Any, tmp_path: Path) -> None:
    import_checkpoint("albef", written(state, tmp_path / "theirs"), tmp_path / "ours", **HEADS)
    once = {name: tensor for name, tensor in state.items() if name != f"{PREDICTIONS}decoder.weight"}
    import_checkpoint("albef", written(once, tmp_path / "once"), tmp_path / "again", **HEADS)
    decoders = [weights(tmp_path / name)["tasks.mlm.decoder.weight"] for name in ("ours", "again")]
    assert torch.equal(*decoders)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"visual_encoder.blocks.1.attn.qkv.bias": None}, "lacks the tensor 'visual_encoder.blocks.1.attn.qkv.bias'"),
        ({"temp": torch.tensor(0.0)}, "'temp' is 0.0"),
        ({"text_decoder.x": torch.zeros(2)}, "no part of the model takes the tensor 'text_decoder.x'"),
        ({f"{PREDICTIONS}decoder.weight": torch.zeros(4096, 32)}, "decoder.weight' is not what"),
        ({f"{BERT}encoder.layer.3.crossattention.self.query.weight": None}, "of the 5 blocks .* 2 attend to vision"),
        ({f"{BERT}embeddings.token_type_embeddings.weight": None}, "token_type_embeddings.weight'"),
    ],
)
def test_what_is_missing_left_over_or_wrong_is_named_and_nothing_is_written(
    change: dict[str, Any], message: str, state: Any, tmp_path: Path
) -> None:
    kept = {name: tensor for name, tensor in {**state, **change}.items() if tensor is not None}
    with pytest.raises(ModelFileError, match=message):
        import_checkpoint("albef", written(kept, tmp_path / "theirs"), tmp_path / "ours", **HEADS)
    assert not (tmp_path / "ours").exists()
