"""What backbones, their processors and fusion heads are.

Letters in shapes: V distinct images of a batch, T distinct texts, P pairs of an image and a text, B any of the three,
N tokens of a vision tower, L tokens of a text, D width, C most captions that one image has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from renaissance.api.entries import Output, Positions
from renaissance.api.facts import TokenizerFacts
from renaissance.api.inputs import Features, Joint, TextInput, VisionInput

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn


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
