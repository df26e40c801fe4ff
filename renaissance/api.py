"""What describing a plugin takes: entries, options, protocols and the data that flows between parts. Imports no torch.

Letters in shapes: V distinct images of a batch, T distinct texts, P pairs of an image and a text, B any of the three,
N tokens of a vision tower, L tokens of a text, D width, C most captions that one image has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import pluggy
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

API_VERSION = 1

hookimpl = pluggy.HookimplMarker("renaissance")

Modality = Literal["vision", "text"]
Weights = Literal["pretrained", "random", "none"]
Architecture = Literal["one-tower", "two-tower"]
Output = Literal["vision", "text", "pooled"]
# How a backbone tells its tokens apart: a table added to them, rotations or distances inside its blocks, or not at all.
Positions = Literal["absolute", "rope", "relative", "none"]


class Options(BaseModel):
    """The base of each entry's options: JSON-able fields with descriptions and defaults, checked strictly."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


# --- what an entry says of itself -------------------------------------------------------------------------------


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
    data: what it learns from and is measured on: images with captions, or items of prepared data (`ItemTask`), of any
    layout or of these `layouts`.
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
    data: Literal["captions", "items"] = "captions"
    layouts: tuple[str, ...] = ()
    check: Callable[[Any, frozenset[str]], None] = lambda options, trained: None
    labels_of: Callable[[Any, Iterable[Item]], tuple[str, ...] | None] | None = None


# --- what flows through a model -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VisionInput:
    """Distinct images. pixels [V, 3, H, W]: uint8 as decoded, or float as the backbone's `normalise` leaves them.

    mask bool [V, H, W] marks real pixels of variable-size images; masked_patches bool [V, N].
    """

    pixels: Tensor
    mask: Tensor | None = None
    masked_patches: Tensor | None = None


@dataclass(frozen=True, slots=True)
class TextInput:
    """Distinct texts. token_ids int64 [T, L]; mask bool [T, L], True where a token is real.

    segment_ids int64 [T, L]; embeddings [T, L, E] in place of the ids' word embeddings. words int64 [T, L]: the number
    of each token's word in its text, -1 for special tokens; there where ids do not tell (`WordPieces.by_text`).
    """

    token_ids: Tensor
    mask: Tensor
    segment_ids: Tensor | None = None
    embeddings: Tensor | None = None
    words: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Features:
    """Encoded inputs: tokens [B, N, D], mask bool [B, N] (True: real), pooled [B, D], and the layers asked for.

    embedded [B, N, D]: the tokens before the first block, where a fusion head reads them.
    """

    tokens: Tensor
    mask: Tensor
    pooled: Tensor | None = None
    layers: tuple[Tensor, ...] = ()
    embedded: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Joint:
    """Fused pairs: the two fused streams and pooled [P, D]; only what was asked for is there."""

    vision: Features | None = None
    text: Features | None = None
    pooled: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Distinct inputs and pairs of them.

    pairs int64 [P, 2]: (image, text) that belong together; slots int64 [P]: which image of its item (0, 1 ..);
    items int64 [P]: which item; seeds int64 [P]: a function of (seed, epoch, sample id) alone.
    caption_keys int64 [V, C]: keys of *all* captions of each image, 0 where it has fewer; text_keys int64 [T].
    Two texts have the same key exactly if they are the same caption. targets: what labelled data adds.
    stored_vision, stored_text: outputs of frozen towers, read from a store in place of being computed.
    skipped: what could not be used and was left out, one line each (recipe: `on_bad_sample: skip`).
    """

    images: VisionInput | None
    texts: TextInput
    pairs: Tensor
    slots: Tensor
    items: Tensor
    seeds: Tensor
    caption_keys: Tensor
    text_keys: Tensor
    ids: tuple[str, ...] = ()
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    stored_vision: Features | None = None
    stored_text: Features | None = None
    skipped: tuple[str, ...] = ()


# A box in pixels of its image: left, top, width, height.
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to decide or to learn from: images and texts that belong together, and what is right about them.

    images: where their bytes are (`name`, `read()`). texts: captions of the image; or the question, sentence or
    hypothesis; or the candidates. label: the right class. answers: those of all annotators (VQA). boxes: candidate
    regions of the first image. target: the number of the right candidate. fields: what else the corpus says.
    """

    id: str
    images: tuple[Any, ...]
    texts: tuple[str, ...]
    row: str = ""
    label: str | None = None
    answers: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    target: int | None = None
    fields: Mapping[str, str] = field(default_factory=dict)


# --- what components are --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TowerFacts:
    """What a fusion head and a task must know of a tower: its width, and whether token 0 stands for the whole."""

    width: int
    class_token: bool


@dataclass(frozen=True, slots=True)
class WordPieces:
    """Ids of the tokens that are pieces of a word: `continues` that of the token before, `unfinished` that after.

    by_text: ids do not tell, and the processor gives `TextInput.words`.
    """

    continues: tuple[int, ...] = ()
    unfinished: tuple[int, ...] = ()
    by_text: bool = False


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """What a task must know of a tokenizer; `special_ids` are never masked. pieces: None where words are not known."""

    vocabulary: int
    pad_id: int
    mask_id: int | None
    special_ids: tuple[int, ...]
    max_tokens: int
    pieces: WordPieces | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a task must know of the model that it works on; a width is None where the model has no such output.

    vision, text: widths of what `represent` gives; joint: width of `Joint.pooled`; fused_text: of `Joint.text`.
    shared_space: `represent` puts both modalities into one space. vision_tokens: width of the tokens of a vision tower,
    before any fusion; None where there is no such tower.
    """

    vision: int | None
    text: int | None
    joint: int | None
    fused_text: int | None
    shared_space: bool
    tokenizer: TokenizerFacts | None
    vision_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class SavedBackbone:
    """What `Backbone.save` left behind: its config, and the folder with its processor's files."""

    config: Mapping[str, Any]
    folder: Path


@runtime_checkable
class VisionProcessor(Protocol):
    """The preprocessing of one vision backbone."""

    image_size: tuple[int, int]

    def __call__(self, images: Sequence[Image]) -> VisionInput:
        """Resize and crop RGB images for evaluation; return uint8 pixels [V, 3, H, W]."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Return everything that changes the pixels, JSON-able: size, crop, interpolation, mean, std."""
        ...


@runtime_checkable
class TextProcessor(Protocol):
    """The tokenizer of one text backbone."""

    facts: TokenizerFacts

    def __call__(self, texts: Sequence[str], seconds: Sequence[str] | None = None) -> TextInput:
        """Tokenize, truncate to `max_tokens`, pad to the longest of these texts.

        seconds: the second text of each, where each is a pair; `segment_ids` tell the two apart.
        """
        ...

    def describe(self) -> Mapping[str, Any]:
        """Return everything that changes the ids, JSON-able: a digest of the tokenizer, special ids, lengths."""
        ...


class Backbone(Protocol):
    """An encoder of one modality (an nn.Module).

    blocks, embeddings, final: for a layered backbone its blocks in order, the modules before them and those after;
    blocks is empty where the backbone is not layered. config: JSON-able, enough to build it again without a download.
    revision: the commit its weights came from, if they did.
    """

    width: int
    class_token: bool
    processor: Any
    blocks: Sequence[nn.Module]
    embeddings: Sequence[nn.Module]
    final: Sequence[nn.Module]
    revision: str | None

    def __call__(self, inputs: Any, layers: Sequence[int] = ()) -> Features:
        """Encode; `layers` asks for the outputs of these blocks as well (0 is the first; negative from the end)."""
        ...

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write the processor's files into `folder`; return the config from which the factory builds it again."""
        ...


class LayeredBackbone(Backbone, Protocol):
    """A backbone whose forward is a fold over its blocks: finish(fold(step, embed(x))) == __call__(x)."""

    def embed(self, inputs: Any) -> Any:
        """Return the state before the first block."""
        ...

    def step(self, index: int, state: Any) -> Any:
        """Run one block."""
        ...

    def finish(self, state: Any) -> Features:
        """Return what comes after the last block."""
        ...


class JointBackbone(LayeredBackbone, Protocol):
    """A layered backbone whose blocks also take tokens of the other modality: one-tower models are based on these.

    Laws: finish(fold(step, join(embedded(x), None))) == __call__(x); and where no other token is real, what the own
    tokens become is the same with and without the others.
    """

    positions: Positions

    def embedded(self, inputs: Any) -> Features:
        """Return own tokens [B, N, D] before the first block, with their mask."""
        ...

    def join(self, own: Features | None, other: Features | None) -> Any:
        """Return the state before the first block of own tokens [B, N, D] followed by others [B, M, D].

        own: rows of what `embedded` gave, possibly changed in value. Others have their positions in them already:
        rotations leave them as they are, and no distance is counted to or from them. Padding is attended to by none.
        """
        ...

    def keep_embeddings(self) -> None:
        """Drop the blocks and what follows them, for good: `embedded` is all that still works."""
        ...


class TextBlock(Protocol):
    """The two halves of a block of a text tower (an nn.Module), so that cross attention can stand between them."""

    def attend(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return hidden [B, N, D] after self attention, residual and norm.

        mask bool [B, N] (True: real), or [B, N, N] (True: row may attend to column).
        """
        ...

    def feed(self, hidden: Tensor) -> Tensor:
        """Return hidden [B, N, D] after the MLP, residual and norm."""
        ...


class SharingText(Protocol):
    """A text backbone whose blocks fusion heads can run (an nn.Module)."""

    def text_blocks(self) -> Sequence[TextBlock]:
        """Return its blocks in halves; they hold the very parameters of `blocks`."""
        ...


class Resizable(Protocol):
    """A backbone that takes inputs of another size after it is built."""

    def resize(self, size: int) -> tuple[str, ...]:
        """Take images of `size` pixels a side, or texts of up to `size` tokens, from now on; `processor` too.

        Returns the names of the tensors whose shape changed: position tables, interpolated for images, and for
        longer texts continued by new rows.

        Raises:
            SpecError: it cannot take that size.
        """
        ...


class FusionHead(Protocol):
    """Joins pairs of streams (an nn.Module); `width` is that of its streams, `pooled_width` that of Joint.pooled.

    A head with an attribute `recompute` runs its layers by `toolkit.recompute.run`, again in the backward pass if True.
    """

    width: int
    pooled_width: int

    def __call__(self, vision: Features, text: Features, outputs: frozenset[Output]) -> Joint:
        """Fuse pair i of vision [P, N, Dv] and text [P, L, Dt]; compute only the outputs that are asked for."""
        ...


@dataclass(frozen=True, slots=True)
class Views:
    """Further inputs that a task needs encoded; they come back from `Encoded.views[task]`."""

    texts: TextInput | None = None
    images: VisionInput | None = None


@dataclass(frozen=True, slots=True)
class Pairs:
    """Which pairs to fuse: rows of `vision` and of `text` by index int64 [P, 2], and what is read of the fusion.

    slots int64 [P]: which image of its item each pair has, where items have several. targets: what `loss` compares
    the joint with, where the task itself made the pairs.
    """

    vision: Features
    text: Features
    index: Tensor
    outputs: frozenset[Output]
    slots: Tensor | None = None
    targets: Tensor | None = None


class Encoded(Protocol):
    """The encoded inputs of a batch. Each is computed at the first use and once."""

    @property
    def vision(self) -> Features:
        """The distinct images [V, N, D]."""
        ...

    @property
    def text(self) -> Features:
        """The distinct texts, unmasked [T, L, D]."""
        ...

    def view(self, task: str) -> tuple[Features | None, Features | None]:
        """The (images, texts) that this task's `views` asked for."""
        ...

    def represent(self, features: Features, modality: Modality) -> Tensor:
        """One vector [B, D] for each input of one modality."""
        ...


@dataclass(frozen=True, slots=True)
class TaskLoss:
    """A loss as sum and count, so that it is the same whatever the number of processes.

    published: what later tasks read. metrics: name -> (sum, count), for the log.
    """

    sum: Tensor
    count: Tensor
    published: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


class Task(Protocol):
    """A task (an nn.Module with its head); the engine runs the encoder, so each distinct input is encoded once."""

    def views(self, batch: Batch) -> Views:
        """Return further inputs to encode."""
        ...

    def pairs(self, encoded: Encoded, batch: Batch, published: Mapping[str, Any]) -> Pairs | None:
        """Return the pairs to fuse; None: no fusion."""
        ...

    def loss(self, encoded: Encoded, joint: Joint | None, pairs: Pairs | None, batch: Batch) -> TaskLoss:
        """Return the loss of this process's share of the batch; `joint` is the fusion of what `pairs` returned."""
        ...


class ItemTask(Task, Protocol):
    """A task on items (an nn.Module): each has one answer.

    slots: images that one item has; their pairs are told apart where it is more than 1. regions: each box of an item is
    an image of its own, cropped. paired: an item's two texts are tokenized as one pair. targets: picklable, as loader
    processes call it; what it gives is `batch.targets[name]`.
    """

    name: str
    slots: int
    regions: bool
    paired: bool

    @property
    def targets(self) -> Callable[[Sequence[Item]], Tensor]:
        """What makes the targets of a batch of the items.

        Raises:
            DataError: an item lacks its label, or has one that the task does not know.
        """
        ...

    def decide(self, encoded: Encoded, joint: Joint | None, batch: Batch) -> Sequence[Tensor]:
        """Return one prediction for each item of the batch, in rising order of the items."""
        ...


# --- measuring ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One measured figure, in percent: its 95% bootstrap interval, what chance gives, and how often scores tied.

    n counts the decisions; units counts what was resampled (images, for captions).
    """

    name: str
    value: float
    low: float
    high: float
    chance: float
    n: int
    units: int
    ties: float = 0.0


class Scorer(Protocol):
    """The one way in which tasks measure a model on a split: scores of images against texts.

    Each distinct image and text of the split is encoded once, however many tasks ask.
    """

    @property
    def positives(self) -> Tensor:
        """Bool [V, T]: which distinct texts are captions of which images."""
        ...

    def similarity(self) -> Tensor:
        """Dot products of ITC's unit vectors, fp32 [V, T]."""
        ...

    def match(self, index: Tensor) -> Tensor:
        """ITM logits fp32 [P] of the (image, text) pairs in index int64 [P, 2].

        Raises:
            CapabilityError: the model was not trained for ITM.
        """
        ...


class MeasuredTask(Protocol):
    """A task that can be measured."""

    def score(self, scorer: Scorer) -> Sequence[Score]:
        """Return the scores of a model on one split."""
        ...


class ItemScorer(Protocol):
    """The way in which tasks on items measure a model: one prediction an item, in the order of `items`."""

    @property
    def items(self) -> Sequence[Item]:
        """The items of the split."""
        ...

    def decisions(self, task: str) -> Sequence[Tensor]:
        """What `ItemTask.decide` gives for each item, fp32 on the CPU."""
        ...

    def matches(self, *, regions: bool = False, by: Literal["itm", "itc"] | None = None) -> Sequence[Tensor]:
        """Scores fp32 [images, texts] of each item: how well each of its images fits each of its texts.

        ITM logits where the model has the task `itm`, else dot products of ITC's unit vectors, or as `by` says.
        regions: the item's boxes, cropped, in place of its images, where it has boxes.

        Raises:
            CapabilityError: the model was not trained for it.
        """
        ...

    def on(self, items: Sequence[Item]) -> ItemScorer:
        """Return the scorer of the same model on other items."""
        ...

    def image_vectors(self) -> Tensor:
        """ITC's unit vectors fp32 [items, W] of the first image of each item.

        Raises:
            CapabilityError: the model was not trained for ITC.
        """
        ...

    def text_vectors(self, texts: Sequence[str]) -> Tensor:
        """ITC's unit vectors fp32 [texts, W] of texts, which need not be those of the items.

        Raises:
            CapabilityError: the model was not trained for ITC.
        """
        ...


class MeasuredItemTask(Protocol):
    """A task on items that can be measured."""

    def score(self, scorer: ItemScorer) -> Sequence[Score]:
        """Return the scores of a model on one split.

        Raises:
            NonFiniteError: a prediction is NaN or infinite.
        """
        ...

    def submission(self, scorer: ItemScorer) -> Sequence[Mapping[str, Any]]:
        """Return the rows of the prediction file, in the form that the benchmark publishes."""
        ...
