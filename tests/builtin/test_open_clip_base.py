from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

import renaissance
from renaissance.api import Features, SavedBackbone, TextInput, VisionInput
from renaissance.builtin import open_clip_text, open_clip_vision
from renaissance.builtin.open_clip_entries import BACKBONES, OpenClipTextOptions, OpenClipVisionOptions
from renaissance.errors import SpecError

VIT = {"width": 32, "layers": 2, "heads": 2, "patch_size": 16, "embed_dim": 32}
# name -> options, and its positions
TOWERS: dict[str, tuple[dict[str, Any], str]] = {
    "vit": ({"model": "ViT-B-32", "overrides": VIT}, "absolute"),
    "vit to another width": ({"model": "ViT-B-32", "overrides": {**VIT, "embed_dim": 16}}, "absolute"),
    "clipa": ({"model": "ViT-L-14-CLIPA", "overrides": VIT}, "absolute"),
    "norms in attention": ({"model": "ViT-B-32", "overrides": {**VIT, "qk_norm": True, "scale_fc": True}}, "absolute"),
    "siglip": ({"model": "ViT-B-16-SigLIP", "overrides": {"timm_model_name": "test_vit3"}}, "absolute"),
    "eva": (
        {
            "model": "EVA02-B-16",
            "image_size": 42,
            "layers": 2,
            "overrides": {"timm_model_name": "eva02_tiny_patch14_224"},
        },
        "rope",
    ),
}
SMALL = {"width": 32, "layers": 2, "heads": 2, "embed_dim": 32}
TEXT: dict[str, dict[str, Any]] = {
    "clip": {"model": "ViT-B-32", "overrides": SMALL},
    "coca": {"model": "coca_ViT-B-32", "overrides": SMALL},
    "last": {"model": "ViT-B-32", "overrides": {**SMALL, "no_causal_mask": True, "pool_type": "last"}},
}
CAPTIONS = ["a red cup!", "two very long cats that sleep upon a green mat", "!"]


def stirred(backbone: Any) -> Any:
    """Move every parameter off the zeros and ones that some start from, where wrong wiring could not show."""
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return backbone.eval()


@pytest.fixture(params=TOWERS)
def name(request: pytest.FixtureRequest) -> str:
    given: str = request.param
    return given


@pytest.fixture
def tower(name: str) -> Any:
    torch.manual_seed(0)
    options = OpenClipVisionOptions(**{"image_size": 48, **TOWERS[name][0]})
    return stirred(open_clip_vision.build(options, weights="random"))


def again(tower: Any, folder: Path) -> Any:
    config = json.loads(json.dumps(tower.save(folder)))
    saved = SavedBackbone(config, folder)
    built: Any = open_clip_vision.build(OpenClipVisionOptions(model="gone"), weights="none", saved=saved)
    built.load_state_dict(tower.state_dict(), strict=True, assign=True)
    return built.eval()


def pictures(tower: Any) -> VisionInput:
    shape = (2, 3, *tower.processor.image_size)
    return VisionInput(torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1)))


def texts(tower: Any, *real: int, seed: int = 2) -> Features:
    tokens = torch.randn(2, 5, tower.width, generator=torch.Generator().manual_seed(seed))
    return Features(tokens, torch.arange(5) < torch.tensor(real)[:, None])


def folded(tower: Any, own: Features | None, other: Features | None) -> Features:
    state = tower.join(own, other)
    for index in range(len(tower.blocks)):
        state = tower.step(index, state)
    features: Features = tower.finish(state)
    return features


def test_positions_are_said(tower: Any, name: str) -> None:
    assert tower.positions == TOWERS[name][1]


@torch.no_grad()
def test_without_others_the_fold_is_the_whole(tower: Any) -> None:
    joint: Any = folded(tower, tower.embedded(pictures(tower)), None)
    whole = tower(pictures(tower))
    assert torch.equal(joint.tokens, whole.tokens)
    assert torch.equal(joint.pooled, whole.pooled)


@torch.no_grad()
def test_others_that_are_padding_change_nothing(tower: Any) -> None:
    own = tower.embedded(pictures(tower))
    joint, alone = folded(tower, own, texts(tower, 0, 0)), folded(tower, own, None)
    count = own.tokens.shape[1]
    assert joint.mask.sum(1).tolist() == [count, count]
    assert_close(joint.tokens[:, :count], alone.tokens, rtol=0, atol=2e-6)
    assert_close(joint.pooled, alone.pooled, rtol=0, atol=2e-6)


@torch.no_grad()
def test_padding_among_others_changes_nothing(tower: Any) -> None:
    own, padded = tower.embedded(pictures(tower)), texts(tower, 3, 3)
    plain = replace(padded, tokens=padded.tokens[:, :3], mask=padded.mask[:, :3])
    length = own.tokens.shape[1] + 3
    long, short = folded(tower, own, padded), folded(tower, own, plain)
    assert_close(long.tokens[:, :length], short.tokens, rtol=0, atol=2e-6)


@torch.no_grad()
def test_a_real_other_token_changes_own_tokens(tower: Any) -> None:
    own = tower.embedded(pictures(tower))
    one, another = folded(tower, own, texts(tower, 2, 2)), folded(tower, own, texts(tower, 2, 2, seed=3))
    assert bool(((one.tokens - another.tokens).norm(dim=-1) > 1e-5)[:, : own.tokens.shape[1]].all())


@torch.no_grad()
@pytest.mark.parametrize("alone", [False, True])
def test_others_are_a_set_for_the_blocks(tower: Any, alone: bool) -> None:
    own = None if alone else tower.embedded(pictures(tower))
    other, order = texts(tower, 5, 5), torch.tensor([3, 0, 4, 1, 2])
    straight = folded(tower, own, other).tokens[:, -5:]
    permuted = folded(tower, own, replace(other, tokens=other.tokens[:, order])).tokens[:, -5:]
    assert_close(straight[:, order], permuted, rtol=0, atol=2e-6)


@torch.no_grad()
def test_resizing_names_what_changed_and_survives_saving(tower: Any, name: str, tmp_path: Path) -> None:
    before = {key: tensor.shape for key, tensor in tower.state_dict().items()}
    size = 84 if name == "eva" else 96
    changed = tower.resize(size)
    after = {key: tensor.shape for key, tensor in tower.state_dict().items()}
    assert set(changed) == {key for key in after if after[key] != before[key]}
    assert changed
    assert tower.grid == (6, 6)
    features = tower(pictures(tower))
    assert torch.equal(folded(tower, tower.embedded(pictures(tower)), None).tokens, features.tokens)
    assert torch.equal(again(tower, tmp_path)(pictures(tower)).tokens, features.tokens)
    with pytest.raises(SpecError, match="no multiple of"):
        tower.resize(size + 1)


@torch.no_grad()
def test_embeddings_can_be_kept_alone(tower: Any, tmp_path: Path) -> None:
    before = tower.embedded(pictures(tower)).tokens
    tower.keep_embeddings()
    assert len(tower.blocks) == 0
    held = [id(parameter) for part in tower.embeddings for parameter in part.parameters()]
    assert sorted(held) == sorted(id(parameter) for parameter in tower.parameters())
    assert torch.equal(again(tower, tmp_path).embedded(pictures(tower)).tokens, before)


def test_without_a_pooled_vector_gradients_still_reach_every_parameter(tower: Any, tmp_path: Path) -> None:
    whole = tower(pictures(tower))
    tower.keep_tokens()
    features = tower(pictures(tower))
    features.tokens.square().sum().backward()
    assert features.pooled is None
    assert torch.equal(features.tokens, whole.tokens)
    assert [key for key, parameter in tower.named_parameters() if parameter.grad is None] == []
    assert torch.equal(again(tower, tmp_path)(pictures(tower)).tokens, whole.tokens)


@pytest.fixture(params=TEXT)
def donor(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return stirred(open_clip_text.build(OpenClipTextOptions(**TEXT[request.param]), weights="random"))


@torch.no_grad()
def test_words_with_their_positions_can_be_kept_alone(donor: Any, tmp_path: Path) -> None:
    inputs: TextInput = donor.processor(CAPTIONS)
    first = donor.embed(inputs).tokens[:, : inputs.mask.shape[1]]
    before = donor.embedded(inputs)
    assert torch.equal(before.tokens[before.mask], first[before.mask])
    donor.keep_embeddings()
    assert torch.equal(donor.embedded(inputs).tokens, before.tokens)
    saved = SavedBackbone(json.loads(json.dumps(donor.save(tmp_path))), tmp_path)
    built: Any = open_clip_text.build(OpenClipTextOptions(model="gone"), weights="none", saved=saved)
    built.load_state_dict(donor.state_dict(), strict=True, assign=True)
    assert torch.equal(built.embedded(inputs).tokens, before.tokens)


def test_kept_words_are_all_used(donor: Any) -> None:
    donor.keep_embeddings()
    donor.embedded(donor.processor(CAPTIONS)).tokens.sum().backward()
    assert [key for key, parameter in donor.named_parameters() if parameter.grad is None] == []


def test_a_text_tower_says_why_it_is_no_base() -> None:
    _, of_texts = BACKBONES
    said = of_texts.describe(OpenClipTextOptions(model="ViT-B-32"))
    assert said.base is False
    assert "attend only to those before them" in said.refused


IMAGES = f"open-clip:ViT-B-32(image_size=48, overrides={json.dumps(VIT)})"
WORDS = f"open-clip:ViT-B-32(overrides={json.dumps(SMALL)})"


@pytest.mark.parametrize("line", [IMAGES, f"{IMAGES} + {WORDS}"], ids=["new words", "words of the text tower"])
def test_one_tower_models_stand_on_a_vision_tower(line: str, tmp_path: Path) -> None:
    plus = ", random text" if "+" in line else ""
    model = renaissance.build(f'{line}, one-tower(modality="vision"), random encoder{plus}').eval()
    encoder: Any = model.encoder
    inputs = encoder.text.processor(["a red cup", "two dogs"])
    vision, text = encoder.encode_vision(pictures(encoder.base)), encoder.encode_text(inputs)
    alone, _ = encoder._run(vision, None)
    assert torch.equal(alone.tokens, encoder.base(pictures(encoder.base)).tokens)
    joint = encoder.fuse(vision, text, frozenset({"vision", "text", "pooled"}))
    (joint.pooled.sum() + joint.vision.tokens.square().sum() + joint.text.tokens.square().sum()).backward()
    assert [key for key, parameter in encoder.named_parameters() if parameter.grad is None] == []
    model.save(tmp_path / "model")
    loaded: Any = renaissance.from_pretrained(tmp_path / "model").encoder
    with torch.no_grad():
        fused = loaded.fuse(
            loaded.encode_vision(pictures(loaded.base)), loaded.encode_text(inputs), frozenset({"pooled"})
        )
    assert torch.equal(fused.pooled, joint.pooled)
