"""What one model of each arm does, to look at: what it retrieves, right and wrong, and what explains its choices.

Of each arm the first seeds are taken, and of the samples of its last stage the first ones: nothing is picked. Layers
are compared with those of the study's reference arm, and with what they were before the first update, on the same
samples, and probed with drawn scenes; where these are what a study shows, maps are also held against their boxes.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from renaissance.data.records import Record
from renaissance.durable import replacing, write_atomically
from renaissance.errors import MissingPackageError, RenaissanceError, SpecError
from renaissance.explaining import explain
from renaissance.pretrained import Model, from_pretrained
from renaissance.progress import Progress
from renaissance.recipe import Recipe, load_recipe
from renaissance.recipe.data import ImagesData, PreparedData, WorldData
from renaissance.recipe.start import SavedStart
from renaissance.registry import default_registry
from renaissance.studies.arms import Arm, Design
from renaissance.studies.folder import StudyFolder
from renaissance.training.samples import select_samples
from renaissance.training.start import start
from renaissance.uses import select_tasks

GALLERY = 200  # pictures among which is retrieved
SHOWN = 6  # right cases, and as many wrong ones, of each direction
TOP = 5
SIDE = 192  # pixels, of the pictures of cases
# pairs on which layers are compared; drawn scenes that they are probed with, and in which maps are to point at things
COMPARED, PROBED, POINTED = 64, 192, 24
STEPS = 64  # of integrated gradients; models that learned little give small numbers, which add up less well


def shown_runs(design: Design) -> set[str]:
    """Return the runs whose models are looked at: of each arm the one of its last stage with the first seeds."""
    return {_run(design, arm.name) for arm in design.arms}


def look(design: Design, folder: StudyFolder, progress: Progress) -> set[str]:
    """Write what is looked at of each arm, where it is not there yet; return whose weights a later look needs.

    An arm whose model was not trained for it, or whose data are items with labels, has none. Later arms are compared
    with the reference arm, so its weights are needed; all are where a package is missing, which may come.
    """
    arms = [arm for arm in design.arms if _done(design, folder, arm.name)]
    reference = design.study.reference
    needed = {_run(design, reference)} if reference in [arm.name for arm in design.arms] else set()
    for arm in progress.track(arms, len(arms), "Looking at each arm"):
        run = _run(design, arm.name)
        model = folder.model(run)
        if not model.is_dir():  # given up after a look, or before there could be one
            if not (folder.cases(arm.name).is_file() or folder.explanation(arm.name).is_dir()):
                progress.say(f"'{arm.name}' is not looked at: the weights of its run '{run}' were given up")
            continue
        try:
            samples = _samples(folder, run)
            if not samples:
                continue
            _forget_others(folder, arm.name, run)
            _write_cases(folder.cases(arm.name), arm.name, run, model, samples)
            fault = _write_explanation(design, folder, arm, model, samples)
            if fault is not None:
                progress.say(f"'{arm.name}': no pair of it is explained: {fault}")
            _write_beginning(folder.beginning(arm.name), model, samples, _began(design, folder, arm))
        except RenaissanceError as error:  # whatever it is, the verdicts do not wait for a look
            progress.say(f"'{arm.name}' is not looked at: {error}")
            needed |= {run} if isinstance(error, MissingPackageError) else set()
    return needed


def _forget_others(folder: StudyFolder, arm: str, run: str) -> None:
    """Remove what shows a model that is no longer an arm's first, as the study was changed since."""
    file = folder.cases(arm)
    if file.is_file() and any(case["run"] != run for case in json.loads(file.read_text(encoding="utf-8"))):
        shutil.rmtree(file.parent)
        shutil.rmtree(folder.explanation(arm), ignore_errors=True)
        shutil.rmtree(folder.beginning(arm), ignore_errors=True)


def _run(design: Design, arm: str) -> str:
    """Return the run of an arm's last stage with the first seeds."""
    last = list(design.arm(arm).recipes)[-1]
    return design.runs_of[arm, last][0][0]


def _done(design: Design, folder: StudyFolder, arm: str) -> bool:
    record = folder.record(_run(design, arm))
    return record is not None and record["state"] == "done"


def _reference(design: Design, folder: StudyFolder, arm: Arm) -> Path | None:
    """Return the run of the reference arm that an arm is compared with; None: it is the reference, or there is none."""
    name = design.study.reference
    if name is None or name == arm.name or name not in [one.name for one in design.arms]:
        return None
    run = _run(design, name)
    return folder.run(run) if _done(design, folder, name) and folder.model(run).is_dir() else None


def _began(design: Design, folder: StudyFolder, arm: Arm) -> Model | None:
    """Return the model that an arm's first stage begins with, built anew; None: it begins with a saved one.

    Raises:
        RenaissanceError: it cannot be built, as its task takes labels from data, or what it is pretrained from is gone.
    """
    run = design.runs_of[arm.name, next(iter(arm.recipes))][0][0]
    with chdir(folder.path):
        recipe = load_recipe(folder.run(run).relative_to(folder.path) / "recipe.yaml")
        if isinstance(recipe.start, SavedStart):
            return None
        registry = default_registry()
        return Model(start(recipe, select_tasks(recipe, registry), registry)[0])


def _samples(folder: StudyFolder, run: str) -> list[Record]:
    """Return the first images with captions of the first split that a run measured; none where these are items."""
    with chdir(folder.path):  # what a run reads is told from there
        recipe: Recipe = load_recipe(folder.run(run).relative_to(folder.path) / "recipe.yaml")
        if not isinstance(recipe.data, ImagesData | PreparedData | WorldData):
            return []
        try:
            splits = select_samples(recipe).splits
        except SpecError:
            return []
        return [record for record in next(iter(splits.values())) if isinstance(record, Record)][:GALLERY]


# --- what is retrieved ------------------------------------------------------------------------------------------------


def _write_cases(file: Path, arm: str, run: str, model: Path, samples: Sequence[Record]) -> None:
    if file.exists():
        return
    pictures = [_picture(record) for record in samples]
    found = from_pretrained(model).embed(images=pictures, texts=[record.captions[0] for record in samples])
    assert found.images is not None
    assert found.texts is not None
    likeness = found.images @ found.texts.T  # [images, texts]
    with replacing(file.parent) as staging:
        cases = [
            *_cases("image->text", likeness, samples, arm, run),
            *_cases("text->image", likeness.T, samples, arm, run),
        ]
        for case in cases:
            number = case.pop("picture")
            name = f"{number:03d}.png"
            _small(pictures[number]).save(staging / name)
            case["image"] = f"{file.parent.parent.name}/{arm}/{name}"
        write_atomically(staging / file.name, json.dumps(cases, indent=1, ensure_ascii=False) + "\n")


def _cases(
    kind: str, likeness: torch.Tensor, samples: Sequence[Record], arm: str, run: str
) -> Iterator[dict[str, Any]]:
    """Yield the first right queries and the first wrong ones; likeness: [queries, candidates], its own on the diagonal.

    A query is right where no other candidate is as near; a caption that two images share is either's.
    """
    texts = [record.captions[0] for record in samples]
    left = {True: SHOWN, False: SHOWN}
    for query, row in enumerate(likeness):
        order = row.argsort(descending=True, stable=True)[:TOP].tolist()
        right = texts[order[0]] == texts[query]
        if left[right]:
            left[right] -= 1
            best = [
                {"text": texts[other], "score": round(float(row[other]), 4), "right": texts[other] == texts[query]}
                for other in order
            ]
            yield {
                "arm": arm,
                "run": run,
                "query": texts[query],
                "kind": kind,
                "picture": query,
                "right": right,
                "top": best,
            }


def _picture(record: Record) -> Image.Image:
    return Image.open(io.BytesIO(record.image.read())).convert("RGB")


def _small(picture: Image.Image) -> Image.Image:
    small = picture.copy()
    small.thumbnail((SIDE, SIDE))
    return small


# --- what explains it -------------------------------------------------------------------------------------------------


def _pairs(samples: Sequence[Record]) -> list[tuple[Image.Image, str]]:
    return [(_picture(record), record.captions[0]) for record in samples[:COMPARED]]


def _write_explanation(
    design: Design, folder: StudyFolder, arm: Arm, model: Path, samples: Sequence[Record]
) -> SpecError | None:
    """Write what an arm's model looks at; return why its first pair is left out, where attributions do not add up."""
    place = folder.explanation(arm.name)
    if place.exists():
        return None
    pairs = _pairs(samples)
    picture, text = pairs[0]
    drawn = bool(design.study.worlds) or any(recipe["data"]["kind"] == "world" for recipe in arm.recipes.values())
    how: dict[str, Any] = {
        "data": pairs,
        "against": _reference(design, folder, arm),
        "samples": COMPARED,
        "probes": PROBED,
        "pointing": POINTED if drawn else 0,
        "steps": STEPS,
    }
    try:
        explain(model, place, image=picture, text=text, **how)
    except SpecError as error:
        explain(model, place, **how)
        return error
    return None


def _write_beginning(place: Path, model: Path, samples: Sequence[Record], began: Model | None) -> None:
    """Write what a model's layers have lost or gained since it began."""
    if began is not None and not place.exists():
        explain(model, place, data=_pairs(samples), against=began, samples=COMPARED, probes=PROBED)
