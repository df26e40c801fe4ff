"""Which records are trained on, which are set aside, and which are tested on.

A record that a split holds is never trained on. Draws are by hash of (seed, name, group), so they do not depend on the
order of the records, and a data set that grows keeps most of its draws.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from renaissance.data.captions import normalise
from renaissance.data.families import families
from renaissance.data.hashing import stable_hash
from renaissance.data.records import DataSet, Record
from renaissance.errors import DataError
from renaissance.recipe.data import HoldOut, ImagesData, Split

SHOWN_VALUES = 12


def split_records(records: Sequence[Record], data: ImagesData, *, validation: int) -> DataSet:
    """Return the records to train on, those set aside for validation, and the splits of the recipe.

    A split of `hold_out` has only records that could have been trained on (`data.train`), one for each id. Nothing is
    trained on that has an id held out by id, is in a family held out by family, or is in a named split.

    Raises:
        DataError: a column or value of `where` is not in the data, or a part is empty.
    """
    _check_names(data)
    candidates = _candidates(records, data)
    dealing = _Dealing(records, frozenset(candidates), data.seed)
    for part in data.hold_out:
        dealing.hold_out(part)
    train, kept, fact = _set_aside([i for i in candidates if i not in dealing.closed], records, validation, data.seed)
    if not train:
        raise DataError("No sample is left to train on. Hold out a smaller share, or widen data.train.")
    seen = {records[i].id for i in train}
    preferred = _preference(records, data.train)
    splits = {name: _once_each(held, records, preferred) for name, held in dealing.held.items()}
    splits |= {name: _named(records, name, split, seen) for name, split in data.splits.items()}
    sizes = [f"training: {len(train):,} samples", *([fact] if validation else []), *dealing.facts]
    sizes += [f"split '{name}': {len(held):,} samples" for name, held in splits.items()]
    return DataSet(
        train=tuple(records[i] for i in train),
        validation=tuple(records[i] for i in kept),
        splits={name: tuple(records[i] for i in held) for name, held in splits.items()},
        facts=tuple(sizes),
    )


@dataclass(slots=True)
class _Dealing:
    """Hold-outs, dealt one after the other: what each holds, and what may not be trained on because of them."""

    records: Sequence[Record]
    candidates: frozenset[int]
    seed: int
    held: dict[str, list[int]] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)
    facts: list[str] = field(default_factory=list)

    def hold_out(self, part: HoldOut) -> None:
        """Draw whole groups until their free candidates are the share that was asked for."""
        groups = self._groups(part.by)
        pool = self.candidates
        if part.where:
            pool = pool & frozenset(_matching(self.records, part.name, part.where))
        free = Counter(groups[i] for i in pool - self.closed)
        wanted = round(part.share * len(pool))
        drawn: set[str] = set()
        for group in sorted(free, key=lambda name: stable_hash("hold out", self.seed, part.name, name)):
            if free[group] <= wanted:
                drawn.add(group)
                wanted -= free[group]
        if not drawn:
            raise DataError(
                f"The hold-out '{part.name}' would be empty: no group by {part.by} is as small as {part.share:.3g} of "
                f"{len(pool):,} samples. Raise its share, or hold out by another rule."
            )
        of_drawn = [i for i in range(len(self.records)) if groups[i] in drawn]
        self.held[part.name] = [i for i in of_drawn if i in pool and i not in self.closed]
        self.closed.update(of_drawn)

    def _groups(self, by: str) -> list[str]:
        """Return the name of each record's group; it does not depend on the order of the records."""
        if by == "id":
            return [record.id for record in self.records]
        found = families([record.captions for record in self.records])
        names: dict[int, str] = {}
        for record, family in zip(self.records, found, strict=True):
            smallest = min(map(normalise, record.captions))
            names[family] = min(names.get(family, smallest), smallest)
        largest, size = Counter(found).most_common(1)[0]
        self.facts.append(
            f"families of captions: {len(names):,}, the largest with {size:,} of {len(found):,} samples "
            f"('{names[largest]}')"
        )
        # two families may have equal smallest captions only if these are the same family
        return [names[family] for family in found]


def _check_names(data: ImagesData) -> None:
    names = [part.name for part in data.hold_out] + list(data.splits)
    for name in names:
        if names.count(name) > 1 or name in ("train", "validation"):
            raise DataError(f"The split name '{name}' is taken. Give each hold-out and split a name of its own.")


def _candidates(records: Sequence[Record], data: ImagesData) -> list[int]:
    """Return the records that could be trained on: those of `data.train`, without those of the named splits."""
    chosen = set(range(len(records))) if data.train is None else set(_matching(records, "train", data.train.where))
    for name, split in data.splits.items():
        chosen.difference_update(_matching(records, name, split.where))
    if not chosen:
        raise DataError("No sample is left to train on: data.train selects none, or the named splits hold them all.")
    return sorted(chosen)


def _matching(records: Sequence[Record], name: str, where: Mapping[str, str | tuple[str, ...]]) -> list[int]:
    """Return the records that have one of the values in each column."""
    wanted = {column: (values,) if isinstance(values, str) else values for column, values in where.items()}
    for column, values in wanted.items():
        known = Counter(record.fields[column] for record in records if column in record.fields)
        if not known:
            columns = sorted({key for record in records for key in record.fields})
            raise DataError(f"Split '{name}': the data have no column '{column}'. They have: {_listed(columns)}.")
        for value in values:
            if value not in known:
                raise DataError(
                    f"Split '{name}': no sample has '{value}' in column '{column}'. "
                    f"Values there: {_listed(sorted(known))}."
                )
    found = [i for i, record in enumerate(records) if all(record.fields.get(c) in v for c, v in wanted.items())]
    if not found:
        raise DataError(f"Split '{name}': no sample has all that 'where' asks for. Ask for less.")
    return found


def _named(records: Sequence[Record], name: str, split: Split, seen: set[str]) -> list[int]:
    found = _matching(records, name, split.where)
    kept = [i for i in found if records[i].id in seen] if split.seen else found
    if not kept:
        raise DataError(f"Split '{name}': none of its {len(found):,} samples has an id that is trained on ('seen').")
    return kept


def _set_aside(
    free: Sequence[int], records: Sequence[Record], count: int, seed: int
) -> tuple[list[int], list[int], str]:
    """Return (training, validation), the latter whole ids, at most a quarter of all; and a line that says so."""
    wanted = min(count, len(free) // 4)
    drawn: set[str] = set()
    sizes = Counter(records[i].id for i in free)
    for group in sorted(sizes, key=lambda name: stable_hash("validation", seed, name)):
        if sizes[group] <= wanted:
            drawn.add(group)
            wanted -= sizes[group]
    train = [i for i in free if records[i].id not in drawn]
    kept = [i for i in free if records[i].id in drawn]
    less = f" of {count:,} asked for: at most a quarter of the training samples" if len(kept) < count else ""
    return train, kept, f"validation: {len(kept):,} samples{less}"


def _preference(records: Sequence[Record], train: Split | None) -> Callable[[int], tuple[int, ...]]:
    """Return a sort key: records of the value that is named first in `train.where` come first."""
    orders = {c: v for c, v in (train.where if train else {}).items() if isinstance(v, tuple)}
    return lambda i: tuple(values.index(records[i].fields[column]) for column, values in orders.items())


def _once_each(
    held: Iterable[int], records: Sequence[Record], preferred: Callable[[int], tuple[int, ...]]
) -> list[int]:
    """Return the preferred record of each id, in order."""
    best: dict[str, int] = {}
    for i in held:
        before = best.setdefault(records[i].id, i)
        if preferred(i) < preferred(before):
            best[records[i].id] = i
    return sorted(best.values())


def _listed(values: Sequence[str]) -> str:
    shown = ", ".join(f"'{value}'" for value in values[:SHOWN_VALUES]) or "none"
    return shown + (f" and {len(values) - SHOWN_VALUES:,} more" if len(values) > SHOWN_VALUES else "")
