"""What an entry says of itself: names, options, and what is known of a component before it is built."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict

from renaissance.api.inputs import Item

Modality = Literal["vision", "text"]
MODALITIES = get_args(Modality)
Weights = Literal["pretrained", "random", "none"]
Architecture = Literal["one-tower", "two-tower"]
Output = Literal["vision", "text", "pooled"]
# How a backbone tells its tokens apart: a table added to them, rotations or distances inside its blocks, or not at all.
Positions = Literal["absolute", "rope", "relative", "none"]


class Options(BaseModel):
    """The base of each entry's options: JSON-able fields with descriptions and defaults, checked strictly."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A fact that cannot be known before the build."""

    reason: str = "checked at build"


UNKNOWN = Unknown()


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a backbone is, known without building it; a fact that is not known is `Unknown`, never guessed.

    `grid` is the token grid (rows, columns) of a vision backbone at its image size. `layered`: the backbone lists its
    blocks, so that ranges of layers can be frozen or cut. `class_token`: token 0 stands for the whole input.
    `positions`: how it tells its tokens apart. `base`: one-tower models can be based on it (`JointBackbone`); where
    they cannot, `refused` says why. `size_step`: image sides are its multiples. `text_blocks`: fusion heads can run the
    blocks of this text backbone in halves (`SharingText`); None: it is no text backbone, or does not say.
    """

    width: int | Unknown = UNKNOWN
    depth: int | Unknown = UNKNOWN
    layered: bool | Unknown = UNKNOWN
    class_token: bool | Unknown = UNKNOWN
    image_size: int | Unknown | None = None
    patch_size: int | Unknown | None = None
    any_resolution: bool | Unknown = False
    grid: tuple[int, int] | Unknown | None = None
    max_tokens: int | Unknown | None = None
    vocabulary: int | Unknown | None = None
    pretrained: bool | Unknown = UNKNOWN
    trained_on: tuple[str, ...] | Unknown = UNKNOWN
    positions: Positions | Unknown = UNKNOWN
    base: bool | Unknown = UNKNOWN
    refused: str = ""
    size_step: int | Unknown | None = None
    text_blocks: bool | Unknown | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What every component says of itself. `factory` is "package.module:callable", imported at the first build.

    `tiny` holds the options of a CPU-sized instance, which the conformance tests build.
    """

    name: str
    summary: str
    factory: str
    options: type[Options] = Options
    tiny: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneEntry(Entry):
    """A vision or text encoder.

    factory(options, *, weights: Weights, saved: SavedBackbone | None) -> Backbone. With weights="none" the factory
    builds from `saved`, loads nothing and initialises nothing that a load would overwrite.

    A `library` entry answers to every name "<name>:<model>[@<revision>]"; its options must have the fields `model`
    and `revision`, which are filled from that name.
    """

    modality: Modality
    describe: Callable[[Any], Capabilities] = lambda options: Capabilities()
    library: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerNeeds:
    """What a fusion head reads of the towers beside their final tokens.

    layers: the outputs of the last so many blocks of each tower (`Features.layers`). embedded: the text as it is
    before the first block (`Features.embedded`). text_blocks: "shared": the head runs so many of the text tower's own
    blocks from its first one on; "inherited": the head starts with copies of as many blocks that follow the tower's
    last one in the backbone that the tower is cut from. None: it has blocks of its own.
    """

    layers: int = 0
    embedded: bool = False
    text_blocks: Literal["shared", "inherited"] | None = None
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionHeadEntry(Entry):
    """A way to join a vision stream and a text stream.

    factory(options, *, vision: TowerFacts, text: TowerFacts) -> FusionHead; a head whose `needs` say text_blocks gets
    these as well: `text_blocks: Sequence[TextBlock]`. `outputs` are what it can compute; `shared_space`: its
    projections put both modalities into one space (`FusionHead.project`). fits: told the options and what is known of
    the vision and the text tower without building them; raises SpecError where they do not fit.
    """

    outputs: frozenset[Output] = frozenset({"vision", "text", "pooled"})
    shared_space: bool = False
    check: Callable[[Any], None] = lambda options: None
    needs: Callable[[Any], TowerNeeds] = lambda options: TowerNeeds()
    fits: Callable[[Any, Capabilities, Capabilities], None] = lambda options, vision, text: None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEntry(Entry):
    """Something to train for, to be measured on, or both.

    factory(options, *, model: ModelFacts) -> Task.

    outputs: what it reads of a fusion ("pooled", "text", "vision"); empty: it needs no fusion.
    needs: tasks whose published values it reads; they run before it. needs_any: at least one of these must be trained.
    slots: images that one item has. trains: it has a loss.
    needs_negatives: a batch of one pair cannot be used.
    begins_as: a task of the same head, whose weights it begins with where it is new and that one is there.
    data: what it learns from and is measured on: images with captions, or items of prepared data (`ItemTask`), of any
    layout or of these `layouts`.
    metrics: the names of all scores that it may give, so that a study which reads another one is refused before it
    runs; empty: it does not say.
    check: told the options and the names of all tasks that are trained; raises SpecError where they do not fit.
    labels_of: told the options and the training items; returns what the option `labels` becomes where it is null, so
    that a run can take the labels from its data.
    """

    outputs: frozenset[Output] = frozenset()
    needs: tuple[str, ...] = ()
    needs_any: tuple[str, ...] = ()
    architectures: frozenset[Architecture] = frozenset({"one-tower", "two-tower"})
    slots: int = 1
    trains: bool = True
    evaluates: bool = True
    needs_negatives: bool = False
    begins_as: str | None = None
    data: Literal["captions", "items"] = "captions"
    layouts: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    check: Callable[[Any, frozenset[str]], None] = lambda options, trained: None
    labels_of: Callable[[Any, Iterable[Item]], tuple[str, ...] | None] | None = None
