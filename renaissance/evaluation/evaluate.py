"""Measure a model on the splits of a data set: `renaissance.evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from renaissance.assemble import Assembly
from renaissance.data.cache import cache_folder
from renaissance.data.load import load_data
from renaissance.data.prepared import Prepared, is_prepared
from renaissance.data.records import Record
from renaissance.errors import CapabilityError, DataError
from renaissance.evaluation.choosing import Asked, Measure, chosen_measures
from renaissance.evaluation.leaks import Shared, Trained, layout_of, refuse_leaks
from renaissance.evaluation.splits import SplitScores, evaluate_items, evaluate_split, usable_encoded
from renaissance.progress import Progress, Silent
from renaissance.recipe.data import Data, ImagesData, PreparedData
from renaissance.recipe.values import OnBadSample
from renaissance.registry import Registry, default_registry
from renaissance.spec import shown


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How splits are measured.

    on_bad_sample: "skip" leaves out images with captions that cannot be decoded. blind: measure also on the images, and
    the texts, of other samples. trained: images that the model was trained on; splits that share some are refused, but
    for those that `waive` names; None: it is not known.
    """

    batch_size: int = 64
    on_bad_sample: OnBadSample = "error"
    blind: bool = False
    trained: Trained | None = None
    waive: Sequence[str] = ()


def evaluate(
    model: Any,
    data: Data | str | Path,
    *,
    tasks: Asked | None = None,
    splits: Sequence[str] | None = None,
    batch_size: int = 64,
    on_bad_sample: OnBadSample = "error",
    blind: bool = False,
    trained: Trained | None = None,
    waive: Sequence[str] = (),
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> list[SplitScores]:
    """Measure a model on the held-out splits of a data set.

    data: a data section of a recipe, a folder that `renaissance data prepare` wrote, or a folder of images and
    captions, which is then measured whole. tasks: by default those of the model that are for such data; a task that
    has nothing to train ('winoground', 'retrieval') measures any model that can do what it needs, and can be given
    options: {"winoground": {"by": "itc"}}. splits: by default all but those to train on. on_bad_sample: "skip" leaves
    out images with captions that cannot be decoded, told of in `SplitScores.skipped`; of items none is ever left out.
    blind: measure also on the images, and the texts, of other samples (`Score.blind`). trained: images that the model
    was trained on; a split that shares some is refused, unless `waive` names it.

    Raises:
        CapabilityError: the model has no such task, or none that can be measured.
        SampleError: an image cannot be used.
        SpecError: an option of a task is wrong.
        DataError: the data has no such split, cannot be read, or was trained on.
    """
    how = How(batch_size=batch_size, on_bad_sample=on_bad_sample, blind=blind, trained=trained, waive=waive)
    return _evaluate(model, data, tasks, splits, how, registry or default_registry(), progress or Silent())


def _evaluate(
    model: Any,
    data: Data | str | Path,
    tasks: Asked | None,
    splits: Sequence[str] | None,
    how: How,
    registry: Registry,
    progress: Progress,
    *,
    name: str = "",
) -> list[SplitScores]:
    """Measure a model as `evaluate` does; name: what the data are called, where there are several."""
    assembly: Assembly = getattr(model, "assembly", model)
    section, whole = section_of(data, splits)
    layout = layout_of(section) if isinstance(section, PreparedData) else None
    measures = chosen_measures(assembly, tasks, layout=layout, registry=registry)
    items = any(measure.entry.data == "items" for measure in measures.values())
    loaded = load_data(section, cache=cache_folder(), on_bad_sample=how.on_bad_sample, validation=0, items=items)
    held: Mapping[str, Sequence[Any]] = {"all": loaded.held} if whole else loaded.splits
    names = tuple(splits or held)
    missing = [split for split in names if split not in held]
    if missing:
        raise DataError(f"The data have no split '{shown(missing[0])}'; choose from: {', '.join(held) or 'none'}.")
    shared = _shared({split: held[split] for split in names}, layout or section.kind, how, name)
    if items and how.on_bad_sample == "skip":
        progress.say("No item is left out: one whose image cannot be used ends the evaluation.")
    found = []
    for split in names:
        if items:
            scores = evaluate_items(assembly, split, held[split], measures, progress, blind=how.blind)
        else:
            scores = _on_captions(assembly, split, held[split], measures, how, progress, loaded.skipped)
        found.append(replace(scores, data=name, shared=shared.get(split)))
    return found


def _on_captions(
    assembly: Assembly,
    split: str,
    records: Sequence[Record],
    measures: Mapping[str, Measure],
    how: How,
    progress: Progress,
    skipped: Sequence[str],
) -> SplitScores:
    """Measure a model on images with captions; skipped: lines on samples that were left out before.

    Raises:
        DataError: none of them can be used.
    """
    given: dict[str, Any] = {"batch_size": how.batch_size, "progress": progress, "blind": how.blind}
    if how.on_bad_sample == "error":
        return replace(evaluate_split(assembly, split, records, measures, **given), skipped=tuple(skipped))
    good, encoded, lines = usable_encoded(assembly, records, batch_size=how.batch_size, progress=progress, split=split)
    if not good:
        raise DataError(f"No sample of '{split}' can be used; leave it out, or mend its images.")
    scores = evaluate_split(assembly, split, good, measures, encoded=encoded, **given)
    return replace(scores, skipped=(*skipped, *lines))


def _shared(splits: Mapping[str, Sequence[Any]], layout: str, how: How, data: str) -> dict[str, Shared]:
    """Return what splits share with the training of the model, as far as that is known.

    Raises:
        DataError: one was trained on, and that is not waived.
    """
    if how.trained is None:
        return {}
    found: dict[str, Shared] = {}
    for split, samples in splits.items():
        name = f"{data}/{split}" if data else split
        shared = how.trained.shared(samples, (layout, split), name=name, waived=name in how.waive)
        if shared is not None:
            found[split] = shared
    refuse_leaks(list(found.values()), "name it as a waiver (--waive {})")
    return found


def evaluate_all(
    model: Any,
    folder: str | Path,
    *,
    splits: Sequence[str] | None = None,
    batch_size: int = 64,
    on_bad_sample: OnBadSample = "error",
    blind: bool = False,
    trained: Trained | None = None,
    waive: Sequence[str] = (),
    registry: Registry | None = None,
    progress: Progress | None = None,
    measured: Callable[[Sequence[SplitScores]], None] | None = None,
) -> list[SplitScores]:
    """Measure a model by every task that can, on all data that `renaissance data prepare` wrote below a folder.

    Data that no task of the model is for are passed over, and so are those that are only to train on. splits: measure
    these, of the data that have them; by default all but those to train on. blind, trained, waive: as in `evaluate`;
    the split "test" of the data "coco" is waived as "coco/test". measured: told the scores of each data as soon as they
    are known.

    Raises:
        DataError: there are no prepared data below the folder, or some were trained on.
        CapabilityError: no task of this model can be measured on any of them.
    """
    root = Path(folder).expanduser()
    found: list[SplitScores] = []
    passed: list[CapabilityError] = []
    prepared = [place for place in (root, *sorted(root.iterdir())) if is_prepared(place)] if root.is_dir() else []
    if not prepared:
        raise DataError(f"'{root}' has no prepared data below it. Try: renaissance data prepare --help")
    progress = progress or Silent()
    how = How(batch_size=batch_size, on_bad_sample=on_bad_sample, blind=blind, trained=trained, waive=waive)
    known = registry or default_registry()
    asked = {
        place: [name for name in splits or held_out(Prepared(place).splits) if name in Prepared(place).splits]
        for place in prepared
    }
    _refuse_all_leaks(getattr(model, "assembly", model), asked, how, known)
    for place, chosen in asked.items():
        if not chosen:
            progress.say(
                f"{place.name}: passed over, for it has no split to measure. Name one of its own to measure it."
            )
            continue
        try:
            scores = _evaluate(model, place, None, chosen, how, known, progress, name=place.name)
        except CapabilityError as error:
            progress.say(f"{place.name}: passed over, for no task of this model is for it.")
            passed.append(error)
            continue
        found += scores
        progress.say(f"{place.name}: measured on {', '.join(chosen)}.")
        if measured is not None:
            measured(scores)
    if not found and passed:
        raise passed[0]
    return found


def _refuse_all_leaks(assembly: Assembly, asked: Mapping[Path, Sequence[str]], how: How, registry: Registry) -> None:
    """Refuse splits that were trained on, of all data that can be measured, before any of it is.

    Raises:
        DataError: naming the first.
    """
    if how.trained is None:
        return
    for place, chosen in asked.items():
        prepared = Prepared(place)
        layout = str(prepared.manifest["layout"])
        try:
            chosen_measures(assembly, None, layout=layout, registry=registry)
        except CapabilityError:
            continue
        _shared({split: tuple(prepared.items(split)) for split in chosen}, layout, how, place.name)


def measured_splits(folder: str | Path, splits: Sequence[str] | None) -> list[str]:
    """Return the splits of prepared data to measure: those that are named, or all but those to train on.

    Raises:
        DataError: there is no such split, or they hold nothing but what is to train on, and no split is named.
    """
    prepared = Prepared(Path(folder).expanduser())
    missing = next((name for name in splits or () if name not in prepared.splits), None)
    if missing is not None:
        raise DataError(
            f"The data have no split '{shown(missing)}'; choose from: {', '.join(prepared.splits) or 'none'}."
        )
    found = list(splits or held_out(prepared.splits))
    if not found:
        raise DataError(
            f"'{folder}' holds only data to train on. Name the split to measure: {', '.join(prepared.splits)}."
        )
    return found


def section_of(data: Data | str | Path, splits: Sequence[str] | None) -> tuple[Data, bool]:
    """Return the data section that a folder stands for, and whether all of it is measured.

    Raises:
        DataError: prepared data have no such split, or only what is to train on, and no split is named.
    """
    if not isinstance(data, str | Path):
        return data, False
    if not is_prepared(Path(data).expanduser()):
        return ImagesData(path=str(data), hold_out=()), True
    names = measured_splits(data, splits)
    return PreparedData(path=str(data), train=names[0], splits=tuple(names)), False


def held_out(splits: Sequence[str]) -> list[str]:
    """Return the splits that are not to train on: 'train...', and 'restval', which Karpathy's splits train on too."""
    return [name for name in splits if not name.startswith("train") and name != "restval"]
