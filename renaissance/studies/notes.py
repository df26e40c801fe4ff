"""What a reader of a study's results must know beside its numbers: what is missing, and what cannot be compared."""

from __future__ import annotations

import json
from collections.abc import Sequence

from renaissance.studies.arms import Design
from renaissance.studies.folder import StudyFolder
from renaissance.studies.hypotheses import ITEMS, Tested, Untested
from renaissance.studies.results import Results, counted
from renaissance.studies.trials import trials_of


def noted(results: Results, found: Sequence[Tested | Untested]) -> list[str]:
    """Return what a reader must know of what is missing."""
    notes = [f"The run '{run}' failed: {results.fault(run)}." for run in results.design.runs if run in results.failed]
    if results.waiting:
        notes.append(f"{len(results.waiting)} of {len(results.design.runs)} runs have not ended.")
    left_out: dict[str, list[str]] = {}
    for one in found:
        for line in one.pairs.left_out if one.pairs else ():
            left_out.setdefault(line, []).append(f"'{one.hypothesis.name}'")
    notes += [f"Left out of {', '.join(of)}: {line}." for line, of in left_out.items()]
    for one in found:
        name = one.hypothesis.name
        if isinstance(one, Untested):
            notes.append(f"'{name}' was not tested: {one.why}.")
        has_items = not counted(one.hypothesis.metric)
        if isinstance(one, Tested) and has_items and ITEMS not in one.bootstrap.over:
            notes.append(f"'{name}': its bootstrap draws no items, as not all runs kept outcomes of the same ones.")
    machines = {json.dumps(run.machine, sort_keys=True) for run in results.done.values()}
    if len(machines) > 1:
        notes.append(f"Runs ran on {len(machines)} different machines or settings: compare no seconds and no memory.")
    return notes


def failed_trials(design: Design, folder: StudyFolder) -> list[str]:
    """Return in which arms fewer trials of the search were heard of than in others, and the runs that failed."""
    notes = []
    for arm in design.arms:
        trials = trials_of(folder, arm.name)
        silent = [trial for trial in trials if trial.value is None]
        if silent:
            failed = dict.fromkeys(f"'{trial.failed}'" for trial in silent if trial.failed)
            named = f"; {', '.join(failed)} failed" if failed else ""
            notes.append(f"Search of '{arm.name}': {len(silent)} of its {len(trials)} trials gave no score{named}.")
    return notes
