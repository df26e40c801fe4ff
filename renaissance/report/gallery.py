"""The section of retrieval, with right cases and wrong ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from renaissance.report.blocks import Block, Gallery, Heading, Paragraph, Section, Shown
from renaissance.report.facts import Case, Results
from renaissance.report.pictures import Pictures
from renaissance.report.wording import Badge, decimals, fixed

MOST = 24  # cases, shared between the kinds
ROOM = 250_000  # bytes of pictures
RIGHT, WRONG = Badge("right", "✓", "good"), Badge("wrong", "✕", "bad")
_SIDE = 192
_TOP = 5


def gallery(results: Results, pictures: Pictures) -> Section:
    """Return cases of each kind, taking turns between arms, and between right ones and wrong ones."""
    blocks: list[Block] = []
    pictures.room = ROOM
    kinds = list(dict.fromkeys(case.kind for case in results.cases))
    for kind in kinds:
        found = [case for case in results.cases if case.kind == kind]
        kept = _chosen(found, MOST // len(kinds))
        first = sum(picture.name.startswith("case-") for picture in pictures.kept) + 1
        shown = [_case(case, pictures, f"case-{place:02d}") for place, case in enumerate(kept, first)]
        said = f"{sum(case.right for case in found)} of these {len(found)} cases are right."
        if len(kept) < len(found):
            said += f" {len(kept)} are shown: the first of each arm, right and wrong in turn."
        blocks += [Heading(kind.replace("->", " → ")), Paragraph(said, quiet=True), Gallery(shown)]
    return Section("gallery", "Retrieval, right and wrong", blocks)


def _chosen(cases: Sequence[Case], most: int) -> list[Case]:
    """Return the first cases of each arm, right and wrong, in their order."""
    queues: dict[tuple[str, bool], list[int]] = {}
    for place, case in enumerate(cases):
        queues.setdefault((case.arm, case.right), []).append(place)
    kept: list[int] = []
    while len(kept) < most and any(queues.values()):
        for queue in queues.values():
            if queue and len(kept) < most:
                kept.append(queue.pop(0))
    return [cases[place] for place in sorted(kept)]


def _case(case: Case, pictures: Pictures, name: str) -> Shown:
    picture = None if case.image is None else pictures.read(case.image, name, f"Picture: {case.query}", side=_SIDE)
    lines = [f"{place + 1}. {_answer(answer)}" for place, answer in enumerate(case.top[:_TOP])]
    return Shown(picture, case.arm, lines, RIGHT if case.right else WRONG, case.query)


def _answer(answer: Any) -> str:
    """Return what was retrieved: a text, with its score and whether it is right where those are said."""
    if not isinstance(answer, Mapping):
        return str(answer)
    text = str(answer.get("text", answer.get("id", "a picture")))
    score = answer.get("score")
    scored = f" ({fixed(float(score), decimals((score,)))})" if isinstance(score, int | float) else ""
    return f"{text}{scored}{' ✓' if answer.get('right') is True else ''}"
