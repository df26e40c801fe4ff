"""What the check of an anchor found: each figure beside the published one, and on what it was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias

from renaissance.anchors.anchor import Anchor, Figure, Whole
from renaissance.anchors.repository import Fetched
from renaissance.api import Item, Score
from renaissance.errors import ReproductionError
from renaissance.importing import Imported

# "reported": none was published; "partial": the data are not whole, so it cannot be compared
Verdict: TypeAlias = Literal["pass", "FAIL", "reported", "partial"]
ROUNDING = 1e-9  # of a difference that is the tolerance itself


@dataclass(frozen=True, slots=True)
class Part:
    """How much of a published split is there: items and texts, and the published numbers of both."""

    items: int
    texts: int
    published: Whole

    @classmethod
    def of(cls, items: Sequence[Item], published: Whole) -> Self:
        """Count the items and texts of a split."""
        return cls(len(items), sum(len(item.texts) for item in items), published)

    @property
    def whole(self) -> bool:
        """Whether it is the published split by its counts."""
        return self.items == self.published.items and self.published.texts in (None, self.texts)

    @property
    def fraction(self) -> float:
        """The share of the items that is there; of the texts, where only these differ."""
        if self.items == self.published.items and self.published.texts is not None:
            return self.texts / self.published.texts
        return self.items / self.published.items

    def told(self) -> str:
        """Return it in words, with the fraction."""
        counts = f"{self.items:,} of {self.published.items:,} items"
        if self.published.texts is not None:
            counts += f" with {self.texts:,} of {self.published.texts:,} texts"
        return f"{counts} ({100 * self.fraction:.1f}%)"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A figure, what was measured, and what that says."""

    figure: Figure
    score: Score
    verdict: Verdict

    def row(self) -> dict[str, Any]:
        """Return it as a JSON-able row."""
        return {**self.figure.model_dump(mode="json"), "measured": self.score.row(), "verdict": self.verdict}


def outcome(figure: Figure, score: Score, part: Part) -> Outcome:
    """Compare a figure with what was measured on a part of its split."""
    if not part.whole:
        return Outcome(figure, score, "partial")
    if figure.expected is None or figure.tolerance is None:
        return Outcome(figure, score, "reported")
    near = abs(score.value - figure.expected) <= figure.tolerance + ROUNDING
    return Outcome(figure, score, "pass" if near else "FAIL")


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What a check found, and with what: commit, data, device and versions."""

    anchor: Anchor
    fetched: Fetched
    imported: Imported
    data: str
    parts: Mapping[str, Part]
    device: str
    versions: Mapping[str, str]
    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> bool | None:
        """Whether all figures that could be compared are as published; None: none could be."""
        compared = [outcome.verdict == "pass" for outcome in self.outcomes if outcome.verdict in ("pass", "FAIL")]
        return all(compared) if compared else None

    def require(self) -> None:
        """Check that no figure failed.

        Raises:
            ReproductionError: naming the first that did, and by how much.
        """
        failed = [outcome for outcome in self.outcomes if outcome.verdict == "FAIL"]
        if not failed:
            return
        figure, score = failed[0].figure, failed[0].score
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise ReproductionError(
            f"'{self.anchor.name}' is not reproduced: {figure.metric} on '{figure.split}' is {score.value:.2f}, and "
            f"{figure.expected:g} ± {figure.tolerance:g} was published{more}. Look at what is known to differ, and "
            "compare commit and versions with a check that passed."
        )

    def report(self) -> dict[str, Any]:
        """Return all of it as JSON-able data."""
        return {
            "name": self.anchor.name,
            "passed": self.passed,
            "checkpoint": {
                "repo": self.fetched.repo,
                "commit": self.fetched.commit,
                "weights": list(self.fetched.weights),
                "bytes": self.fetched.size,
                "importer": self.anchor.checkpoint.importer,
                "tensors": self.imported.tensors,
                "left_out": list(self.imported.left_out),
                "spec": self.imported.spec,
            },
            "data": {
                "path": self.data,
                "layout": self.anchor.data.layout,
                "splits": {
                    split: {
                        "items": part.items,
                        "texts": part.texts,
                        "published": part.published.model_dump(mode="json"),
                        "fraction": part.fraction,
                        "whole": part.whole,
                    }
                    for split, part in self.parts.items()
                },
            },
            "figures": [outcome.row() for outcome in self.outcomes],
            "differs": list(self.anchor.differs),
            "device": self.device,
            "versions": dict(self.versions),
        }
