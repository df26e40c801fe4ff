from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.constants import OPENAI_DATASET_MEAN
from PIL import Image
from safetensors.torch import load_file, save_file

import renaissance
from renaissance.container import load
from renaissance.errors import ModelFileError, SpecError
from renaissance.importing import Imported, import_checkpoint
from tests.importing.bridgetower_models import (
    BLOCKS,
    CAPTIONS,
    SIZE,
    VISION,
    bridgetower,
    change_config,
    inputs,
    outputs,
    unread,
    written,
)

MLM, ITM, ITC = "BridgeTowerForMaskedLM", "BridgeTowerForImageAndTextRetrieval", "BridgeTowerForContrastiveLearning"
WEIGHTS = "model.safetensors"
SURPLUS = f"vision_model.visual.transformer.resblocks.{BLOCKS}."


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Save a form of BridgeTower as transformers does, and return the folder."""
    return lambda form="BridgeTowerModel", **changes: written(bridgetower(form, **changes), tmp_path / "theirs")


@pytest.fixture
def imported(tmp_path: Path) -> Callable[..., Imported]:
    """Import a checkpoint, without what has no place in a model unless said otherwise."""

    def imports(checkpoint: Path, form: str = "BridgeTowerModel", **options: Any) -> Imported:
        return import_checkpoint("bridgetower", checkpoint, tmp_path / "out", **{"leave_out": unread(form), **options})

    return imports


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change the tensors of a checkpoint."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


# --- what comes out -------------------------------------------------------------------------------------------------


def test_an_imported_model_matches_pictures_and_texts_as_transformers_does(
    tmp_path: Path, imported: Callable[..., Imported]
) -> None:
    reference = bridgetower(ITM)
    done = imported(written(reference, tmp_path / "theirs"), ITM)
    model: Any = renaissance.from_pretrained(done.folder)
    images, texts = inputs(model.assembly)
    pictures = [Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in images.pixels]
    expected = outputs(reference, model.assembly, images, texts).logits.softmax(-1)[:, 1]
    torch.testing.assert_close(model.match(pictures, list(CAPTIONS)), expected, atol=1e-5, rtol=0)


def test_each_tensor_is_used_but_those_that_were_named(
    saved: Callable[..., Path], imported: Callable[..., Imported]
) -> None:
    folder = saved(MLM)
    done = imported(folder, MLM)
    assert done.left_out == tuple(unread(MLM))
    assert done.tensors == len(load_file(folder / WEIGHTS)) - len(done.left_out)


@pytest.mark.parametrize(
    ("form", "tasks"), [("BridgeTowerModel", []), (MLM, ["mlm"]), (ITM, ["itm"]), (ITC, ["itc"])], ids=str
)
def test_the_model_has_the_tasks_whose_heads_are_there(
    form: str, tasks: list[str], saved: Callable[..., Path], imported: Callable[..., Imported]
) -> None:
    folder = saved(form, width=VISION, heads=4)
    assert list(load(imported(folder, form).folder).tasks) == tasks


def test_a_checkpoint_with_several_heads_has_as_many_tasks(
    saved: Callable[..., Path], imported: Callable[..., Imported]
) -> None:
    folder, head = saved(MLM), bridgetower(ITM).itm_score.state_dict()
    rewrite(folder, lambda tensors: tensors.update({f"itm_score.{name}": tensor for name, tensor in head.items()}))
    assert list(load(imported(folder, MLM).folder).tasks) == ["mlm", "itm"]


def test_a_head_may_be_left_out(saved: Callable[..., Path], imported: Callable[..., Imported]) -> None:
    head = ["itm_score.fc.weight", "itm_score.fc.bias"]
    done = imported(saved(ITM), leave_out=[*unread(ITM), *head])
    assert not load(done.folder).tasks


def test_heads_are_those_of_config_json_or_of_the_options_or_of_bridgetower(
    saved: Callable[..., Path], imported: Callable[..., Imported]
) -> None:
    def heads(**options: Any) -> tuple[int, int]:
        plan: Any = load(imported(folder, **options).folder).plan
        return plan.text.options.heads, plan.fusion.options.heads

    folder = saved(heads=3)
    assert heads() == (3, 3)
    assert heads(heads=6) == (6, 6)
    (folder / "config.json").unlink()
    assert heads() == (12, 12)


def test_sizes_that_no_config_tells_are_those_of_the_tensors(
    saved: Callable[..., Path], imported: Callable[..., Imported]
) -> None:
    folder = saved()
    told = imported(folder).spec
    (folder / "config.json").unlink()
    assert imported(folder / WEIGHTS, heads=3).spec == told


def test_more_blocks_than_roberta_base_has_are_those_of_roberta_large(
    tmp_path: Path, imported: Callable[..., Imported]
) -> None:
    reference = bridgetower(vision_blocks=13, text_blocks=13)
    assert "roberta-large(" in imported(written(reference, tmp_path / "theirs")).spec


def test_half_precision_becomes_fp32_without_a_change(
    saved: Callable[..., Path], imported: Callable[..., Imported]
) -> None:
    folder = saved()
    rewrite(folder, lambda tensors: tensors.update({name: tensor.half() for name, tensor in tensors.items()}))
    state = load(imported(folder).folder).state_dict()
    tensors = load_file(folder / WEIGHTS)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    added = tensors["cross_modal_text_transform.bias"].float() + tensors["token_type_embeddings.weight"][0].float()
    assert torch.equal(state["encoder.fusion.text_links.projections.0.bias"], added)


# --- what has no place in a model -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["BridgeTowerModel", ITC])
def test_what_has_no_place_is_named_with_the_option_that_drops_it(
    form: str, saved: Callable[..., Path], imported: Callable[..., Imported]
) -> None:
    folder = saved(form, width=VISION, heads=4)
    with pytest.raises(ModelFileError, match="--set 'leave_out=") as refused:
        imported(folder, leave_out=[])
    assert all(name in str(refused.value) for name in unread(form))


def test_vision_blocks_that_bridgetower_never_runs_go_only_by_name(
    saved: Callable[..., Path], imported: Callable[..., Imported]
) -> None:
    folder = saved(vision_blocks=BLOCKS + 1)
    surplus = [name for name in load_file(folder / WEIGHTS) if name.startswith(SURPLUS)]
    with pytest.raises(ModelFileError, match=r"leave_out=\[.*resblocks\.4\.attn\.in_proj_bias"):
        imported(folder)
    assert imported(folder, leave_out=[*unread(), *surplus]).left_out == (*unread(), *surplus)


def test_an_unknown_tensor_is_refused_by_its_name(
    saved: Callable[..., Path], imported: Callable[..., Imported]
) -> None:
    folder = saved()
    rewrite(folder, lambda tensors: tensors.update({"text_model.adapter.weight": torch.zeros(2)}))
    with pytest.raises(ModelFileError, match=r"no part of the model takes the tensor 'text_model\.adapter\.weight'"):
        imported(folder)


def test_saved_numbers_of_positions_are_taken_and_checked(
    saved: Callable[..., Path], imported: Callable[..., Imported]
) -> None:
    folder, name = saved(), "vision_model.visual.embeddings.position_ids"
    constants = {
        name: torch.arange(10).unsqueeze(0),
        "text_model.embeddings.position_ids": torch.arange(18).unsqueeze(0),
        "text_model.embeddings.token_type_ids": torch.zeros(1, 18, dtype=torch.int64),
    }
    rewrite(folder, lambda tensors: tensors.update(constants))
    assert imported(folder).tensors == len(load_file(folder / WEIGHTS)) - len(unread())
    rewrite(folder, lambda tensors: tensors.update({name: torch.arange(10).flip(0).unsqueeze(0)}))
    with pytest.raises(ModelFileError, match=f"'{name}' is not what"):
        imported(folder)


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "bridgetower.token_type_embeddings.weight",
        "bridgetower.vision_model.visual.ln_post.bias",
        "bridgetower.vision_model.visual.embeddings.patch_embedding.weight",
        "bridgetower.text_model.encoder.layer.1.attention.self.query.weight",
        "bridgetower.cross_modal_image_link_tower.1.LayerNorm.weight",
        "bridgetower.cross_modal_text_layers.2.crossattention.output.dense.bias",
        "mlm_score.decoder.weight",
    ],
)
def test_a_missing_tensor_is_named_as_the_file_would(
    name: str, saved: Callable[..., Path], imported: Callable[..., Imported]
) -> None:
    folder = saved(MLM)
    rewrite(folder, lambda tensors: tensors.pop(name))
    with pytest.raises(ModelFileError, match=f"lacks the tensor '{name}'"):
        imported(folder, MLM)


def test_a_misshaped_tensor_is_named_with_both_shapes(
    saved: Callable[..., Path], imported: Callable[..., Imported]
) -> None:
    folder = saved(ITM)
    rewrite(folder, lambda tensors: tensors.update({"itm_score.fc.bias": torch.zeros(3)}))
    with pytest.raises(ModelFileError, match=r"'itm_score\.fc\.bias' has the shape \[3\], and the model needs \[2\]"):
        imported(folder, ITM)


def test_a_decoder_that_config_json_calls_tied_must_be_the_word_embeddings(
    saved: Callable[..., Path], imported: Callable[..., Imported]
) -> None:
    folder = saved(MLM)  # not tied
    change_config(folder, tie_word_embeddings=True)
    with pytest.raises(ModelFileError, match=r"'mlm_score\.decoder\.weight' is not what"):
        imported(folder, MLM)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"link_tower_type": "interpolate"}, "link_tower_type is 'interpolate', and only add"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu', and only gelu"),
        ({"text_config": {"layer_norm_eps": 1e-12}}, r"text_config\.layer_norm_eps is '1e-12', and only 1e-05"),
        ({"text_config": {"vocab_size": 7}}, r"text_config\.vocab_size is 7, and by the tensors it is"),
        ({"vision_config": {"image_size": 999}}, r"vision_config\.image_size is 999, and by the tensors it is"),
        ({"vision_config": ["ViT"]}, r"vision_config\.layer_norm_eps is .*ViT"),
        ({"model_type": "vilt"}, "of another model than 'bridgetower'"),
    ],
)
def test_a_config_of_another_architecture_is_refused(
    changes: dict[str, Any], message: str, saved: Callable[..., Path], imported: Callable[..., Imported]
) -> None:
    folder = saved()
    change_config(folder, **changes)
    with pytest.raises(ModelFileError, match=message):
        imported(folder)


@pytest.mark.parametrize(
    ("text", "message"), [('{"model_type":', r"config\.json cannot be read"), ("[]", "holds no object of JSON")]
)
def test_a_damaged_config_is_refused(
    text: str, message: str, saved: Callable[..., Path], imported: Callable[..., Imported]
) -> None:
    folder = saved()
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelFileError, match=message):
        imported(folder)


@pytest.mark.parametrize("kind", ["scaled_add", "interpolate"])
def test_links_that_are_no_sums_are_refused_by_their_tensors(
    kind: str, saved: Callable[..., Path], imported: Callable[..., Imported]
) -> None:
    folder = saved(link_tower_type=kind)
    (folder / "config.json").unlink()
    with pytest.raises(ModelFileError, match=r"no part of the model takes the tensor 'cross_modal_.*_link_tower"):
        imported(folder, heads=3)


def test_contrast_with_a_projection_for_each_layer_is_refused(
    saved: Callable[..., Path], imported: Callable[..., Imported]
) -> None:
    folder = saved(ITC, share_cross_modal_transformer_layers=False)
    with pytest.raises(ModelFileError, match="has one projection for all blocks of a tower"):
        imported(folder, ITC)


def test_a_tokenizer_of_another_size_is_refused(
    saved: Callable[..., Path], imported: Callable[..., Imported], tmp_path: Path
) -> None:
    folder = saved()
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["another"] = len(tokenizer["model"]["vocab"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelFileError, match=r"word_embeddings\.weight' has the shape \[17, 24\].*needs \[18, 24\]"):
        imported(folder, tokenizer=str(tmp_path))


def test_heads_that_do_not_divide_the_width_are_refused(
    saved: Callable[..., Path], imported: Callable[..., Imported]
) -> None:
    with pytest.raises(SpecError, match="heads=5"):
        imported(saved(), heads=5)


def test_pictures_are_prepared_as_the_files_beside_the_checkpoint_say(
    saved: Callable[..., Path], imported: Callable[..., Imported]
) -> None:
    def processor() -> Any:
        tower: Any = load(imported(folder).folder).encoder.vision
        return tower.processor

    folder = saved()
    assert processor().image_size == (SIZE, SIZE)
    assert processor().mean == OPENAI_DATASET_MEAN
    told = folder / "preprocessor_config.json"
    told.write_text(json.dumps({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}))
    assert (processor().mean, processor().std) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    told.write_text(json.dumps({"do_normalize": False}))
    assert (processor().mean, processor().std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
