"""Where one layout is written in one language: its files, its images, and the answers of its oracle."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from renaissance.data.world.worlds import Picture, World

IMAGES = "images"
ORACLE = "oracle.json"
# file systems that cannot link, or not so often
_NO_LINK = (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)


@dataclass(frozen=True, slots=True)
class Figure:
    """What is expected of a split or subset.

    n: how many decisions are scored. chance: the score of the best constant answer, or of drawing lots. blind: that of
    one who reads the text alone, by the rule named, learnt in the training split. The oracle scores 100.
    """

    metric: str
    n: int
    chance: float
    blind: float
    rule: str
    oracle: float = 100.0


Figures = Mapping[str, Figure]


class Site:
    """The folder of a layout in a language. `root` holds all layouts, `root/images` each picture once."""

    def __init__(self, root: Path, layout: str, language: str, world: World) -> None:
        self.name = folder_name(layout, language, world)
        self.folder = root / self.name
        self._layout, self._language, self._world = layout, language, world.identity
        self._images = root / IMAGES
        self._truth: dict[str, dict[str, Any]] = {}
        self.folder.mkdir(parents=True, exist_ok=True)

    def json(self, name: str, value: object) -> None:
        """Write a JSON file."""
        self._write(name, json.dumps(value, ensure_ascii=False) + "\n")

    def json_lines(self, name: str, rows: Iterable[object]) -> None:
        """Write a file with a JSON object a line."""
        self._write(name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def text_lines(self, name: str, lines: Iterable[str]) -> None:
        """Write a text file."""
        self._write(name, "".join(f"{line}\n" for line in lines))

    def image(self, name: str, picture: Picture) -> None:
        """Put a picture under a name; the suffix decides the format. It shares its bytes with all other layouts."""
        link(stored(self._images, picture, Path(name).suffix), self.place(name))

    def place(self, name: str) -> Path:
        """Return the path of a file, whose folder is there."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def knows(self, split: str, item: object, truth: object) -> None:
        """Note what the scene graph answers to an item, by its split and by the id that a reader gives it."""
        self._truth.setdefault(split, {})[str(item)] = truth

    def finish(self) -> None:
        """Write what the oracle knows."""
        told = {"layout": self._layout, "world": self._world, "language": self._language}
        self.json(ORACLE, {**told, "answers": self._truth})

    def _write(self, name: str, text: str) -> None:
        self.place(name).write_text(text, encoding="utf-8", newline="\n")


def folder_name(layout: str, language: str, world: World) -> str:
    """Return the name of a layout's folder: the first language of a world has the plain one."""
    return layout if language == world.languages[0] else f"{layout}-{language}"


def sites(root: Path, layout: str, world: World) -> Iterator[tuple[str, Site]]:
    """Yield each language with the site of a layout, and write what the oracle knows after it was used."""
    for language in world.languages:
        site = Site(root, layout, language, world)
        yield language, site
        site.finish()


def stored(images: Path, picture: Picture, suffix: str) -> Path:
    """Return where a picture is stored in the format of a suffix."""
    return images / f"{picture.number:06d}{suffix}"


def link(source: Path, target: Path) -> None:
    """Link a file, or copy it where that cannot be."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        shutil.copyfile(source, target)


def save(image: Image.Image, path: Path) -> None:
    """Write an image in the format of its suffix; JPEG so that colours and edges stay."""
    if path.suffix == ".png":
        image.save(path, compress_level=1)
    else:
        image.save(path, quality=95, subsampling=0)


def share(part: float, whole: int) -> float:
    """Return a percentage, to two decimals; 0 of nothing."""
    return round(100 * part / whole, 2) if whole else 0.0


def lots(metric: str, n: int, choices: int) -> Figure:
    """Return the figure of tests in which each text says nothing of which choice is right."""
    chance = round(100 / choices, 2) if choices else 0.0
    return Figure(metric, n, chance, chance, "draws lots")


def shorter(pairs: list[tuple[str, str]]) -> Figure:
    """Return the figure of choices between a true and a false text: the blind one takes the shorter, or draws lots."""
    right = sum(1.0 if len(true) < len(false) else 0.5 if len(true) == len(false) else 0.0 for true, false in pairs)
    return Figure("accuracy", len(pairs), 50.0, share(right, len(pairs)), "the shorter text")


def most_frequent(rows: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the most frequent answer of each kind of question, the first in the alphabet of equally frequent ones."""
    found: dict[str, Counter[str]] = {}
    for kind, answer in rows:
        found.setdefault(kind, Counter())[answer] += 1
    return {kind: min(counts, key=lambda answer: (-counts[answer], answer)) for kind, counts in found.items()}


def dumped(figures: Mapping[str, Figures]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return figures by folder and split, JSON-able."""
    return {
        folder: {split: asdict(figure) for split, figure in by_split.items()} for folder, by_split in figures.items()
    }


Suffix = Literal[".jpg", ".png"]
SUFFIXES: tuple[Suffix, ...] = (".jpg", ".png")
