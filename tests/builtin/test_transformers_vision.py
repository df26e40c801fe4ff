from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoConfig, AutoModel, ViTForImageClassification

from renaissance.api import SavedBackbone, VisionInput
from renaissance.builtin.transformers_entries import BACKBONES
from renaissance.builtin.transformers_loading import preprocessing_from
from renaissance.builtin.transformers_options import LibraryVisionOptions
from renaissance.builtin.transformers_vision import build as typed_build
from renaissance.builtin.transformers_vision_families import FAMILIES
from renaissance.errors import HubError, SpecError, UnknownComponentError

SHORT_NAMES = {entry.name: entry for entry in BACKBONES if entry.modality == "vision" and not entry.library}
build: Any = typed_build  # a tower is an nn.Module too, and options come from any entry

SIZES: dict[str, Any] = {"image_size": 32, "patch_size": 8, "layers": 3, "width": 32, "heads": 2, "mlp_width": 64}

BLOCKS: dict[str, Any] = {"num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 2, "patch_size": 8}
BLOCKS |= {"image_size": 32, "intermediate_size": 64}
STAGES: dict[str, Any] = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 1], "num_heads": [1, 2]}
STAGES |= {"window_size": 4, "drop_path_rate": 0.0}
RELATIVE = {"use_relative_position_bias": True, "layer_scale_init_value": 0.1, "drop_path_rate": 0.0}

# name -> model type, and the config of a small instance
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit", BLOCKS),
    "deit": ("deit", BLOCKS),
    "dinov2": ("dinov2", {**BLOCKS, "mlp_ratio": 2}),
    "dinov2_with_registers": ("dinov2_with_registers", {**BLOCKS, "mlp_ratio": 2, "num_register_tokens": 3}),
    "beit": ("beit", {**BLOCKS, **RELATIVE, "use_mean_pooling": False, "use_mask_token": True}),
    "beit-mean": ("beit", {**BLOCKS, **RELATIVE, "use_mean_pooling": True}),
    "beit-shared": (
        "beit",
        {**BLOCKS, "use_shared_relative_position_bias": True, "use_absolute_position_embeddings": True},
    ),
    "dinov3": ("dinov3_vit", {**BLOCKS, "num_register_tokens": 2}),
    "ijepa": ("ijepa", BLOCKS),
    "msn": ("vit_msn", BLOCKS),
    "mae": ("vit_mae", {**BLOCKS, "mask_ratio": 0.0}),
    "swin": ("swin", STAGES),
    "siglip": ("siglip_vision_model", BLOCKS),
    "clip": ("clip_vision_model", BLOCKS),
}
PREFIX = {"vit": 1, "deit": 2, "dinov2": 1, "dinov2_with_registers": 4, "beit": 1, "beit-mean": 1, "beit-shared": 1}
PREFIX |= {"swin": 0, "siglip": 0, "clip": 1, "dinov3": 3, "ijepa": 0, "msn": 1, "mae": 1}
MEAN_POOLED = {"beit-mean", "beit-shared", "swin", "siglip", "ijepa"}
LAYERED = sorted(set(CASES) - {"swin"})

PREPROCESSING = {
    "size": {"height": 32, "width": 32},
    "resample": 3,
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2] * 3,
}


def save(model: Any, folder: Path) -> str:
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING))
    return str(folder)


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, str]]:
    """A plain model of each case, and the folder that it is saved in."""
    made = {}
    for name, (model_type, config) in CASES.items():
        torch.manual_seed(0)
        model = AutoModel.from_config(AutoConfig.for_model(model_type, **config)).eval()
        with torch.no_grad():  # zeros and ones that an initialisation leaves would hide what is not loaded
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        made[name] = (model, save(model, tmp_path_factory.mktemp(name)))
    return made


def pretrained(folder: str, **options: Any) -> Any:
    return build(LibraryVisionOptions(model=folder, **options), weights="pretrained", saved=None)


def random_tower(model_type: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return build(LibraryVisionOptions(model=model_type, **{**SIZES, **options}), weights="random", saved=None)


def pictures(count: int = 3, size: int = 32) -> VisionInput:
    generator = torch.Generator().manual_seed(1)
    return VisionInput(torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8))


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tower(references: dict[str, tuple[Any, str]], case: str) -> Any:
    return pretrained(references[case][1]).eval()


def unshuffled(case: str, pixels: Tensor) -> dict[str, Tensor]:
    """Return what a masked autoencoder is told, so that it leaves its patches in place."""
    count = (pixels.shape[-1] // 8) ** 2
    return {"noise": torch.arange(count).expand(len(pixels), count)} if case == "mae" else {}


def normed(tower: Any, case: str, hidden: Tensor) -> Tensor:
    """Return tokens [V, N, D] through the final norm, where the plain model norms its pooled vector alone."""
    if case == "clip":
        return tower.final[0](hidden)  # type: ignore[no-any-return]  # a module's
    return tower.final[0].layernorm(hidden) if case in ("beit-mean", "beit-shared") else hidden


@torch.no_grad()
def test_tokens_equal_those_of_the_plain_model(references: dict[str, tuple[Any, str]], case: str, tower: Any) -> None:
    pixels = tower.processor.normalise(pictures().pixels)
    plain = references[case][0](pixel_values=pixels, **unshuffled(case, pixels))
    features = tower(pictures())
    assert_close(features.tokens, normed(tower, case, plain.last_hidden_state), rtol=0, atol=1e-6)
    if case in ("beit-mean", "clip", "swin"):  # those whose own pooling has no weights that nothing trained
        assert_close(features.pooled, plain.pooler_output, rtol=0, atol=1e-6)


@torch.no_grad()
def test_declared_facts_are_the_real_ones(tower: Any, case: str) -> None:
    features = tower(pictures())
    grid = 16
    assert (tower.width, tower.prefix_tokens) == (32, PREFIX[case])
    assert len(tower.blocks) == (0 if case == "swin" else 3)
    assert features.tokens.shape == (3, PREFIX[case] + grid, 32)
    assert features.pooled.shape == (3, 32)
    assert features.mask.all()
    assert features.mask.shape == features.tokens.shape[:2]
    assert tower.class_token is (case not in MEAN_POOLED)


@torch.no_grad()
def test_uint8_and_normalised_pixels_are_the_same(tower: Any) -> None:
    normalised = VisionInput((pictures().pixels / 255 - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / 0.2)
    assert_close(tower(pictures()).tokens, tower(normalised).tokens, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_image_does_not_see_its_batch(tower: Any) -> None:
    together = tower(pictures()).tokens
    for index in range(3):
        alone = tower(VisionInput(pictures().pixels[index : index + 1])).tokens[0]
        assert_close(together[index], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_evaluation_is_deterministic(tower: Any) -> None:
    assert torch.equal(tower(pictures()).tokens, tower(pictures()).tokens)


def test_gradients_reach_every_parameter(tower: Any) -> None:
    features = tower.train()(pictures())
    (features.tokens.square().sum() + features.pooled.sum()).backward()
    assert [name for name, parameter in tower.named_parameters() if parameter.grad is None] == []


@torch.no_grad()
def test_tokens_follow_the_grid_row_by_row(tower: Any, case: str) -> None:
    pixels = pictures(1).pixels
    changed = pixels.clone()
    changed[:, :, 8:16, 24:32] = 255 - changed[:, :, 8:16, 24:32]  # row 1, column 3 of 4 x 4
    moved = (tower(VisionInput(changed)).tokens - tower(VisionInput(pixels)).tokens).norm(dim=-1)[0]
    assert moved[PREFIX[case] :].argmax() == 1 * 4 + 3


@torch.no_grad()
@pytest.mark.parametrize("case", LAYERED)
def test_folding_the_steps_is_the_whole(references: dict[str, tuple[Any, str]], case: str) -> None:
    tower = pretrained(references[case][1]).eval()
    state = tower.embed(pictures())
    outputs: list[Tensor] = []
    for index in range(len(tower.blocks)):
        state = tower.step(index, state)
        outputs.append(state.hidden)
    whole = tower(pictures(), layers=(1, -1))
    assert torch.equal(tower.finish(state).tokens, whole.tokens)
    assert torch.equal(tower.finish(state).pooled, whole.pooled)
    assert torch.equal(torch.stack(whole.layers), torch.stack(outputs[1:]))


@pytest.mark.parametrize("case", LAYERED)
def test_embeddings_blocks_and_final_are_all_parameters_once(references: dict[str, tuple[Any, str]], case: str) -> None:
    tower = pretrained(references[case][1])
    parts = [p for part in (*tower.embeddings, *tower.blocks, *tower.final) for p in part.parameters()]
    assert sorted(map(id, parts)) == sorted(map(id, tower.parameters()))


def refuse_network(*_: Any, **__: Any) -> Any:
    raise AssertionError("a socket was opened")


@torch.no_grad()
def test_a_saved_tower_comes_back_bit_for_bit(tower: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads(json.dumps(tower.save(tmp_path)))
    monkeypatch.setattr(socket, "socket", refuse_network)
    saved = SavedBackbone(config=config, folder=tmp_path)
    restored = build(LibraryVisionOptions(model="gone"), weights="none", saved=saved)
    assert all(parameter.is_meta for parameter in restored.parameters())
    restored.load_state_dict(tower.state_dict(), strict=True, assign=True)
    assert not any(buffer.is_meta for buffer in restored.buffers())
    again = restored.eval()(pictures())
    assert torch.equal(again.tokens, tower(pictures()).tokens)
    assert torch.equal(again.pooled, tower(pictures()).pooled)
    assert (restored.config, restored.processor) == (tower.config, tower.processor)


@torch.no_grad()
def test_position_tables_are_resized_as_the_library_resizes_them(
    references: dict[str, tuple[Any, str]], case: str
) -> None:
    plain, folder = references[case]
    tower = pretrained(folder, image_size=64).eval()
    pixels = tower.processor.normalise(pictures(size=64).pixels)
    interpolates = {} if case.startswith(("dino", "beit", "swin")) else {"interpolate_pos_encoding": True}
    expected = plain(pixel_values=pixels, **interpolates, **unshuffled(case, pixels)).last_hidden_state
    assert tower.processor.image_size == (64, 64)
    assert_close(tower(pictures(size=64)).tokens, normed(tower, case, expected), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("case", LAYERED)
def test_the_first_layers_of_pretrained_weights_can_be_kept(references: dict[str, tuple[Any, str]], case: str) -> None:
    folder = references[case][1]
    cut = pretrained(folder, layers=2).eval()
    assert len(cut.blocks) == 2
    kept, whole = cut(pictures(), layers=(1,)), pretrained(folder).eval()(pictures(), layers=(1,))
    assert torch.equal(kept.layers[0], whole.layers[0])


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_random_weights_follow_the_options_without_the_network(
    model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", refuse_network)
    tower = random_tower(model_type)
    assert (tower.width, len(tower.blocks), tower.processor.image_size) == (32, 3, (32, 32))
    assert tower(pictures()).tokens.isfinite().all()


@pytest.mark.parametrize("name", sorted(SHORT_NAMES))
def test_random_weights_are_a_function_of_the_seed(name: str) -> None:
    entry = SHORT_NAMES[name]
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        tower = build(entry.options(**entry.tiny), weights="random", saved=None)
        states.append(tower.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(SHORT_NAMES))
def test_a_short_name_describes_what_it_builds(name: str) -> None:
    entry = SHORT_NAMES[name]
    options = entry.options(**entry.tiny)
    said = entry.describe(options)
    tower = build(options, weights="random", saved=None)
    features = tower(tower.processor([Image.new("RGB", (40, 30), "red")]))
    assert (said.width, said.class_token, said.image_size) == (tower.width, tower.class_token, 32)
    assert said.layered is bool(tower.blocks)
    if tower.blocks:
        assert said.depth == len(tower.blocks)
    assert isinstance(said.grid, tuple)
    assert features.tokens.shape == (1, tower.prefix_tokens + said.grid[0] * said.grid[1], said.width)


@pytest.mark.parametrize("model_type", ["clip", "siglip"])
def test_the_vision_half_of_a_two_tower_model_can_be_taken(model_type: str, tmp_path: Path) -> None:
    config = AutoConfig.for_model(model_type, vision_config=BLOCKS, text_config={"num_hidden_layers": 1})
    model = AutoModel.from_config(config).eval()
    tower = pretrained(save(model, tmp_path)).eval()
    with torch.no_grad():
        pixels = tower.processor.normalise(pictures().pixels)
        expected = model.vision_model(pixel_values=pixels).last_hidden_state
        assert_close(tower(pictures()).tokens, normed(tower, model_type, expected), rtol=0, atol=1e-6)


def test_a_model_takes_images_of_the_size_that_its_preprocessing_makes(tmp_path: Path) -> None:
    model = AutoModel.from_config(AutoConfig.for_model("dinov2", **{**BLOCKS, "mlp_ratio": 2, "image_size": 48}))
    tower = pretrained(save(model.eval(), tmp_path)).eval()  # trained at 48, used at 32, as DINOv2 at 518 and 224
    with torch.no_grad():
        expected = model(pixel_values=tower.processor.normalise(pictures().pixels)).last_hidden_state
        assert_close(tower(pictures()).tokens, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "options", "message"),
    [
        ("vit", {"heads": 5}, "heads=5 does not divide width=32"),
        ("vit", {"heads": None, "width": 100}, "12 heads cannot share a width of 100.*such as width=96"),
        ("dinov2", {"mlp_width": 70}, "mlp_width=70 is no multiple of width=32. Use mlp_width=64"),
        ("swin", {"layers": None, "mlp_width": None, "heads": 2}, "heads differ from stage to stage"),
    ],
)
def test_sizes_that_a_library_model_cannot_have_are_refused(
    model_type: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        random_tower(model_type, **options)


def test_the_heads_of_a_saved_model_are_left_out(tmp_path: Path) -> None:
    folder = save(ViTForImageClassification(AutoConfig.for_model("vit", **BLOCKS)), tmp_path)
    assert not [name for name, _ in pretrained(folder).named_parameters() if "classifier" in name or "pooler" in name]


def test_the_models_own_preprocessing_is_taken(references: dict[str, tuple[Any, str]]) -> None:
    processor = pretrained(references["vit"][1]).processor
    assert (processor.mean, processor.std, processor.resize) == ((0.4, 0.5, 0.6), (0.2, 0.2, 0.2), "squash")


@pytest.mark.parametrize(
    ("values", "image_size", "crop", "resize", "interpolation"),
    [
        ({"size": 224, "resample": 2}, (224, 224), 1.0, "squash", "bilinear"),
        (
            {"size": 256, "do_center_crop": True, "crop_size": 224, "resample": 3},
            (224, 224),
            0.875,
            "squash",
            "bicubic",
        ),
        (
            {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
            (224, 224),
            0.875,
            "shortest",
            "bilinear",
        ),
        (
            {"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "do_center_crop": True, "crop_size": 224},
            (224, 224),
            1.0,
            "shortest",
            "bilinear",
        ),
    ],
)
def test_published_preprocessing_is_understood(
    values: dict[str, Any], image_size: tuple[int, int], crop: float, resize: str, interpolation: str
) -> None:
    processor = preprocessing_from(values)
    assert (processor.image_size, processor.crop) == (image_size, crop)
    assert (processor.resize, processor.interpolation) == (resize, interpolation)


def test_a_model_without_preprocessing_is_refused(tmp_path: Path) -> None:
    AutoModel.from_config(AutoConfig.for_model("vit", **BLOCKS)).save_pretrained(tmp_path)
    with pytest.raises(HubError, match=r"the preprocessing \(preprocessor_config.json\) of"):
        pretrained(str(tmp_path))


@pytest.mark.parametrize(
    ("case", "options", "message"),
    [
        ("vit", {"width": 64}, "the pretrained weights have width=32, not 64. Leave width out, or say 'random vision'"),
        ("vit", {"layers": 4}, "the pretrained weights have layers=3, not 4. Use layers=3 or less"),
        ("vit", {"image_size": 36}, "image_size=36 is no multiple of 8, .* Use image_size=32"),
        ("swin", {"layers": 1}, "has no size called 'layers'"),
    ],
)
def test_options_that_pretrained_weights_do_not_have_are_refused(
    references: dict[str, tuple[Any, str]], case: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        pretrained(references[case][1], **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit-base", {"image_size": 230}, "image_size=230 is no multiple of patch_size=16. Use image_size=224"),
        ("deit-tiny", {"heads": 5}, "heads=5 does not divide width=192. Use width=190 or heads=4"),
        ("vit-base", {"layers": 13}, "vit-base has 12 blocks, not 13"),
        ("swin-tiny", {"heads": [3, 6, 12]}, "depths has 4 stages and heads 3"),
        ("swin-tiny", {"width": 770}, "Use width=768"),
        ("swin-tiny", {"image_size": 225}, "no multiple of patch_size=32. Use image_size=224"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_the_nearest_that_do(
    name: str, options: dict[str, Any], message: str
) -> None:
    entry = SHORT_NAMES[name]
    with pytest.raises(SpecError, match=message):
        entry.describe(entry.options(**options))


@pytest.mark.parametrize("model_type", ["bert", "sam_vision_model"])
def test_what_is_no_supported_vision_encoder_is_refused(model_type: str) -> None:
    with pytest.raises(UnknownComponentError, match="no vision encoder that is supported here"):
        random_tower(model_type)


def test_tiny_vit_has_pretrained_weights_of_its_default_sizes_alone() -> None:
    entry = SHORT_NAMES["tiny-vit"]
    with pytest.raises(SpecError, match=r"default sizes alone .or fewer layers.\..* say 'random vision'"):
        build(entry.options(image_size=32), weights="pretrained", saved=None)


def test_pixels_of_another_size_are_refused() -> None:
    with pytest.raises(SpecError, match="Images of 48 x 48 pixels; this backbone takes 32 x 32"):
        random_tower("vit")(pictures(size=48))


def test_masked_patches_are_refused() -> None:
    with pytest.raises(SpecError, match="neither padded images nor masked patches"):
        random_tower("vit")(VisionInput(pictures().pixels, masked_patches=torch.zeros(3, 16, dtype=torch.bool)))


def test_swin_does_not_list_its_blocks(references: dict[str, tuple[Any, str]]) -> None:
    tower = pretrained(references["swin"][1])
    assert not hasattr(tower, "embed")
    with pytest.raises(SpecError, match="does not list its blocks"):
        tower(pictures(), layers=(0,))
