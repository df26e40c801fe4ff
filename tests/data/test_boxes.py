"""Boxes of any kind: the part of the picture that is seen is the one that the box names, or the box is refused."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from renaissance.api import Box, Item
from renaissance.data.collate_items import lay_out, open_view
from renaissance.data.layouts import Layout, Problems, RawImage, RawItem
from renaissance.data.prepare import prepare
from renaissance.data.readers.labelled import box_of
from renaissance.data.streaming.shards import BytesImage
from renaissance.errors import SampleError

WIDTH, HEIGHT = 40, 24
RAMP = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
RAMP[..., 0], RAMP[..., 1] = np.arange(WIDTH), np.arange(HEIGHT)[:, None]  # each pixel says where it is

numbers = st.floats(-60, 60, allow_nan=False)


def ramp() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RAMP).save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = BytesImage("ramp", ramp())


def seen(box: Box) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of what a model sees of a box."""
    item = Item(id="0", images=(PICTURE,), texts=("a",), row="item 0", boxes=(box,), target=0)
    (view,) = lay_out([item], regions=True).images
    pixels = np.asarray(open_view(item, view))
    return pixels[0, 0, 0], pixels[0, 0, 1], pixels[-1, -1, 0] + 1, pixels[-1, -1, 1] + 1


@given(numbers, numbers, numbers, numbers)
@example(3.0, 3.0, 0.4, 0.4)
@example(39.9, 23.9, 5.0, 5.0)
@example(-5.0, -5.0, 50.0, 50.0)
@example(10.0, 10.0, -4.0, -4.0)
@example(-0.4, 0.0, 0.8, 4.0)
def test_what_is_seen_of_a_box_is_what_it_names_or_it_is_refused(
    x: float, y: float, width: float, height: float
) -> None:
    try:
        left, top, right, bottom = seen((x, y, width, height))
    except SampleError as error:
        assert "lies outside of its image" in str(error)  # noqa: PT017
        inside = min(x + width, WIDTH) - max(x, 0), min(y + height, HEIGHT) - max(y, 0)
        assert width <= 0 or height <= 0 or min(inside) <= 0.5
        return
    for low, high, start, size, end in ((left, right, x, width, WIDTH), (top, bottom, y, height, HEIGHT)):
        assert 0 <= low < high <= end
        assert abs(low - max(start, 0)) <= 0.5
        assert high == low + 1 or abs(high - min(start + size, end)) <= 0.5


@pytest.mark.parametrize(
    "values",
    [
        (1, 2, 0, 4),
        (1, 2, 4, 0),
        (1, 2, -3, 4),
        (math.nan, 2, 3, 4),
        (1, math.inf, 3, 4),
        (1, 2, 3),
        (1, 2, 3, 4, 5),
        ("a", 2, 3, 4),
        (None, 2, 3, 4),
    ],
)
def test_a_published_box_without_an_area_or_four_numbers_is_refused(values: tuple[object, ...]) -> None:
    with pytest.raises((TypeError, ValueError)):
        box_of(values)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_box_that_is_not_finite_is_never_written(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(root: Path, problems: Problems) -> list[RawItem]:
        boxes: tuple[Box, ...] = ((0.0, 0.0, value, 4.0),)
        images = (RawImage("0", root / "0.png", PICTURE.data),)
        return [RawItem(split="train", id="0", row="row 0", images=images, texts=("a",), boxes=boxes)]

    layout = Layout(name="made", summary="", read="nowhere:read", page="nowhere.example", files=())
    reader: Callable[[Layout], object] = lambda _: read  # noqa: E731
    monkeypatch.setattr(Layout, "reader", reader)
    with pytest.raises(SampleError, match=r"row 0: a box in it is not four finite numbers"):
        prepare(layout, tmp_path, tmp_path / "out")
