"""What every fusion head must hold.

Letters in shapes: P pairs, N tokens of the vision stream, L of the text stream, D width.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from renaissance.api import Features, Joint
from renaissance.testing.benches import Bench, make_head, outputs_of, parts_of, streams, vary_head
from renaissance.testing.gradients import check_gradients, random_sum
from renaissance.testing.shared_rules import check_same_bits
from renaissance.testing.subjects import NotApplicable, check_close, check_equal, failure, seeded

GARBAGE = 50.0
BF16_TOLERANCE = 0.1


@torch.no_grad()
def _widths(bench: Bench) -> None:
    """Its outputs have the widths and the masks that it says, for towers with a class token and without."""
    entry, inputs = bench.entry, streams(bench.entry, bench.options)
    for head in _both(bench):
        joint = head(*inputs, entry.outputs)
        if "pooled" in entry.outputs:
            check_equal("widths", "shape of the pooled vectors", tuple(joint.pooled.shape), (3, head.pooled_width))
        for name in ("vision", "text"):
            features = getattr(joint, name)
            if features is not None:
                check_equal("widths", f"width of the {name} stream", features.tokens.shape[-1], head.width)
                check_equal("widths", f"mask of the {name} stream", features.mask.shape, features.tokens.shape[:2])
        for name, tensor in outputs_of(head, entry, *inputs).items():
            check_equal("widths", f"finite values of '{name}'", bool(tensor.isfinite().all()), True)
            if name.startswith("projected"):
                check_equal("widths", f"width of the {name} vectors", tensor.shape[-1], head.width)


@torch.no_grad()
def _padding(bench: Bench) -> None:
    """Longer padding of either side changes nothing, nor does what stands in it."""
    vision, text = streams(bench.entry, bench.options)
    other = [(_padded(vision, 3), text), (vision, _padded(text, 4)), (_filled(vision), _filled(text))]
    for head in _both(bench):
        plain = parts_of(head(vision, text, bench.entry.outputs))
        for inputs in other:
            _same("padding", parts_of(head(*inputs, bench.entry.outputs)), plain)


@torch.no_grad()
def _batch(bench: Bench) -> None:
    """A pair alone gives what it gives in a batch."""
    entry, (vision, text) = bench.entry, streams(bench.entry, bench.options)
    together = bench.module(vision, text, entry.outputs)
    for row in range(len(text.mask)):
        alone = bench.module(_row(vision, row), _row(text, row), entry.outputs)
        _same("batch", parts_of(alone), parts_of(_row_of(together, row)))


@torch.no_grad()
def _asked(bench: Bench) -> None:
    """It gives what is asked of it and no more, and each output is the same whatever else is asked."""
    inputs = streams(bench.entry, bench.options)
    for head in _both(bench):
        whole = parts_of(head(*inputs, bench.entry.outputs))
        for count in range(len(bench.entry.outputs)):
            for asked in combinations(sorted(bench.entry.outputs), count):
                _same("asked", parts_of(head(*inputs, frozenset(asked))), {name: whole[name] for name in asked})


def _streams(bench: Bench) -> None:
    """What it pools, or all else that it gives if it pools nothing, depends on the tokens of both streams."""
    entry = bench.entry
    if not entry.outputs:
        raise NotApplicable("it fuses nothing")
    vision, text = (_leaf(stream) for stream in streams(entry, bench.options))
    asked = entry.outputs & {"pooled"} or entry.outputs
    with seeded(3):
        loss = random_sum(parts_of(bench.module(vision, text, asked)))
    found = torch.autograd.grad(loss, [*_tensors(vision), *_tensors(text)], allow_unused=True)
    sides = {"vision": found[: len(_tensors(vision))], "text": found[len(_tensors(vision)) :]}
    for name, gradients in sides.items():
        reached = [gradient for gradient in gradients if gradient is not None and gradient.any()]
        if not reached:
            raise failure("streams", f"no gradient reaches the {name} stream", "one for the tokens of both")


@torch.no_grad()
def _eval(bench: Bench) -> None:
    """Two passes in evaluation are bit-identical, whatever the random state and dropout."""
    found = []
    for seed in (1, 2):
        with seeded(seed):
            found.append(bench.trial.run(bench.module))
    check_same_bits("eval", found[1], found[0])


def _gradients(bench: Bench) -> None:
    """In training, each parameter gets a finite gradient from the outputs, and no weight matrix one of zeros alone."""
    check_gradients(bench.module, bench.trial.run)


@torch.no_grad()
def _round_trip(bench: Bench) -> None:
    """Its weights, saved as safetensors and loaded into one with another seed, give the same bit for bit."""
    state = {name: tensor.contiguous().clone() for name, tensor in bench.module.state_dict().items()}
    other = bench.varied(seed=1)
    with tempfile.TemporaryDirectory() as folder:
        save_file(state, Path(folder) / "model.safetensors")
        saved = load_file(Path(folder) / "model.safetensors")
    check_equal("round trip", "tensors that only one of the two has", sorted(saved.keys() ^ other.state_dict()), [])
    other.load_state_dict(saved, strict=True)
    check_same_bits("round trip", bench.trial.run(other), bench.trial.run(bench.module))


@torch.no_grad()
def _bf16(bench: Bench) -> None:
    """With all weights in bfloat16 its outputs are bfloat16 and finite, within a tenth of their RMS in float32."""
    half = bench.fresh().to(torch.bfloat16)
    inputs = [_changed(f, lambda x: x.to(torch.bfloat16), f.mask) for f in streams(bench.entry, bench.options)]
    try:
        seen = outputs_of(half, bench.entry, inputs[0], inputs[1])
    except (NotImplementedError, RuntimeError) as error:
        raise failure("bf16", str(error).splitlines()[0], "a run with weights in bfloat16") from None
    for name, expected in bench.trial.run(half.float()).items():
        check_equal("bf16", f"precision of '{name}'", seen[name].dtype, torch.bfloat16)
        apart = float((seen[name].float() - expected).norm() / expected.norm().clamp(min=1e-6))
        if not apart <= BF16_TOLERANCE:
            raise failure("bf16", f"'{name}' {apart:.3f} of its RMS apart", f"at most {BF16_TOLERANCE}")


def _both(bench: Bench) -> list[Any]:
    """Return the head for towers without a class token, and one for towers that have one."""
    with seeded(0):
        other: Any = make_head(bench.entry, bench.options, class_token=True)
        vary_head(other)
    return [bench.module, other.eval()]


def _same(rule: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    check_equal(rule, "outputs", sorted(found), sorted(expected))
    for name, value in expected.items():
        check_close(rule, found[name], value)


def _tensors(features: Features) -> list[Tensor]:
    return [t for t in (features.tokens, features.embedded, *features.layers[:-1]) if t is not None]


def _changed(features: Features, change: Callable[[Tensor], Tensor], mask: Tensor) -> Features:
    embedded = None if features.embedded is None else change(features.embedded)
    return replace(
        features,
        tokens=change(features.tokens),
        mask=mask,
        layers=tuple(change(layer) for layer in features.layers),
        embedded=embedded,
    )


def _padded(features: Features, by: int) -> Features:
    return _changed(features, lambda x: F.pad(x, (0, 0, 0, by), value=GARBAGE), F.pad(features.mask, (0, by)))


def _filled(features: Features) -> Features:
    return _changed(features, lambda x: x.masked_fill(~features.mask.unsqueeze(-1), GARBAGE), features.mask)


def _row(features: Features, row: int) -> Features:
    return _changed(features, lambda x: x[row : row + 1], features.mask[row : row + 1])


def _row_of(joint: Joint, row: int) -> Joint:
    vision, text = (None if f is None else _row(f, row) for f in (joint.vision, joint.text))
    return Joint(vision, text, None if joint.pooled is None else joint.pooled[row : row + 1])


def _leaf(features: Features) -> Features:
    tokens = features.tokens.clone().requires_grad_()
    layers = (*(layer.clone().requires_grad_() for layer in features.layers[:-1]), tokens)
    embedded = None if features.embedded is None else features.embedded.clone().requires_grad_()
    return replace(features, tokens=tokens, layers=layers if features.layers else (), embedded=embedded)


RULES: dict[str, Callable[[Bench], None]] = {
    "widths": _widths,
    "padding": _padding,
    "batch": _batch,
    "asked": _asked,
    "streams": _streams,
    "eval": _eval,
    "gradients": _gradients,
    "round trip": _round_trip,
    "bf16": _bf16,
}
