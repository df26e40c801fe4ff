"""The three kinds of vision towers in open_clip, each as embed, blocks and finish.

Letters in shapes: V images, N tokens of the image, S those of a joint sequence, D width, H and W rows and columns of
a feature map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from renaissance.api import Positions
from renaissance.builtin.open_clip_kind import POOLINGS, Kind, Output, Pooling, State
from renaissance.builtin.open_clip_timm import TimmKind
from renaissance.builtin.timm_blocks import Calls, Place
from renaissance.builtin.vision_base import check_side
from renaissance.errors import CapabilityError
from renaissance.toolkit.building import LooseParameters
from renaissance.toolkit.layered import Call


class TransformerKind:
    """open_clip's own vision transformer."""

    def blocks(self, visual: VisionTransformer) -> Sequence[nn.Module]:
        """Return the residual blocks."""
        return tuple(visual.transformer.resblocks)

    def embeddings(self, visual: VisionTransformer) -> Sequence[nn.Module]:
        """Return the patch embedding, the first norm, class token and positions."""
        loose = LooseParameters(visual, ("class_embedding", "positional_embedding"))
        return visual.conv1, visual.patch_dropout, visual.ln_pre, loose

    def final(self, visual: VisionTransformer) -> Sequence[nn.Module]:
        """Return the poolers, the last norm, and the projection where it is kept."""
        poolers = [getattr(visual, name, None) for name in ("attn_pool", "attn_pool_contrastive")]
        modules = [pooler for pooler in poolers if pooler is not None]
        return *modules, visual.ln_post, LooseParameters(visual, () if visual.proj is None else ("proj",))

    def cut(self, visual: VisionTransformer, depth: int) -> None:
        """Keep the first blocks."""
        visual.transformer.resblocks = visual.transformer.resblocks[:depth]

    def positions(self, visual: VisionTransformer) -> Positions | None:
        """Say that a table tells tokens apart, which is added to them; CoCa's tokens are those of its pooling."""
        return "absolute" if visual.attn_pool is None else None

    def embed(self, visual: VisionTransformer, pixels: Tensor) -> State:
        """Return class and patch tokens [V, N, D]."""
        return visual._embeds(pixels), self.join(visual, None)

    def join(self, visual: VisionTransformer, place: Place | None) -> Calls:
        """Return one call for all blocks: padding is attended to by none."""
        blocks = visual.transformer.resblocks
        arguments = {} if place is None else {"attn_mask": _headwise(place.padding, blocks[0].attn.num_heads)}
        return (Call((), arguments),) * len(blocks)

    def norm(self, visual: VisionTransformer, hidden: Tensor) -> Tensor:
        """Return tokens [V, S, D] after the final norm."""
        tokens: Tensor = visual.ln_post(hidden)
        return tokens

    def finish(self, visual: VisionTransformer, hidden: Tensor) -> Output:
        """Return the tokens after the final norm."""
        if visual.attn_pool is None:
            return Output(visual.ln_post(hidden), hidden, visual.grid_size, visual.pool_type == "tok")
        if visual.attn_pool_contrastive is None:
            pooled = visual.ln_post(visual.attn_pool(hidden))
            return Output(pooled, pooled, None, visual.pool_type == "tok")
        return Output(visual.attn_pool(visual.ln_post(hidden)), hidden, None, False)

    def keep_tokens(self, visual: VisionTransformer) -> None:
        """Drop the projection."""
        visual.proj = None

    def keep_embeddings(self, visual: VisionTransformer) -> None:
        """Drop the blocks, the final norm and the projection."""
        visual.transformer.resblocks, visual.ln_post, visual.proj = nn.ModuleList(), nn.Identity(), None

    def resize(self, visual: VisionTransformer, size: int) -> tuple[int, int]:
        """Interpolate the table of positions to images of `size` pixels a side, as open_clip does for weights."""
        side = visual.patch_size[0]
        check_side("This open_clip tower", size, side)
        rows, columns = visual.grid_size
        table = visual.positional_embedding
        grid = table[1:].T.reshape(1, -1, rows, columns)  # [1, D, rows, columns]
        new = (size // side, size // side)
        visual.grid_size, visual.image_size = new, (size, size)
        grid = functional.interpolate(grid, size=new, mode="bicubic", antialias=True)
        longer = torch.cat((table[:1], grid.flatten(2)[0].T))
        visual.positional_embedding = nn.Parameter(longer, requires_grad=table.requires_grad)
        return new

    def pool(self, visual: VisionTransformer, output: Output, pooling: Pooling) -> Tensor:
        """Return the image feature."""
        if visual.attn_pool is not None and visual.attn_pool_contrastive is not None:
            vector = visual._pool(output.before)[0].squeeze(1)
        elif visual.attn_pool is None and visual.final_ln_after_pool:
            vector = visual.ln_post(visual._global_pool(output.before)[0])
        else:
            vector = visual._global_pool(output.tokens)[0]
        if pooling == "mean":
            return output.tokens.mean(dim=1)
        projected: Tensor = vector @ visual.proj if pooling == "projected" and visual.proj is not None else vector
        return projected


class ResNetKind:
    """CLIP's ResNet with its attention pooling."""

    def blocks(self, visual: ModifiedResNet) -> Sequence[nn.Module]:
        """Return none: stages change the width."""
        return ()

    def embeddings(self, visual: ModifiedResNet) -> Sequence[nn.Module]:
        """Return none."""
        return ()

    def final(self, visual: ModifiedResNet) -> Sequence[nn.Module]:
        """Return none."""
        return ()

    def cut(self, visual: ModifiedResNet, depth: int) -> None:
        """Keep all: there is nothing to cut."""

    def positions(self, visual: ModifiedResNet) -> Positions | None:
        """Say that it is no base: it has no blocks that take other tokens."""
        return None

    def embed(self, visual: ModifiedResNet, pixels: Tensor) -> State:
        """Return the last feature map [V, D, H, W]."""
        x = visual.stem(pixels)
        return visual.layer4(visual.layer3(visual.layer2(visual.layer1(x)))), ()

    def join(self, visual: ModifiedResNet, place: Place | None) -> Calls:
        """Return none: there are no blocks."""
        return ()

    def norm(self, visual: ModifiedResNet, hidden: Tensor) -> Tensor:
        """Return them as they are."""
        return hidden

    def finish(self, visual: ModifiedResNet, hidden: Tensor) -> Output:
        """Return the feature map row by row."""
        return Output(hidden.flatten(2).transpose(1, 2), hidden, (hidden.shape[2], hidden.shape[3]), False)

    def keep_tokens(self, visual: ModifiedResNet) -> None:
        """Drop the attention that pools."""
        visual.attnpool = nn.Identity()

    def keep_embeddings(self, visual: ModifiedResNet) -> None:
        """Keep all: nothing comes before the blocks."""

    def resize(self, visual: ModifiedResNet, size: int) -> tuple[int, int]:
        """Refuse: the table in its pooling has one size."""
        raise CapabilityError("A ResNet of open_clip keeps its image size. Build it with another image_size.")

    def pool(self, visual: ModifiedResNet, output: Output, pooling: Pooling) -> Tensor:
        """Return the image feature."""
        if pooling == "mean":
            return output.tokens.mean(dim=1)
        vector: Tensor = visual.attnpool(output.before)  # its projection is part of its attention
        return vector


def _headwise(padding: Tensor, heads: int) -> Tensor:
    """Return padding [V, 1, 1, S] as torch's own attention takes it: [V * heads, S, S]."""
    length = padding.shape[-1]
    return padding.expand(-1, heads, length, -1).reshape(-1, length, length)


def kind_of(visual: nn.Module) -> Kind:
    """Return how this tower is run."""
    kinds: dict[type, Kind] = {
        VisionTransformer: TransformerKind(),
        ModifiedResNet: ResNetKind(),
        TimmModel: TimmKind(),
    }
    return kinds[type(visual)]


def best_pooling(kind: Kind, visual: nn.Module, output: Output) -> tuple[Pooling, Tensor]:
    """Return the pooling nearest to the model's own that gives vectors as wide as the tokens, and its vector [V, D]."""
    for pooling in POOLINGS:
        vector = kind.pool(visual, output, pooling)
        if vector.dim() == 2 and vector.shape[-1] == output.tokens.shape[-1]:
            return pooling, vector
    raise AssertionError("the mean has the width of the tokens")
