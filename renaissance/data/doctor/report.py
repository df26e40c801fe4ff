"""What the doctor found, as data: findings, overlaps, and what the backbones have seen. For machines: `as_json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

EXAMPLES = 10

# A fault must be mended; a note is worth knowing.
FindingLevel = Literal["fault", "note"]
# The field's own set-ups have a standard overlap, and reports label it; a leak is refused unless it is waived by name.
OverlapLevel = Literal["standard overlap", "leak"]


@dataclass(slots=True)
class Finding:
    """One kind of thing that was found in one place ("coco/test"): how often, and the first of them."""

    kind: str
    level: FindingLevel
    where: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Findings:
    """Collects findings; of each kind and place, all are counted and the first `EXAMPLES` are kept."""

    _found: dict[tuple[str, str], Finding] = field(default_factory=dict)

    def add(self, kind: str, level: FindingLevel, where: str, example: str) -> None:
        """Add one."""
        finding = self._found.setdefault((kind, where), Finding(kind, level, where))
        finding.count += 1
        if len(finding.examples) < EXAMPLES:
            finding.examples.append(example)

    def all(self) -> tuple[Finding, ...]:
        """Return the faults, then the notes, each in the order in which they were met."""
        return tuple(sorted(self._found.values(), key=lambda finding: finding.level))


@dataclass(frozen=True, slots=True)
class Overlap:
    """Images of an evaluation split that a training split has too.

    name: what a waiver says ("vg/train:coco/test"). by: how many of them share the id, the bytes, or only the look.
    total: all images of the evaluation split.
    """

    name: str
    trained: str
    tested: str
    level: OverlapLevel
    images: int
    total: int
    by: Mapping[str, int]
    reason: str
    waived: bool
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """Evaluation data that a pretrained backbone has seen, by what is known of its training."""

    name: str
    backbone: str
    trained_on: str
    tested: str
    level: OverlapLevel
    waived: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that the doctor found. data: what was examined, by name: layout, splits with their items, images.

    unknown: backbones of which nobody says what they were trained on.
    """

    data: Mapping[str, Mapping[str, Any]]
    findings: tuple[Finding, ...] = ()
    overlaps: tuple[Overlap, ...] = ()
    seen: tuple[Seen, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def faults(self) -> int:
        """How many faults there are."""
        return sum(finding.count for finding in self.findings if finding.level == "fault")

    @property
    def leaks(self) -> tuple[str, ...]:
        """The names of the leaks that nobody waived."""
        return tuple(found.name for found in self._shared if found.level == "leak" and not found.waived)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all overlaps, which a waiver can say."""
        return tuple(found.name for found in self._shared)

    @property
    def _shared(self) -> tuple[Overlap | Seen, ...]:
        return (*self.overlaps, *self.seen)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {"faults": self.faults, "leaks": list(self.leaks), **asdict(self)}
