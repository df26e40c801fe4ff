"""Image models of the timm library as vision backbones.

Tokens are what `forward_features` gives: prefix tokens (class, distillation, registers) first, then the grid, row by
row; a feature map becomes one token for each cell. Models whose only final norm stands behind their pooling (BEiT,
EVA-02) have it applied to each token instead. The pooled vector is the class token, or the mean of the grid.
Classifiers, poolers and whatever else the tokens do not depend on are dropped.

Letters in shapes: V images, N tokens, D width, H and W height and width in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from renaissance.api import Features, SavedBackbone, VisionInput, Weights
from renaissance.builtin.timm_library import (
    State,
    create_pretrained,
    create_random,
    enumeration_of,
    image_processor,
    pretrained_commit,
    refusal,
    resolve_name,
)
from renaissance.errors import CapabilityError, ModelFileError, RenaissanceError, SpecError
from renaissance.toolkit.building import LooseParameters, build_empty, drop_parts, unused_parts
from renaissance.toolkit.images import ImageProcessor
from renaissance.toolkit.layered import layer_indices

if TYPE_CHECKING:
    from renaissance.builtin.timm_entries import TimmOptions

# what runs before the blocks of a ViT-like model; class token, registers and position table sit on the model itself
EMBEDDINGS = ("patch_embed", "pos_drop", "patch_drop", "norm_pre", "rope", "rel_pos_bias")


class TimmVision(nn.Module):
    """A timm model without its head.

    grid: rows and columns of tokens at the size of `processor`; num_prefix_tokens: tokens before the grid.
    """

    def __init__(
        self, model: Any, processor: ImageProcessor, *, facts: Mapping[str, Any], revision: str | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.processor = processor
        self.width: int = facts["width"]
        self.grid: tuple[int, int] = tuple(facts["grid"])
        self.num_prefix_tokens: int = facts["num_prefix_tokens"]
        self.class_token: bool = facts["class_token"]
        self.revision = revision
        self._facts = dict(facts)
        self._enumeration = enumeration_of(model)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The blocks of a ViT-like model in order; empty for others."""
        return tuple(self.model.blocks) if self._enumeration else ()

    @property
    def embeddings(self) -> Sequence[nn.Module]:
        """What comes before the blocks: modules, and a view of the parameters that sit on the model itself."""
        if not self._enumeration:
            return ()
        return vit_embeddings(self.model)

    @property
    def final(self) -> Sequence[nn.Module]:
        """The norm after the last block."""
        return (self.model.norm,) if self._enumeration else ()

    def forward(self, inputs: VisionInput, layers: Sequence[int] = ()) -> Features:
        """Encode pixels [V, 3, H, W]; return tokens [V, N, D].

        `layers` of a model that is no fold of equal blocks are its stages, each with tokens [V, N', D'] of its own;
        they cost a second pass.

        Raises:
            SpecError: the size of the images is not the model's, or a layer does not exist.
            CapabilityError: the images are padded or masked, or the model cannot give its layers.
        """
        if self._enumeration:
            return self._folded(inputs, layers)
        pixels = self._normalised(inputs)
        wanted = self._stages(pixels, layers) if layers else ()
        return self._features(row_major(self.model, self.model.forward_features(pixels)), wanted)

    def embed(self, inputs: VisionInput) -> State:
        """Return tokens [V, N, D] before the first block, and what all blocks share (rotations, biases) or None."""
        assert self._enumeration is not None, "only layered backbones are folds"
        return self._enumeration.embed(self.model, self._normalised(inputs))

    def step(self, index: int, state: State) -> State:
        """Run one block."""
        assert self._enumeration is not None, "only layered backbones are folds"
        return self._enumeration.step(self.model, index, state)

    def finish(self, state: State) -> Features:
        """Return the tokens after the final norm, and the pooled vector."""
        return self._features(self.model.norm(state[0]), ())

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write `preprocessor.json` into `folder`; return the config from which `build` builds the model again."""
        self.processor.save(folder)
        return {**self._facts, "revision": self.revision}

    def _folded(self, inputs: VisionInput, layers: Sequence[int]) -> Features:
        depth = len(self.model.blocks)
        wanted = layer_indices(layers, depth)
        state = self.embed(inputs)
        outputs = {}
        for index in range(depth):
            state = self.step(index, state)
            if index in wanted:
                outputs[index] = state[0]
        return self._features(self.model.norm(state[0]), tuple(outputs[index] for index in wanted))

    def _stages(self, pixels: Tensor, layers: Sequence[int]) -> tuple[Tensor, ...]:
        """Return the outputs of these stages, each as tokens [V, N', D']."""
        if not hasattr(self.model, "forward_intermediates"):
            raise CapabilityError(f"timm:{self._name} cannot give its layers. Choose another backbone for this head.")
        wanted = layer_indices(layers, len(self.model.feature_info))
        maps = self.model.forward_intermediates(
            pixels, indices=sorted(set(wanted)), output_fmt="NCHW", intermediates_only=True
        )
        by_index = dict(zip(sorted(set(wanted)), maps, strict=True))
        return tuple(by_index[index].flatten(2).transpose(1, 2) for index in wanted)

    def _normalised(self, inputs: VisionInput) -> Tensor:
        """Return pixels [V, 3, H, W] as the model takes them."""
        if inputs.mask is not None or inputs.masked_patches is not None:
            raise CapabilityError(f"timm:{self._name} takes no padded images and no masked patches. Choose another.")
        size = tuple(inputs.pixels.shape[-2:])
        if self._facts["fixed_size"] and size != self.processor.image_size:
            raise SpecError(
                f"timm:{self._name} was built for images of {self.processor.image_size} pixels, these have {size}. "
                "Prepare them with its processor, or build it with image_size."
            )
        return self.processor.normalise(inputs.pixels).to(next(self.parameters()).dtype)

    def _features(self, tokens: Tensor, layers: tuple[Tensor, ...]) -> Features:
        grid = tokens[:, self.num_prefix_tokens :]
        pooled = tokens[:, 0] if self.class_token else grid.mean(dim=1)  # [V, D]
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return Features(tokens, mask, pooled, layers)

    @property
    def _name(self) -> str:
        name: str = self._facts["options"]["model"]
        return name


def build(options: TimmOptions, *, weights: Weights, saved: SavedBackbone | None = None) -> TimmVision:
    """Return a timm model as a backbone.

    Raises:
        UnknownComponentError: timm has no such model.
        SpecError: the model does not accept the options, or gives no tokens.
        HubError: its weights cannot be fetched.
        ModelFileError: `saved` is not what `TimmVision.save` returned, or does not fit the installed timm.
    """
    if weights == "none":
        assert saved is not None, "weights='none' builds from a saved config"
        return _rebuild(options, saved)
    name = resolve_name(options.model)
    model = _created(name, options, pretrained=weights == "pretrained")
    _move_norm_to_tokens(model)
    _cut(model, options.layers, name)
    processor = image_processor(model, options.image_size)
    facts = _measure(model, processor, name, options)
    revision = pretrained_commit(model, options.revision) if weights == "pretrained" else None
    return TimmVision(model, processor, facts=facts, revision=revision)


def _created(name: str, options: TimmOptions, *, pretrained: bool) -> Any:
    if pretrained:
        return create_pretrained(name, options, options.image_size)
    try:
        return create_random(name, options, options.image_size)
    except RenaissanceError:
        raise
    except Exception as error:  # timm checks little: a wrong option may fail anywhere in its code
        raise SpecError(refusal(name, error)) from error


def _rebuild(options: TimmOptions, saved: SavedBackbone) -> TimmVision:
    """Return the model without weights: nothing is initialised that loading overwrites."""
    facts = {key: value for key, value in saved.config.items() if key != "revision"}
    processor = ImageProcessor.load(saved.folder)
    try:
        chosen = options.model_validate(facts["options"])
        model = build_empty(lambda: create_random(chosen.model, chosen, _side(processor.image_size)))
        _move_norm_to_tokens(model)
        _cut(model, chosen.layers, chosen.model)
        drop_parts(model, facts["unused"])
        return TimmVision(model, processor, facts=facts, revision=saved.config.get("revision"))
    except Exception as error:  # whatever fails here, the saved config and the installed timm do not fit each other
        raise ModelFileError(
            f"The saved config of a timm model does not fit the installed timm ({type(error).__name__}: {error}). "
            "Install the version of timm that the model was saved with."
        ) from error


def _side(size: tuple[int, int]) -> int | tuple[int, int]:
    return size[0] if size[0] == size[1] else size


def _measure(model: Any, processor: ImageProcessor, name: str, options: TimmOptions) -> dict[str, Any]:
    """Run the model once, drop what its tokens do not depend on, and return its facts, JSON-able."""
    output = _probe(model, processor, name)
    unused = unused_parts(model, (output,))
    drop_parts(model, unused)
    if unused and not output.is_meta:
        assert torch.equal(_probe(model, processor, name), output), f"timm:{name} uses a part that seemed unused"
    tokens = row_major(model, output)
    grid = token_grid(model, output, processor.image_size)
    if grid is None:
        raise SpecError(f"timm:{name} gives {tokens.shape[1]} tokens that are no grid. Choose another vision backbone.")
    prefix = tokens.shape[1] - grid[0] * grid[1]
    settings = getattr(model, "pretrained_cfg", None) or {}
    return {
        "options": options.model_copy(update={"model": name}).model_dump(mode="json"),
        "fixed_size": bool(settings.get("fixed_input_size", False)),
        "width": tokens.shape[-1],
        "grid": list(grid),
        "num_prefix_tokens": prefix,
        "class_token": prefix > 0 and has_class_token(model),
        "unused": list(unused),
    }


def _probe(model: Any, processor: ImageProcessor, name: str) -> Tensor:
    """Return what the model makes of one image, [1, N, D], [1, D, H, W] or [1, H, W, D], with its graph."""
    shape = (1, 3, *processor.image_size)
    pixels = torch.linspace(-1, 1, math.prod(shape)).reshape(shape)
    was_training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            output = model.forward_features(pixels)
    except Exception as error:  # timm checks little: a size that does not fit may fail anywhere in its code
        raise SpecError(refusal(name, error)) from error
    finally:
        model.train(was_training)
    if not isinstance(output, Tensor) or output.dim() not in (3, 4):
        raise SpecError(f"timm:{name} gives neither tokens nor a feature map. Choose another vision backbone.")
    return output


def row_major(model: Any, output: Tensor) -> Tensor:
    """Return tokens [V, N, D] of tokens, or of a feature map in the model's own order of axes."""
    if output.dim() == 3:
        return output
    if getattr(model, "output_fmt", "NCHW") == "NHWC":
        return output.flatten(1, 2)
    return output.flatten(2).transpose(1, 2)


def token_grid(model: Any, output: Tensor, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """Return rows and columns of the token grid, or None; nothing in timm tells them for every model."""
    if output.dim() == 4:
        rows, columns = output.shape[1:3] if getattr(model, "output_fmt", "NCHW") == "NHWC" else output.shape[2:]
        return rows, columns
    prefix = getattr(model, "num_prefix_tokens", 1 if has_class_token(model) else 0)
    cells = output.shape[1] - prefix
    reduction = model.feature_info[-1]["reduction"] if getattr(model, "feature_info", None) else 1
    height, width = image_size
    candidates = (
        getattr(getattr(model, "patch_embed", None), "grid_size", None),
        (height // reduction, width // reduction),
        (math.isqrt(cells), math.isqrt(cells)),
    )
    for candidate in candidates:
        if candidate is not None and candidate[0] * candidate[1] == cells:
            return candidate[0], candidate[1]
    return None


def vit_embeddings(model: nn.Module) -> Sequence[nn.Module]:
    """Return what a ViT-like model runs before its blocks: modules, and a view of its own loose parameters."""
    modules = [getattr(model, name, None) for name in EMBEDDINGS]
    loose = LooseParameters(model, [name for name, _ in model.named_parameters(recurse=False)])
    return *(module for module in modules if module is not None), loose


def has_class_token(model: nn.Module) -> bool:
    """Whether the model has a class token, which then is token 0."""
    return any(name.rpartition(".")[2] == "cls_token" for name, _ in model.named_parameters())


def _move_norm_to_tokens(model: Any) -> None:
    """Let tokens end in a norm: some ViT-like models have theirs behind the pooling, which is dropped."""
    behind_pooling = getattr(model, "fc_norm", None)
    if isinstance(getattr(model, "norm", None), nn.Identity) and behind_pooling is not None:
        model.norm, model.fc_norm = behind_pooling, nn.Identity()


def _cut(model: Any, layers: int | None, name: str) -> None:
    """Keep the first `layers` blocks.

    Raises:
        SpecError: the model is no fold of blocks, or has fewer.
    """
    if layers is None:
        return
    if enumeration_of(model) is None:
        raise SpecError(f"timm:{name} is not made of equal blocks, so it cannot be cut. Drop the slice.")
    if layers > len(model.blocks):
        raise SpecError(f"timm:{name} has {len(model.blocks)} blocks; {layers} cannot be kept. Ask for fewer.")
    model.blocks = model.blocks[:layers]
