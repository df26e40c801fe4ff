from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoConfig, AutoModel

from renaissance.api import Features, SavedBackbone, VisionInput
from renaissance.builtin.timm_blocks import with_identities
from renaissance.builtin.timm_entries import TimmOptions
from renaissance.builtin.timm_vision import build as build_timm
from renaissance.builtin.transformers_entries import BACKBONES
from renaissance.builtin.transformers_options import LibraryVisionOptions
from renaissance.builtin.transformers_vision import build as build_transformers
from renaissance.errors import SpecError

BLOCKS: dict[str, Any] = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "patch_size": 8}
BLOCKS |= {"image_size": 32, "intermediate_size": 64}
WITHIN = {"use_relative_position_bias": True, "layer_scale_init_value": 0.1, "drop_path_rate": 0.0}
SHARED = {"use_shared_relative_position_bias": True, "use_absolute_position_embeddings": True, "drop_path_rate": 0.0}

# name -> model type, the config of a small instance, and its positions
TRANSFORMERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "vit": ("vit", BLOCKS, "absolute"),
    "deit": ("deit", BLOCKS, "absolute"),
    "dinov2": ("dinov2", {**BLOCKS, "mlp_ratio": 2}, "absolute"),
    "registers": ("dinov2_with_registers", {**BLOCKS, "mlp_ratio": 2, "num_register_tokens": 3}, "absolute"),
    "dinov3": ("dinov3_vit", {**BLOCKS, "num_register_tokens": 2}, "rope"),
    "ijepa": ("ijepa", BLOCKS, "absolute"),
    "mae": ("vit_mae", BLOCKS, "absolute"),
    "clip": ("clip_vision_model", BLOCKS, "absolute"),
    "siglip": ("siglip_vision_model", BLOCKS, "absolute"),
    "beit": ("beit", {**BLOCKS, **WITHIN, "use_mean_pooling": False}, "relative"),
    "beit mean": ("beit", {**BLOCKS, **WITHIN, "use_mean_pooling": True}, "relative"),
    "beit shared": ("beit", {**BLOCKS, **SHARED, "use_mean_pooling": False}, "relative"),
}
SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}
MIXED = "vit_small_patch16_rope_mixed_224"
TIMM: dict[str, tuple[str, dict[str, Any], str]] = {
    "timm vit": ("vit_tiny_patch16_224", SMALL, "absolute"),
    "timm siglip": ("vit_base_patch16_siglip_224", SMALL, "absolute"),
    "timm deit": ("deit_tiny_distilled_patch16_224", SMALL, "absolute"),
    "timm eva02": ("eva02_tiny_patch14_224", SMALL, "rope"),
    "timm dinov3": ("vit_small_patch16_dinov3", SMALL, "rope"),
    "timm mixed": (MIXED, SMALL, "rope"),
    "timm beit": ("beit_base_patch16_224", SMALL, "relative"),
    "timm beit shared": (
        "beit_base_patch16_224",
        {**SMALL, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True},
        "relative",
    ),
}
FAMILIES = (*TRANSFORMERS, *TIMM)
POSITIONS = {name: case[2] for name, case in {**TRANSFORMERS, **TIMM}.items()}
PREPROCESSING = {"size": {"height": 32, "width": 32}, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def disturbed(backbone: Any) -> Any:
    """Move every parameter: zeros and ones that an initialisation leaves would hide wrong wiring."""
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return backbone.eval()


def patch_of(name: str) -> int:
    return 8 if name in TRANSFORMERS else 14 if name == "timm eva02" else 16


@pytest.fixture
def backbone(name: str, tmp_path: Path) -> Any:
    torch.manual_seed(0)
    if name in TIMM:
        model, overrides, _ = TIMM[name]
        options = TimmOptions(model=model, image_size=3 * patch_of(name), overrides=overrides)
        return disturbed(build_timm(options, weights="random"))
    model_type, config, _ = TRANSFORMERS[name]
    AutoModel.from_config(AutoConfig.for_model(model_type, **config)).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING))
    return disturbed(build_transformers(LibraryVisionOptions(model=str(tmp_path)), weights="pretrained", saved=None))


def rebuilt(backbone: Any, name: str, folder: Path) -> Any:
    """Save, and build again from what was saved, with the weights."""
    config = json.loads(json.dumps(backbone.save(folder)))
    saved = SavedBackbone(config, folder)
    if name in TIMM:
        again: Any = build_timm(TimmOptions(model="vit_tiny_patch16_224"), weights="none", saved=saved)
    else:
        again = build_transformers(LibraryVisionOptions(model="gone"), weights="none", saved=saved)
    again.load_state_dict(backbone.state_dict(), strict=True, assign=True)
    assert again.save(folder) == config
    return again.eval()


def pictures(backbone: Any, count: int = 2) -> VisionInput:
    shape = (count, 3, *backbone.processor.image_size)
    return VisionInput(torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1)))


def texts(real: tuple[int, int], length: int = 5, seed: int = 2) -> Features:
    """Tokens of two texts [2, L, 32], of which so many are real."""
    tokens = torch.randn(2, length, 32, generator=torch.Generator().manual_seed(seed))
    return Features(tokens, torch.arange(length) < torch.tensor(real)[:, None])


def folded(backbone: Any, own: Features | None, other: Features | None) -> Features:
    state = backbone.join(own, other)
    for index in range(len(backbone.blocks)):
        state = backbone.step(index, state)
    features: Features = backbone.finish(state)
    return features


every_family = pytest.mark.parametrize("name", FAMILIES)


@every_family
def test_positions_are_said(backbone: Any, name: str) -> None:
    assert backbone.positions == POSITIONS[name]


@every_family
@torch.no_grad()
def test_without_others_the_fold_is_the_whole(backbone: Any, name: str) -> None:
    joint: Any = folded(backbone, backbone.embedded(pictures(backbone)), None)
    whole = backbone(pictures(backbone))
    assert torch.equal(joint.tokens, whole.tokens)
    assert torch.equal(joint.mask, whole.mask)
    assert torch.equal(joint.pooled, whole.pooled)


@every_family
@torch.no_grad()
def test_others_that_are_padding_change_nothing(backbone: Any, name: str) -> None:
    own = backbone.embedded(pictures(backbone))
    joint, alone = folded(backbone, own, texts((0, 0))), folded(backbone, own, None)
    count = own.tokens.shape[1]
    assert joint.tokens.shape == (2, count + 5, 32)
    assert joint.mask.sum(1).tolist() == [count, count]
    assert_close(joint.tokens[:, :count], alone.tokens, rtol=0, atol=1e-6)
    assert_close(joint.pooled, alone.pooled, rtol=0, atol=1e-6)


@every_family
@torch.no_grad()
def test_padding_among_others_changes_nothing(backbone: Any, name: str) -> None:
    own = backbone.embedded(pictures(backbone))
    padded, plain = texts((3, 3)), texts((3, 3))
    plain = replace(plain, tokens=plain.tokens[:, :3], mask=plain.mask[:, :3])
    length = own.tokens.shape[1] + 3
    long, short = folded(backbone, own, padded), folded(backbone, own, plain)
    assert_close(long.tokens[:, :length], short.tokens, rtol=0, atol=2e-6)
    assert_close(long.pooled, short.pooled, rtol=0, atol=2e-6)


@every_family
@torch.no_grad()
def test_a_real_other_token_changes_own_tokens(backbone: Any, name: str) -> None:
    own = backbone.embedded(pictures(backbone))
    count = own.tokens.shape[1]
    one, another = folded(backbone, own, texts((2, 2))), folded(backbone, own, texts((2, 2), seed=3))
    moved = (one.tokens - another.tokens)[:, :count].norm(dim=-1)
    assert bool((moved > 1e-5).all())


@every_family
@torch.no_grad()
def test_others_alone_are_a_set_for_the_blocks(backbone: Any, name: str) -> None:
    other = texts((5, 5))
    order = torch.tensor([3, 0, 4, 1, 2])
    straight = folded(backbone, None, other).tokens
    permuted = folded(backbone, None, replace(other, tokens=other.tokens[:, order])).tokens
    assert straight.shape == (2, 5, 32)
    assert_close(straight[:, order], permuted, rtol=0, atol=2e-6)


@every_family
@torch.no_grad()
def test_others_beside_an_image_are_a_set_too(backbone: Any, name: str) -> None:
    own, other = backbone.embedded(pictures(backbone)), texts((5, 5))
    order, count = torch.tensor([3, 0, 4, 1, 2]), own.tokens.shape[1]
    straight = folded(backbone, own, other).tokens
    permuted = folded(backbone, own, replace(other, tokens=other.tokens[:, order])).tokens
    assert_close(straight[:, :count], permuted[:, :count], rtol=0, atol=2e-6)
    assert_close(straight[:, count:][:, order], permuted[:, count:], rtol=0, atol=2e-6)


@every_family
def test_gradients_reach_both_modalities_and_every_block(backbone: Any, name: str) -> None:
    other = texts((5, 3))
    leaf = other.tokens.requires_grad_()
    features = folded(backbone.train(), backbone.embedded(pictures(backbone)), other)
    (features.tokens.square().sum() + features.pooled.sum()).backward()  # type: ignore[union-attr]  # always pooled
    assert leaf.grad is not None
    assert bool(leaf.grad[:, :3].abs().sum(-1).gt(0).all())
    assert [key for key, parameter in backbone.named_parameters() if parameter.grad is None] == []


@every_family
@torch.no_grad()
def test_kept_embeddings_give_what_they_gave(backbone: Any, name: str, tmp_path: Path) -> None:
    before = backbone.embedded(pictures(backbone)).tokens
    backbone.keep_embeddings()
    assert torch.equal(backbone.embedded(pictures(backbone)).tokens, before)
    held = [parameter for part in backbone.embeddings for parameter in part.parameters()]
    assert sorted(map(id, held)) == sorted(map(id, backbone.parameters()))
    assert len(backbone.blocks) == 0
    again = rebuilt(backbone, name, tmp_path)
    assert torch.equal(again.embedded(pictures(again)).tokens, before)


@every_family
def test_what_is_kept_is_what_embedding_uses(backbone: Any, name: str) -> None:
    backbone.keep_embeddings()
    backbone.embedded(pictures(backbone)).tokens.sum().backward()
    assert [key for key, parameter in backbone.named_parameters() if parameter.grad is None] == []


@every_family
@torch.no_grad()
def test_resizing_names_what_changed_and_survives_saving(backbone: Any, name: str, tmp_path: Path) -> None:
    before = {key: tensor.shape for key, tensor in backbone.state_dict().items()}
    size = 6 * patch_of(name)
    changed = backbone.resize(size)
    after = {key: tensor.shape for key, tensor in backbone.state_dict().items()}
    assert after.keys() == before.keys()
    assert set(changed) == {key for key in after if after[key] != before[key]}
    assert bool(changed) is (name not in ("dinov3", "timm dinov3", "timm mixed"))  # their rotations are computed
    assert backbone.processor.image_size == (size, size)
    features = backbone(pictures(backbone))
    assert features.tokens.shape[1] >= 36
    assert torch.equal(folded(backbone, backbone.embedded(pictures(backbone)), None).tokens, features.tokens)
    again = rebuilt(backbone, name, tmp_path)
    assert torch.equal(again(pictures(again)).tokens, features.tokens)


@every_family
@torch.no_grad()
def test_others_join_a_resized_image(backbone: Any, name: str) -> None:
    backbone.resize(4 * patch_of(name) + patch_of(name))
    own = backbone.embedded(pictures(backbone))
    joint, alone = folded(backbone, own, texts((0, 0))), folded(backbone, own, None)
    assert_close(joint.tokens[:, : own.tokens.shape[1]], alone.tokens, rtol=0, atol=1e-6)


@every_family
def test_resizing_leaves_blocks_and_what_is_frozen_alone(backbone: Any, name: str) -> None:
    backbone.requires_grad_(False)
    weights = [parameter for block in backbone.blocks for parameter in block.parameters() if parameter.dim() == 1]
    backbone.resize(5 * patch_of(name))
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    kept = {id(parameter) for block in backbone.blocks for parameter in block.parameters()}
    assert {id(parameter) for parameter in weights} <= kept


@torch.no_grad()
@pytest.mark.parametrize("name", ["timm beit", "timm beit shared"])
def test_resized_distances_keep_those_that_both_sizes_have(backbone: Any, name: str) -> None:
    tables = [tensor for key, tensor in backbone.state_dict().items() if key.endswith("relative_position_bias_table")]
    (changed, *_) = backbone.resize(5 * 16)
    old, new = tables[0], backbone.state_dict()[changed]  # 3 x 3 and 5 x 5 tokens
    assert (old.shape, new.shape) == ((5 * 5 + 3, 2), (9 * 9 + 3, 2))
    assert_close(new[9 * 9 // 2], old[5 * 5 // 2])  # of a token to itself
    assert_close(new[[0, 8, 72, 80]], old[[0, 4, 20, 24]])  # of the farthest to each other
    assert torch.equal(new[-3:], old[-3:])


@torch.no_grad()
@pytest.mark.parametrize("name", ["clip", "beit", "beit shared", "timm vit", "timm eva02", "timm beit"])
@pytest.mark.parametrize("alone", [False, True])
def test_half_precision_joins_with_padding(backbone: Any, name: str, alone: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        own = None if alone else backbone.embedded(pictures(backbone))
        autocast = folded(backbone, own, texts((5, 2)))
    assert bool(autocast.tokens.isfinite().all())
    own = None if alone else backbone.embedded(pictures(backbone))
    own = own and replace(own, tokens=own.tokens.bfloat16())
    half = backbone.bfloat16()
    other = texts((5, 2))
    cast = folded(half, own, replace(other, tokens=other.tokens.bfloat16()))
    assert cast.tokens.dtype == torch.bfloat16
    assert bool(cast.tokens.isfinite().all())


@every_family
def test_a_size_that_patches_do_not_fill_is_refused_with_the_nearest(backbone: Any, name: str) -> None:
    patch = patch_of(name)
    with pytest.raises(SpecError, match=rf"image_size={4 * patch + 1} is no multiple of {patch}, .*={4 * patch}\."):
        backbone.resize(4 * patch + 1)
    with pytest.raises(SpecError, match=rf"Use image_size={patch}\."):
        backbone.resize(0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["vit", "deit", "clip", "siglip", "registers", "beit", "beit shared"])
def test_resizing_a_built_model_is_building_it_at_that_size(backbone: Any, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    folder.mkdir()
    plain = AutoModel.from_config(AutoConfig.for_model(TRANSFORMERS[name][0], **TRANSFORMERS[name][1]))
    plain.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING))
    small = build_transformers(LibraryVisionOptions(model=str(folder)), weights="pretrained", saved=None)
    large = build_transformers(LibraryVisionOptions(model=str(folder), image_size=48), weights="pretrained", saved=None)
    small.resize(48)  # type: ignore[attr-defined]  # what has blocks can be resized
    expected: dict[str, Tensor] = large.state_dict()  # type: ignore[attr-defined]  # a module
    for key, tensor in small.state_dict().items():  # type: ignore[attr-defined]  # a module
        assert_close(tensor, expected[key], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["vit", "timm vit"])
def test_nothing_to_join_is_refused(backbone: Any, name: str) -> None:
    with pytest.raises(SpecError, match="Neither images nor texts"):
        backbone.join(None, None)


def test_identities_leave_a_token_as_it_is() -> None:
    rotations = with_identities(torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0)), 3)
    sines, cosines = rotations[:, 4:].chunk(2, dim=-1)
    assert rotations.shape == (2, 7, 8)
    assert not sines.any()
    assert bool((cosines == 1).all())


@pytest.mark.parametrize(("entry_name", "base"), [("vit-base", True), ("tiny-vit", True), ("swin-tiny", False)])
def test_short_names_say_whether_they_can_be_a_base(entry_name: str, base: bool) -> None:
    (entry,) = [entry for entry in BACKBONES if entry.name == entry_name]
    said = entry.describe(entry.options())
    assert said.base is base
    assert bool(said.refused) is not base
    assert said.positions == ("absolute" if base else "relative")


def test_the_library_knows_its_bare_types() -> None:
    (entry,) = [entry for entry in BACKBONES if entry.library and entry.modality == "vision"]
    described = entry.describe(LibraryVisionOptions(model="clip", patch_size=14))
    assert (described.positions, described.base, described.size_step) == ("absolute", True, 14)
    swin = entry.describe(LibraryVisionOptions(model="swin"))
    assert swin.base is False
    assert "a text has no place in it" in swin.refused


def test_what_does_not_list_its_blocks_is_no_base() -> None:
    small: dict[str, Any] = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
    convolutional = build_timm(TimmOptions(model="resnet18", image_size=64, overrides=small), weights="random")
    (entry,) = [entry for entry in BACKBONES if entry.name == "swin-tiny"]
    windowed = build_transformers(entry.options(**entry.tiny), weights="random", saved=None)  # type: ignore[arg-type]  # Swin's
    assert not any(hasattr(backbone, "join") for backbone in (convolutional, windowed))


@torch.no_grad()
@pytest.mark.parametrize("name", ["beit", "timm beit", "timm eva02"])
def test_a_copy_joins_as_the_original(backbone: Any, name: str) -> None:
    own, other = backbone.embedded(pictures(backbone)), texts((5, 2))
    assert torch.equal(folded(deepcopy(backbone), own, other).tokens, folded(backbone, own, other).tokens)
