"""Conceptual Captions and SBU: one caption an image, of images that each user downloads, so that some are missing.

| what is there | where the images are |
|---|---|
| `train_annot.json`, `train.json` or `annot.json`: `[[path, caption], ...]` | below the root, or `images_train/` |
| `val_annot.json` or `val.json`: the same | below the root, or `images_val/` |
| `Train_GCC-training.tsv`, `Validation_GCC-1.1.0-Validation.tsv`: caption, URL | as below |
| `SBU_captioned_photo_dataset_urls.txt` and `..._captions.txt`: a line each | as below |

Images of a list of URLs are looked for in `images_train/`, `train/` or `training/` (`images_val/`, `val/` or
`validation/`), named as the usual downloaders name them, by the number of the row from 0: img2dataset
(`00012/000123456.jpg`), the row with the CRC-32 of its URL (`123456_912374`), or the last part of the URL, which on
Flickr is unique.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from urllib.parse import urlsplit

from renaissance.data.layouts import Problems, RawImage, RawItem
from renaissance.data.readers.published import LAYOUTS
from renaissance.data.readers.streams import json_items, text_lines
from renaissance.data.readers.texts import clean_texts
from renaissance.errors import DataError

FOLDERS = {"train": ("images_train", "train", "training"), "val": ("images_val", "val", "validation")}
LISTS = {"train": ("train_annot.json", "train.json", "annot.json"), "val": ("val_annot.json", "val.json")}
TABLES = {"train": "Train_GCC-training.tsv", "val": "Validation_GCC-*.tsv"}
SBU_URLS = "SBU_captioned_photo_dataset_urls.txt"
SBU_CAPTIONS = "SBU_captioned_photo_dataset_captions.txt"


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of a list: its number from 0, its caption, and the paths at which the image may be."""

    file: str
    number: int
    caption: object
    paths: tuple[Path, ...]


_Rows = Callable[[Path, str, Problems], Iterator[_Row]]


def read_conceptual(root: Path, problems: Problems) -> Iterator[RawItem]:
    """Yield an item for each row of Conceptual Captions.

    Raises:
        DataError: there is neither a list of images nor one of URLs.
        SampleError: a row cannot be used, and bad samples are errors.
    """
    return _read(root, "conceptual-captions", ("train", "val"), _gcc_rows, problems)


def read_sbu(root: Path, problems: Problems) -> Iterator[RawItem]:
    """Yield an item for each row of SBU Captions.

    Raises:
        DataError: there is neither a list of images nor one of URLs.
        SampleError: a row cannot be used, and bad samples are errors.
    """
    return _read(root, "sbu", ("train",), _sbu_rows, problems)


def _read(root: Path, corpus: str, splits: tuple[str, ...], urls: _Rows, problems: Problems) -> Iterator[RawItem]:
    chosen: Mapping[str, _Rows] = {split: _listed_rows if _list(root, split) else urls for split in splits}
    found = False
    for split, rows in chosen.items():
        for row in rows(root, split, problems):
            found = True
            item = _item(root, corpus, split, row, problems)
            if item is not None:
                yield item
    if not found:
        raise DataError(
            f"'{root}' has no row of {corpus}: no {LISTS['train'][0]}, and no published list of URLs. "
            f"Download it ({LAYOUTS[corpus].page}), and unpack it there."
        )


def _item(root: Path, corpus: str, split: str, row: _Row, problems: Problems) -> RawItem | None:
    name = f"{row.file}, row {row.number + 1}"
    texts = clean_texts((row.caption,), name, problems)
    if not texts:
        return None
    path = next((path for path in row.paths if path.is_file()), None)
    if path is None:
        problems.report(name, f"its image is not there; looked for '{row.paths[0].name}'", missing=True)
        return None
    image = RawImage(f"{corpus}:{path.relative_to(root).as_posix()}", path)
    return RawItem(split=split, id=f"{split}-{row.number}", row=name, images=(image,), texts=texts)


# --- lists of images ------------------------------------------------------------------------------------------------


def _list(root: Path, split: str) -> Path | None:
    return next((root / name for name in LISTS[split] if (root / name).is_file()), None)


def _listed_rows(root: Path, split: str, problems: Problems) -> Iterator[_Row]:
    file = _list(root, split)
    assert file is not None, "chosen for having one"
    folders = (root, *(root / folder for folder in FOLDERS[split] if (root / folder).is_dir()))
    for number, pair in enumerate(json_items(file)):
        match pair:
            case [str(path), caption] if _is_below(path):
                yield _Row(file.name, number, caption, tuple(folder / path for folder in folders))
            case _:
                problems.report(f"{file.name}, row {number + 1}", "not [path, caption], with a path below the root")


def _is_below(path: str) -> bool:
    return bool(path) and "\0" not in path and not path.startswith("/") and ".." not in Path(path).parts


# --- lists of URLs --------------------------------------------------------------------------------------------------


def _gcc_rows(root: Path, split: str, problems: Problems) -> Iterator[_Row]:
    file = next(iter(sorted(root.glob(TABLES[split]))), None)
    if file is None:
        return
    number = 0
    for line_number, line in text_lines(file):
        caption, tab, url = line.partition("\t")
        if line_number == 1 and (caption, url) == ("caption", "url"):
            continue  # the header that img2dataset asks for
        if tab:
            yield _Row(file.name, number, caption, _places(root, split, number, url))
        else:
            problems.report(f"{file.name}, row {number + 1}", "not a caption and a URL with a tab between them")
        number += 1


def _sbu_rows(root: Path, split: str, problems: Problems) -> Iterator[_Row]:
    if not (root / SBU_URLS).is_file() or not (root / SBU_CAPTIONS).is_file():
        return
    rows = zip_longest(text_lines(root / SBU_URLS), text_lines(root / SBU_CAPTIONS))
    for url, caption in rows:
        if url is None or caption is None or url[0] != caption[0]:
            raise DataError(f"'{SBU_URLS}' and '{SBU_CAPTIONS}' have not the same lines. Download both again.")
        number = url[0] - 1
        yield _Row(SBU_URLS, number, caption[1], _places(root, split, number, url[1].strip()))


def _places(root: Path, split: str, number: int, url: str) -> tuple[Path, ...]:
    """Return the paths that downloaders give to a row."""
    crc = f"{number}_{zlib.crc32(url.encode('utf-8', 'replace'))}"
    names = [f"{number // 10_000:05d}/{number:09d}.jpg", crc, f"{crc}.jpg"]
    last = urlsplit(url).path.rpartition("/")[2] if "[" not in url else ""
    if last and last not in (".", "..") and "\0" not in last:
        names.append(last)
    return tuple(root / folder / name for folder in FOLDERS[split] for name in names)
