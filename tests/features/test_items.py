"""Tasks on items train from stores as well: images and texts of items, regions, and images that are gone."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from renaissance.data.prepared import Writer
from renaissance.errors import DataError
from renaissance.training.run import run

COLOURS = ("red", "green", "blue", "white")


def png(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 40), colour).save(file, "png")
    return file.getvalue()


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., Path]:
    """Write 16 items to train on and 4 to measure; `item` gives what one is besides its images."""

    def write(layout: str, images: int, item: Callable[[int, str], dict[str, Any]]) -> Path:
        folder = tmp_path / "data"
        with Writer(folder) as writer:
            for split, count in (("train", 16), ("test", 4)):
                for number in range(count):
                    names = [f"{split}-{number}-{turn}" for turn in range(images)]
                    for name in names:
                        writer.image(name, png(COLOURS[number % 4]), f"{name}.png")
                    writer.item(split, f"{split}-{number}", images=names, **item(number, COLOURS[number % 4]))
            writer.finish({"layout": layout})
        return folder

    return write


CASES: dict[str, tuple[str, str, int, dict[str, Any], Callable[[int, str], dict[str, Any]]]] = {
    "questions": (
        "vqa", "vqav2", 1, {},
        lambda number, colour: {
            "texts": ["what colour is it?"], "label": colour, "answers": [colour] * 10,
            "fields": {"answer_type": "other"},
        },
    ),
    "two images": (
        "nlvr2", "nlvr2", 2, {},
        lambda number, colour: {"texts": [f"both are {colour}"], "label": ("True", "False")[number % 2]},
    ),
    "regions": (
        "referring", "refcoco", 1, {},
        lambda number, colour: {
            "texts": [f"the {colour} one"], "boxes": [(0.0, 0.0, 20.0, 20.0), (20.0, 0.0, 20.0, 40.0)],
            "target": number % 2,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_items_train_from_stores_bit_for_bit_also_when_their_images_are_gone(
    case: tuple[Any, ...],
    prepared: Callable[..., Path],
    tiny_recipe: Callable[..., dict[str, Any]],
    tiny_spec: Callable[..., str],
    tmp_path: Path,
) -> None:
    task, layout, images, options, item = case
    folder = prepared(layout, images, item)
    recipe = tiny_recipe(
        start=tiny_spec("frozen both"),
        tasks={task: {"options": options}},
        data={"kind": "prepared", "path": str(folder)},
        budget={"steps": 3},
        evaluation={"untrained": False},
    )
    store = {"folder": str(tmp_path / "store")}
    runs = [run(recipe, out=tmp_path / "plain"), run({**recipe, "store": store}, out=tmp_path / "stored")]
    for file in folder.glob("images-*"):
        file.unlink()
    runs.append(run({**recipe, "store": store}, out=tmp_path / "gone"))
    weights = [load_file(done.model_folder / "model.safetensors") for done in runs]
    for other, done in zip(weights[1:], runs[1:], strict=True):
        assert all(torch.equal(value, other[name]) for name, value in weights[0].items())
        assert done.scores["scores"] == runs[0].scores["scores"]
    with pytest.raises(DataError, match=r"images-00000-of-00001\.parquet' cannot be read"):
        run(recipe, out=tmp_path / "without")
