"""The vision base of the one-tower study: the recipe that makes it, at a tiny size, and what reads its weights."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from renaissance.api import VisionInput
from renaissance.assemble import assemble, encoder_report
from renaissance.builtin.post_norm_entries import PostNormOptions
from renaissance.builtin.post_norm_vit import PostNormViT, build, write_weights
from renaissance.data.load import load_data
from renaissance.errors import ModelFileError, SpecError
from renaissance.recipe.data import ImagesData
from renaissance.resolve import resolve

RECIPE = Path(__file__).parents[1] / "recipes" / "studies" / "vision_base.py"
SIZES = {"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "heads": 2, "mlp_width": 64}
WRITTEN = ", ".join(f"{name}={value}" for name, value in SIZES.items())
COLOURS = {"warm": ("red", "orange"), "cold": ("blue", "navy")}


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    found = importlib.util.spec_from_file_location("vision_base", RECIPE)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["vision_base"] = module
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures in two groups, some of each source that the recipe knows."""
    folder = tmp_path_factory.mktemp("pictures")
    lines = []
    for index in range(40):
        group = ("warm", "cold")[index % 2]
        Image.new("RGB", (40, 40), COLOURS[group][index // 2 % 2]).save(folder / f"{index}.png")
        source = ("noto", "noto", "clipart", "fluent")[index % 4]
        named = index - 3 if source == "fluent" else index  # fluent has the ids of noto
        word = "".join(chr(97 + int(digit)) * 3 for digit in f"{named:02d}")
        row = {"image": f"{index}.png", "source": source, "id": word, "group": group, "caption": f"{word}s {word}"}
        lines.append(json.dumps(row))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def tower() -> PostNormViT:
    torch.manual_seed(1)
    made = build(PostNormOptions(**SIZES, dropout=0.0), weights="random", saved=None)
    for parameter in made.parameters():  # norms of one and biases of zero would hide what is not read
        torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


def pixels(side: int = 32) -> VisionInput:
    values = torch.randint(0, 256, (2, 3, side, side), generator=torch.Generator().manual_seed(0))
    return VisionInput(values.to(torch.uint8))


def test_the_recipe_makes_a_base_that_a_one_tower_model_takes(
    recipe: ModuleType, pictures: Path, tmp_path: Path, cache: Path
) -> None:
    student = PostNormOptions(**SIZES, dropout=0.0)
    plan = recipe.Plan(student=student, teacher="tiny-vit", teacher_options={}, steps=30, batch=8, lr=3e-3)
    report = recipe.make(pictures, tmp_path / "base", plan)
    again = recipe.make(pictures, tmp_path / "again", plan)
    assert report["R squared of the teacher's features"]["train"]["whole"] > 0.2
    assert set(report["linear probe on the group, held out"]) == {"random", "distilled", "teacher", "most frequent"}
    assert {path.name for path in (tmp_path / "base").iterdir()} == {"config.json", "model.safetensors", "report.json"}
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("base", "again")]
    assert files[0] == files[1]
    assert json.loads((tmp_path / "base" / "report.json").read_text())["plan"] == json.loads(json.dumps(again["plan"]))
    line = f'post-norm-vit(weights="{tmp_path / "base"}", {WRITTEN}), one-tower(max_tokens=16)'
    assembly = assemble(resolve(line))
    assert {name for name in encoder_report(assembly).copied if "blocks" in name}


def test_what_a_stopped_run_kept_of_the_teacher_is_taken_as_it_is(
    recipe: ModuleType, pictures: Path, tmp_path: Path, cache: Path
) -> None:
    records = load_data(ImagesData(path=str(pictures), hold_out=()), cache=cache, on_bad_sample="error", validation=0)
    plan = recipe.Plan(student=PostNormOptions(**SIZES), teacher="tiny-vit", teacher_options={})
    first, again = (
        recipe.lessons_of(records.held[:3], plan, recipe.teacher_of(plan), tmp_path / "kept.npy", views=2)
        for _ in range(2)
    )
    assert first.pixels.shape == (6, 3, 32, 32)
    assert torch.equal(first.pixels, again.pixels)
    assert first.features.any()
    np.save(tmp_path / "kept.npy", np.zeros_like(first.features))
    taken = recipe.lessons_of(records.held[:3], plan, recipe.teacher_of(plan), tmp_path / "kept.npy", views=2)
    assert not taken.features.any()
    assert recipe.key_of(records.held[:3], plan, views=2) != recipe.key_of(records.held[:3], plan, views=1)


def test_a_mirrored_view_has_the_mirrored_features(recipe: ModuleType) -> None:
    grid = torch.arange(4.0).reshape(1, 4, 1)  # 0 1 above 2 3
    lessons = recipe.Lessons(torch.arange(12, dtype=torch.uint8).reshape(1, 3, 2, 2), grid.half().numpy())
    images, features = lessons.batch(torch.tensor([0]), mirrored=True)
    assert features.flatten().tolist() == [1, 0, 3, 2]
    assert images.pixels[0, 0].tolist() == [[1, 0], [3, 2]]


def test_a_teacher_s_tokens_are_put_on_another_grid_without_its_class_token(recipe: ModuleType) -> None:
    rows = torch.arange(3.0).repeat_interleave(3)
    tokens = torch.cat((torch.tensor([99.0]), rows)).reshape(1, 10, 1)
    found = recipe._on_grid(tokens, 3)
    torch.testing.assert_close(found.flatten(), rows)
    assert recipe._on_grid(tokens, 2).shape == (1, 4, 1)
    assert recipe._on_grid(tokens, 2).max() <= 2


# --- the tower --------------------------------------------------------------------------------------------------------


def test_its_weights_are_read_back_as_they_were_written(tower: PostNormViT, tmp_path: Path) -> None:
    write_weights(tower, tmp_path)
    again = build(PostNormOptions(weights=str(tmp_path), **SIZES), weights="pretrained", saved=None).eval()
    assert torch.equal(again(pixels()).tokens, tower(pixels()).tokens)
    short = build(PostNormOptions(weights=str(tmp_path), **{**SIZES, "layers": 1}), weights="pretrained", saved=None)
    assert torch.equal(short.eval()(pixels()).tokens, tower(pixels(), layers=(0,)).layers[0])


def test_positions_are_resized_and_the_report_says_so(tower: PostNormViT, tmp_path: Path) -> None:
    write_weights(tower, tmp_path)
    line = f'post-norm-vit(weights="{tmp_path}", {WRITTEN.replace("image_size=32", "image_size=48")}), one-tower'
    report = encoder_report(assemble(resolve(line)))
    assert report.resized == {"base.embedding.table": (1 + 6 * 6) * 32}
    assert tower.resize(48) == ("embedding.table",)
    large = build(
        PostNormOptions(weights=str(tmp_path), **{**SIZES, "image_size": 48}), weights="pretrained", saved=None
    )
    assert torch.equal(large.eval()(pixels(48)).tokens, tower(pixels(48)).tokens)


def test_its_norms_stand_where_those_of_minilm_do(tower: PostNormViT) -> None:
    tokens = tower(pixels()).tokens
    last: Any = tower.blocks[-1]
    norm = last.mlp.end.norm
    back = (tokens - norm.bias) / norm.weight
    torch.testing.assert_close(back.mean(-1), torch.zeros(tokens.shape[:2]), atol=1e-4, rtol=0)
    assert tower.final == ()


def test_the_default_sizes_are_those_of_minilm() -> None:
    facts = resolve("post-norm-vit, one-tower, random encoder").base.facts  # type: ignore[union-attr]  # it is one tower
    options = PostNormOptions()
    assert (facts.depth, facts.width, options.heads, options.mlp_width) == (6, 384, 12, 1536)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"width": 64}, SpecError, "have width=32; say so, or 'random'"),
        ({"layers": 3}, SpecError, "have 2 blocks, not 3"),
        ({"weights": "nowhere"}, ModelFileError, r"'nowhere' holds no weights .* Make them: make vision-base"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    changed: dict[str, Any], error: type[Exception], message: str, tower: PostNormViT, tmp_path: Path
) -> None:
    write_weights(tower, tmp_path)
    options = PostNormOptions(**{"weights": str(tmp_path), **SIZES, **changed})
    with pytest.raises(error, match=message):
        build(options, weights="pretrained", saved=None)


def test_without_weights_it_must_be_random() -> None:
    with pytest.raises(SpecError, match="'post-norm-vit' has no pretrained weights; say 'random encoder'"):
        resolve("post-norm-vit, one-tower")


def test_another_plan_is_told_apart(recipe: ModuleType) -> None:
    plan = recipe.Plan()
    assert plan.described() != replace(plan, steps=1).described()
