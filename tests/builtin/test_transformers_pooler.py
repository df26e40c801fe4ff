from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel

from renaissance.api import SavedBackbone, VisionInput
from renaissance.builtin.transformers_options import LibraryTextOptions, LibraryVisionOptions
from renaissance.builtin.transformers_text import build as build_text
from renaissance.builtin.transformers_vision import build as build_vision
from renaissance.errors import SpecError

BLOCKS: dict[str, Any] = {"layers": 2, "width": 32, "heads": 2, "mlp_width": 64}
CAPTIONS = ["a cup", "two very long cats that sleep"]


def text_tower(model: str, **options: Any) -> Any:
    given = LibraryTextOptions(model=model, tokenizer="renaissance", **{**BLOCKS, **options})
    return build_text(given, weights="random", saved=None).eval()  # type: ignore[attr-defined]  # a module too


def vision_tower(model: str, **options: Any) -> Any:
    given = LibraryVisionOptions(model=model, image_size=32, patch_size=16, **{**BLOCKS, **options})
    return build_vision(given, weights="random", saved=None).eval()  # type: ignore[attr-defined]  # a module too


def pixels() -> VisionInput:
    return VisionInput(torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8))


@torch.no_grad()
@pytest.mark.parametrize("model", ["bert", "roberta"])
def test_a_kept_text_pooler_gives_the_pooled_vector(model: str) -> None:
    tower = text_tower(model, pooler=True)
    features = tower(tower.processor(CAPTIONS))
    expected = torch.tanh(tower.model.pooler.dense(features.tokens[:, 0]))
    torch.testing.assert_close(features.pooled, expected)


@torch.no_grad()
@pytest.mark.parametrize(("model", "name"), [("vit", "pooler"), ("deit", "pooler"), ("siglip_vision_model", "head")])
def test_a_kept_vision_pooler_gives_the_pooled_vector(model: str, name: str) -> None:
    tower = vision_tower(model, pooler=True)
    features = tower(pixels())
    assert features.pooled.shape == (3, tower.width)  # whatever the width that the type has by itself
    torch.testing.assert_close(features.pooled, getattr(tower.model, name)(features.tokens))


@pytest.mark.parametrize(("tower", "model"), [(text_tower, "bert"), (vision_tower, "vit")])
def test_a_pooler_is_kept_only_if_asked_for(tower: Any, model: str) -> None:
    with_pooler, without = (
        {name for name, _ in tower(model, pooler=kept).named_parameters()} for kept in (True, False)
    )
    assert with_pooler - without == {"model.pooler.dense.weight", "model.pooler.dense.bias"}


@pytest.mark.parametrize(("tower", "model"), [(text_tower, "bert"), (vision_tower, "vit")])
def test_every_parameter_of_a_tower_with_its_pooler_is_used(tower: Any, model: str) -> None:
    built = tower(model, pooler=True)
    features = built(built.processor(CAPTIONS) if tower is text_tower else pixels())
    (features.tokens.square().sum() + features.pooled.sum()).backward()
    assert [name for name, parameter in built.named_parameters() if parameter.grad is None] == []


@torch.no_grad()
def test_poolers_are_saved(tmp_path: Path) -> None:
    texts, images = text_tower("bert", pooler=True), vision_tower("siglip_vision_model", pooler=True)
    for tower, build, options in (
        (texts, build_text, LibraryTextOptions(model="gone")),
        (images, build_vision, LibraryVisionOptions(model="gone")),
    ):
        config = json.loads(json.dumps(tower.save(tmp_path)))
        again: Any = build(options, weights="none", saved=SavedBackbone(config=config, folder=tmp_path))  # type: ignore[operator]  # of two functions
        again.load_state_dict(tower.state_dict(), strict=True, assign=True)
        given = texts.processor(CAPTIONS) if tower is texts else VisionInput(torch.zeros(1, 3, 32, 32).byte())
        assert torch.equal(again.eval()(given).pooled, tower(given).pooled)


def test_pretrained_poolers_are_loaded(tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        "vit", hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, image_size=32
    )
    whole = AutoModel.from_config(config).eval()
    whole.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"height": 32, "width": 32}}')
    options = LibraryVisionOptions(model=str(tmp_path), pooler=True)
    tower: Any = build_vision(options, weights="pretrained", saved=None)
    images = pixels()
    with torch.no_grad():
        expected = whole(tower.processor.normalise(images.pixels)).pooler_output
        torch.testing.assert_close(tower.eval()(images).pooled, expected)


@pytest.mark.parametrize(
    ("tower", "model", "options", "message"),
    [
        (text_tower, "electra", {}, "'electra' have no pooler to keep"),
        (text_tower, "bert", {"pooling": "mean"}, "the pooler reads the first token, and pooling is 'mean'"),
        (vision_tower, "clip_vision_model", {}, "'clip_vision_model' have no pooler to keep"),
        (vision_tower, "dinov2", {}, "'dinov2' have no pooler to keep"),
    ],
)
def test_a_pooler_that_is_not_there_is_refused(tower: Any, model: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        tower(model, pooler=True, **options)
