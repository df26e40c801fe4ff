"""From a study's folder to its results.json: verdicts with their numbers, scores, compute, curves; the same each time.

Everything is computed from the recorded runs and the design alone: no clock, no path and no order of runs enters, so
that analysing twice gives the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import chdir
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import renaissance
from renaissance.durable import sha256_of, write_atomically
from renaissance.errors import StudyError
from renaissance.studies.arms import Design
from renaissance.studies.compute import compute
from renaissance.studies.curves import curves
from renaissance.studies.facts import arm_facts, stage_facts
from renaissance.studies.folder import SCORES, StudyFolder
from renaissance.studies.hypotheses import (
    Margin,
    Tested,
    Untested,
    examined,
    p_values,
    seeds_planned,
    weights_of,
)
from renaissance.studies.library import names
from renaissance.studies.notes import failed_trials, noted
from renaissance.studies.reach import reach
from renaissance.studies.results import Results, collect
from renaissance.studies.scores import score_rows, variance_rows
from renaissance.studies.statistics.holm import holm
from renaissance.studies.statistics.paired import Estimate
from renaissance.studies.verdicts import Verdict, verdict_of

FORMAT = 1
DIGITS = 6


def analyse(design: Design, folder: StudyFolder, *, claims: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Return what the runs in a study's folder say, and write it as results.json.

    claims: what `renaissance.studies.claims.judge` gave, where the study belongs to a collection.

    Raises:
        StudyError: results of a run were changed since they were made; nothing is computed from any.
        OutputError: results.json cannot be written.
    """
    results = collect(design, folder)
    found = [examined(results, hypothesis) for hypothesis in design.study.hypotheses]
    shares, unshared = variance_rows(results)
    facts = {
        "format": FORMAT,
        "study": _study(results, folder),
        "arms": _arms(design, folder),
        "stages": _stages(results),
        "hypotheses": _hypotheses(found, design, folder),
        "claims": [dict(claim) for claim in claims],
        "scores": score_rows(results),
        "compute": compute(results),
        "reach": reach(results),
        "variance": shares,
        "curves": curves(results),
        "cases": _cases(design, folder),
        "explanations": _explanations(design, folder),
        "runs": _runs(results, folder),
        "machine": _machine(results),
        "notes": [*noted(results, found), *failed_trials(design, folder), *unshared],
    }
    rounded: dict[str, Any] = _rounded(facts)
    write_atomically(folder.results, json.dumps(rounded, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return rounded


def _study(results: Results, folder: StudyFolder) -> dict[str, Any]:
    design = results.design
    study = design.study
    return {
        "name": study.name,
        "question": study.question,
        "scope": study.scope,
        "preset": design.preset,
        "about": design.size.about,
        "verdicts": design.size.verdicts,
        "primary": study.primary,
        "reference": study.reference,
        "digest": _digest(folder),
        "version": renaissance.__version__,
        "command": _command(design, folder),
        "complete": len(results.done) == len(design.runs),
    }


def _command(design: Design, folder: StudyFolder) -> str:
    """Return what runs the study again: by its name where it ships with renaissance, else by the copy in its folder."""
    name = design.study.name
    data = " --data FOLDER" if folder.designed().get("data") else ""
    return f"renaissance study run {name if name in names() else folder.study.name} --preset {design.preset}{data}"


def _digest(folder: StudyFolder) -> str:
    if not folder.study.is_file():
        raise StudyError(f"'{folder.study}' is not there: restore it, as results are those of a study.")
    return sha256_of(folder.study)


def _arms(design: Design, folder: StudyFolder) -> list[dict[str, Any]]:
    """Return what each arm is; a backbone named by a folder is found in the study's, wherever this is called."""
    with chdir(folder.path):
        return arm_facts(design)


def _stages(results: Results) -> list[dict[str, Any]]:
    """Return what each stage is; how many updates it had is measured where its recipe does not tell."""
    found = stage_facts(results.design)
    for stage in (stage for stage in found if stage["updates"] is None):
        runs = [run for arm in results.design.arms for run in results.finished(arm.name, stage["name"])]
        stage["updates"] = round(sum(run.ledger["updates"] or 0 for run in runs) / max(1, len(runs)))
    return found


# --- hypotheses -------------------------------------------------------------------------------------------------------


def _hypotheses(found: Sequence[Tested | Untested], design: Design, folder: StudyFolder) -> list[dict[str, Any]]:
    adjusted = holm(p_values(found)).adjusted
    against = holm(p_values(found, against=True)).adjusted
    restated = folder.restated(design)
    rows = []
    for one in found:
        p_holm, against_holm = adjusted[one.hypothesis.name], against[one.hypothesis.name]
        verdict = verdict_of(one, p_holm, design, against_holm=against_holm, restated=restated)
        rows.append(_hypothesis(one, p_holm, against_holm, verdict, design))
    return rows


def _hypothesis(
    found: Tested | Untested, p_holm: float, against_holm: float, verdict: Verdict, design: Design
) -> dict[str, Any]:
    stated = found.hypothesis
    return {
        "name": stated.name,
        "says": stated.says,
        "kind": stated.kind,
        "primary": stated.name == design.study.primary,
        "metric": stated.metric,
        "arms": list(stated.arms),
        "weights": weights_of(stated),
        "alpha": stated.alpha,
        **_numbers(found, p_holm, against_holm),
        "seeds_needed": seeds_planned(stated),
        **asdict(verdict),
    }


def _numbers(found: Tested | Untested, p_holm: float, against_holm: float) -> dict[str, Any]:
    if isinstance(found, Untested):
        return _numbers_untested(found)
    return {
        "n": len(found.differences),
        "differences": found.differences.tolist(),
        "estimate": _estimate(found.estimate),
        "bootstrap": {"low": found.bootstrap.low, "high": found.bootstrap.high, "over": list(found.bootstrap.over)},
        "p": found.p,
        "p_permutation": found.p_permutation,
        "p_holm": p_holm,
        "p_against": found.p_against,
        "p_against_holm": against_holm,
        "margin": _margin(found.margin),
        "equivalence": _equivalence(found),
        "seeds_to_decide": found.seeds_to_decide,
    }


def _numbers_untested(found: Untested) -> dict[str, Any]:
    """Return the difference of the one seed that there may be, without a spread and without a test."""
    had, unknown = found.differences, dict.fromkeys(("sd", "low", "high"))
    mean = {"mean": had[0], **unknown, "n": 1, "level": 1 - found.hypothesis.alpha} if had else None
    tests = ("p", "p_permutation", "p_holm", "p_against", "p_against_holm", "margin", "equivalence", "seeds_to_decide")
    return {"n": len(had), "differences": had, "estimate": mean, **dict.fromkeys(("bootstrap", *tests))}


def _margin(found: Margin) -> dict[str, Any]:
    return {
        "value": found.value,
        "share": found.share,
        "of": None if found.of is None else list(found.of),
        "gain": None if found.gain is None else _estimate(found.gain),
        "p_gain": found.p_gain,
    }


def _equivalence(found: Tested) -> dict[str, float] | None:
    """Return the tests against both margins, and of the claim "the same", which takes them and that of a gain."""
    if found.p_lower is None or found.p_upper is None:
        return None
    every = max(found.p_lower, found.p_upper, found.margin.p_gain or 0.0)
    return {"p_lower": found.p_lower, "p_upper": found.p_upper, "p": every}


def _estimate(found: Estimate) -> dict[str, Any]:
    return {name: getattr(found, name) for name in ("mean", "sd", "low", "high", "n", "level")}


# --- runs and what is said of them ------------------------------------------------------------------------------------


def _runs(results: Results, folder: StudyFolder) -> list[dict[str, Any]]:
    return [
        {
            "id": run.id,
            "arms": results.design.arms_of(run.id),
            "stage": run.stage,
            "seeds": list(run.seeds),
            **_ended(results, run.id, folder),
            "command": f"renaissance run runs/{run.id}/recipe.yaml",
        }
        for run in results.design.runs.values()
    ]


def _ended(results: Results, run: str, folder: StudyFolder) -> dict[str, Any]:
    """Return how a run ended, and what it took."""
    facts: dict[str, Any] = {"state": "waiting", **dict.fromkeys(("seconds", "flops", "scores_sha256", "error"))}
    if run in results.done:
        done = results.done[run]
        facts |= {"flops": done.ledger["flops_as_run"], "scores_sha256": done.record["sha256"][SCORES]}
        return {**facts, "state": "done", "seconds": done.record["seconds"]}
    if run in results.failed:
        record = results.failed[run]
        error = record["error"]
        told = None if error is None else {**error, "message": _without_path(error["message"], folder)}
        return {**facts, "state": "failed", "seconds": record["seconds"], "error": told}
    return facts


def _without_path(message: str, folder: StudyFolder) -> str:
    for path in sorted({str(folder.path.resolve()), str(folder.path)}, key=len, reverse=True):
        message = message.replace(f"{path}/", "") if len(path) > 1 else message
    return message


def _machine(results: Results) -> dict[str, Any] | None:
    """Return what the first run that is done ran on."""
    first = next((results.done[run] for run in results.design.runs if run in results.done), None)
    return None if first is None else dict(first.machine)


def _cases(design: Design, folder: StudyFolder) -> list[dict[str, Any]]:
    """Return what one model of each arm retrieved, where that was looked at, and is a model of this design."""
    places = [folder.cases(arm.name) for arm in design.arms]
    cases = [case for place in places if place.is_file() for case in json.loads(place.read_text(encoding="utf-8"))]
    return [case for case in cases if case["run"] in design.runs]


def _explanations(design: Design, folder: StudyFolder) -> list[dict[str, str | None]]:
    """Return where it is said what each arm looks at, and what became of its layers since it began."""
    return [
        {
            "arm": arm.name,
            "folder": _explained(folder, folder.explanation(arm.name)),
            "beginning": _explained(folder, folder.beginning(arm.name)),
        }
        for arm in design.arms
        if _explained(folder, folder.explanation(arm.name))
    ]


def _explained(folder: StudyFolder, place: Path) -> str | None:
    return place.relative_to(folder.path).as_posix() if (place / "explanation.json").is_file() else None


def _rounded(value: Any) -> Any:
    """Return data with floats of six significant digits, and None for what is no number."""
    match value:
        case np.generic():
            return _rounded(value.item())
        case bool() | int() | str() | None:
            return value
        case float():
            return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
        case Mapping():
            return {key: _rounded(inner) for key, inner in value.items()}
        case Sequence():
            return [_rounded(inner) for inner in value]
        case _:
            raise TypeError(f"not of results: {value!r}")
