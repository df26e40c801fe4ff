from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    ViltConfig,
    ViltForImageAndTextRetrieval,
    ViltForImagesAndTextClassification,
    ViltForMaskedLM,
    ViltForQuestionAnswering,
    ViltForTokenClassification,
    ViltModel,
)

import renaissance
from renaissance.container import load
from renaissance.errors import ModelFileError, RenaissanceError, SpecError
from renaissance.importing import import_checkpoint
from tests.importing.open_clip_models import CAPTIONS, SIZE, noise_pictures, stirred

OPTIONS: dict[str, Any] = {"heads": 3, "tokenizer": "renaissance"}
WORDS = "embeddings.text_embeddings.word_embeddings.weight"


def vilt(kind: Any = ViltModel, **config: Any) -> Any:
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    texts = {"vocab_size": 4096, "max_position_embeddings": 20}
    return stirred(kind(ViltConfig(**{**sizes, **texts, "image_size": SIZE, "patch_size": 8, **config})))


def state_of(model: Any) -> dict[str, Tensor]:
    """Return the tensors of a model, one of each two that are one."""
    return {name: tensor for name, tensor in model.state_dict().items() if name != "mlm_score.decoder.weight"}


def written(state: dict[str, Tensor], folder: Path) -> Path:
    """Write tensors without a config.json beside them."""
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    return folder / "model.safetensors"


@pytest.mark.parametrize(
    ("kind", "tasks"),
    [
        (ViltModel, []),
        (ViltForMaskedLM, ["mlm"]),
        (ViltForImageAndTextRetrieval, ["itm"]),
        (ViltForQuestionAnswering, ["vqa"]),
    ],
)
def test_the_heads_of_a_checkpoint_say_which_tasks_come_out(kind: Any, tasks: list[str], tmp_path: Path) -> None:
    done = import_checkpoint("vilt", written(state_of(vilt(kind)), tmp_path), tmp_path / "out", **OPTIONS)
    assert done.tensors == len(state_of(vilt(kind)))
    assert list(load(tmp_path / "out").tasks) == tasks


def test_pictures_and_texts_match_as_in_transformers(tmp_path: Path) -> None:
    whole, pictures = vilt(ViltForImageAndTextRetrieval), noise_pictures()
    import_checkpoint("vilt", written(whole.state_dict(), tmp_path), tmp_path / "out", **OPTIONS)
    model: Any = renaissance.from_pretrained(tmp_path / "out")
    words = model.assembly.encoder.text.processor(list(CAPTIONS))
    inputs = model.assembly.encoder.vision.processor(pictures)
    found = model.match(pictures, list(CAPTIONS))
    with torch.no_grad():
        expected = whole(
            input_ids=words.token_ids,
            attention_mask=words.mask.long(),
            pixel_values=model.assembly.encoder.vision.processor.normalise(inputs.pixels),
        ).logits
    torch.testing.assert_close(found, expected.squeeze(1).sigmoid(), atol=1e-5, rtol=0)


def test_two_logits_of_matching_become_one(tmp_path: Path) -> None:
    state = vilt(ViltForImageAndTextRetrieval).state_dict()
    weight, bias = torch.randn(2, 24), torch.randn(2)
    path = written({**state, "rank_output.weight": weight, "rank_output.bias": bias}, tmp_path)
    import_checkpoint("vilt", path, tmp_path / "out", **OPTIONS)
    tasks: Any = load(tmp_path / "out").tasks
    pooled = torch.randn(5, 24)
    expected = (pooled @ weight.T + bias).softmax(1)[:, 1:]
    torch.testing.assert_close(tasks["itm"].head(pooled).sigmoid(), expected, atol=1e-5, rtol=0)


def test_sizes_are_read_from_the_config_where_there_is_one(tmp_path: Path) -> None:
    vilt(num_attention_heads=6, hidden_dropout_prob=0.25).save_pretrained(tmp_path)
    done = import_checkpoint("vilt", tmp_path, tmp_path / "out", tokenizer="renaissance")
    assert "heads=6" in done.spec
    assert "dropout=0.25" in done.spec


def test_the_tokenizer_of_the_checkpoint_is_kept(tmp_path: Path) -> None:
    import_checkpoint("vilt", written(state_of(vilt()), tmp_path), tmp_path / "first", **OPTIONS)
    tokenizer = next((tmp_path / "first").rglob("tokenizer.json"))
    (tmp_path / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    import_checkpoint("vilt", tmp_path / "model.safetensors", tmp_path / "out", heads=3)
    (tmp_path / "tokenizer.json").unlink()
    facts = load(tmp_path / "out").encoder.text.processor.facts
    assert (facts.vocabulary, facts.max_tokens) == (4096, 20)


def test_answers_without_names_are_numbered(tmp_path: Path) -> None:
    path = written(vilt(ViltForQuestionAnswering, num_labels=3).state_dict(), tmp_path)
    import_checkpoint("vilt", path, tmp_path / "out", **OPTIONS)
    tasks: Any = load(tmp_path / "out").tasks
    assert tasks["vqa"].labels == ("0", "1", "2")


@pytest.mark.parametrize("place", ["option", "config"])
def test_another_number_of_answers_is_refused(place: str, tmp_path: Path) -> None:
    path = written(vilt(ViltForQuestionAnswering, num_labels=3).state_dict(), tmp_path)
    given: dict[str, Any] = {"labels": ("yes", "no")} if place == "option" else {}
    if place == "config":
        labels = {"0": "yes", "1": "no", "3": "two"}
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "vilt", "id2label": labels}))
    with pytest.raises(SpecError, match="has 3 labels, and 2 are given"):
        import_checkpoint("vilt", path, tmp_path / "out", **given, **OPTIONS)


def test_tensors_of_other_heads_can_be_left_out(tmp_path: Path) -> None:
    path = written({**state_of(vilt()), "probe.weight": torch.ones(3)}, tmp_path)
    with pytest.raises(ModelFileError, match=r"takes the tensor 'probe\.weight'"):
        import_checkpoint("vilt", path, tmp_path / "out", **OPTIONS)
    done = import_checkpoint("vilt", path, tmp_path / "out", leave_out=("probe.weight",), **OPTIONS)
    assert done.left_out == ("probe.weight",)


def test_a_second_name_of_the_words_must_be_the_words(tmp_path: Path) -> None:
    state = vilt(ViltForMaskedLM).state_dict()
    state["mlm_score.decoder.weight"] = state[f"vilt.{WORDS}"].clone()
    state["mlm_score.bias"] = state["mlm_score.decoder.bias"].clone()
    import_checkpoint("vilt", written(state, tmp_path), tmp_path / "out", **OPTIONS)
    for name in ("mlm_score.decoder.weight", "mlm_score.bias"):
        changed = {**state, name: state[name] + 1}
        with pytest.raises(ModelFileError, match=f"'{name}' is not what"):
            import_checkpoint("vilt", written(changed, tmp_path), tmp_path / "out", **OPTIONS)


def test_older_checkpoints_keep_the_bias_elsewhere_and_number_the_positions(tmp_path: Path) -> None:
    state = state_of(vilt(ViltForMaskedLM))
    state["mlm_score.bias"] = state.pop("mlm_score.decoder.bias")
    state["vilt.embeddings.text_embeddings.position_ids"] = torch.arange(20).unsqueeze(0)
    import_checkpoint("vilt", written(state, tmp_path), tmp_path / "out", **OPTIONS)
    tasks: Any = load(tmp_path / "out").tasks
    torch.testing.assert_close(tasks["mlm"].decoder.bias, state["mlm_score.bias"])


def test_half_precision_becomes_single(tmp_path: Path) -> None:
    whole = vilt(ViltForImagesAndTextClassification, num_images=2, modality_type_vocab_size=3)
    state = {name: tensor.half() for name, tensor in whole.state_dict().items()}
    import_checkpoint("vilt", written(state, tmp_path), tmp_path / "out", image_size=48, **OPTIONS)
    assert {tensor.dtype for tensor in load(tmp_path / "out").state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [
        (ViltForTokenClassification, {}, "lacks the tensor 'vilt.pooler.dense.weight'"),
        (
            ViltModel,
            {"modality_type_vocab_size": 3},
            r"'embeddings.token_type_embeddings.weight' has the shape \[3, 24",
        ),
        (ViltModel, {"qkv_bias": False}, "lacks the tensor 'encoder.layer.0.attention.attention.query.bias'"),
        (ViltModel, {"vocab_size": 50}, r"'embeddings.text_embeddings.word_embeddings.weight' has the shape \[50, 24"),
        (
            ViltForImagesAndTextClassification,
            {"num_images": 3, "modality_type_vocab_size": 4},
            r"'vilt.embeddings.token_type_embeddings.weight' has the shape \[4, 24",
        ),
    ],
)
def test_what_ours_has_no_place_for_is_refused(kind: Any, config: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=message):
        import_checkpoint("vilt", written(state_of(vilt(kind, **config)), tmp_path), tmp_path / "out", **OPTIONS)
    assert not (tmp_path / "out").exists()


def test_a_tensor_too_many_is_named_as_the_file_does(tmp_path: Path) -> None:
    state = {**state_of(vilt()), "encoder.layer.7.layernorm_before.weight": torch.ones(24)}
    with pytest.raises(ModelFileError, match=r"no part of the model takes .*'encoder\.layer\.7\.layernorm_before"):
        import_checkpoint("vilt", written(state, tmp_path), tmp_path / "out", **OPTIONS)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert"}, "is of another model than 'vilt'"),
        ({"model_type": "vilt", "hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"model_type": "vilt", "layer_norm_eps": 1e-5}, "layer_norm_eps is '1e-05'"),
        ({"model_type": "vilt", "num_attention_heads": "three"}, "heads"),
        ({"model_type": "vilt", "vocab_size": 7}, "vocab_size is 7, and by the tensors it is 4096"),
        ({"model_type": "vilt", "image_size": 999}, "image_size is 999, and by the tensors it is"),
        ([], "holds no object of JSON"),
    ],
)
def test_a_config_of_another_model_is_refused(config: object, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RenaissanceError, match=message):
        import_checkpoint("vilt", written(state_of(vilt()), tmp_path), tmp_path / "out", tokenizer="renaissance")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("embeddings.position_embeddings", (1, 17, 12), r"has the shape \[1, 17, 12\]"),
        ("embeddings.position_embeddings", (17, 24), "has 3 dimensions there"),
        ("embeddings.cls_token", (), r"has the shape \[\]"),
        ("embeddings.patch_embeddings.projection.weight", (24, 192), "has 4 dimensions there"),
        ("embeddings.text_embeddings.position_embeddings.weight", (), "has 2 dimensions there"),
        ("pooler.dense.weight", (24,), "has 2 dimensions there"),
    ],
)
@pytest.mark.parametrize("size", [SIZE, 48])
def test_a_misshaped_tensor_is_named(name: str, shape: Any, message: str, size: int, tmp_path: Path) -> None:
    state = {**state_of(vilt()), name: torch.ones(shape)}
    with pytest.raises(ModelFileError, match=message) as caught:
        import_checkpoint("vilt", written(state, tmp_path), tmp_path / "out", image_size=size, **OPTIONS)
    assert name in str(caught.value)


def test_numbers_of_another_kind_are_refused(tmp_path: Path) -> None:
    state = state_of(vilt())
    state["embeddings.position_embeddings"] = state["embeddings.position_embeddings"].int()
    with pytest.raises(ModelFileError, match=r"'embeddings\.position_embeddings' holds int32"):
        import_checkpoint("vilt", written(state, tmp_path), tmp_path / "out", **OPTIONS)


def test_a_table_of_an_oblong_image_is_refused(tmp_path: Path) -> None:
    state = state_of(vilt())
    state["embeddings.position_embeddings"] = state["embeddings.position_embeddings"][:, :13]
    with pytest.raises(ModelFileError, match="13 rows, which is not one and a square"):
        import_checkpoint("vilt", written(state, tmp_path), tmp_path / "out", **OPTIONS)


def test_an_image_size_that_patches_do_not_fill_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"image_size=30 is no multiple of patch_size=8\. Use image_size=32"):
        import_checkpoint("vilt", written(state_of(vilt()), tmp_path), tmp_path / "out", image_size=30, **OPTIONS)
