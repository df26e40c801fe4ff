"""Items become batches: distinct images, regions and texts, every pair of them, and what is right about each item."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from renaissance.api import Item
from renaissance.builtin.labels import Labels, SoftLabels
from renaissance.data.collate_items import ItemCollator, collator_of, lay_out, open_view, view_for
from renaissance.errors import DataError, SampleError
from renaissance.recipe.training import Augmentation
from renaissance.toolkit.images import ImageProcessor, to_pixels
from renaissance.toolkit.text import WordTokenizer


@dataclass(frozen=True)
class Kept:
    """An image in memory."""

    name: str
    data: bytes

    def read(self) -> bytes:
        return self.data


def painted(name: str, colour: str, size: tuple[int, int] = (16, 8)) -> Kept:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return Kept(name, buffer.getvalue())


def gradient() -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


RED, BLUE, GREEN = (painted(colour, colour) for colour in ("red", "blue", "green"))
BROKEN = Kept("broken", b"no picture")


def item(number: int, images: tuple[Kept, ...] = (RED,), texts: tuple[str, ...] = ("a square",), **told: Any) -> Item:
    return Item(id=f"i{number}", images=images, texts=texts, row=f"corpus/train, item {number}", **told)


def pairs(batch: Any) -> list[tuple[int, ...]]:
    return [tuple(row) for row in torch.column_stack([batch.pairs, batch.slots, batch.items]).tolist()]


def test_equal_images_and_texts_are_encoded_once(images: ImageProcessor, texts: WordTokenizer) -> None:
    items = [item(0), item(1, (BLUE,)), item(2, (RED,), ("something",))]
    batch = ItemCollator(images, texts, 0)(items, 0)
    assert batch.images is not None
    assert len(batch.images.pixels) == 2
    assert len(batch.texts.token_ids) == 2
    assert pairs(batch) == [(0, 0, 0, 0), (1, 0, 0, 1), (0, 1, 0, 2)]
    assert batch.ids == ("i0", "i1", "i2")


def test_an_item_has_every_pair_of_its_images_and_texts(images: ImageProcessor, texts: WordTokenizer) -> None:
    batch = ItemCollator(images, texts, 0)([item(0, (RED, BLUE), ("a square", "something red"))], 0)
    assert pairs(batch) == [(0, 0, 0, 0), (0, 1, 0, 0), (1, 0, 0, 0), (1, 1, 0, 0)]


def test_images_of_an_item_are_told_apart_where_the_task_does(images: ImageProcessor, texts: WordTokenizer) -> None:
    items = [item(0, (RED, BLUE)), item(1, (BLUE, RED)), item(2, (GREEN, GREEN))]
    batch = ItemCollator(images, texts, 0, slots=2)(items, 0)
    assert pairs(batch) == [(0, 0, 0, 0), (1, 0, 1, 0), (1, 0, 0, 1), (0, 0, 1, 1), (2, 0, 0, 2), (2, 0, 1, 2)]


def test_boxes_become_images_of_their_own(images: ImageProcessor, texts: WordTokenizer) -> None:
    left_red = Image.new("RGB", (16, 8), "blue")
    left_red.paste(Image.new("RGB", (8, 8), "red"), (0, 0))
    buffer = io.BytesIO()
    left_red.save(buffer, "PNG")
    both = item(0, (Kept("both", buffer.getvalue()),), boxes=((0, 0, 8, 8), (8, 0, 8, 8), (0, 0, 8, 8)))
    batch = ItemCollator(images, texts, 0, regions=True)([both], 0)
    assert batch.images is not None
    pixels = batch.images.pixels.float().mean((2, 3))
    assert pixels.tolist() == [[255, 0, 0], [0, 0, 255]]  # the third box is the first one again
    assert pairs(batch) == [(0, 0, 0, 0), (1, 0, 0, 0), (0, 0, 0, 0)]


@pytest.mark.parametrize(
    "box", [(16.0, 0.0, 4.0, 4.0), (0.0, 9.0, 4.0, 4.0), (2.0, 2.0, 0.0, 4.0), (-9.0, 0.0, 5.0, 5.0)]
)
def test_a_box_outside_of_its_image_is_a_bad_sample(box: Any) -> None:
    outside = item(3, boxes=(box,))
    (view,) = lay_out([outside], regions=True).images
    with pytest.raises(SampleError, match=r"item 3: the box .* lies outside of its image of 16 x 8"):
        open_view(outside, view)


def test_a_box_is_at_least_a_pixel() -> None:
    thin = item(0, boxes=((15.6, 7.7, 0.3, 0.2),))
    (view,) = lay_out([thin], regions=True).images
    with pytest.raises(SampleError):
        open_view(thin, view)
    thin = item(0, boxes=((3.1, 3.1, 0.2, 0.2),))
    (view,) = lay_out([thin], regions=True).images
    assert open_view(thin, view).size == (1, 1)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("box", [None, (3.4, 1.6, 20.2, 9.0), (-5.0, -5.0, 11.0, 100.0), (30.0, 20.0, 0.2, 0.2)])
def test_our_processor_sees_the_pixels_of_the_picture_that_another_sees(
    kind: str, box: Any, images: ImageProcessor
) -> None:
    buffer = io.BytesIO()
    noise = torch.randint(256, (24, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(noise.numpy()).save(buffer, kind)
    one = item(0, (Kept("noise", buffer.getvalue()),), boxes=() if box is None else (box,))
    (view,) = lay_out([one], regions=box is not None).images
    picture, pixels = view_for(object(), one, view), view_for(images, one, view)
    assert isinstance(picture, Image.Image)
    assert isinstance(pixels, Tensor)
    assert torch.equal(pixels, to_pixels(picture))


@pytest.mark.parametrize("images_of", [RED, BROKEN])
def test_both_ways_to_a_picture_refuse_with_one_message(images_of: Kept, images: ImageProcessor) -> None:
    outside = item(3, (images_of,), boxes=((16.0, 0.0, 4.0, 4.0),))
    (view,) = lay_out([outside], regions=True).images
    told = []
    for processor in (images, object()):
        with pytest.raises(SampleError) as error:
            view_for(processor, outside, view)
        told.append(str(error.value))
    assert told[0] == told[1]


def test_two_texts_are_tokenized_as_one_pair(images: ImageProcessor, texts: WordTokenizer) -> None:
    items = [item(0, (), ("a square", "red")), item(1, (), ("red", "a square"))]
    batch = ItemCollator(images, texts, 0, paired=True)(items, 0)
    together = texts(["a square", "red"], ["red", "a square"])
    assert torch.equal(batch.texts.token_ids, together.token_ids)
    assert batch.images is None
    assert pairs(batch) == [(-1, 0, 0, 0), (-1, 1, 0, 1)]


def test_items_without_texts_have_images_alone(images: ImageProcessor, texts: WordTokenizer) -> None:
    batch = ItemCollator(images, texts, 0)([item(0, texts=()), item(1, (BLUE,), ())], 0)
    assert batch.texts.token_ids.shape == (0, 1)
    assert pairs(batch) == [(0, -1, 0, 0), (1, -1, 0, 1)]


@pytest.mark.parametrize(
    ("odd", "options", "message"),
    [
        (item(0, (), ()), {}, "neither image nor text"),
        (item(0), {"regions": True}, "no boxes to choose from"),
    ],
)
def test_items_of_no_use_are_refused(
    odd: Item, options: Any, message: str, images: ImageProcessor, texts: WordTokenizer
) -> None:
    with pytest.raises(DataError, match=message):
        ItemCollator(images, texts, 0, **options)([odd], 0)


def test_what_cannot_be_read_is_left_out_with_its_label_where_that_is_asked_for(
    images: ImageProcessor, texts: WordTokenizer
) -> None:
    targets = {"task": Labels("task", ("no", "yes"))}
    items = [item(0, label="yes"), item(1, (BROKEN,), label="no"), item(2, (BLUE,), label="yes")]
    batch = ItemCollator(images, texts, 0, targets, on_bad_sample="skip")(items, 0)
    assert batch.ids == ("i0", "i2")
    assert batch.items.tolist() == [0, 1]
    assert batch.targets["task"].tolist() == [1, 1]
    (line,) = batch.skipped
    assert line.startswith("corpus/train, item 1")
    with pytest.raises(SampleError, match="item 1"):
        ItemCollator(images, texts, 0, targets)(items, 0)
    with pytest.raises(SampleError, match="No item of a batch of 1"):
        ItemCollator(images, texts, 0, targets, on_bad_sample="skip")(items[1:2], 0)


def test_targets_stand_in_the_order_of_the_items(images: ImageProcessor, texts: WordTokenizer) -> None:
    targets: Any = {"a": Labels("a", ("x", "y"), field="kind"), "b": SoftLabels("b", ("red", "blue"))}
    items = [
        item(0, fields={"kind": "y"}, answers=("red",) * 3 + ("blue",) * 7),
        item(1, fields={"kind": "x"}, answers=("blue",)),
    ]
    batch = ItemCollator(images, texts, 0, targets)(items, 0)
    assert batch.targets["a"].tolist() == [1, 0]
    torch.testing.assert_close(batch.targets["b"], torch.tensor([[0.9, 1.0], [0.0, 1.0]]))


def test_loader_processes_can_take_it(images: ImageProcessor, texts: WordTokenizer) -> None:
    collator = ItemCollator(images, texts, 3, {"task": Labels("task", ("no", "yes"))})
    items = [item(0, label="yes")]
    one, other = collator(items, 1), pickle.loads(pickle.dumps(collator))(items, 1)
    assert torch.equal(one.targets["task"], other.targets["task"])
    assert torch.equal(one.seeds, other.seeds)


def test_a_sample_is_drawn_by_seed_epoch_and_id_alone(images: ImageProcessor, texts: WordTokenizer) -> None:
    collator = ItemCollator(images, texts, 0, augmentation=Augmentation(crop=(0.2, 0.5)))
    items = [item(n, (Kept(f"g{n}", gradient()),)) for n in range(3)]

    def pixels(batch: Any, row: int) -> Tensor:
        return batch.images.pixels[row]  # type: ignore[no-any-return]  # a batch of images

    first, alone, later = collator(items, 0), collator(items[1:], 0), collator(items, 1)
    assert torch.equal(pixels(first, 1), pixels(alone, 0))
    assert not torch.equal(pixels(first, 0), pixels(first, 1))
    assert not torch.equal(pixels(first, 0), pixels(later, 0))


def test_a_batch_in_two_parts_has_the_pixels_of_the_whole(images: ImageProcessor, texts: WordTokenizer) -> None:
    changes = Augmentation(crop=(0.2, 0.5))
    collator = ItemCollator(images, texts, 0, augmentation=changes, on_bad_sample="skip")
    shaded = Kept("shaded", gradient())
    items = [item(0, (BROKEN,)), item(1, (shaded,)), item(2, (shaded, shaded)), item(3, (shaded,))]
    epochs = [0, 0, 1, 0]

    def seen(rows: slice) -> Tensor:
        batch = collator(items[rows], epochs[rows])
        assert batch.images is not None
        return batch.images.pixels[batch.pairs[:, 0]]

    whole = seen(slice(0, 4))
    assert torch.equal(whole, torch.cat([seen(slice(0, 2)), seen(slice(2, 4))]))
    assert torch.equal(whole[1], whole[2])  # both images of one item
    assert len({pixels.numpy().tobytes() for pixels in whole}) == 3


def test_regions_are_not_augmented(images: ImageProcessor, texts: WordTokenizer) -> None:
    boxed = item(0, (Kept("shaded", gradient()),), boxes=((0, 0, 128, 200), (9, 9, 99, 99)))
    plain = ItemCollator(images, texts, 0, regions=True)([boxed, boxed], 0)
    changes = Augmentation(crop=(0.2, 0.5), flip=True, randaugment=2)
    changed = ItemCollator(images, texts, 0, regions=True, augmentation=changes)([boxed, boxed], 0)
    assert plain.images is not None
    assert changed.images is not None
    assert torch.equal(plain.images.pixels, changed.images.pixels)
    assert len(changed.images.pixels) == 2


def test_tasks_that_read_items_differently_are_refused(images: ImageProcessor, texts: WordTokenizer) -> None:
    def task(slots: int) -> Any:
        return type("Task", (), {"slots": slots, "regions": False, "paired": False, "targets": Labels("t", ("a", "b"))})

    assert collator_of({"a": task(2)}, images, texts, 0).slots == 2
    with pytest.raises(DataError, match="a, b read items differently"):
        collator_of({"a": task(1), "b": task(2)}, images, texts, 0)
