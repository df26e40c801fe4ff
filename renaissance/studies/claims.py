"""A collection: studies on one page, and claims of a paper that their hypotheses judge; only results.json are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from renaissance.errors import SpecError, StudyError
from renaissance.spec import Strict, did_you_mean, explain
from renaissance.studies.design import Text, Word

Place = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*$", max_length=121)]
ClaimVerdict = Literal["supported", "refuted", "undecided", "not tested here"]


class Claim(Strict):
    """A claim, and the hypotheses that it stands and falls with."""

    number: int = Field(ge=1)
    claim: Text = Field(description="As the paper says it.")
    by: tuple[Place, ...] = Field(strict=False, min_length=1, description="'study/hypothesis'.")
    needs: Literal["all", "any"] = Field("all", description="Of the hypotheses, to be supported.")


class Collection(Strict):
    """Studies that are told together, and the claims, if any, that they test."""

    name: Word
    about: Text
    claims: tuple[Claim, ...] = Field((), strict=False)
    studies: tuple[Word, ...] = Field(strict=False, min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for fault in self._faults():
            raise ValueError(fault)
        return self

    def _faults(self) -> Iterator[str]:
        numbers = [claim.number for claim in self.claims]
        for number in sorted({number for number in numbers if numbers.count(number) > 1}):
            yield f"two claims have the number {number}; give each its own"
        for what, names in (("studies", self.studies), *((f"claim {one.number}", one.by) for one in self.claims)):
            for name in sorted({name for name in names if names.count(name) > 1}):
                yield f"{what}: '{name}' stands twice; keep one"
        for claim in self.claims:
            for study in (place.partition("/")[0] for place in claim.by):
                if study not in self.studies:
                    hint = did_you_mean(study, self.studies)
                    yield f"claim {claim.number} names the study '{study}', which 'studies' does not.{hint}"


def validate_collection(data: object) -> Collection:
    """Return the collection that JSON-like `data` describes.

    Raises:
        SpecError: with the path of the first fault and the nearest valid key.
    """
    try:
        return Collection.model_validate(data)
    except ValidationError as error:
        raise SpecError(explain(error, Collection.model_json_schema(), what="collection")) from None


# --- judging ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """What a study says of a hypothesis; verdict None: it has no results yet, or has not tested it."""

    place: str
    verdict: str | None
    confirmatory: bool
    reason: str


def judge(collection: Collection, results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return for each claim its verdict, what it is by, and why. results: results.json by the study's name.

    A claim is refuted where any of its hypotheses is; else supported where all are that it needs; not tested where none
    has a result; else undecided. A void hypothesis decides nothing, and its reason is told.

    Raises:
        StudyError: a study's results have no such hypothesis.
    """
    return [_judged(claim, [_found(place, results) for place in claim.by]) for claim in collection.claims]


def _found(place: str, results: Mapping[str, Mapping[str, Any]]) -> _Found:
    study, _, name = place.partition("/")
    if study not in results:
        return _Found(place, None, False, f"'{study}' has no results here")
    stated = {hypothesis["name"]: hypothesis for hypothesis in results[study]["hypotheses"]}
    if name not in stated:
        raise StudyError(
            f"A claim is by '{place}', and the results of '{study}' have no such hypothesis; they have: "
            f"{', '.join(stated)}.{did_you_mean(name, stated)}"
        )
    one = stated[name]
    if one["n"] == 0:
        return _Found(place, None, False, f"'{place}' is not tested: {_lowered(one['reason'])}")
    return _Found(place, one["verdict"], one["confirmatory"], _lowered(one["reason"]))


def _judged(claim: Claim, found: Sequence[_Found]) -> dict[str, Any]:
    verdict, by = _verdict(claim, found)
    lines = [f"'{one.place}' is {one.verdict}: {one.reason}." if one.verdict else f"{one.reason}." for one in by]
    if verdict in ("supported", "refuted") and not any(one.confirmatory for one in by):
        lines.append("The claim is decided by exploratory hypotheses alone.")
    return {
        "number": claim.number,
        "claim": claim.claim,
        "verdict": verdict,
        "by": list(claim.by),
        "confirmatory": verdict in ("supported", "refuted") and all(one.confirmatory for one in by),
        "reason": " ".join(lines),
    }


def _verdict(claim: Claim, found: Sequence[_Found]) -> tuple[ClaimVerdict, list[_Found]]:
    """Return the verdict on a claim, and the hypotheses that decide it."""
    refuted = [one for one in found if one.verdict == "refuted"]
    supported = [one for one in found if one.verdict == "supported"]
    if refuted:
        return "refuted", refuted
    if supported and (claim.needs == "any" or len(supported) == len(found)):
        return "supported", supported
    if all(one.verdict is None for one in found):
        return "not tested here", list(found)
    return "undecided", [one for one in found if one.verdict != "supported"]


def _lowered(reason: str) -> str:
    """Return a sentence to stand within another."""
    return f"{reason[:1].lower()}{reason[1:]}".rstrip(".")
