"""The three kinds of vision towers in open_clip, each as embed, blocks and finish.

Letters in shapes: V images, N tokens, D width, H and W rows and columns of a feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from renaissance.builtin.timm_library import enumeration_of
from renaissance.builtin.timm_vision import has_class_token, row_major, token_grid, vit_embeddings
from renaissance.errors import CapabilityError
from renaissance.toolkit.building import LooseParameters

State = tuple[Tensor, Tensor | None]
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

    def embed(self, visual: Any, pixels: Tensor) -> State:
        """Return the state before the first block of pixels [V, 3, H, W]."""
        ...

    def step(self, visual: Any, index: int, state: State) -> State:
        """Run one block."""
        ...

    def finish(self, visual: Any, state: State) -> Output:
        """Return what comes after the last block."""
        ...

    def pool(self, visual: Any, output: Output, pooling: Pooling) -> Tensor:
        """Return the tower's vector [V, D'] with its projection, before it, or the mean of the grid."""
        ...


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

    def embed(self, visual: VisionTransformer, pixels: Tensor) -> State:
        """Return class and patch tokens [V, N, D]."""
        return visual._embeds(pixels), None

    def step(self, visual: VisionTransformer, index: int, state: State) -> State:
        """Run one block."""
        return visual.transformer.resblocks[index](state[0]), None

    def finish(self, visual: VisionTransformer, state: State) -> Output:
        """Return the tokens after the final norm."""
        tokens = state[0]
        if visual.attn_pool is None:
            return Output(visual.ln_post(tokens), tokens, visual.grid_size, visual.pool_type == "tok")
        if visual.attn_pool_contrastive is None:
            pooled = visual.ln_post(visual.attn_pool(tokens))
            return Output(pooled, pooled, None, visual.pool_type == "tok")
        return Output(visual.attn_pool(visual.ln_post(tokens)), tokens, None, False)

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

    def embed(self, visual: ModifiedResNet, pixels: Tensor) -> State:
        """Return the last feature map [V, D, H, W]."""
        x = visual.stem(pixels)
        return visual.layer4(visual.layer3(visual.layer2(visual.layer1(x)))), None

    def step(self, visual: ModifiedResNet, index: int, state: State) -> State:
        """Refuse: there are no blocks."""
        raise CapabilityError("A ResNet has no blocks to run one by one. Choose a transformer for that.")

    def finish(self, visual: ModifiedResNet, state: State) -> Output:
        """Return the feature map row by row."""
        maps = state[0]
        return Output(maps.flatten(2).transpose(1, 2), maps, (maps.shape[2], maps.shape[3]), False)

    def pool(self, visual: ModifiedResNet, output: Output, pooling: Pooling) -> Tensor:
        """Return the image feature."""
        if pooling == "mean":
            return output.tokens.mean(dim=1)
        vector: Tensor = visual.attnpool(output.before)  # its projection is part of its attention
        return vector


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

    def embed(self, visual: TimmModel, pixels: Tensor) -> State:
        """Return tokens before the first block, or what a trunk without blocks gives."""
        enumeration = enumeration_of(visual.trunk)
        return enumeration.embed(visual.trunk, pixels) if enumeration else (visual.trunk.forward_features(pixels), None)

    def step(self, visual: TimmModel, index: int, state: State) -> State:
        """Run one block."""
        enumeration = enumeration_of(visual.trunk)
        if enumeration is None:
            raise CapabilityError("This tower has no blocks to run one by one. Choose a transformer for that.")
        return enumeration.step(visual.trunk, index, state)

    def finish(self, visual: TimmModel, state: State) -> Output:
        """Return the tokens after the trunk's final norm."""
        features = visual.trunk.norm(state[0]) if enumeration_of(visual.trunk) else state[0]
        grid = token_grid(visual.trunk, features, visual.image_size)
        tokens = row_major(visual.trunk, features)
        prefix = 0 if grid is None else tokens.shape[1] - grid[0] * grid[1]
        return Output(tokens, features, grid, prefix > 0 and has_class_token(visual.trunk))

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
