"""RefCOCO, RefCOCO+ and RefCOCOg: `instances.json`, `refs(unc|google|umd).p`, COCO's `train2014/`, and detections.

The root is the folder of `instances.json`; `train2014/` is in it, beside it, or where REFER has it (`../images/mscoco/
images/`). The references may be JSON of the same form. `detections.json`, if there, is a list of
{image_id, box: [left, top, width, height], score} (`bbox` will do), as detectors write it.

An item is one sentence. Its boxes are all regions of the image in `instances.json`, its target the number of the one
that is meant. Fields: ref_id, ann_id, and where there are detections `detections`: JSON [[left, top, width, height,
score], ...] of the image, the best first. References and boxes of their images are held in memory: some 200 MB.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renaissance.api import Box
from renaissance.data.layouts import Problems, RawImage, RawItem, require
from renaissance.data.readers.labelled import below, box_of, id_of, image_folder, label_of, text_of, usable
from renaissance.data.readers.plain_pickle import read_plain_pickle
from renaissance.data.readers.published_labelled import REFCOCO_PAGE
from renaissance.data.readers.streams import json_items
from renaissance.errors import DataError

INSTANCES = "instances.json"
DETECTIONS = "detections.json"
FOLDERS = ("train2014", "../train2014", "../images/mscoco/images/train2014", "../images/train2014")
SPLITS = ("train", "val", "test", "testA", "testB")


def read(root: Path, problems: Problems) -> Iterator[RawItem]:
    """Yield an item for each sentence of RefCOCO, in UNC's splits, or else in Google's.

    Raises:
        DataError: a file is missing, damaged, or no pickle of plain containers.
        SampleError: a row cannot be used, and bad samples are errors.
    """
    return _read(root, ("unc", "google"), problems)


def read_plus(root: Path, problems: Problems) -> Iterator[RawItem]:
    """Yield an item for each sentence of RefCOCO+, in UNC's splits.

    Raises:
        DataError, SampleError: see `read`.
    """
    return _read(root, ("unc",), problems)


def read_g(root: Path, problems: Problems) -> Iterator[RawItem]:
    """Yield an item for each sentence of RefCOCOg, in UMD's splits, or else in Google's.

    Raises:
        DataError, SampleError: see `read`.
    """
    return _read(root, ("umd", "google"), problems)


def _read(root: Path, makers: tuple[str, ...], problems: Problems) -> Iterator[RawItem]:
    images = image_folder(root, FOLDERS, problems, page=REFCOCO_PAGE)
    instances = require(root, INSTANCES, page=REFCOCO_PAGE)
    file = _refs_file(root, makers)
    refs = read_plain_pickle(file) if file.suffix == ".p" else list(json_items(file))
    if not isinstance(refs, list):
        raise DataError(f"'{file}' holds no list of references. Download it again ({REFCOCO_PAGE}).")
    used = {str(ref.get("image_id")) for ref in refs if isinstance(ref, dict)}
    scene = _Scenes(
        images, _names(instances, used), _regions(instances, used), _detections(root / DETECTIONS, used, problems)
    )
    yield from usable(_sentences(file.name, refs, problems), scene, problems)


def _refs_file(root: Path, makers: tuple[str, ...]) -> Path:
    for maker in makers:
        for suffix in (".p", ".json"):
            if (root / f"refs({maker}){suffix}").is_file():
                return root / f"refs({maker}){suffix}"
    return require(root, f"refs({makers[0]}).p", page=REFCOCO_PAGE)


def _sentences(file: str, refs: list[Any], problems: Problems) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for number, ref in enumerate(refs, start=1):
        sentences = ref.get("sentences") if isinstance(ref, dict) else None
        if not isinstance(sentences, list) or not sentences:
            problems.report(f"{file}, reference {number}", "it has no sentences")
            continue
        for place, sentence in enumerate(sentences, start=1):
            yield f"{file}, reference {number}, sentence {place}", (ref, sentence)


@dataclass(frozen=True, slots=True)
class _Scenes:
    """The images that are referred to, by id: file names, regions by annotation, detections. Makes the items."""

    images: Path
    names: Mapping[str, str]
    regions: Mapping[str, Mapping[str, Box]]
    detections: Mapping[str, str] | None

    def __call__(self, row: str, pair: tuple[Any, Any]) -> RawItem:
        ref, sentence = pair
        image, wanted = id_of(ref, "image_id"), id_of(ref, "ann_id")
        if image not in self.names:
            raise ValueError(f"{INSTANCES} has no image {image}")
        regions = self.regions.get(image, {})
        if wanted not in regions:
            raise ValueError(f"{INSTANCES} has no region {wanted} with an area on image {image}")
        fields = {"ref_id": id_of(ref, "ref_id"), "ann_id": wanted}
        if self.detections is not None:
            fields["detections"] = self.detections.get(image, "[]")
        return RawItem(
            split=label_of(ref["split"], SPLITS),
            id=id_of(sentence, "sent_id"),
            row=row,
            images=(RawImage(f"coco:{image}", below(self.images, self.names[image])),),
            texts=(text_of(sentence, "sent"),),
            boxes=tuple(regions.values()),
            target=list(regions).index(wanted),
            fields=fields,
        )


def _names(instances: Path, used: set[str]) -> dict[str, str]:
    found = {}
    for number, entry in enumerate(json_items(instances, "images"), start=1):
        try:
            if id_of(entry, "id") in used:
                found[str(entry["id"])] = entry["file_name"]
        except (LookupError, TypeError, ValueError) as error:
            raise _damaged(instances, f"image {number}", error) from None
    return found


def _regions(instances: Path, used: set[str]) -> dict[str, dict[str, Box]]:
    """Return the regions of the images; one without an area is no candidate."""
    found: dict[str, dict[str, Box]] = {}
    for number, entry in enumerate(json_items(instances, "annotations"), start=1):
        try:
            image, key, values = id_of(entry, "image_id"), id_of(entry, "id"), entry["bbox"]
        except (LookupError, TypeError, ValueError) as error:
            raise _damaged(instances, f"annotation {number}", error) from None
        if image not in used:
            continue
        try:
            found.setdefault(image, {})[key] = box_of(values)
        except (TypeError, ValueError):
            continue
    return found


def _detections(file: Path, used: set[str], problems: Problems) -> dict[str, str] | None:
    """Return the detections of each image as JSON, the best first; None where there is no such file."""
    if not file.is_file():
        return None
    found: dict[str, list[tuple[float, ...]]] = {}
    for number, entry in enumerate(json_items(file), start=1):
        try:
            image, score = id_of(entry, "image_id"), float(entry["score"])
            box = box_of(entry["box"] if "box" in entry else entry["bbox"])
            if not 0 <= score <= 1:
                raise ValueError(f"the score {score} is not from 0 to 1")
        except (LookupError, TypeError, ValueError) as error:
            problems.report(f"{file.name}, detection {number}", f"it is no detection ({error})")
            continue
        if image in used:
            found.setdefault(image, []).append((*box, score))
    best_first = {image: sorted(rows, key=lambda row: -row[4]) for image, rows in found.items()}
    return {image: json.dumps(rows, separators=(",", ":")) for image, rows in best_first.items()}


def _damaged(file: Path, row: str, error: Exception) -> DataError:
    return DataError(f"'{file}', {row}: it lacks what the layout has ({error}). Download it again ({REFCOCO_PAGE}).")
