"""The examination: each data set by itself, then training data against evaluation data."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from renaissance.api import Unknown
from renaissance.data.doctor.checks import Images, check_images, check_items
from renaissance.data.doctor.looks import perceptual_hasher
from renaissance.data.doctor.overlap import duplicates, match, overlaps
from renaissance.data.doctor.report import Findings, Overlap, Report
from renaissance.data.doctor.seen import seen
from renaissance.data.doctor.sources import Source, open_source
from renaissance.errors import DataError, SpecError
from renaissance.progress import Progress, Silent

Examined = tuple[Source, Images]


def examine(
    given: Sequence[str | Path],
    against: Sequence[str | Path] = (),
    *,
    backbones: Mapping[str, tuple[str, ...] | Unknown] | None = None,
    vocabulary: Collection[str] | None = None,
    waived: Collection[str] = (),
    progress: Progress | None = None,
) -> Report:
    """Examine data sets to train on, and evaluation data to compare them with; "FOLDER:split,split" chooses splits.

    backbones: what pretrained backbones were trained on, by name. vocabulary: the labels and answers that can be said.
    waived: the names of leaks that are meant to be.

    Raises:
        DataError: there are no data, no such split, or two of one name.
        SpecError: a waiver names nothing that was found.
        MissingPackageError: imagehash is not installed.
    """
    progress = progress or Silent()
    findings, hasher = Findings(), perceptual_hasher()
    with ExitStack() as stack:
        cache = Path(stack.enter_context(TemporaryDirectory()))
        opened = [open_source(folder, cache=cache) for folder in given]
        others = [open_source(folder, cache=cache, tested=True) for folder in against]
        data: dict[str, Any] = {}
        read: dict[str, Examined] = {}
        for source in _named_once(opened, others):
            _check_whole(source, findings)
            images = check_images(source, findings, hasher, progress)
            counts = check_items(source, images, findings, vocabulary, progress)
            read[source.name] = source, images
            data[source.name] = {"layout": source.layout, "splits": counts, "images": len(images.ids)}
        shared = _compare(opened, others, read, findings, waived)
        report = Report(
            data=data,
            findings=findings.all(),
            overlaps=shared,
            seen=tuple(seen(backbones or {}, _tested([*opened, *others]), waived)),
            unknown=tuple(name for name, known in (backbones or {}).items() if isinstance(known, Unknown)),
        )
    _check_waivers(waived, report)
    return report


def _check_whole(source: Source, findings: Findings) -> None:
    """Add what is wrong with the data as a whole."""
    for kind, what in source.faults():
        findings.add(kind, "fault", source.name, what)


def _named_once(opened: Sequence[Source], others: Sequence[Source]) -> list[Source]:
    """Return each data set once: what is trained on may be given again, to be tested on."""
    found: dict[str, Source] = {}
    for source in (*opened, *others):
        known = found.setdefault(source.name, source)
        if known.place != source.place:
            raise DataError(f"Two data sets are called '{source.name}'. Rename one of the folders.")
    return list(found.values())


def _compare(
    opened: Sequence[Source],
    others: Sequence[Source],
    read: Mapping[str, Examined],
    findings: Findings,
    waived: Collection[str],
) -> tuple[Overlap, ...]:
    """Compare each data set with itself, and what is trained on with all that is tested on."""
    own = {name: match(examined, examined) for name, examined in read.items()}
    for name, (source, images) in read.items():
        duplicates(source, images, own[name], findings)
    found: dict[str, Overlap] = {}
    for source in opened:
        images = read[source.name][1]
        for tested in (*opened, *others):
            theirs = read[tested.name]
            same = tested.name == source.name
            matches = own[source.name] if same else match(read[source.name], theirs)
            for overlap in overlaps((source, images), (tested, theirs[1]), matches, waived):
                found[overlap.name] = overlap
    return tuple(found.values())


def _tested(sources: Sequence[Source]) -> dict[str, str]:
    return {f"{source.name}/{split}": source.layout for source in sources for split in source.tested}


def _check_waivers(waived: Collection[str], report: Report) -> None:
    for name in waived:
        if name not in report.names:
            known = ", ".join(report.names) or "nothing overlaps"
            raise SpecError(f"There is no overlap called '{name}' to waive. Found: {known}.")
