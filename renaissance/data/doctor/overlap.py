"""Images of an evaluation split that a training split has too: by id, by bytes, and by look.

Ids are compared where they mean the same: within one data set, and between corpora that share images ("coco:391895"),
or between the layouts of one generated world.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from renaissance.data.doctor.checks import UNREADABLE, Images
from renaissance.data.doctor.looks import look_alike, near
from renaissance.data.doctor.report import EXAMPLES, Findings, Overlap, OverlapLevel
from renaissance.data.doctor.sources import Source
from renaissance.data.prepared import world_of
from renaissance.data.records import ImageSource

REF = frozenset({"refcoco", "refcoco+", "refcocog"})
OF_COCO = frozenset({"coco-captions", "vqav2", "sugarcrepe"}) | REF
OF_FLICKR = frozenset({"flickr30k", "snli-ve"})
OF_GENOME = frozenset({"visual-genome", "gqa", "aro"})
SPACES = {
    **dict.fromkeys(OF_COCO, "coco"),
    **dict.fromkeys(OF_FLICKR, "flickr30k"),
    **dict.fromkeys(OF_GENOME, "visual-genome"),
}
_NAMED = re.compile(r"[a-z0-9+-]+:")
_NUMBER = re.compile(r"(?:COCO_(?:train|val|test)20\d\d_)?0*(\d+)(?:\.\w+)?")


@dataclass(frozen=True, slots=True)
class Known:
    """An overlap that the field's own set-ups have. splits: those of the training side, or all; tested_splits alike."""

    trained: frozenset[str]
    tested: frozenset[str]
    reason: str
    splits: frozenset[str] | None = None
    tested_splits: frozenset[str] | None = None


KNOWN = (
    Known(
        frozenset({"visual-genome", "gqa"}),
        OF_COCO | {"gqa", "aro"},
        "Visual Genome shares 51,208 images with COCO, among them some of RefCOCO val, testA and testB; GQA and ARO "
        "are made of it",
    ),
    Known(frozenset({"coco-captions", "vqav2"}) | REF, OF_GENOME, "Visual Genome shares 51,208 images with COCO"),
    Known(frozenset({"coco-captions"}), REF, "RefCOCO, RefCOCO+ and RefCOCOg lie in COCO train2014"),
    Known(
        frozenset({"coco-captions"}),
        frozenset({"vqav2"}),
        "VQAv2 val lies in COCO val2014, and so in Karpathy's restval",
        splits=frozenset({"restval"}),
        tested_splits=frozenset({"val"}),
    ),
    Known(frozenset({"coco-captions"}), frozenset({"sugarcrepe"}), "SugarCrepe is made of COCO val2017"),
    Known(frozenset({"flickr30k"}), frozenset({"snli-ve"}), "SNLI-VE is made of Flickr30k"),
)


def level(trained: tuple[str, str], tested: tuple[str, str]) -> tuple[OverlapLevel, str]:
    """Return what an overlap of a training and an evaluation split (layout, split) is, and why."""
    for known in KNOWN:
        if (
            trained[0] in known.trained
            and tested[0] in known.tested
            and trained[0] != tested[0]
            and trained[1] in (known.splits or {trained[1]})
            and tested[1] in (known.tested_splits or {tested[1]})
        ):
            return "standard overlap", known.reason
    return "leak", "it is evaluated on what it was trained on"


# Pairs (i, j) of images of two data sets that are the same, by the strongest sign that was found.
Matches = Mapping[tuple[int, int], str]


def match(one: tuple[Source, Images], other: tuple[Source, Images]) -> Matches:
    """Return which images of one data set are in the other; of one data set with itself, which are there twice."""
    found: dict[tuple[int, int], str] = {}
    same = one[0].place == other[0].place
    for by, pairs in (
        ("id", iter(()) if same else _by_id(*one, *other)),
        ("bytes", _by_content(one[1], other[1])),
        ("look", _by_look(one, other, found)),
    ):
        for i, j in pairs:
            if not (same and i == j):
                found.setdefault((i, j), by)
    return found


def _by_id(one: Source, these: Images, other: Source, those: Images) -> Iterator[tuple[int, int]]:
    wanted: dict[str, int] = {}
    for index, key in _keys(other, those):
        wanted.setdefault(key, index)
    for index, key in _keys(one, these):
        if key in wanted:
            yield index, wanted[key]


def _keys(source: Source, images: Images) -> Iterator[tuple[int, str]]:
    """Yield the ids that mean the same in other corpora."""
    world = world_of(source.place)
    for index, image_id in enumerate(images.ids):
        key = corpus_key(source.layout, image_id)
        if key is not None:
            yield index, of_world(key, world)
    yield from ((index, of_world(key, world)) for index, key in images.also.items())


def of_world(key: str, world: str | None) -> str:
    """Return the key of an image of a generated world, whose ids mean the same in its own layouts alone."""
    return key if world is None else f"{world}/{key}"


def corpus_key(layout: str, image_id: str) -> str | None:
    """Return what an image of a layout is called in every layout of its corpus ("coco:391895"); None: nothing."""
    given, colon, rest = image_id.partition(":")
    named = given if colon and _NAMED.fullmatch(f"{given}:") else SPACES.get(layout)
    if named is None:
        return None
    key = rest if colon else image_id.rpartition("/")[2]
    number = _NUMBER.fullmatch(key)
    return f"{named}:{number[1] if number else key}"


def _by_content(these: Images, those: Images) -> Iterator[tuple[int, int]]:
    ours, theirs = (np.frombuffer(images.contents, dtype=np.uint64) for images in (these, those))
    order = np.argsort(theirs, kind="stable")
    low, high = (np.searchsorted(theirs[order], ours, side=side) for side in ("left", "right"))
    for index in np.flatnonzero((high > low) & (ours != UNREADABLE)):
        yield from ((int(index), int(other)) for other in order[low[index] : high[index]])


def _by_look(one: tuple[Source, Images], other: tuple[Source, Images], known: Matches) -> Iterator[tuple[int, int]]:
    """Compare the pictures whose hashes are near; the bytes of no others are read again."""
    ours, theirs = (np.frombuffer(images.looks, dtype=np.uint64) for images in (one[1], other[1]))
    same = one[0].place == other[0].place
    pairs = [
        (i, j)
        for i, j in near(ours, theirs)
        if (i, j) not in known and not (same and i >= j) and one[1].widths[i] and other[1].widths[j]
    ]
    left = _sources(one[0], {one[1].ids[i] for i, _ in pairs})
    right = _sources(other[0], {other[1].ids[j] for _, j in pairs})
    for i, j in pairs:
        if look_alike(left[one[1].ids[i]], right[other[1].ids[j]]):
            yield i, j
            if same:
                yield j, i


def _sources(source: Source, ids: Collection[str]) -> Mapping[str, ImageSource]:
    return {image_id: image for image_id, image in source.images() if image_id in ids} if ids else {}


def duplicates(source: Source, images: Images, matches: Matches, findings: Findings) -> None:
    """Tell of images that are in one data set under two ids."""
    for (i, j), by in matches.items():
        if i < j:
            findings.add(f"same {by} under two ids", "note", source.name, f"{images.ids[i]} = {images.ids[j]}")


def overlaps(
    one: tuple[Source, Images], other: tuple[Source, Images], matches: Matches, waived: Collection[str]
) -> Iterator[Overlap]:
    """Yield what each evaluation split of the second shares with each training split of the first."""
    (source, images), (against, others) = one, other
    for split in source.trained:
        for tested in against.tested:
            found = _shared(source, images, split, against, others, tested, matches)
            if not found:
                continue
            kind, reason = level((source.layout, split), (against.layout, tested))
            trained_name, tested_name = f"{source.name}/{split}", f"{against.name}/{tested}"
            yield Overlap(
                name=f"{trained_name}:{tested_name}",
                trained=trained_name,
                tested=tested_name,
                level=kind,
                images=len(found),
                total=int(others.members[tested].sum()),
                by={sign: sum(by == sign for by, _ in found.values()) for sign in ("id", "bytes", "look")},
                reason=reason,
                waived=f"{trained_name}:{tested_name}" in waived,
                examples=tuple(f"{images.ids[i]} = {others.ids[j]}" for j, (_, i) in sorted(found.items())[:EXAMPLES]),
            )


def _shared(
    source: Source,
    images: Images,
    split: str,
    against: Source,
    others: Images,
    tested: str,
    matches: Matches,
) -> Mapping[int, tuple[str, int]]:
    """Return the images of an evaluation split that a training split has: the sign, and the number it has there."""
    mine, theirs = images.members[split], others.members[tested]
    found: dict[int, tuple[str, int]] = {}
    if source.place == against.place:
        if split == tested:
            return {}
        found = {int(j): ("id", int(j)) for j in np.flatnonzero(mine & theirs)}
    for by in ("id", "bytes", "look"):
        for (i, j), sign in matches.items():
            if sign == by and mine[i] and theirs[j]:
                found.setdefault(j, (by, i))
    return found
