"""Check an anchor: fetch the checkpoint, import it, measure it on prepared data, compare with what was published."""

from __future__ import annotations

import fnmatch
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import cast

import torch

from renaissance import __version__
from renaissance.anchors.anchor import Anchor, Figure, Measurement, as_anchor
from renaissance.anchors.report import Outcome, Part, Reproduction, outcome
from renaissance.anchors.repository import Fetched, fetch
from renaissance.api import Item, Score, TaskEntry
from renaissance.assemble import Assembly
from renaissance.components import checked_options
from renaissance.container import load
from renaissance.data.load import captioned
from renaissance.data.prepared import Prepared
from renaissance.errors import CapabilityError, DataError, SpecError
from renaissance.evaluation.choosing import Measure
from renaissance.evaluation.splits import evaluate_items, evaluate_split
from renaissance.importing import Imported, import_checkpoint
from renaissance.importing.checkpoint import Checkpoint
from renaissance.progress import Progress, Silent
from renaissance.registry import Registry, default_registry, load_factory
from renaissance.spec import JsonOptions, shown

LIBRARIES = ("torch", "transformers", "tokenizers", "timm", "open-clip-torch", "safetensors", "huggingface-hub")


def reproduce(
    anchor: Anchor | str | Path,
    data: str | Path,
    *,
    revision: str | None = None,
    from_pickle: bool = False,
    partial: bool = False,
    out: str | Path | None = None,
    device: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> Reproduction:
    """Measure a released checkpoint on prepared data, and compare with the figures that were published of it.

    anchor: a name, a YAML file, or an `Anchor`. data: what `renaissance data prepare` wrote of its layout; if it is not
    the whole of a split, `partial` measures what is there, without a verdict. revision: another one than the anchor's.
    out: a folder to keep the imported model in. device: null: the GPU if there is one.

    Raises:
        SpecError: there is no such anchor, or it or the device is wrong.
        DataError: the data are of another layout, lack a split, or are not whole.
        HubError: the checkpoint cannot be had.
        ModelFileError: the checkpoint is damaged or does not fit, or is a pickled file and `from_pickle` was not said.
        CapabilityError: the checkpoint has no head for a task.
    """
    chosen, place = as_anchor(anchor), Path(data).expanduser()
    splits = _splits(chosen, place)
    parts = {name: Part.of(items, chosen.data.splits[name]) for name, items in splits.items()}
    if not partial:
        _require_whole(chosen, place, parts)
    where = _device(device)
    source = chosen.checkpoint
    fetched = fetch(source.repo, revision or source.revision, from_pickle=from_pickle, token=token, cache_dir=cache_dir)
    known, shows = registry or default_registry(), progress or Silent()
    with ExitStack() as held:
        folder = Path(out).expanduser() if out is not None else Path(held.enter_context(_folder())) / "model"
        imported = _imported(chosen, fetched, folder, known)
        assembly = load(folder, registry=known).to(where)
        scores = _measured(assembly, chosen, splits, known, shows)
    outcomes = [_outcome(chosen, figure, scores, parts) for figure in chosen.figures]
    return Reproduction(chosen, fetched, imported, str(place), parts, str(where), _versions(), tuple(outcomes))


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="renaissance-")


# --- the data -------------------------------------------------------------------------------------------------------


def _splits(anchor: Anchor, place: Path) -> dict[str, tuple[Item, ...]]:
    """Return the items of the splits that are measured.

    Raises:
        DataError: the data are of another layout, or lack one of the splits.
    """
    prepared = Prepared(place)
    layout, wanted = prepared.manifest["layout"], anchor.data
    if layout != wanted.layout:
        raise DataError(
            f"'{place}' holds '{shown(layout)}', and '{anchor.name}' is measured on '{wanted.layout}'. Prepare that "
            f"({wanted.published.page}): renaissance data prepare {wanted.layout} ROOT OUT."
        )
    needed = dict.fromkeys(figure.split for figure in anchor.figures)
    return {split: tuple(prepared.items(split)) for split in needed}


def _require_whole(anchor: Anchor, place: Path, parts: Mapping[str, Part]) -> None:
    """Refuse data of which a published figure says nothing.

    Raises:
        DataError: naming the first split that is not the published one, and how much of it is there.
    """
    odd = next((split for split, part in parts.items() if not part.whole), None)
    if odd is not None:
        raise DataError(
            f"'{place}' has {parts[odd].told()} of '{odd}', so a published figure says nothing of it. Prepare all of "
            f"'{anchor.data.layout}' ({anchor.data.published.page}); or measure what is there without a verdict, with "
            "--partial."
        )


# --- the model ------------------------------------------------------------------------------------------------------


def _device(name: str | None) -> torch.device:
    """Return a device that is there.

    Raises:
        SpecError: there is none of that name.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise SpecError(f"There is no device '{shown(name)}' here. Try: cpu, cuda, cuda:1 or mps.") from None
    return device


def _imported(anchor: Anchor, fetched: Fetched, folder: Path, registry: Registry) -> Imported:
    """Import the checkpoint into `folder`, without those tensors that the anchor says are not read."""
    source, options = anchor.checkpoint, dict(anchor.checkpoint.options)
    if source.unread:
        names = Checkpoint.open(fetched.path, from_pickle=fetched.pickled).names
        unread = [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in source.unread)]
        options["leave_out"] = [*cast(list[str], options.get("leave_out", [])), *unread]
    return import_checkpoint(
        source.importer, fetched.path, folder, from_pickle=fetched.pickled, registry=registry, **options
    )


def _measured(
    assembly: Assembly,
    anchor: Anchor,
    splits: Mapping[str, Sequence[Item]],
    registry: Registry,
    progress: Progress,
) -> dict[Measurement, Sequence[Score]]:
    """Return the scores of each task on each split."""
    found: dict[Measurement, Sequence[Score]] = {}
    for measurement, figure in anchor.measurements().items():
        measure = _measure(assembly, anchor, figure.task, figure.options, registry)
        items, measures = splits[figure.split], {figure.task: measure}
        if measure.entry.data == "items":
            scores = evaluate_items(assembly, figure.split, items, measures, progress)
        else:
            records = [captioned(item) for item in items]
            scores = evaluate_split(assembly, figure.split, records, measures, progress=progress)
        found[measurement] = scores.scores[figure.task]
    return found


def _measure(assembly: Assembly, anchor: Anchor, name: str, options: JsonOptions, registry: Registry) -> Measure:
    """Return the task that measures a figure: one of the model's heads, or one that has nothing to train.

    Raises:
        CapabilityError: the model has no head for it.
        SpecError: there is no such task, or its options are wrong.
    """
    plan = assembly.plan.tasks.get(name)
    if plan is not None and not options:
        return Measure(plan.entry, assembly.tasks[name])
    entry = cast(TaskEntry, registry.find("task", name).entry)
    if entry.trains:
        raise CapabilityError(
            f"'{anchor.checkpoint.repo}' has heads for {', '.join(assembly.plan.tasks) or 'no task'}, and the figure "
            f"of '{anchor.name}' is measured by '{name}'{' with options' if plan else ''}. Check the anchor."
        )
    checked = checked_options(entry, options, of=name)
    entry.check(checked, frozenset(assembly.plan.tasks))
    return Measure(entry, load_factory(entry)(checked, model=assembly.encoder.facts()))


# --- the verdict ----------------------------------------------------------------------------------------------------


def _outcome(
    anchor: Anchor, figure: Figure, scores: Mapping[Measurement, Sequence[Score]], parts: Mapping[str, Part]
) -> Outcome:
    """Return what a figure came to.

    Raises:
        SpecError: its task has no such score.
    """
    found = {score.name: score for score in scores[figure.measurement]}
    if figure.metric not in found:
        raise SpecError(
            f"{anchor.name}: '{figure.task}' gives no score '{shown(figure.metric)}' on '{figure.split}'; it gives: "
            f"{', '.join(found) or 'none'}."
        )
    return outcome(figure, found[figure.metric], parts[figure.split])


def _versions() -> dict[str, str]:
    return {"renaissance": __version__, **{name: version(name) for name in LIBRARIES}}
