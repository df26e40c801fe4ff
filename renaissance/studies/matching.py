"""Arms that are said to be of like size: counted, and refused where they are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from renaissance.errors import StudyError
from renaissance.studies.arms import Design
from renaissance.studies.design import Matched
from renaissance.studies.effects import model_of
from renaissance.studies.facts import flops_a_pair, size_of

WORDS = {"parameters": "parameters without embeddings", "flops": "forward FLOPs a pair"}


def check_matched(design: Design) -> None:
    """Check that arms which are said to be matched are of like size; those that a preset leaves out are not looked at.

    Raises:
        StudyError: naming the arms with their sizes; or the size of one is not known without its weights.
    """
    for matched in design.study.matched:
        sizes = _sizes(design, matched)
        if len(sizes) > 1 and max(sizes.values()) > (1 + matched.within) * min(sizes.values()):
            told = ", ".join(f"{arm} {size:,}" for arm, size in sizes.items())
            raise StudyError(
                f"{design.study.name}: arms that are matched on {WORDS[matched.on]} differ by more than "
                f"{matched.within:.0%} of the smallest: {told}; change their widths or depths, or 'within'."
            )


def _sizes(design: Design, matched: Matched) -> dict[str, int]:
    """Return what is matched of each arm that the design has."""
    found = {}
    for arm in (arm for arm in design.arms if arm.name in matched.arms):
        where = f"{design.study.name}: 'matched' names the arm '{arm.name}'"
        if matched.stage not in arm.recipes:
            raise StudyError(f"{where}, which skips the stage '{matched.stage}'; name a stage that it has.")
        model = model_of(design.study, arm, matched.stage)
        start = None if model is None else model.spec.model_dump(mode="json")
        size = None if start is None else _size({**arm.recipes[matched.stage], "start": start}, matched)
        if size is None:
            raise StudyError(f"{where}, whose size is not known without its weights; leave it out.")
        found[arm.name] = size
    return found


def _size(recipe: Mapping[str, Any], matched: Matched) -> int | None:
    """Return what arms are matched on, and count nothing else."""
    if matched.on == "flops":
        return flops_a_pair(recipe)
    size = size_of(recipe)
    return None if size is None else size.without_embeddings
