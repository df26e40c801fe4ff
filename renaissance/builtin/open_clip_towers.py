"""Vision towers of open_clip models as modules; transformers are also bases of one-tower models.

In a joint sequence the image alone is pooled, by what its tokens became.

Letters in shapes: V images, N tokens, M tokens of another modality behind them, D width, H and W height and width in
pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from renaissance.api import Features, LayeredBackbone, Positions, VisionInput
from renaissance.builtin.open_clip_kind import Kind
from renaissance.builtin.open_clip_kinds import kind_of
from renaissance.builtin.timm_blocks import Place
from renaissance.builtin.vision_base import JointState, all_real, changed_shapes, joined, padding_bias, shapes
from renaissance.errors import CapabilityError, SpecError
from renaissance.toolkit.images import ImageProcessor
from renaissance.toolkit.layered import LayerState, fold, run_block


class OpenClipVision(nn.Module):
    """The vision tower of an open_clip model.

    grid: rows and columns of tokens, None where the tokens are no grid; num_prefix_tokens: tokens before the grid.
    """

    def __init__(
        self, visual: Any, processor: ImageProcessor, *, facts: Mapping[str, Any], revision: str | None = None
    ) -> None:
        super().__init__()
        self.visual = visual
        self.processor = processor
        self.width: int = facts["width"]
        self.grid: tuple[int, int] | None = tuple(facts["grid"]) if facts["grid"] else None
        self.num_prefix_tokens: int = facts["num_prefix_tokens"]
        self.class_token: bool = facts["class_token"]
        self.revision = revision
        self._facts = dict(facts)
        self._kind: Kind = kind_of(visual)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The blocks of a transformer in order; empty for others."""
        return self._kind.blocks(self.visual)

    @property
    def embeddings(self) -> Sequence[nn.Module]:
        """What comes before the blocks: modules, and a view of the parameters that sit on the tower itself."""
        return self._kind.embeddings(self.visual)

    @property
    def final(self) -> Sequence[nn.Module]:
        """The modules after the last block; with a view of the projection, if it is kept."""
        return self._kind.final(self.visual)

    @property
    def resized(self) -> tuple[str, ...]:
        """The names of the tensors that were fitted to another image size when the weights were read."""
        return tuple(self._facts.get("resized", ()))

    def forward(self, inputs: VisionInput, layers: Sequence[int] = ()) -> Features:
        """Encode pixels [V, 3, H, W]; return tokens [V, N, D].

        Raises:
            SpecError: the size of the images is not the tower's, or a layer does not exist.
            CapabilityError: the images are padded or masked, or the tower has no layers to give.
        """
        if layers and not len(self.blocks):
            raise CapabilityError(
                f"open-clip:{self._name} cannot give its layers. Choose another backbone for this head."
            )
        return fold(cast(LayeredBackbone, self), inputs, layers)

    def embed(self, inputs: VisionInput) -> LayerState:
        """Return the state before the first block: tokens [V, N, D], or all that a tower without blocks computes."""
        hidden, calls = self._kind.embed(self.visual, self._normalised(inputs))
        return LayerState(hidden, all_real(hidden), calls)

    def step(self, index: int, state: LayerState) -> LayerState:
        """Run one block."""
        return run_block(self.blocks[index], index, state)

    def finish(self, state: LayerState) -> Features:
        """Return the tokens after the final norm, and the pooled vector."""
        output = self._kind.finish(self.visual, state.hidden)
        pooled = self._kind.pool(self.visual, output, self._facts["pooling"])  # [V, D]
        return Features(output.tokens, all_real(output.tokens), pooled)

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write `preprocessor.json` into `folder`; return the config from which `build` builds the tower again."""
        self.processor.save(folder)
        return {**self._facts, "commit": self.revision}

    def _normalised(self, inputs: VisionInput) -> Tensor:
        """Return pixels [V, 3, H, W] as the tower takes them."""
        if inputs.mask is not None or inputs.masked_patches is not None:
            raise CapabilityError(
                f"open-clip:{self._name} takes no padded images and no masked patches. Choose another."
            )
        size = tuple(inputs.pixels.shape[-2:])
        if size != self.processor.image_size:
            raise SpecError(
                f"open-clip:{self._name} was built for images of {self.processor.image_size}, these have {size}. "
                "Prepare them with its processor, or build it with image_size."
            )
        return self.processor.normalise(inputs.pixels).to(next(self.parameters()).dtype)

    @property
    def _name(self) -> str:
        name: str = self._facts["model"]
        return name


class JointOpenClipVision(OpenClipVision):
    """A transformer tower, whose blocks also take tokens of another modality.

    A class of its own, so that a tower has `join` exactly where one-tower models can be based on it.
    """

    @property
    def positions(self) -> Positions:
        """How it tells its tokens apart."""
        return cast(Positions, self._kind.positions(self.visual))

    def embedded(self, inputs: VisionInput) -> Features:
        """Return the tokens [V, N, D] before the first block, all of them real."""
        state = self.embed(inputs)
        return Features(state.hidden, state.mask)

    def join(self, own: Features | None, other: Features | None) -> LayerState:
        """Return the state before the first block of own tokens [V, N, D] followed by others [V, M, D].

        Raises:
            SpecError: there is neither.
        """
        hidden, mask = joined(own, other)
        if other is None:
            return LayerState(hidden, mask, self._kind.join(self.visual, None))
        count = 0 if own is None else own.tokens.shape[1]
        place = Place(count, padding_bias(mask, hidden.dtype))
        return JointState(hidden, mask, self._kind.join(self.visual, place), own=count)

    def finish(self, state: LayerState) -> Features:
        """Return the tokens after the final norm, and the pooled vector of the image, if it is there and kept."""
        if self._facts.get("tokens_only", False):
            return Features(self._kind.norm(self.visual, state.hidden), state.mask)
        if not isinstance(state, JointState):
            return super().finish(state)
        pooled = None
        if state.own:
            pooled = super().finish(LayerState(state.hidden[:, : state.own], state.mask, ())).pooled
        return Features(self._kind.norm(self.visual, state.hidden), state.mask, pooled)

    def keep_tokens(self) -> None:
        """Drop what only the pooled vector reads, for good: `finish` gives tokens alone."""
        self._kind.keep_tokens(self.visual)
        self._facts["tokens_only"] = True

    def keep_embeddings(self) -> None:
        """Drop the blocks and what follows them, for good: `embedded` is all that still works."""
        self._kind.keep_embeddings(self.visual)
        self._facts["embeddings_only"] = True

    def resize(self, size: int) -> tuple[str, ...]:
        """Take images of `size` pixels a side from now on; return the names of the tensors whose shape changed.

        Raises:
            SpecError: whole patches do not fill such an image.
        """
        before = shapes(self)
        with torch.no_grad():
            self.grid = self._kind.resize(self.visual, size)
        self.processor = self.processor.resized((size, size))
        config = self._facts["config"]
        sized = {**config, "vision_cfg": {**config["vision_cfg"], "image_size": size}}
        self._facts |= {"grid": list(self.grid), "config": sized}
        return changed_shapes(before, self)
