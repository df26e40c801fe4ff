"""ARO: `visual_genome_relation.json`, `visual_genome_attribution.json` with `images/`, and two files of word order.

Word order is that of captions of COCO (`coco_karpathy_test.json` with `val2014/`) and Flickr30k (`flickr30k_test.json`
with `flickr30k-images/`), as [{image, caption: [...]}]. As published they hold the captions alone: what the words are
shuffled to is in `shuffles.py`, and the subset is then called "coco-order (own shuffles)". An entry that has
`caption_options` (the true one first) is taken as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from renaissance.data.layouts import Problems, RawImage, RawItem
from renaissance.data.readers.labelled import below, box_of, image_folder, splits_there, text_of, usable
from renaissance.data.readers.published_labelled import ARO_PAGE, ORDER_FILES
from renaissance.data.readers.shuffles import order_options
from renaissance.data.readers.streams import json_items

FILES = {
    "relation": "visual_genome_relation.json",
    "attribution": "visual_genome_attribution.json",
    "coco-order": ORDER_FILES[0],
    "flickr30k-order": ORDER_FILES[1],
}
# said in the name of the subset, so that it stands beside each score: such a one is not to be put beside published ones
OWN = " (own shuffles)"
_CROP = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")


def read(root: Path, problems: Problems) -> Iterator[RawItem]:
    """Yield an item for each test of the parts that were downloaded, in the split `test`: the true caption comes first.

    The tests on Visual Genome have one box, to which their image is cropped. Fields: subset; relation; attributes, as
    `first_second`.

    Raises:
        DataError: none of the files is there, or one is damaged.
        SampleError: a row cannot be used, and bad samples are errors.
    """
    for subset, file in splits_there(root, FILES, page=ARO_PAGE).items():
        if subset in ("relation", "attribution"):
            images = image_folder(root, ("images",), problems, page=ARO_PAGE)
            rows = ((f"{file.name}, test {number}", (number, entry)) for number, entry in enumerate(json_items(file)))
            yield from usable(rows, partial(_swapped, subset, images), problems)
        else:
            yield from usable(_captions(file, problems), partial(_ordered, subset, root), problems)


def _swapped(subset: str, images: Path, row: str, test: tuple[int, Any]) -> RawItem:
    number, entry = test
    path = below(images, entry["image_path"])
    fields = {"subset": subset}
    if subset == "relation":
        fields["relation"] = text_of(entry, "relation_name")
    else:
        first, second = entry["attributes"]
        fields["attributes"] = f"{first}_{second}"
    texts = text_of(entry, "true_caption"), text_of(entry, "false_caption")
    if texts[0] == texts[1]:
        raise ValueError("the true and the false caption are the same")
    return RawItem(
        split="test",
        id=f"{subset}-{number}",
        row=row,
        images=(RawImage(f"visual-genome:{path.stem}", path),),
        texts=texts,
        boxes=(box_of([entry[key] for key in _CROP]),),
        target=0,
        fields=fields,
    )


# --- word order ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Caption:
    """A caption of an image, or the candidates that are published for it; `own`: they were shuffled here."""

    key: str
    image: Any
    texts: Callable[[], tuple[str, ...]]
    own: bool = False


def _captions(file: Path, problems: Problems) -> Iterator[tuple[str, _Caption]]:
    for number, entry in enumerate(json_items(file)):
        row = f"{file.name}, image {number}"
        if not isinstance(entry, dict) or not ("caption" in entry or "caption_options" in entry):
            problems.report(row, "it has no caption")
            continue
        if "caption_options" in entry:
            yield row, _Caption(f"{number}", entry.get("image"), partial(_published, entry["caption_options"]))
            continue
        captions = entry["caption"] if isinstance(entry["caption"], list) else [entry["caption"]]
        for place, caption in enumerate(captions):
            texts = partial(_shuffled, caption)
            yield f"{row}, caption {place}", _Caption(f"{number}-{place}", entry.get("image"), texts, own=True)


def _published(options: Any) -> tuple[str, ...]:
    return tuple(text_of({"caption_options": option}, "caption_options") for option in options)


def _shuffled(caption: Any) -> tuple[str, ...]:
    return order_options(text_of({"caption": caption}, "caption"))


def _ordered(subset: str, root: Path, row: str, caption: _Caption) -> RawItem:
    path = below(root, caption.image)
    texts = caption.texts()
    if len(texts) < 2:
        raise ValueError("the words of the caption have no other order")
    return RawItem(
        split="test",
        id=f"{subset}-{caption.key}",
        row=row,
        images=(RawImage(_image_id(subset, path), path),),
        texts=texts,
        target=0,
        fields={"subset": subset + OWN if caption.own else subset},
    )


def _image_id(subset: str, path: Path) -> str:
    if subset == "flickr30k-order":
        return f"flickr30k:{path.stem}"
    number = path.stem.rpartition("_")[2]
    return f"coco:{number.lstrip('0') or '0'}"
