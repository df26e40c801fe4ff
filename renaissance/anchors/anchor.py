"""An anchor as data: a released checkpoint, what it was measured on, and the published figures. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from renaissance.data.layouts import Layout
from renaissance.data.readers.published import LAYOUTS
from renaissance.errors import SpecError
from renaissance.importing.importers import IMPORTERS, checked_options
from renaissance.plain_yaml import parse_yaml
from renaissance.recipe import BUILTIN_RECIPES
from renaissance.recipe.values import Name
from renaissance.spec import JsonOptions, Strict, did_you_mean, explain, shown

ANCHORS = BUILTIN_RECIPES / "reproduce"

# what these make has no fusion: each image and each text is encoded once, and their vectors are multiplied
DUAL = ("open-clip", "clip", "siglip", "vision-text-dual")
# pairs of an image with a text that a task scores for each item, where it is not one
PAIRS_OF_ITEM = {"nlvr2": 2, "pair": 2, "winoground": 4}

Text = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Count = Annotated[int, Field(ge=1, le=2**40)]
Percent = Annotated[float, Field(ge=0.0, le=100.0)]


class Released(Strict):
    """A checkpoint on the Hub, and how it is imported."""

    repo: Text = Field(description="'organisation/name'.")
    revision: Text = Field("main", description="Branch, tag or commit.")
    importer: Name = Field(description="Its layout: a kind of `renaissance import`.")
    options: JsonOptions = Field(default_factory=dict, description="Options of that import.")
    unread: tuple[Text, ...] = Field(
        (),
        strict=False,
        description="Names of tensors that are left out where it has them, as the published model does not read "
        "them; '*' stands for anything.",
    )
    parameters: Count | None = Field(None, description="Parameters of this architecture; null: not known.")

    @model_validator(mode="after")
    def _importable(self) -> Self:
        if self.importer not in IMPORTERS:
            raise ValueError(
                f"no checkpoint layout is called '{self.importer}'.{did_you_mean(self.importer, IMPORTERS)} "
                f"Known: {', '.join(IMPORTERS)}"
            )
        try:
            checked_options(self.importer, IMPORTERS[self.importer], dict(self.options))
        except SpecError as error:
            raise ValueError(str(error).rstrip(".")) from None
        return self


class Whole(Strict):
    """How much a published split holds."""

    items: Count = Field(description="Items; for images with captions, images.")
    texts: Count | None = Field(None, description="Texts, where an item has several.")


class Measured(Strict):
    """The data on which the figures were measured."""

    layout: Name = Field(description="A layout of `renaissance data prepare`.")
    splits: dict[Name, Whole] = Field(description="The splits of the figures, and how much they hold as published.")

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.layout not in LAYOUTS:
            raise ValueError(f"no layout is called '{self.layout}'.{did_you_mean(self.layout, LAYOUTS)}")
        return self

    @property
    def published(self) -> Layout:
        """The layout: what it is, and the page where it is downloaded."""
        return LAYOUTS[self.layout]


class Figure(Strict):
    """One published figure, or one that is only reported as nobody published it of this checkpoint."""

    split: Name
    task: Name = Field(description="The task that measures it.")
    options: JsonOptions = Field(default_factory=dict, description="Options of a task that trains nothing.")
    metric: Text = Field(description="The score, as that task calls it.")
    expected: Percent | None = Field(description="The published figure in percent; null: none is known.")
    tolerance: Percent | None = Field(None, description="How far from it the figure may be, in points.")
    source: Text | None = Field(None, description="Where it was published.")
    why: Text | None = Field(None, description="Why none is known.")

    @model_validator(mode="after")
    def _said(self) -> Self:
        if self.expected is None and (self.why is None or self.tolerance is not None or self.source is not None):
            raise ValueError("a figure with expected: null says 'why', and has neither tolerance nor source")
        if self.expected is not None and (self.tolerance is None or self.source is None or self.why is not None):
            raise ValueError("a published figure has a 'tolerance' and a 'source', and no 'why'")
        return self

    @property
    def measurement(self) -> Measurement:
        """What has to be measured for it."""
        return Measurement(self.split, self.task, tuple(sorted((name, repr(v)) for name, v in self.options.items())))


class Measurement(NamedTuple):
    """A task on a split; several figures can come from one."""

    split: str
    task: str
    options: tuple[tuple[str, str], ...]


class Anchor(Strict):
    """A released checkpoint with the figures that were published of it."""

    name: Name
    summary: Text
    checkpoint: Released
    data: Measured
    figures: tuple[Figure, ...] = Field(min_length=1, strict=False)
    differs: tuple[Text, ...] = Field(
        (), strict=False, description="What is known to differ here from how the figures were measured."
    )

    @model_validator(mode="after")
    def _measurable(self) -> Self:
        odd = next((figure.split for figure in self.figures if figure.split not in self.data.splits), None)
        if odd is not None:
            raise ValueError(f"a figure is of the split '{odd}', and data.splits does not say how much that holds")
        return self

    def measurements(self) -> dict[Measurement, Figure]:
        """Return what has to be measured, in the order of the figures, each with the first figure that needs it."""
        found: dict[Measurement, Figure] = {}
        for figure in self.figures:
            found.setdefault(figure.measurement, figure)
        return found


# --- what a check costs ---------------------------------------------------------------------------------------------


class Cost(NamedTuple):
    """What a check takes: pairs of an image with a text to fuse, and megabytes to download (fp32), where known."""

    pairs: int
    megabytes: int | None


def cost(anchor: Anchor) -> Cost:
    """Return what a check takes, of the model's architecture and the published sizes of the splits."""
    parameters = anchor.checkpoint.parameters
    pairs = 0
    if anchor.checkpoint.importer not in DUAL:
        pairs = sum(
            _pairs(figure, anchor.data.splits[measurement.split])
            for measurement, figure in anchor.measurements().items()
        )
    return Cost(pairs, None if parameters is None else round(4 * parameters / 1e6))


def _pairs(figure: Figure, whole: Whole) -> int:
    texts = whole.texts or whole.items
    if figure.task != "retrieval":
        return PAIRS_OF_ITEM.get(figure.task, 1) * whole.items
    match figure.options.get("rerank", 0):
        case "all":
            return whole.items * texts
        case int(k):
            return min(k * (whole.items + texts), whole.items * texts)  # both directions, at most
        case _:
            return 0


# --- reading --------------------------------------------------------------------------------------------------------


def anchor_names() -> tuple[str, ...]:
    """Return the names of the anchors that ship with renaissance."""
    return tuple(sorted(path.stem for path in ANCHORS.glob("*.yaml")))


def as_anchor(anchor: Anchor | str | Path) -> Anchor:
    """Return the anchor that is meant: one that ships with renaissance, by name, or a YAML file.

    Raises:
        SpecError: there is none, or it is wrong.
    """
    if isinstance(anchor, Anchor):
        return anchor
    path = Path(anchor)
    if path.suffix not in (".yaml", ".yml"):
        path = ANCHORS / f"{anchor}.yaml"
        if str(anchor) not in anchor_names():
            raise SpecError(
                f"No anchor is called '{shown(anchor)}'.{did_you_mean(str(anchor), anchor_names())} "
                f"Known: {', '.join(anchor_names())}; or give a YAML file of your own."
            )
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SpecError(f"The anchor '{shown(path)}' cannot be read: {error.strerror}.") from None
    return _validated(parse_yaml(raw, what=path.name), what=path.name)


def _validated(data: object, *, what: str) -> Anchor:
    try:
        return Anchor.model_validate(data)
    except ValidationError as error:
        raise SpecError(explain(error, Anchor.model_json_schema(), what=what)) from None


COLUMNS = ("anchor", "checkpoint", "data", "published figures", "pairs to fuse", "download")


def rows() -> Iterator[tuple[str, ...]]:
    """Yield a row of `COLUMNS` for each anchor that ships with renaissance."""
    for anchor in map(as_anchor, anchor_names()):
        takes = cost(anchor)
        size = "not known" if takes.megabytes is None else f"{takes.megabytes:,} MB"
        yield (
            anchor.name,
            anchor.checkpoint.repo,
            anchor.data.layout,
            "; ".join(map(_shown, anchor.figures)),
            f"{takes.pairs:,}",
            size,
        )


def _shown(figure: Figure) -> str:
    expected = "none published" if figure.expected is None else f"{figure.expected:g} ± {figure.tolerance:g}"
    return f"{figure.split} {figure.metric}: {expected}"
