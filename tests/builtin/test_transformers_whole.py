"""Vision encoders of `transformers` that run as a whole, and what is known of each type without building it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoConfig, AutoModel

import renaissance
from renaissance.api import UNKNOWN, TextInput, VisionInput
from renaissance.builtin.transformers_entries import BACKBONES
from renaissance.builtin.transformers_options import LibraryVisionOptions
from renaissance.builtin.transformers_vision import build as typed_build
from renaissance.builtin.transformers_vision_families import FAMILIES
from renaissance.builtin.transformers_vision_types import VISION_TYPES
from renaissance.errors import SpecError
from renaissance.resolve import resolve

build: Any = typed_build  # options come from any entry, a tower is an nn.Module too
(ENTRY,) = [entry for entry in BACKBONES if entry.library and entry.modality == "vision"]

CONVNEXT: dict[str, Any] = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}
PVT: dict[str, Any] = {"image_size": 64, "depths": [1] * 4, "hidden_sizes": [8, 16, 16, 32], "mlp_ratios": [2] * 4}
PVT |= {"num_attention_heads": [1, 2, 2, 2]}
CVT: dict[str, Any] = {"embed_dim": [8, 16, 32], "num_heads": [1, 2, 2], "depth": [1, 2, 3]}
# model type -> the config of a small instance, the tokens of 64 x 64 pixels, and how many stand before the grid
SMALL: dict[str, tuple[dict[str, Any], int, int]] = {
    "convnext": (CONVNEXT, 64, 0),
    "resnet": ({"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1]}, 64, 0),
    "pvt": (PVT, 5, 1),
    "cvt": (CVT, 17, 1),
}
PREPROCESSING = {"size": {"height": 64, "width": 64}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def options(model: str, **given: Any) -> LibraryVisionOptions:
    return LibraryVisionOptions(model=model, **given)


def pictures(size: int = 64) -> VisionInput:
    generator = torch.Generator().manual_seed(1)
    return VisionInput(torch.randint(0, 256, (2, 3, size, size), generator=generator, dtype=torch.uint8))


@pytest.fixture(params=sorted(SMALL))
def model_type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def reference(model_type: str, tmp_path: Path) -> Any:
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(model_type, **SMALL[model_type][0])).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING))
    return model


@torch.no_grad()
@pytest.mark.parametrize("size", [64, 96])
def test_tokens_are_those_of_the_plain_model_at_any_size(
    reference: Any, model_type: str, size: int, tmp_path: Path
) -> None:
    given = options(str(tmp_path), image_size=size)
    if (model_type, size) == ("pvt", 96):  # the library's own way to resize its tables fails
        with pytest.raises(SpecError, match="cannot take images of 96 x 96 pixels"):
            build(given, weights="pretrained", saved=None)
        return
    tower = build(given, weights="pretrained", saved=None).eval()
    features = tower(pictures(size))
    plain = reference(tower.processor.normalise(pictures(size).pixels))
    grid = plain.last_hidden_state
    if grid.dim() == 4:
        grid = grid.flatten(2).transpose(1, 2)
    assert_close(features.tokens[:, -grid.shape[1] :], grid, rtol=0, atol=1e-6)
    assert features.tokens.shape[1] == tower.grid[0] * tower.grid[1] + SMALL[model_type][2]
    if size == 64:
        assert features.tokens.shape[1] == SMALL[model_type][1]
    if model_type == "cvt":
        assert_close(features.pooled, plain.cls_token_value[:, 0], rtol=0, atol=1e-6)


def test_what_the_tokens_do_not_depend_on_is_dropped(tmp_path: Path) -> None:
    tower = build(options("convnext", image_size=32, overrides=CONVNEXT), weights="random", saved=None)
    assert not [name for name, _ in tower.named_parameters() if name.startswith("model.layernorm")]


def test_each_type_is_either_layered_or_refused_as_a_base() -> None:
    layered = {name for name, kind in VISION_TYPES.items() if not kind.refused}
    assert layered - {"clip", "siglip", "chinese_clip"} == set(FAMILIES)


@pytest.mark.parametrize("name", sorted(VISION_TYPES))
def test_the_table_says_the_librarys_own_defaults(name: str) -> None:
    config = AutoConfig.for_model(name)
    values = getattr(config, "vision_config", config).to_dict()
    kind = VISION_TYPES[name]
    plain = json.loads(json.dumps({key: values.get(key, value) for key, value in kind.defaults.items()}))
    assert plain.get("hidden_size") == kind.defaults.get("hidden_size")
    assert plain.get("num_hidden_layers") == kind.defaults.get("num_hidden_layers")
    assert kind.size_step(plain) == kind.size_step({})
    assert kind.image_size({"image_size": values.get("image_size", 224)}) == kind.image_size({})


@pytest.mark.parametrize("name", sorted(name for name, kind in VISION_TYPES.items() if kind.refused))
def test_a_base_that_takes_no_text_is_refused_before_the_build(name: str) -> None:
    with pytest.raises(SpecError, match=r"cannot be the base of a one-tower model: .* Use one such as 'vit-base'"):
        resolve(f'transformers:{name}, one-tower(modality="vision"), random encoder')


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        ("vit", {"image_size": 230}, "image_size=230 is no multiple of 16, .* Use image_size=224"),
        ("clip", {"image_size": 224, "patch_size": 14, "layers": 2}, None),
        ("convnext", {"image_size": 230}, "image_size=230 is no multiple of 32, .* Use image_size=224"),
        ("convnext", {"image_size": 40, "overrides": {"depths": [1, 1]}}, None),
        ("swin", {"image_size": 60, "overrides": {"patch_size": 8}}, "no multiple of 64, .* Use image_size=64"),
        ("pvt", {"image_size": 72, "overrides": {"strides": [4, 2, 2, 1]}}, "no multiple of 16"),
        ("pvt", {"overrides": {"strides": 4}}, "the overrides do not fit"),
        ("resnet", {"image_size": 230}, None),
    ],
)
def test_an_image_size_that_a_type_cannot_take_is_refused_without_building(
    model: str, given: dict[str, Any], message: str | None
) -> None:
    if message is None:
        assert ENTRY.describe(options(model, **given)).image_size == given["image_size"]
        return
    with pytest.raises(SpecError, match=message):
        ENTRY.describe(options(model, **given))


def test_what_only_a_config_says_is_left_open() -> None:
    assert ENTRY.describe(options("beit")).positions == UNKNOWN
    assert ENTRY.describe(options("someone/some-model")).base == UNKNOWN


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        ("convnext", {"width": 64}, "no size called 'width', for its stages differ.*: depths, hidden_sizes"),
        ("resnet", {"dropout": 0.1}, "resnet has no dropout"),
        ("resnet", {"overrides": {"hiden_sizes": [8]}}, "no field 'hiden_sizes' to override. .* 'hidden_sizes'"),
        ("pvt", {"image_size": 64, "overrides": {"num_attention_heads": [3, 3, 3, 3]}}, "do not fit each other"),
        ("cvt", {"image_size": 64, "overrides": {"depth": [1, 1, 1]}}, "do not fit each other"),
    ],
)
def test_sizes_that_stages_cannot_have_are_refused(model: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(options(model, **given), weights="random", saved=None)


def test_weights_keep_their_sizes(tmp_path: Path) -> None:
    AutoModel.from_config(AutoConfig.for_model("convnext", **CONVNEXT)).save_pretrained(tmp_path)
    with pytest.raises(SpecError, match="Leave overrides out, or say 'random vision'"):
        build(options(str(tmp_path), overrides={"depths": [1, 1]}), weights="pretrained", saved=None)


@pytest.mark.parametrize("model", ["clip_vision_model", "beit", "dinov3_vit", "ijepa", "vit_mae"])
def test_every_parameter_of_a_base_is_trained(model: str) -> None:
    sizes = "image_size=32, patch_size=8, layers=2, width=32, heads=2, mlp_width=64"
    encoder: Any = renaissance.build(
        f'transformers:{model}({sizes}), one-tower(modality="vision"), random encoder'
    ).encoder
    ids = torch.tensor([[2, 50, 60, 70, 3], [2, 80, 3, 0, 0]])
    vision, text = encoder.encode_vision(pictures(32)), encoder.encode_text(TextInput(ids, ids != 0))
    encoder.fuse(vision, text, frozenset({"pooled"})).pooled.square().sum().backward()
    trained = {name: p.grad for name, p in encoder.base.named_parameters() if p.requires_grad}
    assert [name for name, gradient in trained.items() if gradient is None] == []


@pytest.mark.parametrize("name", ["convnext", "swinv2", "resnet", "efficientnet", "hiera", "cvt", "mobilevit"])
def test_full_sizes_can_be_built_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        tower = build(options(name), weights="random", saved=None)
    assert all(parameter.is_meta for parameter in tower.parameters())
    assert tower.width > 0
    assert tower.grid[0] > 1
