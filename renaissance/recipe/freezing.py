"""What a run freezes and thaws while it trains."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from renaissance.errors import SpecError
from renaissance.recipe.values import Positive
from renaissance.shorthand import parse_part
from renaissance.spec import Strict


def _part(text: str) -> str:
    """Return a part as it is written in canonical form."""
    try:
        return str(parse_part(text))
    except SpecError as error:
        raise ValueError(str(error).removesuffix(".")) from None


PartName = Annotated[str, AfterValidator(_part)]


class Stage(Strict):
    """A time from which on some parts train, and others do not any more."""

    at: Positive = Field(description="After so many updates or epochs, or after this share of the training.")
    thaw: tuple[PartName, ...] = Field((), strict=False, description="Parts that train from here on: 'text[-2:]'.")
    freeze: tuple[PartName, ...] = Field((), strict=False, description="Parts that hold still from here on.")

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not (self.thaw or self.freeze):
            raise ValueError("a stage says what to 'thaw' or to 'freeze', and this one says neither")
        return self


class Gradual(Strict):
    """A frozen part that is thawed layer after layer from the top; its embeddings come with its first block."""

    part: PartName = Field(description="A whole part that lists its layers: 'vision', 'text', 'encoder' or 'fusion'.")
    every: Positive = Field(
        description="One more layer after each so many updates or epochs, or share of the training."
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not parse_part(self.part).whole or self.part == "both":
            raise ValueError(f"'{self.part}' is not thawed from the top; name one whole part, such as 'text'")
        return self


class Freezing(Strict):
    """A schedule on top of what the spec freezes; `unit` is what `at` and `every` count."""

    unit: Literal["step", "epoch", "share"] = Field("step", description="A share is of all updates: 0.5 is half way.")
    stages: tuple[Stage, ...] = Field((), strict=False)
    gradual: Gradual | None = None

    @property
    def any(self) -> bool:
        """Whether anything changes in the training."""
        return bool(self.stages) or self.gradual is not None

    @model_validator(mode="after")
    def _timed(self) -> Self:
        times = [stage.at for stage in self.stages]
        every = [] if self.gradual is None else [self.gradual.every]
        if len(set(times)) < len(times) or times != sorted(times):
            raise ValueError("the stages stand in the order in which they come, each at a time of its own")
        for time in (*times, *every):
            if self.unit == "share" and time >= 1:
                raise ValueError(f"with unit 'share' times are shares below 1, and not {time:g}")
            if self.unit != "share" and time != int(time):
                raise ValueError(f"with unit '{self.unit}' times are whole numbers, and not {time:g}")
        return self


def shown_time(unit: str, time: float) -> str:
    """Return a time of a schedule as people read it."""
    return f"{time:.0%} of the training" if unit == "share" else f"{unit if unit == 'epoch' else 'update'} {time:g}"
