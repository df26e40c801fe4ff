"""A ViT whose blocks are BERT's, with a norm after each sub-layer: only the embeddings are those of images.

Letters in shapes: V images, N patches and the class token, M tokens of another modality, D width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from renaissance.api import Features, Positions, SavedBackbone, VisionInput, Weights
from renaissance.builtin.post_norm_entries import PostNormOptions
from renaissance.builtin.vision_base import joined
from renaissance.errors import ModelFileError, SpecError
from renaissance.toolkit.attention import EPS, Block, initialise
from renaissance.toolkit.building import build_empty
from renaissance.toolkit.dropout import Dropout
from renaissance.toolkit.images import ImageProcessor
from renaissance.toolkit.layered import LayerState, fold

CONFIG, TENSORS = "config.json", "model.safetensors"
TABLE = "embedding.table"
MEAN = STD = (0.5, 0.5, 0.5)


class PatchEmbeddings(nn.Module):
    """A class token and patches of images with learned positions, then a norm, as BERT ends its embeddings."""

    def __init__(self, options: PostNormOptions) -> None:
        super().__init__()
        width, patch = options.width, options.patch_size
        self.patches = nn.Conv2d(3, width, kernel_size=patch, stride=patch)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.table = nn.Parameter(torch.empty(1, 1 + (options.image_size // patch) ** 2, width))
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.dropout = Dropout(options.dropout)
        nn.init.normal_(self.table, std=0.02)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return tokens [V, N, D] of normalised pixels [V, 3, H, W]."""
        grid = self.patches(pixels).flatten(2).transpose(1, 2)  # [V, N - 1, D]
        tokens = torch.cat((self.first.expand(grid.shape[0], -1, -1), grid), dim=1) + self.table
        return self.dropout(self.norm(tokens))  # type: ignore[no-any-return]  # nn.Module.__call__


class PostNormViT(nn.Module):
    """Patch embeddings, then blocks; there is no norm behind the last one, as each ends with its own."""

    class_token = True
    num_prefix_tokens = 1
    positions: Positions = "absolute"
    revision: str | None = None

    def __init__(self, options: PostNormOptions, processor: ImageProcessor) -> None:
        super().__init__()
        self.options, self.processor = options, processor
        self.width = options.width
        self.embedding = PatchEmbeddings(options)
        blocks = (
            Block(options.width, options.heads, options.mlp_width, options.dropout) for _ in range(options.layers)
        )
        self.blocks = cast("Sequence[nn.Module]", nn.ModuleList(blocks))
        self.embeddings: Sequence[nn.Module] = (self.embedding,)
        self.final: Sequence[nn.Module] = ()
        self.resized: tuple[str, ...] = ()
        self.embeddings_only = False
        initialise(self)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        side = self.options.image_size // self.options.patch_size
        return (side, side)

    def forward(self, inputs: VisionInput, layers: Sequence[int] = ()) -> Features:
        """Encode pixels [V, 3, H, W]; return tokens [V, N, D], and the outputs of the layers asked for.

        Raises:
            SpecError: the images are of another size, padded or masked, or there is no such layer.
        """
        return fold(self, inputs, layers)

    def embed(self, inputs: VisionInput) -> LayerState:
        """Return the state before the first block."""
        return self.join(self.embedded(inputs), None)

    def embedded(self, inputs: VisionInput) -> Features:
        """Return the tokens [V, N, D] before the first block, all of them real.

        Raises:
            SpecError: the images are of another size, padded or masked.
        """
        if tuple(inputs.pixels.shape[-2:]) != self.processor.image_size:
            raise SpecError(f"'post-norm-vit' takes images of {self.processor.image_size} pixels here. Set image_size.")
        if inputs.mask is not None or inputs.masked_patches is not None:
            raise SpecError("'post-norm-vit' takes neither padded images nor masked patches. Leave both masks out.")
        pixels = self.processor.normalise(inputs.pixels).to(self.embedding.table.dtype)
        tokens = self.embedding(pixels)
        return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))

    def join(self, own: Features | None, other: Features | None) -> LayerState:
        """Return the state before the first block of own tokens [V, N, D] followed by others [V, M, D].

        Raises:
            SpecError: there is neither.
        """
        return LayerState(*joined(own, other), ())

    def step(self, index: int, state: LayerState) -> LayerState:
        """Run one block."""
        return replace(state, hidden=self.blocks[index](state.hidden, state.mask))

    def finish(self, state: LayerState) -> Features:
        """Return the tokens [V, N, D], the class token of which stands for the image."""
        return Features(state.hidden, state.mask, state.hidden[:, 0])

    def keep_embeddings(self) -> None:
        """Drop the blocks, for good: `embedded` is all that still works."""
        self.blocks = cast("Sequence[nn.Module]", nn.ModuleList())
        self.embeddings_only = True

    @torch.no_grad()
    def resize(self, size: int) -> tuple[str, ...]:
        """Take images of `size` pixels a side from now on: the positions of the grid are interpolated.

        Raises:
            SpecError: whole patches do not fill such an image.
        """
        patch = self.options.patch_size
        if size % patch:
            nearest = max(patch, round(size / patch) * patch)
            raise SpecError(f"image_size={size} is no multiple of patch_size={patch}; use {nearest}.")
        self.processor = self.processor.resized((size, size))
        changed = size != self.options.image_size
        self.options = self.options.model_copy(update={"image_size": size})
        if changed:
            self.embedding.table = nn.Parameter(_resized(self.embedding.table, self.grid[0]))
        return (TABLE,) if changed else ()

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write the preprocessing; return the config from which `build` builds the backbone again."""
        self.processor.save(folder)
        sizes = self.options.model_dump(mode="json", exclude={"weights"})
        return {"sizes": sizes, "resized": list(self.resized), "embeddings_only": self.embeddings_only}


def build(options: PostNormOptions, *, weights: Weights, saved: SavedBackbone | None) -> PostNormViT:
    """Return the backbone.

    Raises:
        ModelFileError: the folder of pretrained weights is missing or damaged.
        SpecError: its weights are of other sizes.
    """
    match weights:
        case "random":
            return PostNormViT(options, _processor(options))
        case "pretrained":
            return _pretrained(options)
        case "none":
            assert saved is not None, "weights='none' builds from what was saved"
            return _restored(saved)


def write_weights(tower: PostNormViT, folder: Path) -> None:
    """Write what the option `weights` reads: the sizes and the tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = tower.options.model_dump(mode="json", exclude={"weights", "dropout"})
    (folder / CONFIG).write_text(json.dumps({"backbone": "post-norm-vit", "sizes": sizes}, indent=1) + "\n")
    save_file({name: tensor.contiguous() for name, tensor in tower.state_dict().items()}, folder / TENSORS)


def _processor(options: PostNormOptions) -> ImageProcessor:
    return ImageProcessor((options.image_size, options.image_size), mean=MEAN, std=STD)


def _pretrained(options: PostNormOptions) -> PostNormViT:
    """Return the backbone with the weights of its folder: its first blocks, positions fitted to its image size."""
    assert options.weights is not None, "it says that it has none"
    folder = Path(options.weights).expanduser()
    sizes, state = _read(folder)
    for name in ("patch_size", "width", "heads", "mlp_width"):
        if sizes[name] != getattr(options, name):
            raise SpecError(f"The weights in '{folder}' have {name}={sizes[name]}; say so, or 'random'.")
    if options.layers > sizes["layers"]:
        raise SpecError(f"The weights in '{folder}' have {sizes['layers']} blocks, not {options.layers}.")
    tower = PostNormViT(options, _processor(options))
    own = tower.state_dict()
    if options.image_size != sizes["image_size"]:
        state[TABLE] = _resized(state[TABLE], tower.grid[0])
        tower.resized = (TABLE,)
    tower.load_state_dict({name: tensor for name, tensor in state.items() if name in own}, strict=True)
    return tower


def _read(folder: Path) -> tuple[dict[str, int], dict[str, Tensor]]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        state = load_file(folder / TENSORS)
        sizes: dict[str, int] = PostNormOptions(**config["sizes"]).model_dump()
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelFileError(
            f"'{folder}' holds no weights of 'post-norm-vit' ({type(error).__name__}: {error}). Make them: "
            f"make vision-base VISION_BASE={folder}"
        ) from None
    return sizes, state


def _restored(saved: SavedBackbone) -> PostNormViT:
    options = PostNormOptions(**saved.config["sizes"])
    processor = ImageProcessor.load(saved.folder)
    tower = build_empty(lambda: PostNormViT(options, processor))
    tower.resized = tuple(saved.config["resized"])
    if saved.config["embeddings_only"]:
        tower.keep_embeddings()
    return tower


def _resized(table: Tensor, side: int) -> Tensor:
    """Return positions [1, 1 + K, D] for a grid of `side` rows and columns; the class token keeps its own."""
    old = round((table.shape[1] - 1) ** 0.5)
    grid = table[:, 1:].transpose(1, 2).reshape(1, -1, old, old)
    grid = functional.interpolate(grid, size=(side, side), mode="bicubic", antialias=True)
    return torch.cat((table[:, :1], grid.flatten(2).transpose(1, 2)), dim=1)
