"""The tower against transformers' own model and image processor, and what native proportions ask of the rest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image
from renaissance_plugin_naflex.entries import BASE, SO400M, BaseOptions
from renaissance_plugin_naflex.pictures import NaflexProcessor, grids
from renaissance_plugin_naflex.tower import Naflex, build, config_of
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Siglip2Config, Siglip2Model, Siglip2VisionModel
from transformers.models.siglip2.image_processing_siglip2 import Siglip2ImageProcessor

import renaissance
from renaissance.api import BackboneEntry, Features, SavedBackbone, VisionInput
from renaissance.errors import CapabilityError, ExportError, HubError, ModelFileError, SpecError
from renaissance.plain_yaml import parse_yaml
from renaissance.resolve import resolve

README = Path(__file__).parents[1] / "README.md"
SIZES: dict[str, Any] = {"layers": 2, "width": 32, "heads": 2, "mlp_width": 48, "patch_size": 8, "positions": 4}
OPTIONS = BaseOptions(max_patches=20, **SIZES)
PICTURES = ((90, 30), (25, 80), (64, 64), (300, 7))  # pixels: width and height


def randomised(model: Any) -> Any:
    torch.manual_seed(3)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def picture(size: tuple[int, int]) -> Image.Image:
    generator = torch.Generator().manual_seed(size[0])
    pixels = torch.randint(0, 256, (size[1], size[0], 3), dtype=torch.uint8, generator=generator)
    return Image.fromarray(pixels.numpy())


def pictures() -> list[Image.Image]:
    return [picture(size) for size in PICTURES]


def model() -> Any:
    return randomised(Siglip2VisionModel(config_of(OPTIONS)))


def tower(theirs: Any) -> Naflex:
    return Naflex(theirs, NaflexProcessor(OPTIONS.max_patches, OPTIONS.patch_size), None).eval()


def reference(theirs: Any, images: list[Image.Image]) -> tuple[Any, Any]:
    """Return what transformers' image processor and model make of pictures."""
    processor = Siglip2ImageProcessor(patch_size=OPTIONS.patch_size, max_num_patches=OPTIONS.max_patches)
    inputs = processor(images, return_tensors="pt")
    with torch.no_grad():
        return inputs, theirs(**inputs)


# --- parity ---------------------------------------------------------------------------------------------------------


def test_pictures_become_the_patches_of_transformers_own_image_processor(parity: Any) -> None:
    ours = tower(model())
    inputs, _ = reference(model(), pictures())
    seen = ours.processor(pictures())
    assert grids(seen, OPTIONS.patch_size) == [tuple(shape) for shape in inputs["spatial_shapes"].tolist()]
    ours.patches = nn.Identity()
    ours.patches.weight = torch.ones(1)  # type: ignore[assignment]  # the tower asks it for its dtype
    ours._places = lambda sizes, length: torch.zeros(1)  # type: ignore[method-assign,assignment]  # patches alone are compared
    state = ours.embed(seen)
    assert torch.equal(state.mask, inputs["pixel_attention_mask"].bool())
    parity("transformers.Siglip2ImageProcessor").close("patches", state.hidden, inputs["pixel_values"].float())


def test_tokens_and_pooled_vectors_are_those_of_transformers_own_model(parity: Any) -> None:
    theirs = model()
    _, expected = reference(theirs, pictures())
    ours = tower(theirs)
    with torch.no_grad():
        found: Features = ours(ours.processor(pictures()))
    same = parity("transformers.Siglip2VisionModel")
    same.close("vision tokens", found.tokens, expected.last_hidden_state, found.mask)
    assert found.pooled is not None
    same.close("pooled vector", found.pooled, expected.pooler_output)


# --- proportions ----------------------------------------------------------------------------------------------------


def test_a_picture_keeps_its_proportions_and_nearly_fills_the_patches() -> None:
    processor = NaflexProcessor(256, 16)
    sizes = {size: grids(processor([picture(size)]), 16)[0] for size in ((400, 300), (300, 400), (64, 64), (900, 100))}
    assert sizes[64, 64] == (16, 16)
    assert sizes[400, 300] == sizes[300, 400][::-1]
    for (width, height), (rows, columns) in sizes.items():
        assert 200 <= rows * columns <= 256
        assert columns / rows == pytest.approx(width / height, rel=0.2)


def test_a_picture_gives_the_same_whatever_shapes_are_beside_it() -> None:
    ours = tower(model())
    with torch.no_grad():
        together: Features = ours(ours.processor(pictures()))
        for row, one in enumerate(pictures()):
            alone: Features = ours(ours.processor([one]))
            assert torch.equal(alone.mask[0], together.mask[row])
            torch.testing.assert_close(alone.tokens[0], together.tokens[row], atol=1e-6, rtol=0)
            assert alone.pooled is not None
            assert together.pooled is not None
            torch.testing.assert_close(alone.pooled[0], together.pooled[row], atol=1e-6, rtol=0)


def test_what_stands_in_the_padding_changes_nothing() -> None:
    ours = tower(model())
    seen = ours.processor(pictures())
    assert seen.mask is not None
    noise = torch.randint(0, 256, seen.pixels.shape, dtype=torch.uint8)
    other = VisionInput(torch.where(seen.mask.unsqueeze(1), seen.pixels, noise), seen.mask)
    with torch.no_grad():
        assert torch.equal(ours(other).tokens, ours(seen).tokens)


def test_the_grid_of_a_picture_counts_and_not_only_its_patches() -> None:
    ours = tower(model())
    strip = torch.randint(0, 256, (1, 3, 8, 64), dtype=torch.uint8)  # eight patches in a row
    block = torch.cat(strip.split(32, dim=3), dim=2)  # the same eight in two rows
    with torch.no_grad():
        one, other = (ours(VisionInput(pixels)) for pixels in (strip, block))
    assert one.mask.sum() == other.mask.sum() == 8
    assert (one.pooled - other.pooled).abs().max() > 1e-3


def test_parts_of_patches_and_too_many_of_them_are_refused() -> None:
    ours = tower(model())
    with pytest.raises(SpecError, match="10 x 64 pixels is no rectangle of whole patches of 8"):
        ours(VisionInput(torch.zeros(1, 3, 10, 64, dtype=torch.uint8)))
    hole = torch.ones(1, 16, 16, dtype=torch.bool)
    hole[0, 3, 3] = False
    with pytest.raises(SpecError, match="no rectangle of whole patches"):
        ours(VisionInput(torch.zeros(1, 3, 16, 16, dtype=torch.uint8), hole))
    with pytest.raises(SpecError, match="6 x 6 patches, and max_patches=20"):
        ours(VisionInput(torch.zeros(1, 3, 48, 48, dtype=torch.uint8)))
    hidden = VisionInput(torch.zeros(1, 3, 16, 16, dtype=torch.uint8), None, torch.ones(1, 4, dtype=torch.bool))
    with pytest.raises(CapabilityError, match="no masked patches"):
        ours(hidden)


def test_it_can_be_built_for_more_patches_later() -> None:
    ours = tower(model())
    assert ours.resize(48) == ()
    assert ours(ours.processor([picture((48, 48))])).mask.sum() == 36
    with pytest.raises(SpecError, match="image_size=50 is no multiple of 8"):
        ours.resize(50)


# --- weights --------------------------------------------------------------------------------------------------------


def published(folder: Path) -> Any:
    """Write a small SigLIP 2 with both towers, as the Hub has it; return its vision model."""
    vision = config_of(OPTIONS).to_dict()
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
    whole: Any = randomised(Siglip2Model(Siglip2Config(text_config=text, vision_config=vision)))
    whole.save_pretrained(folder)
    return whole.vision_model


def test_pretrained_weights_are_read_from_a_repository_with_both_towers(tmp_path: Path) -> None:
    theirs = published(tmp_path)
    options = OPTIONS.model_copy(update={"repository": str(tmp_path)})
    ours = build(options, weights="pretrained").eval()
    with torch.no_grad():
        found = ours(ours.processor(pictures()))
    _, expected = reference(theirs, pictures())
    torch.testing.assert_close(found.pooled, expected.pooler_output, atol=1e-5, rtol=0)
    first = build(options.model_copy(update={"layers": 1}), weights="pretrained")
    assert len(first.blocks) == 1
    assert torch.equal(first.layers[0].mlp.fc1.weight, ours.layers[0].mlp.fc1.weight)  # type: ignore[union-attr,arg-type]  # a library's block


def test_other_sizes_than_the_weights_have_are_refused(tmp_path: Path) -> None:
    published(tmp_path)
    options = OPTIONS.model_copy(update={"repository": str(tmp_path), "width": 64, "layers": 3})
    with pytest.raises(SpecError, match="hidden_size 32 and not 64, num_hidden_layers 2 and not 3"):
        build(options, weights="pretrained")


def test_a_repository_that_cannot_be_read_says_the_way_out(tmp_path: Path) -> None:
    options = OPTIONS.model_copy(update={"repository": str(tmp_path / "nothing")})
    with pytest.raises(HubError, match="or say 'random vision' to start from random weights"):
        build(options, weights="pretrained")


@pytest.mark.parametrize("entry", [BASE, SO400M], ids=["base", "so400m"])
def test_the_parameters_that_are_told_are_those_of_the_defaults(entry: BackboneEntry) -> None:
    config = config_of(cast(BaseOptions, entry.options()))
    assert config.hidden_size % config.num_attention_heads == 0
    with torch.device("meta"):
        built: nn.Module = Siglip2VisionModel(config)
    told = f"{sum(parameter.numel() for parameter in built.parameters()) / 1e6:.0f}M parameters"
    assert f", {told}," in entry.summary
    (row,) = [line for line in README.read_text().splitlines() if f"`naflex:{entry.name}`" in line]
    assert f", {told} |" in row


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(SpecError, match="5 heads do not divide a width of 32"):
        build(OPTIONS.model_copy(update={"heads": 5}), weights="random")


def test_a_saved_config_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is not one of naflex"):
        build(OPTIONS, weights="none", saved=SavedBackbone({"width": 3}, tmp_path))
    (tmp_path / "preprocessor.json").write_text('{"max_patches": 20, "patch_size": 8, "mean": 3}')
    with pytest.raises(ModelFileError, match="is no preprocessing of NaFlex"):
        NaflexProcessor.load(tmp_path)


# --- in renaissance -------------------------------------------------------------------------------------------------


def of_readme(kind: str) -> str:
    text = README.read_text()
    (found,) = re.findall(rf"```{kind}\n(.*?)```", text, re.S)
    return str(found)


def test_the_spec_of_the_readme_resolves() -> None:
    assert "siglip2-base" in str(resolve(of_readme("text").strip()).spec)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of pictures of three shapes with captions, to run recipes on."""
    monkeypatch.setenv("RENAISSANCE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "pictures"
    folder.mkdir()
    shapes = ((80, 30), (30, 80), (50, 50))
    rows = ["image,caption"]
    for number in range(24):
        picture(shapes[number % 3]).save(folder / f"{number}.png")
        rows.append(f"{number}.png,the shape is number {number % 3} of {number}")
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_the_recipe_of_the_readme_trains_on_pictures_of_several_shapes(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(of_readme("yaml"))
    run = renaissance.run(tmp_path / "recipe.yaml", data=folder, out=tmp_path / "run")
    assert {row["task"] for row in run.scores["scores"]} == {"itm"}
    loaded = renaissance.from_pretrained(tmp_path / "run")
    wide, tall = picture((80, 30)), picture((30, 80))
    vectors = loaded.embed(images=[wide, tall, wide]).images
    assert isinstance(vectors, Tensor)
    torch.testing.assert_close(vectors[0], vectors[2])
    torch.testing.assert_close(vectors[:1], loaded.embed(images=[wide]).images)


def test_a_frozen_tower_trains_the_same_bit_for_bit_from_the_store(folder: Path, tmp_path: Path) -> None:
    recipe = parse_yaml(of_readme("yaml").encode(), what="README.md")
    frozen = {**recipe, "start": recipe["start"] + ", frozen vision"}
    weights = []
    for stored in (True, False):
        run = renaissance.run({**frozen, "store": stored}, data=folder, out=tmp_path / f"run-{stored}")
        weights.append(load_file(run.folder / "model" / "model.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    assert [name for name, tensor in weights[0].items() if not torch.equal(tensor, weights[1][name])] == []


def test_it_is_given_whole_pictures_and_refuses_fast_decoding(folder: Path, tmp_path: Path) -> None:
    recipe = parse_yaml(of_readme("yaml").encode(), what="README.md")
    with pytest.raises(SpecError, match=r"are prepared by .*, which is given whole pictures; leave 'decoding' out"):
        renaissance.run({**recipe, "decoding": "fast"}, data=folder, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_it_cannot_be_exported_and_says_why(tmp_path: Path) -> None:
    line = "naflex:siglip2-base(max_patches=16, layers=1, width=32, heads=2, mlp_width=32, patch_size=8, positions=4)"
    plain = renaissance.build(f"{line} + tiny-bert(layers=1, width=32, heads=2), random both")
    with pytest.raises(ExportError, match="naflex lays out the patches of each picture by its size"):
        renaissance.export(plain, tmp_path / "out", part="vision", format="torch-export")
