"""What a kind of vision tower in open_clip has in common with the others, each as embed, blocks and finish.

Letters in shapes: V images, N tokens of the image, S those of a joint sequence, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from renaissance.api import Positions
from renaissance.builtin.timm_blocks import Calls, Place

State = tuple[Tensor, Calls]
Pooling = Literal["projected", "pooled", "mean"]
POOLINGS: tuple[Pooling, ...] = ("projected", "pooled", "mean")


@dataclass(frozen=True, slots=True)
class Output:
    """tokens [V, N, D] after the final norm; `before` is what the tower itself pools, in its own shape."""

    tokens: Tensor
    before: Tensor
    grid: tuple[int, int] | None
    class_token: bool


class Kind(Protocol):
    """How a kind of tower is run; the tower itself is the first argument of each method."""

    def blocks(self, visual: Any) -> Sequence[nn.Module]:
        """Return the blocks in order; none for towers that are no fold of equal blocks."""
        ...

    def embeddings(self, visual: Any) -> Sequence[nn.Module]:
        """Return what comes before the blocks."""
        ...

    def final(self, visual: Any) -> Sequence[nn.Module]:
        """Return what comes after the blocks."""
        ...

    def cut(self, visual: Any, depth: int) -> None:
        """Keep the first blocks."""
        ...

    def positions(self, visual: Any) -> Positions | None:
        """Return how the tower tells its tokens apart; None: it is no base of one-tower models."""
        ...

    def embed(self, visual: Any, pixels: Tensor) -> State:
        """Return what goes into the first block of pixels [V, 3, H, W], and the call of each block."""
        ...

    def join(self, visual: Any, place: Place | None) -> Calls:
        """Return the call of each block for a sequence at this place; None: the image alone."""
        ...

    def norm(self, visual: Any, hidden: Tensor) -> Tensor:
        """Return tokens [V, S, D] after the final norm."""
        ...

    def finish(self, visual: Any, hidden: Tensor) -> Output:
        """Return what comes after the last block."""
        ...

    def pool(self, visual: Any, output: Output, pooling: Pooling) -> Tensor:
        """Return the tower's vector [V, D'] with its projection, before it, or the mean of the grid."""
        ...

    def keep_tokens(self, visual: Any) -> None:
        """Drop what only the pooled vector reads."""
        ...

    def keep_embeddings(self, visual: Any) -> None:
        """Drop the blocks and what follows them."""
        ...

    def resize(self, visual: Any, size: int) -> tuple[int, int]:
        """Take images of `size` pixels a side; return rows and columns of their tokens."""
        ...
