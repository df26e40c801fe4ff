from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from renaissance.api import SavedBackbone, VisionInput
from renaissance.builtin.timm_entries import BACKBONES, TimmOptions
from renaissance.builtin.timm_towers import TimmVision
from renaissance.builtin.timm_vision import build
from renaissance.errors import CapabilityError, HubError, ModelFileError, SpecError, UnknownComponentError

SMALL_VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "vit": {"model": "vit_tiny_patch16_224", "image_size": 48, "overrides": SMALL_VIT},
    "vit with registers": {"model": "vit_small_patch16_dinov3", "image_size": 48, "overrides": SMALL_VIT},
    "siglip": {"model": "vit_base_patch16_siglip_224", "image_size": 48, "overrides": SMALL_VIT},
    "deit distilled": {"model": "deit_tiny_distilled_patch16_224", "image_size": 48, "overrides": SMALL_VIT},
    "beit": {"model": "beit_base_patch16_224", "image_size": 48, "overrides": SMALL_VIT},
    "eva02": {"model": "eva02_tiny_patch14_224", "image_size": 42, "overrides": SMALL_VIT},
    "mixed rope": {"model": "vit_small_patch16_rope_mixed_224", "image_size": 48, "overrides": SMALL_VIT},
    "swin": {
        "model": "swin_tiny_patch4_window7_224",
        "image_size": 32,
        "overrides": {"embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
    },
    "swinv2": {
        "model": "swinv2_tiny_window8_256",
        "image_size": 32,
        "overrides": {"embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
    },
    "convnext": {
        "model": "convnext_tiny",
        "image_size": 64,
        "overrides": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]},
    },
    "resnet": {
        "model": "resnet18",
        "image_size": 64,
        "overrides": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
    },
    "efficientnet": {"model": "efficientnet_lite0", "image_size": 64},
    "test_vit": {"model": "test_vit", "image_size": 48},
    "test_vit3": {"model": "test_vit3", "image_size": 48},
    "test_vit_relpos": {"model": "test_vit_relpos", "image_size": 48},
    "test_convnext": {"model": "test_convnext", "image_size": 64},
    "test_maxvit": {"model": "test_maxvit", "image_size": 64},
    "test_mambaout": {"model": "test_mambaout", "image_size": 64},
}
LAYERED = (
    "vit",
    "vit with registers",
    "siglip",
    "deit distilled",
    "beit",
    "eva02",
    "mixed rope",
    "test_vit",
    "test_vit3",
)
STAGED = ("swin", "convnext", "resnet", "efficientnet")


def options(family: str, **changes: Any) -> TimmOptions:
    return TimmOptions(**{**FAMILIES[family], **changes})


def built(family: str, **changes: Any) -> Any:  # LayeredTimmVision or TimmVision, by its family
    torch.manual_seed(0)
    backbone: Any = build(options(family, **changes), weights="random").eval()
    # timm starts some scales, biases and tokens at zero or nearly so, and then wrong wiring could not show
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return backbone


def images(backbone: TimmVision, count: int = 2) -> VisionInput:
    shape = (count, 3, *backbone.processor.image_size)
    return VisionInput(torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1)))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a random model must not open a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_declared_facts_are_those_of_the_output(family: str) -> None:
    backbone = built(family)
    features = backbone(images(backbone))
    rows, columns = backbone.grid
    assert features.tokens.shape == (2, backbone.num_prefix_tokens + rows * columns, backbone.width)
    assert features.mask.shape == features.tokens.shape[:2]
    assert bool(features.mask.all())
    assert features.pooled is not None
    grid_mean = features.tokens[:, backbone.num_prefix_tokens :].mean(1)
    assert torch.equal(features.pooled, features.tokens[:, 0] if backbone.class_token else grid_mean)
    assert backbone.width == backbone.model.num_features


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_tokens_are_those_of_the_plain_library(family: str) -> None:
    backbone = built(family)
    pixels = backbone.processor.normalise(images(backbone).pixels)
    plain = backbone.model.forward_features(pixels)
    if plain.dim() == 4:
        plain = (
            plain.flatten(1, 2)
            if str(getattr(backbone.model, "output_fmt", "NCHW")).endswith("NHWC")
            else plain.flatten(2).mT
        )
    assert torch.equal(backbone(images(backbone)).tokens, plain)


@torch.no_grad()
@pytest.mark.parametrize("family", ["vit", "deit distilled", "resnet", "efficientnet", "test_convnext"])
def test_random_weights_of_a_seed_are_those_of_timm(family: str) -> None:
    chosen = options(family)
    size = {"img_size": chosen.image_size} if timm.get_pretrained_cfg(chosen.model).fixed_input_size else {}
    torch.manual_seed(3)
    plain = timm.create_model(chosen.model, num_classes=0, **size, **chosen.overrides).eval()
    torch.manual_seed(3)
    backbone = build(chosen, weights="random").eval()
    pixels = backbone.processor.normalise(images(backbone).pixels)
    tokens = plain.forward_features(pixels)
    assert torch.equal(backbone(images(backbone)).tokens, tokens if tokens.dim() == 3 else tokens.flatten(2).mT)


# not EfficientNet, whose random weights blur a patch over its neighbours: the plain library, above, has its order
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "efficientnet"])
@torch.no_grad()
def test_a_changed_patch_moves_its_own_token_most(family: str) -> None:
    backbone = built(family)
    rows, columns = backbone.grid
    height, width = backbone.processor.image_size
    if not timm.get_pretrained_cfg(options(family).model).fixed_input_size:
        # a small picture lies within the view of each cell of a convolutional model
        rows, columns, height, width = 5 * rows, 3 * columns, 5 * height, 3 * width
    row, column = rows - 2, 1
    pixels = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    changed = pixels.clone()
    # the upper left of a cell: where padding shifts cells, they are centred on their corner
    top, left, side = row * height // rows, column * width // columns, 3 * height // rows // 8
    patch = changed[:, :, top : top + side, left : left + side]
    patch.copy_(255 - patch)
    difference = backbone(VisionInput(changed)).tokens - backbone(VisionInput(pixels)).tokens
    moved = difference[0, backbone.num_prefix_tokens :].norm(dim=-1)
    assert int(moved.argmax()) == row * columns + column


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_an_image_does_not_see_its_batch_and_comes_out_the_same_again(family: str) -> None:
    backbone = built(family)
    batch = images(backbone, 3)
    together = backbone(batch).tokens
    assert torch.equal(backbone(batch).tokens, together)
    for index in range(3):
        alone = backbone(VisionInput(batch.pixels[index : index + 1])).tokens[0]
        torch.testing.assert_close(alone, together[index], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_every_parameter(family: str) -> None:
    backbone = built(family)
    tokens = backbone(images(backbone)).tokens
    (tokens * torch.randn_like(tokens)).sum().backward()
    without = [name for name, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_saved_and_rebuilt_without_weights_it_is_the_same_bit_for_bit(family: str, tmp_path: Path) -> None:
    backbone = built(family)
    config = json.loads(json.dumps(backbone.save(tmp_path)))
    again = build(options(family), weights="none", saved=SavedBackbone(config, tmp_path)).eval()
    again.load_state_dict(backbone.state_dict(), strict=True, assign=True)
    assert not any(tensor.is_meta for tensor in (*again.parameters(), *again.buffers()))
    before, after = backbone(images(backbone)), again(images(backbone))
    assert torch.equal(before.tokens, after.tokens)
    assert before.pooled is not None
    assert after.pooled is not None
    assert torch.equal(before.pooled, after.pooled)
    assert again.save(tmp_path) == config


@pytest.mark.parametrize("family", LAYERED)
@torch.no_grad()
def test_a_layered_model_is_the_fold_of_its_blocks(family: str) -> None:
    backbone = built(family)
    state = backbone.embed(images(backbone))
    outputs = []
    for index in range(len(backbone.blocks)):
        state = backbone.step(index, state)
        outputs.append(state.hidden)
    features = backbone(images(backbone), layers=(-1, 0))
    assert torch.equal(backbone.finish(state).tokens, features.tokens)
    assert len(features.layers) == 2
    assert torch.equal(features.layers[0], outputs[-1])
    assert torch.equal(features.layers[1], outputs[0])


@pytest.mark.parametrize("family", LAYERED)
def test_embeddings_blocks_and_final_hold_every_parameter_once(family: str) -> None:
    backbone = built(family)
    parts = (*backbone.embeddings, *backbone.blocks, *backbone.final)
    listed = [id(parameter) for part in parts for parameter in part.parameters()]
    assert sorted(listed) == sorted(id(parameter) for parameter in backbone.parameters())


@pytest.mark.parametrize("family", ["beit", "eva02", "test_vit_relpos"])
def test_a_norm_behind_the_pooling_becomes_that_of_the_tokens(family: str) -> None:
    backbone = built(family)
    assert isinstance(backbone.model.norm, nn.LayerNorm)
    assert isinstance(backbone.model.fc_norm, nn.Identity)


@pytest.mark.parametrize("family", STAGED)
@torch.no_grad()
def test_layers_of_other_models_are_their_stages(family: str) -> None:
    backbone = built(family)
    first, last = backbone(images(backbone), layers=(0, -1)).layers
    assert first.shape[1] > last.shape[1]
    assert last.shape[1] == backbone.grid[0] * backbone.grid[1]


@torch.no_grad()
def test_the_first_blocks_can_be_kept_alone(tmp_path: Path) -> None:
    whole, cut = built("test_vit"), built("test_vit", layers=2)
    assert len(cut.blocks) == 2
    config = cut.save(tmp_path)
    again = build(options("test_vit"), weights="none", saved=SavedBackbone(config, tmp_path))
    assert again.state_dict().keys() == cut.state_dict().keys()
    assert len(whole.blocks) == 6


@torch.no_grad()
def test_a_cnn_takes_images_of_other_sizes() -> None:
    backbone = built("resnet")
    assert backbone(VisionInput(torch.zeros(1, 3, 96, 64, dtype=torch.uint8))).tokens.shape == (1, 6, 16)


def test_options_reach_the_model() -> None:
    backbone = built("vit", drop_rate=0.25, drop_path_rate=0.5)
    assert backbone.model.blocks[1].drop_path1.drop_prob == 0.5
    assert backbone.model.blocks[0].mlp.drop2.p == 0.25


def test_preprocessing_is_that_of_the_weights() -> None:
    processor = build(TimmOptions(model="vit_tiny_patch16_224"), weights="random").processor
    assert processor.describe() == {
        "image_size": [224, 224],
        "crop": 0.9,
        "resize": "shortest",
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    }


def test_building_without_data_counts_parameters_and_computes_nothing() -> None:
    with torch.device("meta"):
        backbone = build(options("vit"), weights="random")
    assert all(parameter.is_meta for parameter in backbone.parameters())
    assert backbone.width == 32


def test_building_without_data_does_not_need_torch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = torch.linspace

    def swapped(*args: Any, **kwargs: Any) -> torch.Tensor:  # as transformers does while it loads
        return plain(*args, **{"device": "cpu", **kwargs})

    monkeypatch.setattr(torch, "linspace", swapped)
    with torch.device("meta"):
        assert build(options("vit"), weights="random").width == 32


def test_pretrained_weights_out_of_reach_are_a_hub_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    monkeypatch.setattr("timm.models._builder.load_custom_from_hf", unreachable)
    with pytest.raises(HubError, match=r"test_vit.*no route to host.*random vision"):
        build(TimmOptions(model="test_vit"), weights="pretrained")


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"model": "vit_bse_patch16_224"}, UnknownComponentError, "Did you mean 'vit_base_patch16_224'"),
        ({"model": "resnet18.a9_in1k"}, UnknownComponentError, "resnet18.a1_in1k"),
        ({"model": "hf_hub:someone/something"}, UnknownComponentError, "no model called"),
        ({"model": "coat_tiny"}, SpecError, "neither tokens nor a feature map"),
        ({"model": "pit_ti_224", "image_size": 64}, SpecError, "1 tokens that are no grid"),
        ({"model": "test_vit", "overrides": {"depht": 2}}, SpecError, "depht"),
        ({"model": "test_vit", "overrides": {"img_size": 64}}, SpecError, "use image_size"),
        ({"model": "test_vit", "layers": 7}, SpecError, "has 6 blocks"),
        ({"model": "resnet18", "layers": 2}, SpecError, "cannot be cut"),
        ({"model": "resnet18", "drop_rate": 0.1}, SpecError, "proj_drop_rate"),
    ],
)
def test_wrong_options_are_typed_errors(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(TimmOptions(**wrong), weights="random")


@pytest.mark.parametrize(("image_size", "resized"), [(None, ()), (160, ()), (192, ("model.pos_embed",))])
def test_a_position_table_that_is_fitted_to_another_image_size_is_named(
    image_size: int | None, resized: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = timm.create_model("test_vit").state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(state))
    chosen = TimmOptions(model="test_vit", image_size=image_size)
    tower = build(chosen, weights="pretrained")
    assert tower.resized == resized
    assert build(chosen, weights="random").resized == ()
    assert build(chosen, weights="none", saved=SavedBackbone(tower.save(tmp_path), tmp_path)).resized == resized


def test_pretrained_weights_with_overrides_are_refused() -> None:
    with pytest.raises(SpecError, match="random vision"):
        build(options("vit"), weights="pretrained")


def test_wrong_inputs_are_typed_errors() -> None:
    backbone = built("test_vit")
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(SpecError, match="built for images"):
        backbone(VisionInput(pixels))
    with pytest.raises(CapabilityError, match="padded"):
        backbone(VisionInput(pixels, mask=torch.ones(1, 32, 32, dtype=torch.bool)))
    with pytest.raises(SpecError, match="Layer 6"):
        backbone(images(backbone), layers=(6,))


def test_a_config_that_fits_no_model_is_a_model_file_error(tmp_path: Path) -> None:
    config = {**built("test_vit").save(tmp_path), "unused": ["no_such_part"]}
    with pytest.raises(ModelFileError, match="does not fit the installed timm"):
        build(options("test_vit"), weights="none", saved=SavedBackbone(config, tmp_path))


def test_the_entry_builds_its_tiny_instance() -> None:
    (entry,) = BACKBONES
    backbone = build(TimmOptions(**entry.tiny), weights="random")
    assert backbone(images(backbone)).tokens.shape == (2, 5, backbone.width)
