"""The checks that every backbone must pass, built at a small size with random weights.

Letters in shapes: B inputs, V images, T texts, N tokens, L tokens of a text, D width, H and W height and width in
pixels, R and C rows and columns of the token grid.
"""

from __future__ import annotations

import copy
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn

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
from renaissance.testing.grids import check_grid_order
from renaissance.testing.subjects import (
    TOLERANCE,
    Subject,
    check_close,
    check_equal,
    check_identical,
    check_pooled,
    failure,
    seeded,
    token_grid,
)
from renaissance.testing.subjects import ConformanceError as ConformanceError

# of a net whose every product is rounded to 8 bits; a wrong path, or a wrong input, is off by about 1. Other nets than
# stacks of blocks make small differences large at random weights (batch norms divide by small variances).
BF16_TOLERANCE = 0.1
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
    return tuple(name for name, check in CHECKS.items() if check(subject))


def _declared(subject: Subject) -> bool:
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
    return True


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


def _pooled_tokens(backbone: Any) -> bool:
    """Whether the tokens are what queries gathered, in no order of places: such a backbone says `grid` is None."""
    return hasattr(backbone, "grid") and backbone.grid is None


@torch.no_grad()
def _padding(subject: Subject) -> bool:
    """Longer padding changes no real token, and the mask says exactly which are real."""
    if subject.modality == "vision":
        return _image_padding(subject)
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
    return True


def _image_padding(subject: Subject) -> bool:
    """Where padded images are taken: real tokens are those of the image without padding."""
    pixels = subject.inputs().pixels
    whole = torch.ones(pixels.shape[0], *pixels.shape[2:], dtype=torch.bool)
    try:
        subject.backbone(VisionInput(pixels, whole))
    except (SpecError, CapabilityError):
        return False
    plain = subject.backbone(VisionInput(pixels))
    step = pixels.shape[-1] // token_grid(subject, plain.tokens.shape[1])[0][1]
    wide = VisionInput(nn.functional.pad(pixels, (0, step, 0, step)), nn.functional.pad(whole, (0, step, 0, step)))
    padded = subject.backbone(wide)
    check_equal("padding", "real tokens", int(padded.mask.sum()), int(plain.mask.sum()))
    check_close("padding", padded.tokens[padded.mask], plain.tokens[plain.mask])
    check_pooled("padding", padded, plain)
    return True


@torch.no_grad()
def _batch(subject: Subject) -> bool:
    """An input alone gives what it gives in a batch."""
    inputs = subject.inputs()
    together: Features = subject.backbone(inputs)
    for index in range(len(together.tokens)):
        alone: Features = subject.backbone(subject.one(inputs, index))
        check_close("batch", alone.tokens[alone.mask], together.tokens[index][together.mask[index]])
        if together.pooled is not None and alone.pooled is not None:
            check_close("batch", alone.pooled[0], together.pooled[index])
    return True


@torch.no_grad()
def _eval(subject: Subject) -> bool:
    """Two passes in evaluation are bit-identical, whatever the random state, dropout and drop path."""
    training = [name for name, module in subject.backbone.named_modules() if module.training]
    check_equal("eval", "modules in train mode after eval()", training, [])
    inputs = subject.inputs()
    with seeded(1):
        first = subject.backbone(inputs)
    with seeded(2):
        second = subject.backbone(inputs)
    check_identical("eval", second, first)
    return True


@torch.no_grad()
def _layers(subject: Subject) -> bool:
    """A layered backbone is the fold of its blocks, whose outputs are the layers."""
    if not len(subject.backbone.blocks):
        return False
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
    return True


@torch.no_grad()
def _bf16(subject: Subject) -> bool:
    """With all weights in bfloat16 it gives finite tokens; those of blocks within 0.1 of their RMS in float32."""
    inputs = subject.inputs()
    half = copy.deepcopy(subject.backbone).to(torch.bfloat16)
    try:
        seen: Features = half(inputs)
    except (NotImplementedError, RuntimeError) as error:
        if any(sign in str(error) for sign in NO_KERNEL):  # torch has none, whoever calls it
            return False
        raise failure("bf16", str(error).splitlines()[0], "a run with weights in bfloat16") from None
    expected: Features = subject.backbone(inputs)
    check_equal("bf16", "mask", seen.mask.tolist(), expected.mask.tolist())
    check_equal("bf16", "precision of the tokens", seen.tokens.dtype, torch.bfloat16)
    wanted = expected.tokens[expected.mask]
    apart = float((seen.tokens[seen.mask].float() - wanted).norm() / wanted.norm())
    if not (apart <= BF16_TOLERANCE if len(subject.backbone.blocks) else math.isfinite(apart)):
        raise failure("bf16", f"a difference of {apart:.3f} of the tokens' RMS", f"at most {BF16_TOLERANCE}")
    return True


def _gradients(subject: Subject) -> bool:
    """In training, each parameter gets a finite gradient from the outputs, and no weight matrix one of zeros alone.

    Vectors [D] or [D, 1] may get zeros: a key's bias cancels in a softmax, and so does what gives one number to one.
    A matrix may where the outputs are flat in it though they depend on it: where only its sign is read, or a table's
    row for padding alone.
    """
    backbone = subject.backbone
    backbone.train()
    try:
        with seeded(3):
            features: Features = backbone(subject.inputs())
            outputs = [features.tokens[features.mask]] + ([] if features.pooled is None else [features.pooled])
            loss = torch.stack([(output * torch.randn_like(output)).sum() for output in outputs]).sum()
        torch.autograd.backward(loss)
        gradients = {name: p.grad for name, p in backbone.named_parameters() if p.requires_grad}
    finally:
        backbone.zero_grad(set_to_none=True)
        backbone.eval()
    without = [name for name, gradient in gradients.items() if gradient is None]
    check_equal("gradients", "parameters that the outputs do not depend on", without, [])
    broken = [name for name, gradient in gradients.items() if gradient is not None and not gradient.isfinite().all()]
    check_equal("gradients", "gradients that are not finite", broken, [])
    zero = [name for name, g in gradients.items() if g is not None and g.squeeze().dim() > 1 and not g.any()]
    cut = [name for name in zero if not _flat(subject, name)]
    check_equal("gradients", "weight matrices whose gradient is zero", cut, [])
    return True


@torch.no_grad()
def _flat(subject: Subject, name: str) -> bool:
    """Return whether the outputs depend on a parameter, and yet stay when it changes by a thousandth."""
    backbone, inputs = subject.backbone, subject.inputs()
    parameter = backbone.get_parameter(name)
    owner = backbone.get_submodule(name.rpartition(".")[0])
    kept, plain = parameter.clone(), backbone(inputs)
    with seeded(4):
        noise = torch.randn_like(kept) * kept.abs().mean().clamp(min=1e-3)
    near = 1e-3 * noise
    if isinstance(owner, nn.Embedding) and owner.padding_idx is not None:
        near[owner.padding_idx] = 0  # torch gives this row no gradient
    moved = []
    for change in (near, noise):
        parameter.copy_(kept + change)
        moved.append(_moved(backbone(inputs), plain))
    parameter.copy_(kept)
    return moved == [False, True]


def _moved(seen: Features, plain: Features) -> bool:
    """Return whether real tokens or the pooled vector differ by more than rounding."""
    pairs = [(seen.tokens[seen.mask], plain.tokens[plain.mask])]
    if seen.pooled is not None and plain.pooled is not None:
        pairs.append((seen.pooled, plain.pooled))
    return any(float((a - b).abs().max() / b.abs().max().clamp(min=1)) > TOLERANCE for a, b in pairs)


@torch.no_grad()
def _round_trip(subject: Subject) -> bool:
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
    return True


CHECKS: dict[str, Callable[[Subject], bool]] = {
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
