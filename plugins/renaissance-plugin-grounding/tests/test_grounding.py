"""Boxes and their overlap by hand, what is scored and refused, and that it learns."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from renaissance_plugin_grounding.boxes import TargetBoxes, best_constant, overlaps, pixels, shares
from renaissance_plugin_grounding.entries import GroundingOptions
from renaissance_plugin_grounding.grounding import Grounding
from renaissance_plugin_grounding.locating import locate
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou

import renaissance
from renaissance.api import Box, Item, ModelFacts
from renaissance.cli import main
from renaissance.data.collate_items import ItemCollator
from renaissance.data.prepared import Prepared
from renaissance.errors import CapabilityError, DataError, NonFiniteError, SpecError
from renaissance.plain_yaml import parse_yaml
from renaissance.toolkit.pooling import rows

FACTS = ModelFacts(vision=6, text=6, joint=6, fused_text=6, shared_space=False, tokenizer=None)
README = Path(__file__).parents[1] / "README.md"
SCORES = README.with_name("scores.json")
SIZE = (40, 20)  # pixels: width and height
BOX: Box = (10.0, 5.0, 20.0, 10.0)


@dataclass(frozen=True)
class Drawn:
    """A picture of one colour."""

    name: str
    size: tuple[int, int] = SIZE
    orientation: int = 1

    def read(self) -> bytes:
        buffer, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = self.orientation
        Image.new("RGB", self.size).save(buffer, "JPEG", exif=exif)
        return buffer.getvalue()


def item(number: int = 0, **told: Any) -> Item:
    given = {"images": (Drawn(f"image {number}"),), "texts": (f"thing {number}",), "boxes": (BOX,), **told}
    return Item(id=f"q-{number}", row=f"test, line {number}", **given)


@dataclass(frozen=True)
class Known:
    """A scorer whose boxes are known."""

    items: Sequence[Item]
    told: Sequence[Tensor]

    def decisions(self, task: str) -> list[Tensor]:
        assert task == "grounding"
        return list(self.told)


def task() -> Grounding:
    return Grounding(GroundingOptions(), model=FACTS)


def scored(items: Sequence[Item], told: Sequence[Tensor]) -> dict[str, Any]:
    return {score.name: score for score in task().score(Known(items, told))}  # type: ignore[arg-type]  # as far as it is asked


# --- boxes ----------------------------------------------------------------------------------------------------------


def test_boxes_in_pixels_become_shares_of_the_image_and_back() -> None:
    assert shares(BOX, SIZE) == (0.5, 0.5, 0.5, 0.5)
    assert pixels(shares((3.0, 4.0, 5.0, 6.0), SIZE), SIZE) == pytest.approx((3.0, 4.0, 5.0, 6.0))


def test_overlaps_are_those_of_torchvision() -> None:
    torch.manual_seed(1)
    one, other = torch.rand(50, 4) * 0.5 + 0.1, torch.rand(50, 4) * 0.5 + 0.1
    corners = [box_convert(boxes, "cxcywh", "xyxy") for boxes in (one, other)]
    iou, giou = overlaps(one, other)
    torch.testing.assert_close(giou, generalized_box_iou(*corners).diagonal())
    assert (iou == 0).any()
    assert (iou > 0).any()
    torch.testing.assert_close(overlaps(one, one)[0], torch.ones(50))


def test_a_box_without_an_area_has_finite_overlaps() -> None:
    nothing = torch.tensor([0.5, 0.5, 0.0, 0.0], requires_grad=True)
    iou, giou = overlaps(nothing, nothing.detach())
    (iou + giou).backward()
    assert iou.isfinite()
    assert nothing.grad is not None
    assert nothing.grad.isfinite().all()


def test_the_box_that_is_meant_is_the_target_or_the_only_one() -> None:
    boxes: tuple[Box, ...] = ((0.0, 0.0, 4.0, 4.0), BOX)
    found = TargetBoxes()([item(boxes=boxes, target=1), item(), item(boxes=boxes, target=0)])
    assert found[:2].tolist() == [[0.5, 0.5, 0.5, 0.5]] * 2
    assert found[2].tolist() == pytest.approx([0.05, 0.1, 0.1, 0.2])


def test_boxes_are_those_of_the_upright_picture() -> None:
    turned = item(images=(Drawn("turned", (20, 40), orientation=6),))
    assert TargetBoxes()([turned]).tolist() == [[0.5, 0.5, 0.5, 0.5]]


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ({"boxes": ()}, "has 0 boxes, and does not say which is meant"),
        ({"boxes": (BOX, BOX)}, "has 2 boxes, and does not say which is meant"),
        ({"target": 3}, "has 1 boxes, and says that number 3 is meant"),
        ({"texts": ("a", "b")}, "has 1 images and 2 texts, and 'grounding' reads one phrase of one image"),
    ],
)
def test_items_without_a_box_that_is_meant_are_refused(told: Mapping[str, Any], fault: str) -> None:
    with pytest.raises(DataError, match=f"test, line 0: 'q-0' {fault}"):
        TargetBoxes()([item(**told)])


# --- scores ---------------------------------------------------------------------------------------------------------


def test_accuracy_counts_boxes_from_half_an_overlap_on() -> None:
    told = [shares(box, SIZE) for box in (BOX, (10.0, 5.0, 10.0, 10.0), (10.0, 5.0, 9.0, 10.0), (30.0, 0.0, 5.0, 5.0))]
    found = scored([item(n) for n in range(4)], [torch.tensor(box) for box in told])
    assert found["accuracy"].value == 50.0
    assert found["mean IoU"].value == pytest.approx(100 * (1 + 0.5 + 0.45 + 0) / 4)
    assert found["accuracy"].ties == 0


def test_chance_is_what_one_box_for_all_gives_and_a_model_that_has_it_is_all_ties() -> None:
    items = [item(n, boxes=((0.0, 0.0, 10.0, 10.0) if n % 4 else BOX,)) for n in range(40)]
    constant = torch.tensor(shares((0.0, 0.0, 10.0, 10.0), SIZE))
    found = scored(items, [constant] * 40)
    assert {name: (score.value, score.chance) for name, score in found.items()} == {
        name: (pytest.approx(score.chance), pytest.approx(score.chance)) for name, score in found.items()
    }
    assert found["accuracy"].chance == 75.0
    assert {score.ties for score in found.values()} == {100.0}


def test_the_best_constant_is_looked_for_among_the_middle_and_the_boxes_themselves() -> None:
    corners = torch.tensor([[x, y, 0.2, 0.2] for x in (0.1, 0.9) for y in (0.1, 0.9)]).repeat(300, 1)
    accuracy, iou = best_constant(corners, enough=0.5)
    assert (accuracy, iou) == (pytest.approx(25.0), pytest.approx(25.0))
    wide = torch.tensor([[0.4, 0.5, 0.6, 0.6], [0.6, 0.5, 0.6, 0.6]])
    assert best_constant(wide, enough=0.7)[0] == 100.0  # the mean; either box alone overlaps the other by half


def test_expressions_of_one_thing_are_resampled_together() -> None:
    same = Drawn("one image")
    items = [item(n, images=(same,), boxes=(BOX, (0.0, 0.0, 4.0, 4.0)), target=n // 3) for n in range(6)]
    found = scored(items, [torch.rand(4) for _ in items])
    assert (found["accuracy"].n, found["accuracy"].units) == (6, 2)


def test_a_split_without_boxes_has_no_score_but_predictions_in_pixels() -> None:
    hidden = [item(boxes=())]
    assert scored(hidden, [torch.tensor([0.5, 0.5, 0.5, 0.5])]) == {}
    (row,) = task().submission(Known(hidden, [torch.tensor([0.5, 0.5, 0.5, 0.5])]))  # type: ignore[arg-type]  # as far as it is asked
    assert row == {"id": "q-0", "box": [10.0, 5.0, 20.0, 10.0]}
    with pytest.raises(NonFiniteError):
        scored([item()], [torch.full((4,), float("nan"))])


# --- on the generated world -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return expressions of a small world, prepared."""
    folder = tmp_path_factory.mktemp("world")
    drawn = ["data", "world", f"{folder}/world", "--size", "120", "--layouts", "refcoco", "--image-size", "32"]
    assert main(drawn) == 0
    assert main(["data", "prepare", "refcoco", f"{folder}/world/refcoco", f"{folder}/prepared"]) == 0
    return folder / "prepared"


def recipe(data: Path, **changes: Any) -> dict[str, Any]:
    text = README.read_text()
    (written,) = re.findall(r"```yaml\n(.*?)```", text, re.S)
    given: dict[str, Any] = parse_yaml(written.encode(), what="README.md")
    return {**given, "data": {**given["data"], "path": str(data)}, **changes}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RENAISSANCE_CACHE", str(tmp_path / "cache"))


def test_the_recipe_of_the_readme_runs_and_its_model_locates(prepared: Path, tmp_path: Path) -> None:
    run = renaissance.run(recipe(prepared, budget={"steps": 2}), out=tmp_path / "run")
    assert {row["name"] for row in run.scores["scores"]} == {"accuracy", "mean IoU"}
    model = renaissance.from_pretrained(tmp_path / "run")
    picture = Image.new("RGB", (64, 32), "red")
    (left, top, width, height), other = locate(model, [picture, picture], ["the red cup", "the star on the left"])
    assert 0 <= left + width / 2 <= 64
    assert 0 <= top + height / 2 <= 32
    assert (left, top, width, height) != other
    with pytest.raises(SpecError, match="1 images and 0 texts"):
        locate(model, [picture], [])


def test_augmented_pictures_are_refused(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"augmentation moves them\. Leave 'augmentation' out"):
        renaissance.run(recipe(prepared, augmentation={"flip": True}), out=tmp_path / "run")


def test_a_model_without_the_task_is_told_so() -> None:
    model = renaissance.build("tiny-vit + tiny-bert, two-tower, random both, lxmert(layers=1, width=32)", tasks=["itm"])
    with pytest.raises(CapabilityError, match="needs a model trained for 'grounding', and this one has the tasks: itm"):
        locate(model, [Image.new("RGB", (32, 32))], ["a cup"])


def test_it_learns_by_heart_where_the_things_of_a_few_pictures_are(prepared: Path) -> None:
    torch.manual_seed(0)
    model = renaissance.build(recipe(prepared)["start"], tasks=["grounding"])
    encoder: Any = model.encoder
    head: Any = model.tasks["grounding"]
    items = list(Prepared(prepared).items("train"))[:16]
    batch = ItemCollator(encoder.vision.processor, encoder.text.processor, 0, {"grounding": head.targets})(items, 0)
    targets = batch.targets["grounding"]
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(120):
        vision, text = encoder.encode_vision(batch.images), encoder.encode_text(batch.texts)
        pairs = rows(vision, batch.pairs[:, 0]), rows(text, batch.pairs[:, 1])
        iou, giou = overlaps(head.predict(encoder.fuse(*pairs, frozenset({"vision"})).vision), targets)
        optimiser.zero_grad()
        (1 - giou).sum().backward()
        optimiser.step()
    constant = best_constant(targets, enough=0.5)[1]
    assert 100 * float(iou.detach().mean()) > max(50.0, 2 * constant)


# --- the figures of the README ----------------------------------------------------------------------------------------


def figures(scores: Mapping[str, Any]) -> str:
    """Return the table of the README: what a run scored, with what the best single box for all items gives."""
    rows = [
        f"| {row['split']} | {row['name']} | {row['chance']:.1f} "
        f"| {row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}] | {row['n']:,} | {row['units']:,} |\n"
        for row in scores["scores"]
        if row["model"] == "trained"
    ]
    head = "| split | score | best single box | trained [95%] | expressions | things |\n|---|---|---|---|---|---|\n"
    return f"<!-- table: scores -->\n{head}{''.join(rows)}<!-- /table -->"


def test_the_figures_of_the_readme_are_those_of_scores_json() -> None:
    """RENAISSANCE_UPDATE_DOCS=1 writes them anew."""
    text, scores = README.read_text(), json.loads(SCORES.read_text())
    fresh = re.sub(r"<!-- table: scores -->.*<!-- /table -->", lambda _: figures(scores), text, flags=re.S)
    if os.environ.get("RENAISSANCE_UPDATE_DOCS"):
        README.write_text(fresh)
    assert fresh == README.read_text(), "run this test with RENAISSANCE_UPDATE_DOCS=1 to write the figures anew"


def test_what_is_committed_was_scored_by_the_recipe_of_the_readme() -> None:
    given, scores = recipe(Path("prepared")), json.loads(SCORES.read_text())
    trained = (scores["training"]["updates"], scores["training"]["batch_size"], scores["primary"])
    assert trained == (given["budget"]["steps"], given["batch"]["size"], given["evaluation"]["primary"])
    for row in scores["scores"]:
        assert row["n"] >= 200
        assert row["low"] > row["chance"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_recipe_of_the_readme_beats_the_best_single_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RENAISSANCE_UPDATE_DOCS=1 keeps what it scores; other machines differ in the last figures."""
    monkeypatch.chdir(tmp_path)
    (lines,) = re.findall(r"```sh\n(.*?)```", README.read_text(), re.S)
    draw, prepare, _ = lines.splitlines()
    for line in (draw, prepare):
        assert main(line.split()[1:]) == 0
    run = renaissance.run(recipe(tmp_path / "prepared"), out=tmp_path / "run")
    for row in run.scores["scores"]:
        assert row["low"] > row["chance"]
    if os.environ.get("RENAISSANCE_UPDATE_DOCS"):
        SCORES.write_bytes((tmp_path / "run" / "scores.json").read_bytes())
