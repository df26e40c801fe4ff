"""From a published layout to prepared data: one pass, in memory that does not grow with the corpus.

Ids that were seen are kept in a temporary database on disk, annotations are read an element at a time, and images are
copied byte for byte. Two runs on the same files write the same bytes.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from renaissance.data.budget import check_budget
from renaissance.data.decode import NEXT_STEP, decode
from renaissance.data.layouts import (
    Layout,
    MissingImageError,
    Problems,
    RawImage,
    RawItem,
    chosen_layout,
    unreadable,
)
from renaissance.data.prepared import IMAGES, Writer
from renaissance.data.readers.published import LAYOUTS
from renaissance.data.readers.streams import json_members
from renaissance.durable import sha256_of
from renaissance.errors import DataError, SampleError
from renaissance.progress import Progress, Silent
from renaissance.recipe.values import SKIP_BUDGET, OnBadSample
from renaissance.spec import shown

WORLD = "oracle.json"  # beside the files of each layout of a generated world
LANGUAGE = "language"  # the field that says which language the texts of an item are in
_SPLIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}")
# what the files of JPEG, PNG, GIF, WebP, BMP and TIFF begin with
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")


def prepare(
    layout: Layout | str,
    root: Path,
    out: Path,
    *,
    on_bad_sample: OnBadSample = "error",
    skip_budget: float = SKIP_BUDGET,
    check_images: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the corpus below `root` as prepared data to `out`, whole or not at all; return its manifest.

    skip_budget: the largest share of the rows that may be left out; rows whose image is not there are not among them,
    for a part of a corpus is no damage. check_images: decode each image, and treat one that cannot be as a row that
    cannot be used.

    Raises:
        DataError: a file of the layout is missing or damaged (the message names it), nothing can be used, or more is
            left out than `skip_budget` allows.
        SampleError: a row cannot be used, and bad samples are errors.
        OutputError: `out` exists, or cannot be written.
    """
    chosen = chosen_layout(layout, LAYOUTS) if isinstance(layout, str) else layout
    with Writer(out) as writer:
        problems = Problems(on_bad_sample)
        facts = _pass_through(chosen, root, writer, problems, check_images, progress or Silent())
        bad = problems.count - problems.missing
        rows = bad + sum(count["items"] for count in facts["counts"].values())
        check_budget(bad, rows, skip_budget, what=f"rows of {chosen.name}", first=problems.first, key="--skip-budget")
        return writer.finish({**facts, "on_bad_sample": on_bad_sample, "sources": _sources(chosen, root)})


def check(
    layout: Layout | str, root: Path, *, check_images: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Return what `prepare` would write in the manifest, leaving out what cannot be used; nothing is written.

    Raises:
        DataError: a file of the layout is missing or damaged (the message names it), or nothing can be used.
    """
    chosen = chosen_layout(layout, LAYOUTS) if isinstance(layout, str) else layout
    return _pass_through(chosen, root, None, Problems("skip"), check_images, progress or Silent())


def _pass_through(
    layout: Layout, root: Path, writer: Writer | None, problems: Problems, check_images: bool, progress: Progress
) -> dict[str, Any]:
    _require_files(layout, root, problems)
    with closing(sqlite3.connect("")) as database:
        intake = _Intake(database, problems, writer, check_images)
        for item in _shown(layout.reader()(root, problems), layout, progress):
            intake.take(item)
        if not intake.tally:
            first = f" The first fault: {problems.skipped[0]}." if problems.skipped else ""
            raise DataError(f"Nothing below '{root}' can be used as {layout.name}.{first}")
        return _facts(layout, root, intake, problems)


# --- one item at a time ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Count:
    """What a split holds."""

    items: int = 0
    images: int = 0
    texts: int = 0


@dataclass(slots=True)
class _Intake:
    """Takes in items: refuses those that cannot be used, counts and writes the others, each image once."""

    database: sqlite3.Connection
    problems: Problems
    writer: Writer | None
    check_images: bool
    tally: dict[str, _Count] = field(default_factory=dict)
    languages: dict[str, int] = field(default_factory=dict)
    images: int = 0

    def __post_init__(self) -> None:
        key = "PRIMARY KEY (split, id)) WITHOUT ROWID"
        self.database.execute("PRAGMA journal_mode = OFF")
        self.database.execute(f"CREATE TABLE items (split TEXT, id TEXT, {key}")
        self.database.execute(f"CREATE TABLE used (split TEXT, id TEXT, {key}")
        self.database.execute("CREATE TABLE images (id TEXT PRIMARY KEY, path TEXT) WITHOUT ROWID")

    def take(self, item: RawItem) -> None:
        """Take in an item, or tell of what is wrong with it."""
        try:
            _check_text(item)
            if self._known("SELECT 1 FROM items WHERE split = ? AND id = ?", item.split, item.id):
                raise SampleError(f"the id '{shown(item.id)}' stands twice in '{item.split}'")
            new = self._new_images(item)
        except SampleError as error:
            missing = isinstance(error, MissingImageError)
            fault = str(error).removesuffix(f" {NEXT_STEP}.").removesuffix(".")  # the report says what to do
            self.problems.report(item.row, fault, missing=missing)
            return
        self._note(item, new)
        if self.writer is not None:
            self._write(self.writer, item, new)

    def _new_images(self, item: RawItem) -> dict[str, tuple[RawImage, bytes]]:
        """Return the images of an item that no item before it had, with their bytes; none where they are not needed.

        Raises:
            SampleError: an image is not there, is no image, or has the id of another one.
        """
        found: dict[str, tuple[RawImage, bytes]] = {}
        for image in item.images:
            known = self.database.execute("SELECT path FROM images WHERE id = ?", (image.id,)).fetchone()
            path = known[0] if known else str(found[image.id][0].path) if image.id in found else None
            if path is None:
                found[image.id] = image, self._read(image)
            elif path != str(image.path):
                raise SampleError(
                    f"the image id '{shown(image.id)}' is that of '{path}', and of '{image.path}' as well"
                )
        return found

    def _read(self, image: RawImage) -> bytes:
        if self.writer is None and not self.check_images and image.data is None:
            _check_there(image.path)
            return b""
        data = image.read()
        if not data.startswith(_PICTURES):
            what = "is empty" if not data else "holds no picture of a known kind"
            raise SampleError(f"The image '{image.path}' {what}.")
        if self.check_images:
            decode(data, name=str(image.path))
        return data

    def _note(self, item: RawItem, new: Mapping[str, tuple[RawImage, bytes]]) -> None:
        count = self.tally.setdefault(item.split, _Count())
        self.database.execute("INSERT INTO items VALUES (?, ?)", (item.split, item.id))
        rows = [(image_id, str(image.path)) for image_id, (image, _) in new.items()]
        self.database.executemany("INSERT INTO images VALUES (?, ?)", rows)
        for image in item.images:
            added = self.database.execute("INSERT OR IGNORE INTO used VALUES (?, ?)", (item.split, image.id))
            count.images += added.rowcount
        count.items += 1
        count.texts += len(item.texts)
        self.images += len(new)
        language = item.fields.get(LANGUAGE)
        if language:
            self.languages[language] = self.languages.get(language, 0) + 1

    def _write(self, writer: Writer, item: RawItem, new: Mapping[str, tuple[RawImage, bytes]]) -> None:
        for image_id, (image, data) in new.items():
            writer.image(image_id, data, image.path.name)
        writer.item(
            item.split,
            item.id,
            images=[image.id for image in item.images],
            texts=item.texts,
            label=item.label,
            answers=item.answers,
            boxes=item.boxes,
            target=item.target,
            fields=item.fields,
        )

    def _known(self, query: str, *values: str) -> bool:
        return self.database.execute(query, values).fetchone() is not None


def _check_text(item: RawItem) -> None:
    """Refuse what cannot be written as text, or as the name of a split, and boxes that are none.

    Raises:
        SampleError: there is such.
    """
    if not _SPLIT.fullmatch(item.split) or item.split == IMAGES:
        raise SampleError(f"'{shown(item.split)}' cannot be the name of a split (letters, digits, '_', '-' and '.')")
    if not all(map(math.isfinite, chain.from_iterable(item.boxes))):
        raise SampleError("a box in it is not four finite numbers")
    texts = (item.id, item.label or "", *item.texts, *item.answers, *item.fields, *item.fields.values())
    try:
        "".join((*texts, *(image.id for image in item.images))).encode()
    except UnicodeEncodeError:
        raise SampleError("a text in it is not valid Unicode: the file is not UTF-8 there") from None


def _check_there(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise unreadable(path, error) from None
    if size == 0:
        raise SampleError(f"The image '{path}' is empty.")


# --- the corpus as a whole ------------------------------------------------------------------------------------------


def _require_files(layout: Layout, root: Path, problems: Problems) -> None:
    """Refuse a root that lacks what the layout says; a folder of images may be missing where rows are left out.

    Raises:
        DataError: something is missing; the message names all of it, and the page where it is downloaded.
    """
    if not root.is_dir():
        raise DataError(f"There is no folder '{root}'. Give the folder in which {layout.name} was unpacked.")
    missing = [name for name in layout.files if next(root.glob(name.rstrip("/")), None) is None]
    if problems.on_bad_sample == "skip":
        for name in missing:
            if name.endswith("/"):
                problems.report(name, "this folder of images is not there", missing=True)
        missing = [name for name in missing if not name.endswith("/")]
    if missing:
        names = ", ".join(f"'{name}'" for name in missing)
        partly = " A part of the images is enough with --on-bad-sample skip." if missing[0].endswith("/") else ""
        raise DataError(f"'{root}' has no {names}. Download it ({layout.page}), and unpack it there.{partly}")


def _shown(items: Iterator[RawItem], layout: Layout, progress: Progress) -> Iterator[RawItem]:
    """Yield the items, and show how many there were; the total is the published one, where there is one."""
    total = sum(_published_items(layout).values())
    if total:
        yield from progress.track(items, total, layout.name)
        return
    show, done = progress.bar(layout.name), 0
    for done, item in enumerate(items, start=1):
        yield item
        show(done, done + 1)
    show(done, max(done, 1))


def _facts(layout: Layout, root: Path, intake: _Intake, problems: Problems) -> dict[str, Any]:
    """Return what the manifest says of the corpus."""
    counts = {
        split: {"items": count.items, "images": count.images, "texts": count.texts}
        for split, count in sorted(intake.tally.items())
    }
    told = _told_by_world(root)
    items = sum(count.items for count in intake.tally.values())
    languages = intake.languages or ({told["language"]: items} if "language" in told else {})
    facts: dict[str, Any] = {"layout": layout.name, "reader": layout.version, "counts": counts}
    if layout.counts:
        facts["published"] = {"items": dict(layout.counts), "texts": dict(layout.texts)}
        facts["fraction"] = _fractions(layout, intake)
    if languages:
        facts["languages"] = dict(sorted(languages.items()))
    if (root / WORLD).is_file():
        facts["drawn"] = True
    if "world" in told:
        facts["world"] = told["world"]
    facts["skipped"] = {"count": problems.count, "missing": problems.missing, "rows": problems.skipped}
    return facts


def _told_by_world(root: Path) -> dict[str, str]:
    """Return what a generated world says beside its files: which it is ("world"), and its language.

    Two worlds call different pictures the same.
    """
    found: dict[str, str] = {}
    if (root / WORLD).is_file():
        for name, value in json_members(root / WORLD):
            if isinstance(value, str):
                found[name] = value
            if name == "language":
                break  # all that the oracle knows comes next
    return found


def _fractions(layout: Layout, intake: _Intake) -> dict[str, float]:
    """Return how much of the published splits, of all of their items ("all") and of the images is there."""
    published = _published_items(layout)
    found = {split: intake.tally[split].items if split in intake.tally else 0 for split in published}
    parts = {split: round(found[split] / count, 6) for split, count in published.items()}
    if published:
        parts = {"all": round(sum(found.values()) / sum(published.values()), 6), **parts}
    if IMAGES in layout.counts:
        parts[IMAGES] = round(intake.images / layout.counts[IMAGES], 6)
    return parts


def _published_items(layout: Layout) -> dict[str, int]:
    return {split: count for split, count in layout.counts.items() if split != IMAGES}


def _sources(layout: Layout, root: Path) -> list[dict[str, Any]]:
    """Return name, size and SHA-256 of each file of annotations that was there."""
    found = {path for name in (*layout.files, *layout.optional) for path in root.glob(name.rstrip("/"))}
    files = sorted((path.relative_to(root).as_posix(), path) for path in found if path.is_file() and path.name != WORLD)
    return [{"name": name, "size": path.stat().st_size, "sha256": sha256_of(path)} for name, path in files]
