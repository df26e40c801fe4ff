"""The towers of open_clip that are models of the timm library, with a projection of open_clip's.

Letters in shapes: V images, N tokens of the image, S those of a joint sequence, D width.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from open_clip.timm_model import TimmModel
from torch import Tensor, nn

from renaissance.api import Positions
from renaissance.builtin.open_clip_kind import Output, Pooling, State
from renaissance.builtin.timm_blocks import Calls, Place
from renaissance.builtin.timm_library import enumeration_of
from renaissance.builtin.timm_towers import BETWEEN_BLOCKS
from renaissance.builtin.timm_vision import has_class_token, row_major, token_grid, vit_embeddings
from renaissance.builtin.vision_base import check_side


class TimmKind:
    """A model of the timm library with open_clip's projection."""

    def blocks(self, visual: TimmModel) -> Sequence[nn.Module]:
        """Return the blocks of a ViT-like trunk."""
        return tuple(visual.trunk.blocks) if enumeration_of(visual.trunk) else ()

    def embeddings(self, visual: TimmModel) -> Sequence[nn.Module]:
        """Return what comes before the blocks of a ViT-like trunk."""
        return vit_embeddings(visual.trunk) if enumeration_of(visual.trunk) else ()

    def final(self, visual: TimmModel) -> Sequence[nn.Module]:
        """Return the last norm and the poolers of a ViT-like trunk."""
        if not enumeration_of(visual.trunk):
            return ()
        after = [getattr(visual.trunk, name, None) for name in ("norm", "attn_pool", "fc_norm", "head")]
        return *(module for module in after if isinstance(module, nn.Module)), visual.head

    def cut(self, visual: TimmModel, depth: int) -> None:
        """Keep the first blocks of a ViT-like trunk."""
        if enumeration_of(visual.trunk):
            visual.trunk.blocks = visual.trunk.blocks[:depth]

    def positions(self, visual: TimmModel) -> Positions | None:
        """Return how a ViT-like trunk tells its tokens apart."""
        enumeration = enumeration_of(visual.trunk)
        return enumeration.positions(visual.trunk) if enumeration else None

    def embed(self, visual: TimmModel, pixels: Tensor) -> State:
        """Return tokens before the first block, or what a trunk without blocks gives."""
        enumeration = enumeration_of(visual.trunk)
        return enumeration.embed(visual.trunk, pixels) if enumeration else (visual.trunk.forward_features(pixels), ())

    def join(self, visual: TimmModel, place: Place | None) -> Calls:
        """Return the call of each block of a ViT-like trunk."""
        enumeration = enumeration_of(visual.trunk)
        return enumeration.join(visual.trunk, place) if enumeration else ()

    def norm(self, visual: TimmModel, hidden: Tensor) -> Tensor:
        """Return tokens [V, S, D] after the final norm of a ViT-like trunk; what others give is after it."""
        tokens: Tensor = visual.trunk.norm(hidden) if enumeration_of(visual.trunk) else hidden
        return tokens

    def finish(self, visual: TimmModel, hidden: Tensor) -> Output:
        """Return the tokens after the trunk's final norm."""
        features = self.norm(visual, hidden)
        grid = token_grid(visual.trunk, features, visual.image_size)
        tokens = row_major(visual.trunk, features)
        prefix = 0 if grid is None else tokens.shape[1] - grid[0] * grid[1]
        return Output(tokens, features, grid, prefix > 0 and has_class_token(visual.trunk))

    def keep_tokens(self, visual: TimmModel) -> None:
        """Drop the poolers of a ViT-like trunk, and the projections."""
        trunk, visual.head = visual.trunk, nn.Identity()
        trunk.fc_norm = trunk.head = nn.Identity()
        if getattr(trunk, "attn_pool", None) is not None:
            trunk.attn_pool = None

    def keep_embeddings(self, visual: TimmModel) -> None:
        """Drop the blocks of a ViT-like trunk, and what follows them."""
        self.keep_tokens(visual)
        trunk = visual.trunk
        trunk.blocks, trunk.norm = nn.ModuleList(), nn.Identity()
        for name in BETWEEN_BLOCKS:
            if getattr(trunk, name, None) is not None:
                setattr(trunk, name, None)

    def resize(self, visual: TimmModel, size: int) -> tuple[int, int]:
        """Let timm interpolate the position tables of a ViT-like trunk."""
        check_side("This open_clip tower", size, int(visual.trunk.patch_embed.feat_ratio()))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of torch, on how timm interpolates BEiT's tables
            visual.set_input_size((size, size))
        rows, columns = visual.trunk.patch_embed.grid_size
        return rows, columns

    def pool(self, visual: TimmModel, output: Output, pooling: Pooling) -> Tensor:
        """Return the image feature."""
        match pooling:
            case "projected":
                vector: Tensor = visual.head(visual.trunk.forward_head(output.before))
                return vector
            case "pooled":
                # without a classifier the trunk has no projection to stop before, and some then know no pre_logits
                projects = visual.trunk.num_classes and not isinstance(visual.trunk.head, nn.Identity)
                stop = {"pre_logits": True} if projects else {}
                before: Tensor = visual.trunk.forward_head(output.before, **stop)
                return before
            case "mean":
                return output.tokens[:, 0] if output.class_token else output.tokens.mean(dim=1)
