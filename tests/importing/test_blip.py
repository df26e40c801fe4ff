from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import BlipImageProcessor

import renaissance
from renaissance.api import VisionInput
from renaissance.errors import ModelFileError, SpecError
from renaissance.importing import import_checkpoint
from tests.importing.fused_models import SIZE, WORDS, blip, blip_folder, inputs, written
from tests.importing.open_clip_models import CAPTIONS, noise_pictures

HEADS: dict[str, Any] = {"vision_heads": 3, "text_heads": 4}


def test_a_folder_says_all_sizes_and_the_model_matches_as_transformers_does(tmp_path: Path) -> None:
    theirs = blip()
    done = import_checkpoint("blip-itm", blip_folder(theirs, tmp_path / "theirs"), tmp_path / "ours")
    assert (done.tensors, done.left_out) == (len(theirs.state_dict()), ())
    ours: Any = renaissance.from_pretrained(tmp_path / "ours")
    texts = ours.encoder.text.processor(list(CAPTIONS))
    assert not texts.mask.all()
    prepared = BlipImageProcessor(size={"height": SIZE, "width": SIZE})(noise_pictures(), return_tensors="pt")
    with torch.no_grad():
        expected = theirs(texts.token_ids, prepared["pixel_values"], attention_mask=texts.mask.long()).itm_score
    probability = ours.match(noise_pictures(), list(CAPTIONS))
    torch.testing.assert_close(probability, expected.softmax(-1)[:, 1], atol=1e-5, rtol=0)


def test_a_file_without_a_config_needs_the_heads_alone(tmp_path: Path) -> None:
    theirs, (pixels, _) = blip(), inputs()
    path = written(theirs.state_dict(), tmp_path / "theirs")
    import_checkpoint("blip-itm", path, tmp_path / "ours", **HEADS)
    ours: Any = renaissance.from_pretrained(tmp_path / "ours")
    encoder = ours.encoder
    with torch.no_grad():
        found = encoder.encode_vision(VisionInput(pixels)).tokens
        expected = theirs.vision_model(encoder.vision.processor.normalise(pixels)).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert encoder.text.model.config.vocab_size == WORDS + 2


def test_images_are_prepared_as_the_file_beside_the_weights_says(tmp_path: Path) -> None:
    folder = blip_folder(blip(), tmp_path / "theirs")
    written_down = {"size": {"height": SIZE, "width": SIZE}, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}
    (folder / "preprocessor_config.json").write_text(json.dumps(written_down))
    import_checkpoint("blip-itm", folder, tmp_path / "ours")
    processor = renaissance.from_pretrained(tmp_path / "ours").encoder.vision.processor
    assert (processor.mean, processor.std, processor.resize) == ((0.1, 0.2, 0.3), (1, 2, 3), "squash")


def test_pictures_of_any_shape_are_prepared_as_blip_does_without_that_file(tmp_path: Path) -> None:
    import_checkpoint("blip-itm", blip_folder(blip(), tmp_path / "theirs"), tmp_path / "ours")
    processor = renaissance.from_pretrained(tmp_path / "ours").encoder.vision.processor
    picture = Image.linear_gradient("L").convert("RGB").crop((0, 0, 60, 40))
    expected = BlipImageProcessor(size={"height": SIZE, "width": SIZE})(picture, return_tensors="pt")["pixel_values"]
    found = processor.normalise(processor([picture]).pixels)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)  # a step of uint8, where two resizings round apart


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"text_encoder.encoder.layer.1.crossattention.self.key.bias": None},
            "lacks the tensor 'text_encoder.*key.bias'",
        ),
        ({"itm_head.weight": None}, "lacks the tensor 'itm_head.weight'"),
        ({"text_decoder.bert.x": torch.zeros(2)}, "no part of the model takes the tensor 'text_decoder.bert.x'"),
        ({"itm_head.bias": torch.zeros(3)}, "'itm_head.bias' has the shape"),
        ({"itm_head.bias": torch.zeros(2, dtype=torch.int64)}, "'itm_head.bias' holds int64"),
        ({"vision_model.embeddings.position_embedding": torch.zeros(1, 16, 48)}, "16 positions"),
        ({"vision_model.embeddings.patch_embedding.weight": torch.zeros(48, 192)}, "4 dimensions"),
    ],
)
def test_what_is_missing_left_over_or_misshaped_is_named_and_nothing_is_written(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    state = {**blip().state_dict(), **change}
    path = written({name: tensor for name, tensor in state.items() if tensor is not None}, tmp_path / "theirs")
    with pytest.raises(ModelFileError, match=message):
        import_checkpoint("blip-itm", path, tmp_path / "ours", **HEADS)
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("text_config", {"hidden_act": "relu"}, r"text_config\.hidden_act is 'relu', and only gelu"),
        ("vision_config", {"layer_norm_eps": 1e-3}, "layer_norm_eps is '0.001', and only 1e-05 or 1e-06"),
        (None, {"model_type": "vilt"}, "of another model than 'blip'"),
        ("text_config", {"hidden_size": "wide"}, "cannot be read"),
        ("text_config", {"vocab_size": 7}, r"text_config\.vocab_size is 7, and by the tensors it is"),
        ("vision_config", {"image_size": 999}, r"vision_config\.image_size is 999, and by the tensors it is"),
        (None, {"image_text_hidden_size": 3}, "image_text_hidden_size is 3, and by the tensors it is"),
    ],
)
def test_a_config_of_another_model_is_refused(
    part: str | None, values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = blip_folder(blip(), tmp_path / "theirs")
    config = json.loads((folder / "config.json").read_text())
    (config[part] if part else config).update(values)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match=message):
        import_checkpoint("blip-itm", folder, tmp_path / "ours")


def test_the_tokenizer_must_be_there_and_belong_to_the_model(tmp_path: Path) -> None:
    folder = blip_folder(blip(), tmp_path / "theirs")
    (folder / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    with pytest.raises(SpecError, match=r"no tokenizer\.json beside .*--set tokenizer=FOLDER"):
        import_checkpoint("blip-itm", folder, tmp_path / "ours")
    import_checkpoint("blip-itm", folder, tmp_path / "ours", tokenizer=str(tmp_path))
    name = "text_encoder.embeddings.word_embeddings.weight"
    state = {**blip().state_dict(), name: torch.zeros(WORDS - 1, 32)}
    with pytest.raises(ModelFileError, match="they do not belong together"):
        import_checkpoint("blip-itm", written(state, tmp_path / "fewer"), tmp_path / "ours", **HEADS)


def test_saved_numbers_of_positions_are_taken_and_checked(tmp_path: Path) -> None:
    name = "text_encoder.embeddings.position_ids"
    state = {**blip().state_dict(), name: torch.arange(16).unsqueeze(0)}
    import_checkpoint("blip-itm", written(state, tmp_path / "theirs"), tmp_path / "ours", **HEADS)
    state[name] = state[name].flip(1)
    with pytest.raises(ModelFileError, match=f"'{name}' is not what"):
        import_checkpoint("blip-itm", written(state, tmp_path / "theirs"), tmp_path / "ours", **HEADS)


@pytest.mark.parametrize("heads", [{"vision_heads": 5}, {"text_heads": 5}])
def test_heads_that_do_not_divide_the_width_are_refused(heads: dict[str, Any], tmp_path: Path) -> None:
    path = written(blip().state_dict(), tmp_path / "theirs")
    with pytest.raises(SpecError, match=r"divi|share"):
        import_checkpoint("blip-itm", path, tmp_path / "ours", **{**HEADS, **heads})
