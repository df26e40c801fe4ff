"""The section of what models look at, from the folders that `renaissance explain` wrote, one for an arm."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from renaissance.report.blocks import (
    Block,
    Bullets,
    Cell,
    Column,
    Folded,
    Gallery,
    Heading,
    Paragraph,
    Section,
    Shown,
    Table,
)
from renaissance.report.blocks import number as number_cell
from renaissance.report.blocks import words as text_cell
from renaissance.report.facts import Results
from renaissance.report.pictures import Pictures, inside
from renaissance.report.wording import NOTHING, between, count, decimals, fixed, share

FACTS = "explanation.json"
ROOM = 500_000  # bytes of pictures
MOST = 18  # pictures, shared between the arms
_SIDE = 560
# of one sample, then of many
_ORDER = ("sample", "pointing", "drift", "cka", "probes")
_MAPS = {"attribution": "integrated gradients", "rollout": "attention rollout"}

Facts = Mapping[str, Any]


def explanations(results: Results, pictures: Pictures) -> Section:
    """Return what was found of each arm beside the others, and pictures arm by arm; folders that are gone are said."""
    found = {one.arm: _read(pictures, one.folder) for one in results.explanations}
    known = {arm: facts for arm, facts in found.items() if facts is not None}
    folders = {one.arm: one.folder for one in results.explanations}
    began = {one.arm: _read(pictures, one.beginning) for one in results.explanations if one.beginning is not None}
    since = {arm: facts for arm, facts in began.items() if facts is not None}
    blocks: list[Block] = [*_shares(known), *_pointing(known), *_moved(since), *_compared(results, known)]
    blocks += [*_gained(since), *_probes(known)]
    pictures.room = ROOM
    for arm, facts in known.items():
        blocks += _shown(arm, folders[arm], facts, pictures, max(2, MOST // len(known)))
    lost = {folders[arm]: arm for arm, facts in found.items() if facts is None}
    lost |= {str(one.beginning): one.arm for one in results.explanations if began.get(one.arm, {}) is None}
    gone = [f"{arm}: {folder} has no {FACTS} that can be read" for folder, arm in lost.items()]
    return Section("explanations", "What the models look at", [*blocks, *([Bullets(gone)] if gone else [])])


def _read(pictures: Pictures, folder: str) -> Facts | None:
    path = inside(pictures.folder, folder)
    try:
        facts = None if path is None else json.loads((path / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


# --- figures of all arms ----------------------------------------------------------------------------------------------


def _shares(known: Mapping[str, Facts]) -> Iterator[Table]:
    """Yield how much of the explained output each arm owes to the picture."""
    rows = [(arm, facts, found) for arm, facts in known.items() if (found := _inner(facts, "shares"))]
    columns = [Column("arm"), Column("output")]
    names = ("owed to the image", "interval", "lost without the image", "lost without the text", "samples")
    columns += [Column(name, "number") for name in names]
    cells = [
        [
            text_cell(arm),
            text_cell(str(_inner(facts, "output").get("name", NOTHING))),
            _percent(found.get("image_share")),
            _interval(found.get("image_share_interval"), 100),
            *(_figure(found.get(name)) for name in ("lost_without_image", "lost_without_text")),
            _count(found.get("samples")),
        ]
        for arm, facts, found in rows
    ]
    if cells:
        yield Table("What the output owes to the image, and to the text", columns, cells)


def _pointing(known: Mapping[str, Facts]) -> Iterator[Table]:
    """Yield how often the maps of each arm point at what a caption names."""
    columns = [Column("arm"), Column("map")]
    names = ("hits, %", "interval", "chance, %", "above chance", "interval of it", "other things, %", "pictures")
    columns += [Column(name, "number") for name in names]
    cells = [
        [
            text_cell(arm),
            text_cell(_MAPS.get(name, str(name))),
            _figure(found.get("hits")),
            _interval(found.get("interval")),
            _figure(found.get("chance")),
            _figure(found.get("above_chance")),
            _interval(found.get("above_chance_interval")),
            _figure(found.get("other_things")),
            _count(found.get("samples")),
        ]
        for arm, facts in known.items()
        for name, found in _inner(facts, "pointing").items()
        if isinstance(found, dict)
    ]
    if cells:
        yield Table("The pointing game: does a map point at what the caption names?", columns, cells)


def _moved(since: Mapping[str, Facts]) -> Iterator[Table]:
    """Yield, layer by layer, how far each arm has moved from what it began as: its weights, and what they make."""
    rows = {arm: _rows(facts, "drift") for arm, facts in since.items()}
    moved = {arm: {str(row.get("layer")): row.get("weights") for row in found} for arm, found in rows.items()}
    alike = {arm: {str(row.get("layer")): _less(1, row.get("cka")) for row in found} for arm, found in rows.items()}
    yield from _by_layer(
        "How far the weights of each layer moved from what they began as, of their norm", moved, _percent
    )
    yield from _by_layer("Likeness (CKA) of each layer to what it began as: 1 is the same", alike, _hundredths)


def _gained(since: Mapping[str, Facts]) -> Iterator[Block]:
    """Yield what a linear probe reads more, or less, from each layer than it did at the beginning."""
    found = {}
    for arm, facts in since.items():
        before = {(row.get("layer"), row.get("target")): row.get("accuracy") for row in _rows(facts, "probes_against")}
        found[arm] = {
            key: _less(row.get("accuracy"), before.get(key))
            for row in _rows(facts, "probes")
            if (key := (row.get("layer"), row.get("target"))) in before
        }
    arms = [arm for arm, values in found.items() if values]
    if arms:
        columns = [Column("layer"), Column("target"), *(Column(arm, "number") for arm in arms)]
        keys = dict.fromkeys(key for arm in arms for key in found[arm])
        cells = [[*map(text_cell, map(str, key)), *(_signed(found[arm].get(key)) for arm in arms)] for key in keys]
        caption = "What linear probes read more (or less) since the beginning, in points of percent"
        yield Folded("what each layer gained or lost since the beginning", [Table(caption, columns, cells)])


def _less(value: Any, other: Any) -> float | None:
    return float(value) - float(other) if _is_number(value) and _is_number(other) else None


def _signed(value: Any) -> Cell:
    return number_cell(f"{value:+.1f}", value) if _is_number(value) else number_cell(NOTHING, None)


def _compared(results: Results, known: Mapping[str, Facts]) -> Iterator[Table]:
    """Yield, layer by layer, how far each arm lies from the model that it was compared with, and how like it is."""
    arms = {run.id: " and ".join(run.arms) for run in results.runs}
    named = [str(_inner(facts, "against").get("name")) for facts in known.values() if _inner(facts, "against")]
    other = " or ".join(dict.fromkeys(f"'{arms.get(name, name)}'" for name in named))
    moved = {arm: {str(row.get("layer")): row.get("weights") for row in _rows(facts, "drift")}
             for arm, facts in known.items()}  # fmt: skip
    alike = {arm: _alike(_inner(facts, "cka")) for arm, facts in known.items()}
    yield from _by_layer(f"How far the weights of each layer lie from those of {other}, of their norm", moved, _percent)
    yield from _by_layer(f"Likeness (CKA) of each layer to the same one of {other}: 1 is the same", alike, _hundredths)


def _alike(cka: Facts) -> dict[str, Any]:
    """Return the similarity of each layer with that of the same name in the other model."""
    own, other, values = (cka.get(name) for name in ("layers", "against_layers", "against"))
    if not (isinstance(own, list) and isinstance(other, list) and isinstance(values, list)):
        return {}
    rows = {name: dict(zip(other, row, strict=False)) for name, row in zip(own, values, strict=False)}
    return {name: row[name] for name, row in rows.items() if name in row}


def _by_layer(caption: str, found: Mapping[str, Mapping[str, Any]], cell: Callable[[Any], Cell]) -> Iterator[Table]:
    """Yield a table of a row for each layer and a column for each arm that has such values."""
    arms = {arm: values for arm, values in found.items() if values}
    layers = dict.fromkeys(layer for values in arms.values() for layer in values)
    if arms:
        columns = [Column("layer"), *(Column(arm, "number") for arm in arms)]
        yield Table(
            caption, columns, [[text_cell(layer), *(cell(arms[arm].get(layer)) for arm in arms)] for layer in layers]
        )


def _probes(known: Mapping[str, Facts]) -> Iterator[Block]:
    """Yield what a linear probe reads from each layer of each arm, beside the commonest class."""
    rows = {arm: {(row.get("layer"), row.get("target")): row for row in _rows(facts, "probes")}
            for arm, facts in known.items()}  # fmt: skip
    arms = [arm for arm, found in rows.items() if found]
    if not arms:
        return
    keys = dict.fromkeys(key for arm in arms for key in rows[arm])
    columns = [Column("layer"), Column("target"), Column("commonest class", "number")]
    columns += [Column(arm, "number") for arm in arms]
    cells = []
    for key in keys:
        found = [rows[arm].get(key, {}) for arm in arms]
        majority = next(row.get("majority") for row in found if row)
        values = [majority, *(row.get("accuracy") for row in found)]
        cells.append([*map(text_cell, map(str, key)), *map(_tenths, values)])
    table = Table("Right answers of linear probes on drawn scenes of one thing, in percent", columns, cells)
    yield Folded("what linear probes read from each layer", [table])


def _rows(facts: Facts, name: str) -> list[Facts]:
    found = facts.get(name)
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def _tenths(value: Any) -> Cell:
    return number_cell(fixed(value, 1), value) if _is_number(value) else number_cell(NOTHING, None)


def _hundredths(value: Any) -> Cell:
    return number_cell(fixed(value, 2), value) if _is_number(value) else number_cell(NOTHING, None)


def _inner(facts: Facts, name: str) -> Facts:
    found = facts.get(name)
    return found if isinstance(found, dict) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _figure(value: Any) -> Cell:
    return number_cell(fixed(value, decimals((value,))), value) if _is_number(value) else number_cell(NOTHING, None)


def _percent(value: Any) -> Cell:
    return number_cell(share(value), value) if _is_number(value) else number_cell(NOTHING, None)


def _count(value: Any) -> Cell:
    return number_cell(count(value), value) if _is_number(value) else number_cell(NOTHING, None)


def _interval(ends: Any, times: float = 1) -> Cell:
    if not (isinstance(ends, list) and len(ends) == 2 and all(map(_is_number, ends))):
        return number_cell(NOTHING, None)
    low, high = (times * end for end in ends)
    return number_cell(between(low, high, 1), low)


# --- pictures ---------------------------------------------------------------------------------------------------------


def _shown(arm: str, folder: str, facts: Facts, pictures: Pictures, most: int) -> Iterator[Block]:
    """Yield the pictures of an arm, those of one sample first, and what could not be had."""
    listed = _listed(facts)
    found = []
    for one in listed[:most]:
        name, title = f"explanation-{len(pictures.kept) + 1:02d}", str(one.get("title", one["file"]))
        picture = pictures.read(f"{folder}/{one['file']}", name, f"{arm}: {title}", side=_SIDE)
        if picture is not None:
            found.append(Shown(picture, title, []))
    missing = facts.get("unavailable")
    lines = [f"{name}: {reason}" for name, reason in missing.items()] if isinstance(missing, dict) else []
    if found or lines:
        yield Heading(arm)
    text = _inner(facts, "sample").get("text")
    if found and isinstance(text, str):
        yield Paragraph(f"Of the pair with the text: {text}", quiet=True)
    if found:
        yield Gallery(found, large=True)
    if lines:
        yield Bullets(lines)
    if len(listed) > most:
        yield Paragraph(f"{len(listed) - most} more pictures are in {folder}.", quiet=True)


def _listed(facts: Facts) -> Sequence[Facts]:
    """Return the pictures that an explanation names, by their sections."""
    given = facts.get("pictures")
    known = [one for one in given if isinstance(one, dict) and "file" in one] if isinstance(given, list) else []
    places = {name: place for place, name in enumerate(_ORDER)}
    return sorted(known, key=lambda one: places.get(str(one.get("section")), len(places)))
