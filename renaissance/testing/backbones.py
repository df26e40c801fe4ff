"""The checks that every backbone must pass, built at a small size with random weights.

Letters in shapes: B inputs, V images, T texts, N tokens, L tokens of a text, D width, H and W height and width in
pixels, R and C rows and columns of the token grid.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from renaissance.api import (
    Backbone,
    Capabilities,
    Features,
    LayeredBackbone,
    Modality,
    SavedBackbone,
    TextInput,
    Unknown,
    VisionInput,
)
from renaissance.errors import CapabilityError, SpecError
from renaissance.testing.gradients import check_gradients
from renaissance.testing.grids import check_grid_order
from renaissance.testing.subjects import (
    TOLERANCE,
    NotApplicable,
    Subject,
    check_close,
    check_equal,
    check_identical,
    check_pooled,
    failure,
    seeded,
    tensors_of,
    token_grid,
)
from renaissance.testing.subjects import ConformanceError as ConformanceError

# of a net whose every product is rounded to 8 bits; a wrong path, or a wrong input, is off by about 1. Other nets than
# stacks of blocks make small differences large at random weights (batch norms divide by small variances).
BF16_TOLERANCE = 0.1
# A kernel for another batch size sums in another order, which batch norms of small variances make more of.
NORMED_TOLERANCE = 1e-4
NO_KERNEL = ("not implemented for 'BFloat16'", "Unsupported dtype BFloat16")


def check_backbone(
    backbone: Backbone,
    facts: Capabilities,
    *,
    modality: Modality,
    rebuild: Callable[[SavedBackbone], Backbone],
) -> tuple[str, ...]:
    """Run every check that applies to `backbone`; return their names in order.

    facts: what its entry says of it. rebuild: the entry's factory with weights="none". The weights should be random
    ones, also where an initialisation leaves zeros: what is multiplied by zero cannot be seen.

    Raises:
        ConformanceError: a check failed.
        RenaissanceError: the backbone itself refused an input that it should take.
    """
    subject = Subject(cast(Any, backbone).eval(), facts, modality, rebuild)
    held = []
    for name, check in CHECKS.items():
        with suppress(NotApplicable):
            check(subject)
            held.append(name)
    return tuple(held)


def _declared(subject: Subject) -> None:
    """Width, depth and whatever else is declared are those of the built model; a fact that is not known is no fault."""
    backbone, facts = subject.backbone, subject.facts
    with torch.no_grad():
        features: Features = backbone(subject.inputs())
    check_equal("width and depth", "width of the tokens", features.tokens.shape[-1], backbone.width)
    check_equal("width and depth", "shape of the mask", features.mask.shape, features.tokens.shape[:2])
    if not features.tokens[features.mask].isfinite().all():
        raise failure("width and depth", "tokens that are not finite", "finite ones")
    for name, found in _built_facts(subject, features).items():
        declared = getattr(facts, name)
        if declared is not None and not isinstance(declared, Unknown):
            check_equal("width and depth", name, found, declared)


def _built_facts(subject: Subject, features: Features) -> dict[str, Any]:
    """Return what the built model shows of its declared facts."""
    backbone, depth = subject.backbone, len(subject.backbone.blocks)
    found = {"width": backbone.width, "layered": depth > 0, "class_token": backbone.class_token}
    if depth:
        found["depth"] = depth
    if hasattr(backbone, "positions"):
        found["positions"] = backbone.positions
    if subject.modality == "text":
        return {**found, "max_tokens": backbone.processor.facts.max_tokens, "text_blocks": _halves(backbone)}
    height, width = backbone.processor.image_size
    if _pooled_tokens(backbone):
        return found | ({"image_size": height} if height == width else {})
    (rows, columns), prefix = token_grid(subject, features.tokens.shape[1])
    if prefix < int(backbone.class_token):
        raise failure("width and depth", f"{features.tokens.shape[1]} tokens", f"a class token and {rows} x {columns}")
    found |= {"grid": (rows, columns), "patch_size": height // rows}
    return found | ({"image_size": height} if height == width else {})


def _halves(backbone: Any) -> bool:
    """Whether fusion heads can run the blocks of a text backbone in halves."""
    try:
        return hasattr(backbone, "text_blocks") and len(backbone.text_blocks()) > 0
    except SpecError:
        return False


def _normed(subject: Subject) -> bool:
    """Whether it has batch norms."""
    return any(isinstance(module, _BatchNorm) for module in subject.backbone.modules())


def _pooled_tokens(backbone: Any) -> bool:
    """Whether the tokens are what queries gathered, in no order of places: such a backbone says `grid` is None."""
    return hasattr(backbone, "grid") and backbone.grid is None


@torch.no_grad()
def _padding(subject: Subject) -> None:
    """Longer padding changes no real token, and the mask says exactly which are real."""
    if subject.modality == "vision":
        _image_padding(subject)
        return
    inputs: TextInput = subject.inputs()
    extra = min(5, subject.backbone.processor.facts.max_tokens - inputs.mask.shape[1])
    pad_id = subject.backbone.processor.facts.pad_id
    longer = TextInput(
        nn.functional.pad(inputs.token_ids, (0, extra), value=pad_id), nn.functional.pad(inputs.mask, (0, extra))
    )
    plain, padded = subject.backbone(inputs), subject.backbone(longer)
    check_equal("padding", "mask", plain.mask.tolist(), inputs.mask.tolist())
    check_equal("padding", "mask with more padding", padded.mask.tolist(), longer.mask.tolist())
    check_close("padding", padded.tokens[padded.mask], plain.tokens[plain.mask])
    check_pooled("padding", padded, plain)


def _image_padding(subject: Subject) -> None:
    """Where padded images are taken: real tokens are those of the image without padding."""
    pixels = subject.inputs().pixels
    whole = torch.ones(pixels.shape[0], *pixels.shape[2:], dtype=torch.bool)
    try:
        subject.backbone(VisionInput(pixels, whole))
    except (SpecError, CapabilityError):
        raise NotApplicable("it takes no padded images") from None
    plain = subject.backbone(VisionInput(pixels))
    step = pixels.shape[-1] // token_grid(subject, plain.tokens.shape[1])[0][1]
    wide = VisionInput(nn.functional.pad(pixels, (0, step, 0, step)), nn.functional.pad(whole, (0, step, 0, step)))
    padded = subject.backbone(wide)
    check_equal("padding", "real tokens", int(padded.mask.sum()), int(plain.mask.sum()))
    check_close("padding", padded.tokens[padded.mask], plain.tokens[plain.mask])
    check_pooled("padding", padded, plain)


@torch.no_grad()
def _batch(subject: Subject) -> None:
    """An input alone gives what it gives in a batch."""
    inputs, tolerance = subject.inputs(), NORMED_TOLERANCE if _normed(subject) else TOLERANCE
    together: Features = subject.backbone(inputs)
    for index in range(len(together.tokens)):
        alone: Features = subject.backbone(subject.one(inputs, index))
        check_close("batch", alone.tokens[alone.mask], together.tokens[index][together.mask[index]], tolerance)
        if together.pooled is not None and alone.pooled is not None:
            check_close("batch", alone.pooled[0], together.pooled[index], tolerance)


@torch.no_grad()
def _eval(subject: Subject) -> None:
    """Two passes in evaluation are bit-identical, whatever the random state, dropout and drop path."""
    training = [name for name, module in subject.backbone.named_modules() if module.training]
    check_equal("eval", "modules in train mode after eval()", training, [])
    inputs = subject.inputs()
    with seeded(1):
        first = subject.backbone(inputs)
    with seeded(2):
        second = subject.backbone(inputs)
    check_identical("eval", second, first)


@torch.no_grad()
def _layers(subject: Subject) -> None:
    """A layered backbone is the fold of its blocks, whose outputs are the layers."""
    if not len(subject.backbone.blocks):
        raise NotApplicable("it does not list its blocks")
    backbone, inputs = cast(LayeredBackbone, subject.backbone), subject.inputs()
    state, outputs = backbone.embed(inputs), []
    for index in range(len(backbone.blocks)):
        state = backbone.step(index, state)
        outputs.append(getattr(state, "hidden", None))
    features = backbone(inputs, layers=(0, -1))
    check_identical("layers", backbone.finish(state), features)
    check_equal("layers", "layers given for (0, -1)", len(features.layers), 2)
    for found, expected in zip(features.layers, (outputs[0], outputs[-1]), strict=True):
        # some texts are padded to the longest that the model takes while they run
        if expected is not None and not torch.equal(found, expected[:, : found.shape[1]]):
            raise failure("layers", "a layer that is not the output of its block", "the output of its block")


@torch.no_grad()
def _bf16(subject: Subject) -> None:
    """In bfloat16 it gives finite tokens; those of blocks without batch norms within 0.1 of their RMS in float32."""
    inputs = subject.inputs()
    half = copy.deepcopy(subject.backbone).to(torch.bfloat16)
    try:
        seen: Features = half(inputs)
    except (NotImplementedError, RuntimeError) as error:
        if any(sign in str(error) for sign in NO_KERNEL):  # torch has none, whoever calls it
            raise NotApplicable(f"this torch cannot compute it: {error}") from None
        raise failure("bf16", str(error).splitlines()[0], "a run with weights in bfloat16") from None
    expected: Features = subject.backbone(inputs)
    check_equal("bf16", "mask", seen.mask.tolist(), expected.mask.tolist())
    check_equal("bf16", "precision of the tokens", seen.tokens.dtype, torch.bfloat16)
    wanted = expected.tokens[expected.mask]
    apart = float((seen.tokens[seen.mask].float() - wanted).norm() / wanted.norm())
    if not (apart <= BF16_TOLERANCE if len(subject.backbone.blocks) and not _normed(subject) else isfinite(apart)):
        raise failure("bf16", f"a difference of {apart:.3f} of the tokens' RMS", f"at most {BF16_TOLERANCE}")


def _gradients(subject: Subject) -> None:
    """In training, each parameter gets a finite gradient from the outputs, and no weight matrix one of zeros alone."""
    inputs = subject.inputs()

    def run(backbone: Any) -> dict[str, Tensor]:
        return tensors_of(backbone(inputs))

    check_gradients(subject.backbone, run)


@torch.no_grad()
def _round_trip(subject: Subject) -> None:
    """Saved as safetensors and built again without weights, it is the same bit for bit."""
    inputs = subject.inputs()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = json.loads(json.dumps(subject.backbone.save(folder)))
        state = {key: tensor.contiguous().clone() for key, tensor in subject.backbone.state_dict().items()}
        save_file(state, folder / "model.safetensors")
        again = cast(Any, subject.rebuild(SavedBackbone(config, folder)))
        saved = load_file(folder / "model.safetensors")
    check_equal(
        "round trip", "tensors that only one of the two has", sorted(saved.keys() ^ again.state_dict().keys()), []
    )
    again.load_state_dict(saved, strict=True, assign=True)
    empty = [key for key, tensor in (*again.named_parameters(), *again.named_buffers()) if tensor.is_meta]
    check_equal("round trip", "tensors left without values", empty, [])
    check_identical("round trip", again.eval()(inputs), subject.backbone(inputs))


CHECKS: dict[str, Callable[[Subject], None]] = {
    "width and depth": _declared,
    "grid order": check_grid_order,
    "padding": _padding,
    "batch": _batch,
    "eval": _eval,
    "layers": _layers,
    "bf16": _bf16,
    "gradients": _gradients,
    "round trip": _round_trip,
}
