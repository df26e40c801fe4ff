from __future__ import annotations

import json
import logging
import socket
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from renaissance.api import SavedBackbone, TextInput, VisionInput
from renaissance.builtin import open_clip_text, open_clip_vision
from renaissance.builtin.open_clip_entries import BACKBONES, OpenClipTextOptions, OpenClipVisionOptions
from renaissance.builtin.open_clip_text import OpenClipText
from renaissance.builtin.open_clip_vision import OpenClipVision
from renaissance.errors import CapabilityError, HubError, ModelFileError, SpecError, UnknownComponentError

VIT = {"width": 32, "layers": 2, "heads": 2, "patch_size": 16, "embed_dim": 32}
VISION: dict[str, dict[str, Any]] = {
    "vit": {"model": "ViT-B-32", "image_size": 48, "overrides": VIT},
    "vit to another width": {"model": "ViT-B-32", "image_size": 48, "overrides": {**VIT, "embed_dim": 16}},
    "mean pooled": {"model": "ViT-B-32", "image_size": 48, "overrides": {**VIT, "pool_type": "avg"}},
    "norm after pool": {"model": "ViT-B-32", "image_size": 48, "overrides": {**VIT, "final_ln_after_pool": True}},
    "coca": {"model": "coca_ViT-B-32", "image_size": 48, "overrides": {**VIT, "attn_pooler_queries": 5}},
    "resnet": {"model": "RN50", "image_size": 64, "overrides": {"layers": [1, 1, 1, 1], "width": 8, "embed_dim": 16}},
    "siglip": {"model": "ViT-B-16-SigLIP", "image_size": 48, "overrides": {"timm_model_name": "test_vit3"}},
    "convnext": {"model": "convnext_base", "image_size": 64, "overrides": {"timm_model_name": "test_convnext"}},
}
VISION_LAYERED = ("vit", "vit to another width", "mean pooled", "norm after pool", "coca", "siglip")
WITH_GRID = ("vit", "mean pooled", "norm after pool", "siglip")
SMALL = {"width": 32, "layers": 2, "heads": 2, "embed_dim": 32}
TEXT: dict[str, dict[str, Any]] = {
    "clip": {"model": "ViT-B-32", "overrides": SMALL},
    "clip to another width": {"model": "ViT-B-32", "overrides": {**SMALL, "embed_dim": 16}},
    "coca": {"model": "coca_ViT-B-32", "overrides": SMALL},
    "both directions": {
        "model": "ViT-B-32",
        "overrides": {**SMALL, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
    },
}
CAPTIONS = ["a red cup!", "two very long cats that sleep upon a green mat", "!"]


def stirred(backbone: Any) -> Any:
    """Move every parameter off the zeros and ones that some start from, where wrong wiring could not show."""
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return backbone.eval()


def vision(kind: str, **changes: Any) -> OpenClipVision:
    torch.manual_seed(0)
    tower: OpenClipVision = stirred(
        open_clip_vision.build(OpenClipVisionOptions(**{**VISION[kind], **changes}), weights="random")
    )
    return tower


@cache  # reading CLIP's vocabulary takes the time of the test
def text(kind: str, **changes: Any) -> OpenClipText:
    torch.manual_seed(0)
    tower: OpenClipText = stirred(
        open_clip_text.build(OpenClipTextOptions(**{**TEXT[kind], **changes}), weights="random")
    )
    return tower


def images(tower: OpenClipVision, count: int = 2) -> VisionInput:
    shape = (count, 3, *tower.processor.image_size)
    return VisionInput(torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1)))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a random model must not open a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("kind", VISION)
@torch.no_grad()
def test_declared_facts_of_images_are_those_of_the_output(kind: str) -> None:
    tower = vision(kind)
    features = tower(images(tower))
    assert features.tokens.shape[-1] == tower.width
    assert features.pooled is not None
    assert features.pooled.shape == (2, tower.width)
    assert features.mask.shape == features.tokens.shape[:2]
    if tower.grid is not None:
        assert features.tokens.shape[1] == tower.num_prefix_tokens + tower.grid[0] * tower.grid[1]


@pytest.mark.parametrize("kind", ["vit", "mean pooled", "norm after pool", "coca", "siglip"])
@torch.no_grad()
def test_the_pooled_image_vector_is_the_feature_that_the_model_compares(kind: str) -> None:
    tower = vision(kind)
    pixels = tower.processor.normalise(images(tower).pixels)
    plain = tower.visual.forward_intermediates(pixels)["image_features"]
    pooled = tower(images(tower)).pooled
    assert pooled is not None
    assert torch.equal(pooled, plain)


@torch.no_grad()
def test_a_projection_to_another_width_is_left_out() -> None:
    tower = vision("vit to another width")
    features = tower(images(tower))
    assert features.pooled is not None
    assert torch.equal(features.pooled, features.tokens[:, 0])
    assert "visual.proj" not in dict(tower.named_parameters())


@pytest.mark.parametrize("kind", ["vit", "mean pooled"])
@torch.no_grad()
def test_image_tokens_are_the_last_of_the_library_after_its_norm(kind: str) -> None:
    tower = vision(kind)
    pixels = tower.processor.normalise(images(tower).pixels)
    plain = tower.visual.forward_intermediates(
        pixels, indices=1, normalize_intermediates=True, output_fmt="NLC", output_extra_tokens=True
    )
    tokens = torch.cat((plain["image_intermediates_prefix"][-1], plain["image_intermediates"][-1]), dim=1)
    assert torch.equal(tower(images(tower)).tokens, tokens)


@pytest.mark.parametrize("kind", WITH_GRID)
@torch.no_grad()
def test_a_changed_patch_moves_its_own_token_most(kind: str) -> None:
    tower = vision(kind)
    plain = images(tower, 1)
    changed = plain.pixels.clone()
    changed[:, :, 32:, :16] = 255 - changed[:, :, 32:, :16]
    difference = tower(VisionInput(changed)).tokens - tower(plain).tokens
    assert int(difference[0, tower.num_prefix_tokens :].norm(dim=-1).argmax()) == 6


@pytest.mark.parametrize("kind", VISION)
@torch.no_grad()
def test_an_image_does_not_see_its_batch(kind: str) -> None:
    tower = vision(kind)
    batch = images(tower, 3)
    together = tower(batch).tokens
    assert torch.equal(tower(batch).tokens, together)
    alone = tower(VisionInput(batch.pixels[1:2])).tokens[0]
    torch.testing.assert_close(alone, together[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", VISION)
def test_gradients_reach_every_parameter_of_a_vision_tower(kind: str) -> None:
    tower = vision(kind)
    features = tower(images(tower))
    assert features.pooled is not None
    (features.tokens.square().sum() + features.pooled.square().sum()).backward()
    assert [name for name, p in tower.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("kind", VISION)
@torch.no_grad()
def test_a_rebuilt_vision_tower_is_the_same_bit_for_bit(kind: str, tmp_path: Path) -> None:
    tower = vision(kind)
    config = json.loads(json.dumps(tower.save(tmp_path)))
    options = OpenClipVisionOptions(**VISION[kind])
    again = open_clip_vision.build(options, weights="none", saved=SavedBackbone(config, tmp_path)).eval()
    again.load_state_dict(tower.state_dict(), strict=True, assign=True)
    assert not any(tensor.is_meta for tensor in (*again.parameters(), *again.buffers()))
    before, after = tower(images(tower)), again(images(tower))
    assert torch.equal(before.tokens, after.tokens)
    assert before.pooled is not None
    assert after.pooled is not None
    assert torch.equal(before.pooled, after.pooled)


@pytest.mark.parametrize("kind", VISION_LAYERED)
@torch.no_grad()
def test_a_layered_vision_tower_is_the_fold_of_its_blocks(kind: str) -> None:
    tower = vision(kind)
    state = tower.embed(images(tower))
    for index in range(len(tower.blocks)):
        state = tower.step(index, state)
    features = tower(images(tower), layers=(-1,))
    assert torch.equal(tower.finish(state).tokens, features.tokens)
    assert torch.equal(features.layers[0], state.hidden)
    parts = (*tower.embeddings, *tower.blocks, *tower.final)
    listed = [id(parameter) for part in parts for parameter in part.parameters()]
    assert sorted(listed) == sorted(id(parameter) for parameter in tower.parameters())


@pytest.mark.parametrize("kind", TEXT)
@torch.no_grad()
def test_the_pooled_text_vector_is_the_feature_that_the_model_compares(kind: str) -> None:
    tower = text(kind)
    token_ids = open_clip.SimpleTokenizer(context_length=tower.tower.context_length)(CAPTIONS)
    plain = tower.tower(token_ids)
    features = tower(tower.processor(CAPTIONS))
    assert features.pooled is not None
    torch.testing.assert_close(features.pooled, plain[0] if isinstance(plain, tuple) else plain, atol=1e-5, rtol=1e-5)
    assert features.tokens.shape == (3, 12, tower.width)


@pytest.mark.parametrize("kind", TEXT)
@torch.no_grad()
def test_padding_changes_nothing(kind: str) -> None:
    tower = text(kind)
    alone, together = tower(tower.processor(CAPTIONS[:1])), tower(tower.processor(CAPTIONS))
    length = alone.tokens.shape[1]
    assert length < together.tokens.shape[1]
    torch.testing.assert_close(alone.tokens[0], together.tokens[0, :length], atol=1e-5, rtol=1e-5)
    assert alone.pooled is not None
    assert together.pooled is not None
    torch.testing.assert_close(alone.pooled[0], together.pooled[0], atol=1e-5, rtol=1e-5)
    batch = tower.processor(CAPTIONS)
    garbage = TextInput(batch.token_ids.masked_fill(~batch.mask, 49_407), batch.mask)
    assert torch.equal(tower(garbage).tokens, together.tokens)


@torch.no_grad()
def test_a_causal_token_sees_nothing_after_itself() -> None:
    tower = text("clip")
    batch = tower.processor([CAPTIONS[1]])
    changed = batch.token_ids.clone()
    changed[0, 5] = 1000
    before, after = tower(batch).tokens, tower(TextInput(changed, batch.mask)).tokens
    assert torch.equal(before[0, :5], after[0, :5])
    assert not torch.equal(before[0, 5:], after[0, 5:])


@torch.no_grad()
def test_embeddings_in_place_of_ids_give_the_same() -> None:
    tower = text("clip")
    batch = tower.processor(CAPTIONS)
    embedded = TextInput(batch.token_ids, batch.mask, embeddings=tower.tower.token_embedding(batch.token_ids))
    assert torch.equal(tower(embedded).tokens, tower(batch).tokens)


@pytest.mark.parametrize("kind", TEXT)
def test_gradients_reach_every_parameter_of_a_text_tower(kind: str) -> None:
    tower = text(kind)
    features = tower(tower.processor(CAPTIONS))
    assert features.pooled is not None
    (features.tokens.square().sum() + features.pooled.square().sum()).backward()
    assert [name for name, p in tower.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("kind", TEXT)
@torch.no_grad()
def test_a_rebuilt_text_tower_is_the_same_bit_for_bit(kind: str, tmp_path: Path) -> None:
    tower = text(kind, layers=1)
    config = json.loads(json.dumps(tower.save(tmp_path)))
    options = OpenClipTextOptions(**TEXT[kind])
    again = open_clip_text.build(options, weights="none", saved=SavedBackbone(config, tmp_path)).eval()
    again.load_state_dict(tower.state_dict(), strict=True, assign=True)
    assert not any(tensor.is_meta for tensor in (*again.parameters(), *again.buffers()))
    before, after = tower(tower.processor(CAPTIONS)), again(again.processor(CAPTIONS))
    assert torch.equal(before.tokens, after.tokens)
    assert before.pooled is not None
    assert after.pooled is not None
    assert torch.equal(before.pooled, after.pooled)
    assert again.processor.describe() == tower.processor.describe()


@pytest.mark.parametrize("kind", TEXT)
@torch.no_grad()
def test_a_text_tower_is_the_fold_of_its_blocks(kind: str) -> None:
    tower = text(kind)
    batch = tower.processor(CAPTIONS)
    state = tower.embed(batch)
    for index in range(len(tower.blocks)):
        state = tower.step(index, state)
    features = tower(batch, layers=(0, -1))
    assert torch.equal(tower.finish(state).tokens, features.tokens)
    assert torch.equal(features.layers[1], state.tokens[:, :12])
    parts = (*tower.embeddings, *tower.blocks, *tower.final)
    listed = [id(parameter) for part in parts for parameter in part.parameters()]
    assert sorted(listed) == sorted(id(parameter) for parameter in tower.parameters())


def test_the_mask_covers_the_text_and_no_padding() -> None:
    batch = text("clip").processor(["!", "!?! wow !", "a " * 100])
    assert batch.mask.sum(1).tolist() == [3, 5, 77]
    ends = batch.token_ids.gather(1, batch.mask.sum(1, keepdim=True) - 1)
    assert ends.flatten().tolist() == [49_407, 49_407, 49_407]


def test_a_tokenizer_states_its_facts() -> None:
    facts = text("clip").processor.facts
    assert (facts.vocabulary, facts.pad_id, facts.mask_id, facts.max_tokens) == (49_408, 0, None, 77)
    assert facts.special_ids == (49_406, 49_407)


def test_a_tokenizer_knows_the_pieces_of_words_by_what_ends_them() -> None:
    processor = text("clip").processor
    pieces, ids = processor.facts.pieces, processor(["a zyzzyva"]).token_ids[0, 1:-1].tolist()
    assert pieces.continues == ()
    assert [id_ in pieces.unfinished for id_ in ids] == [False, *[True] * (len(ids) - 2), False]
    assert len(ids) > 2


def test_preprocessing_is_that_of_the_weights() -> None:
    plain = vision("vit").processor
    squashed = vision("siglip", revision="webli").processor
    assert (plain.resize, plain.mean[0]) == ("shortest", 0.48145466)
    assert (squashed.resize, squashed.mean, squashed.interpolation) == ("squash", (0.5, 0.5, 0.5), "bicubic")


def test_the_root_logger_is_left_as_it_was() -> None:
    root = logging.getLogger()
    before = (list(root.handlers), list(root.filters), root.level)
    vision("vit")
    text("clip")
    assert (list(root.handlers), list(root.filters), root.level) == before


def test_one_tower_alone_is_kept() -> None:
    assert not any("token_embedding" in name for name, _ in vision("vit").named_parameters())
    assert not any("visual" in name or "logit" in name for name, _ in text("clip").named_parameters())


@pytest.mark.parametrize("model", ["ViT-B-32", "coca_ViT-B-32"])
@torch.no_grad()
def test_pretrained_towers_are_those_of_the_whole_model(
    model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = open_clip.get_model_config(model)
    config["embed_dim"] = 32
    config["vision_cfg"].update(width=32, layers=1, head_width=16, patch_size=16, image_size=32)
    config["text_cfg"].update(width=32, layers=1, heads=2)
    config.get("multimodal_cfg", {}).update(width=32, layers=1, heads=2)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, model, config)
    whole = open_clip.create_model(model).eval()
    torch.save(whole.state_dict(), tmp_path / "weights.pt")
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: str(tmp_path / "weights.pt"))
    tag = "laion2b_s34b_b79k" if model == "ViT-B-32" else "laion2b_s13b_b90k"
    tower = open_clip_vision.build(OpenClipVisionOptions(model=model, revision=tag), weights="pretrained").eval()
    reader = open_clip_text.build(OpenClipTextOptions(model=model, revision=tag), weights="pretrained").eval()
    pixels = tower.processor.normalise(images(tower).pixels)
    pooled, read = tower(images(tower)).pooled, reader(reader.processor(CAPTIONS)).pooled
    assert pooled is not None
    assert read is not None
    torch.testing.assert_close(pooled, whole.encode_image(pixels, normalize=False), atol=1e-5, rtol=1e-5)
    context = config["text_cfg"].get("context_length", 77)
    plain = whole.encode_text(open_clip.tokenize(CAPTIONS, context), normalize=False)
    torch.testing.assert_close(read, plain, atol=1e-5, rtol=1e-5)
    chosen = OpenClipVisionOptions(model=model, revision=tag, image_size=64)
    larger = open_clip_vision.build(chosen, weights="pretrained")
    restored = open_clip_vision.build(chosen, weights="none", saved=SavedBackbone(larger.save(tmp_path), tmp_path))
    assert tower.resized == ()
    assert larger.resized == restored.resized == ("visual.positional_embedding",)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"model": "ViT-B-33"}, UnknownComponentError, "Did you mean 'ViT-B-32'"),
        ({"model": "ViT-B-32", "revision": "laion2b"}, UnknownComponentError, "ViT-B-32@laion2b_"),
        ({"model": "ViT-B-32", "overrides": {"widht": 2}}, SpecError, "Did you mean 'width'"),
        ({"model": "ViT-B-32", "overrides": {**VIT, "width": 33}}, SpecError, "cannot be built"),
        ({**VISION["vit"], "layers": 3}, SpecError, "has 2 blocks"),
    ],
)
def test_wrong_vision_options_are_typed_errors(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_clip_vision.build(OpenClipVisionOptions(**wrong), weights="random")


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"model": "roberta-ViT-B-32"}, SpecError, "transformers:roberta-base"),
        ({"model": "ViT-B-32", "overrides": {**SMALL, "vocab_size": 100}}, SpecError, "vocab_size"),
        ({**TEXT["clip"], "layers": 3}, SpecError, "has 2 blocks"),
    ],
)
def test_wrong_text_options_are_typed_errors(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_clip_text.build(OpenClipTextOptions(**wrong), weights="random")


def test_weights_that_cannot_be_had_are_typed_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", unreachable)
    with pytest.raises(HubError, match=r"no route to host.*random vision"):
        open_clip_vision.build(
            OpenClipVisionOptions(model="ViT-B-32", revision="laion2b_s34b_b79k"), weights="pretrained"
        )
    with pytest.raises(SpecError, match="does not say which pretrained weights"):
        open_clip_vision.build(OpenClipVisionOptions(model="ViT-B-32"), weights="pretrained")
    with pytest.raises(SpecError, match="random text"):
        open_clip_text.build(OpenClipTextOptions(**TEXT["clip"]), weights="pretrained")


def test_wrong_inputs_are_typed_errors() -> None:
    tower, reader = vision("resnet"), text("clip")
    with pytest.raises(SpecError, match="built for images"):
        tower(VisionInput(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)))
    with pytest.raises(CapabilityError, match="cannot give its layers"):
        tower(images(tower), layers=(0,))
    with pytest.raises(SpecError, match="reads 77 tokens, not 78"):
        reader(TextInput(torch.ones(1, 78, dtype=torch.int64), torch.ones(1, 78, dtype=torch.bool)))


def test_damaged_saved_forms_are_model_file_errors(tmp_path: Path) -> None:
    config = {**text("clip").save(tmp_path), "unused": ["no_such_part"]}
    options = OpenClipTextOptions(**TEXT["clip"])
    with pytest.raises(ModelFileError, match="does not fit the installed open_clip"):
        open_clip_text.build(options, weights="none", saved=SavedBackbone(config, tmp_path))
    (tmp_path / "open_clip_tokenizer.json").unlink()
    with pytest.raises(ModelFileError, match="the tokenizer cannot be read"):
        open_clip_text.build(options, weights="none", saved=SavedBackbone(config, tmp_path))


def test_the_entries_build_their_tiny_instances() -> None:
    of_images, of_texts = BACKBONES
    assert open_clip_vision.build(OpenClipVisionOptions(**of_images.tiny), weights="random").width == 32
    assert open_clip_text.build(OpenClipTextOptions(**of_texts.tiny), weights="random").width == 32
