"""From items to batches: distinct images or regions, distinct texts, and every pair of them within an item.

Letters in shapes: V distinct images (where they are augmented, those of each item), T distinct texts, P pairs, I items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from renaissance.api import Batch, Box, Features, Item, ItemTask, Prefix, TextInput, TextProcessor, VisionInput
from renaissance.data.augment import augment, drawn_seed
from renaissance.data.blind import Blindfold
from renaissance.data.captions import caption_key
from renaissance.data.collate import StoredText, StoredVision, ViewKey, check_views, image_key, of_each, view_key
from renaissance.data.decode import decode
from renaissance.data.pixels import decode_pixels, reduction_of
from renaissance.data.reads import counted, read_image
from renaissance.data.sampling import sample_seed
from renaissance.errors import DataError, SampleError
from renaissance.recipe.training import Augmentation
from renaissance.recipe.values import OnBadSample
from renaissance.toolkit.images import ImageProcessor, batched

Picture = TypeVar("Picture")
Place = tuple[int, tuple[str, Box | None]]
NOTHING = -1  # stands in a pair for the modality that an item does not have


@dataclass(frozen=True, slots=True)
class View:
    """An image of an item, or a region of it; `number` says which of the item's images or boxes."""

    item: int
    number: int
    key: tuple[str, Box | None]


@dataclass(frozen=True, slots=True)
class Layout:
    """How the items of a batch lie in it: distinct views and texts, and the pairs of them.

    images: the first view of each distinct image; texts: each distinct text, or pair of texts. pairs: (place in
    `images` or -1, place in `texts` or -1, number of the image, item).
    """

    images: tuple[View, ...]
    texts: tuple[tuple[str, ...], ...]
    pairs: tuple[tuple[int, int, int, int], ...]


def lay_out(items: Sequence[Item], *, regions: bool = False, paired: bool = False, augmented: bool = False) -> Layout:
    """Return where the images (or, with `regions`, the boxes) and the texts of items go; `paired`: two texts are one.

    augmented: an image of two items is two images.

    Raises:
        DataError: an item has neither image nor text, or no box where boxes are asked for.
    """
    images: dict[Place, tuple[int, View]] = {}
    texts: dict[tuple[str, ...], int] = {}
    pairs: list[tuple[int, int, int, int]] = []
    for number, item in enumerate(items):
        rows = []
        for view in _views(number, item, regions=regions):
            place, _ = images.setdefault(_place(view, augmented), (len(images), view))
            rows.append((place, view.number))
        written = ((item.texts,) if paired else tuple((text,) for text in item.texts)) if item.texts else ()
        columns = [texts.setdefault(text, len(texts)) for text in written]
        if not rows and not columns:
            raise DataError(f"{item.row}: the item '{item.id}' has neither image nor text. Prepare the data again.")
        pairs += [(v, t, slot, number) for v, slot in rows or [(NOTHING, 0)] for t in columns or [NOTHING]]
    return Layout(tuple(view for _, view in images.values()), tuple(texts), tuple(pairs))


def _place(view: View, augmented: bool) -> Place:
    """Return what two views have in common whose pixels are the same."""
    return (view.item if augmented else NOTHING, view.key)


def _views(number: int, item: Item, *, regions: bool) -> list[View]:
    if not regions:
        return [View(number, index, (image.name, None)) for index, image in enumerate(item.images)]
    if not item.boxes or not item.images:
        raise DataError(f"{item.row}: the item '{item.id}' has no boxes to choose from. Prepare the data again.")
    return [View(number, index, (item.images[0].name, box)) for index, box in enumerate(item.boxes)]


def open_view(item: Item, view: View) -> Image.Image:
    """Return the upright RGB picture of a view: a whole image, or what is inside of a box of it.

    Raises:
        SampleError: the image cannot be read or decoded, or the box has nothing of it; the message names the item.
    """
    _, box = view.key
    source = item.images[view.number if box is None else 0]
    picture = _decoded(item, source, decode)
    return picture if box is None else picture.crop(_inside(box, picture.width, picture.height, item))


def view_for(processor: object, item: Item, view: View, *, share: float | None = None) -> Image.Image | Tensor:
    """Return the picture of a view as its processor reads it soonest: pixels uint8 [3, h, w] for ours, or PIL's.

    share: the least share of the area of a whole image that will be seen; default: what its centre crop sees.

    Raises:
        SampleError: as for `open_view`.
    """
    if not isinstance(processor, ImageProcessor):
        return open_view(item, view)
    _, box = view.key
    decoder = partial(decode_pixels, fast=reduction_of(processor, share=share, whole=box is not None))
    pixels = _decoded(item, item.images[view.number if box is None else 0], decoder)
    if box is None:
        return pixels
    left, top, right, bottom = _inside(box, pixels.shape[2], pixels.shape[1], item)
    return pixels[:, top:bottom, left:right]


def _decoded(item: Item, source: Any, decoder: Callable[..., Picture]) -> Picture:
    try:
        return decoder(read_image(source), name=f"{item.row}: {source.name}")
    except SampleError as error:
        raise error if str(error).startswith(item.row) else SampleError(f"{item.row}: {error}") from None


def _inside(box: Box, columns: int, rows: int, item: Item) -> tuple[int, int, int, int]:
    """Return (left, top, right, bottom) in whole pixels of what lies inside of a box, at least one wide and high."""
    x, y, width, height = box
    left, top = max(0, round(x)), max(0, round(y))
    right, bottom = min(columns, round(x + width)), min(rows, round(y + height))
    if width <= 0 or height <= 0 or left >= columns or top >= rows or right <= 0 or bottom <= 0:
        size = f"{columns} x {rows}"
        raise SampleError(f"{item.row}: the box {list(box)} lies outside of its image of {size} pixels. Mend the data.")
    return left, top, max(right, left + 1), max(bottom, top + 1)


def tokenized(texts: Sequence[tuple[str, ...]], processor: TextProcessor) -> TextInput:
    """Tokenize texts, or pairs of texts; no text gives ids of shape [0, 1]."""
    if not texts:
        return TextInput(torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 1, dtype=torch.bool))
    if all(len(text) == 1 for text in texts):
        return processor([text[0] for text in texts])
    return processor([text[0] for text in texts], [text[1] for text in texts])


@dataclass(frozen=True, slots=True)
class ItemCollator:
    """Makes batches of items: pure in (seed, epoch, items). targets: by task, what makes its targets of the items.

    blindfold: replaces one modality of each item by that of another one. stored_vision, stored_text: what frozen blocks
    gave; the image files are then not read, and `images` is None.
    """

    images: ImageProcessor | None
    texts: TextProcessor
    seed: int
    targets: Mapping[str, Callable[[Sequence[Item]], Tensor]] = field(default_factory=dict)
    slots: int = 1
    regions: bool = False
    paired: bool = False
    augmentation: Augmentation | None = None
    on_bad_sample: OnBadSample = "error"
    blindfold: Blindfold | None = None
    stored_vision: StoredVision | None = None
    stored_text: StoredText | None = None

    def __post_init__(self) -> None:
        """Check that a store can hold every view of an image.

        Raises:
            SpecError: in each epoch there is another one.
        """
        check_views(self.augmentation, stored=self.stored_vision is not None)

    def __call__(self, items: Sequence[Item], epoch: int | Sequence[int]) -> Batch:
        """Return the batch of these items, of one epoch or each of its own; skipped ones are left out.

        Raises:
            SampleError: an image cannot be used (on_bad_sample "error"), or none of them can.
            DataError: an item has no label, or a wrong one.
        """
        epochs = of_each(epoch, items)
        if self.blindfold is not None:
            items = [self.blindfold(*one) for one in zip(items, epochs, strict=True)]
        with counted() as read:
            pixels, kept, skipped = self._read(items, epochs)
        good = [items[number] for number in kept]
        layout = lay_out(good, regions=self.regions, paired=self.paired, augmented=self._augments)
        turns = [epochs[number] for number in kept]
        places = [_place(replace(view, item=kept[view.item]), self._augments) for view in layout.images]
        vision = [pixels[place] for place in places] if self.stored_vision is None else []
        batch = batch_of(
            good,
            layout,
            batched(vision) if vision else None,
            tokenized(layout.texts, self.texts),
            slots=self.slots,
            seeds=[sample_seed(self.seed, epochs[number], items[number].id) for number in kept],
            targets={name: make(good) for name, make in self.targets.items()},
            skipped=skipped,
            view_keys=self._view_keys(good, layout, turns),
        )
        return replace(
            batch,
            bytes_read=read.count,
            stored_vision=self._stored_images(good, layout, turns),
            stored_text=self.stored_text(layout.texts) if self.stored_text and layout.texts else None,
        )

    def _stored_images(self, items: Sequence[Item], layout: Layout, epochs: Sequence[int]) -> Features | Prefix | None:
        """Return what is stored of the distinct images or regions."""
        if self.stored_vision is None or not layout.images:
            return None
        return self.stored_vision([self._view(items[view.item], view, epochs[view.item]) for view in layout.images])

    def _view(self, item: Item, view: View, epoch: int) -> ViewKey:
        """Return what a store calls a view."""
        if self.augmentation is None or not self._augments:
            return (*view.key, None)
        return (*view.key, drawn_seed(self.augmentation, self.seed, epoch, item.id))

    def _read(
        self, items: Sequence[Item], epochs: Sequence[int]
    ) -> tuple[dict[Place, Tensor], list[int], tuple[str, ...]]:
        """Return uint8 pixels [3, H, W] of the views, the places of usable items, and a line for each that is not."""
        if self.images is None:
            return {}, list(range(len(items))), ()
        pixels: dict[Place, Tensor] = {}
        good: list[int] = []
        skipped: list[str] = []
        for number, item in enumerate(items):
            try:
                for view in _views(number, item, regions=self.regions):
                    place = _place(view, self._augments)
                    if place not in pixels:
                        pixels[place] = self._pixels(self.images, item, view, epochs[number])
            except SampleError as error:
                if self.on_bad_sample == "error":
                    raise
                skipped.append(str(error))
            else:
                good.append(number)
        if not good:
            raise SampleError(f"No item of a batch of {len(items)} can be used; the first: {skipped[0]}")
        return pixels, good, tuple(skipped)

    def _view_keys(self, items: Sequence[Item], layout: Layout, epochs: Sequence[int]) -> list[int] | None:
        """Return a key of how each image looks, where it is augmented: the same image differs from item to item."""
        if not self._augments:
            return None
        return [view_key(view.key[0], items[view.item].id, epochs[view.item]) for view in layout.images]

    @property
    def _augments(self) -> bool:
        # a region is not: a part of a box, or its mirror image, may be no longer what is referred to
        return self.augmentation is not None and self.augmentation.any and not self.regions

    def _pixels(self, processor: ImageProcessor, item: Item, view: View, epoch: int) -> Tensor:
        if self.augmentation is None or not self._augments:
            return processor([view_for(processor, item, view)]).pixels[0]
        picture = view_for(processor, item, view, share=self.augmentation.least_share)
        return augment(picture, processor, self.augmentation, drawn_seed(self.augmentation, self.seed, epoch, item.id))


def collator_of(
    tasks: Mapping[str, ItemTask], images: ImageProcessor | None, texts: TextProcessor, seed: int, **others: object
) -> ItemCollator:
    """Return what makes batches for tasks on the same items.

    Raises:
        DataError: the tasks want different batches of the same items.
    """
    kinds = {(task.slots, task.regions, task.paired) for task in tasks.values()}
    if len(kinds) != 1:
        raise DataError(f"The tasks {', '.join(tasks)} read items differently; train them one after the other.")
    ((slots, regions, paired),) = kinds
    made = {name: task.targets for name, task in tasks.items()}
    return ItemCollator(images, texts, seed, made, slots, regions, paired, **others)  # type: ignore[arg-type]  # its own fields


def batch_of(
    items: Sequence[Item],
    layout: Layout,
    images: VisionInput | None,
    texts: TextInput,
    *,
    slots: int = 1,
    seeds: Sequence[int] | None = None,
    targets: Mapping[str, Tensor] | None = None,
    skipped: tuple[str, ...] = (),
    view_keys: Sequence[int] | None = None,
) -> Batch:
    """Return the batch of items that are laid out so; slots are all 0 where an item's images are not told apart.

    view_keys: of how each image looks, where that is not said by which image, or which box of it, it is.
    """
    pairs = torch.tensor(layout.pairs)  # [P, 4]
    drawn = torch.tensor(list(seeds) if seeds is not None else [0] * len(items))
    image_keys = [image_key(str(view.key)) for view in layout.images]
    return Batch(
        images=images,
        texts=texts,
        pairs=pairs[:, :2],
        slots=pairs[:, 2] if slots > 1 else torch.zeros(len(pairs), dtype=torch.int64),
        items=pairs[:, 3],
        seeds=drawn[pairs[:, 3]],
        caption_keys=torch.zeros(len(layout.images), 1, dtype=torch.int64),
        text_keys=torch.tensor([caption_key("\n".join(text)) for text in layout.texts], dtype=torch.int64),
        image_keys=torch.tensor(image_keys, dtype=torch.int64),
        view_keys=torch.tensor(image_keys if view_keys is None else list(view_keys), dtype=torch.int64),
        ids=tuple(item.id for item in items),
        targets=targets or {},
        skipped=skipped,
    )
