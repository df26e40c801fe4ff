"""Run frozen towers in canonical shapes, so that what a sample gives does not depend on what it is encoded with.

Convolutions choose another kernel for another batch size, and attention sums in another order over another padded
length. Here every call of the vision tower has one batch size. The length to which a text is padded, and how many texts
share its call, follow from its own length alone. So an output is the same, bit for bit, alone, in any batch, and when a
store of features is built.

Letters in shapes: V images, T texts, L longest text in tokens, N tokens, D width, B any batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import cast

import torch
from torch import Tensor

from renaissance.api import Backbone, Features, LayeredBackbone, Prefix, TextInput, VisionInput
from renaissance.toolkit.resuming import begun, finished, stepped

IMAGES_A_CALL = 4
TOKENS_A_CALL = 64  # of texts, if not one text has more
BUCKET_TOKENS = 8


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of the tower: the rows [B] of the input that it encodes, and the input in its canonical shape.

    after: where the call goes on from, in the same shape; None: from the beginning.
    """

    rows: Tensor
    inputs: VisionInput | TextInput
    after: Prefix | None


def encode_canonical(
    tower: Backbone, inputs: VisionInput | TextInput, layers: Sequence[int] = (), after: Prefix | None = None
) -> Features:
    """Encode images [V, 3, H, W] or texts [T, L] without autograd and autocast, in micro-batches of one fixed shape.

    Features come back in the order of the inputs. Texts come back padded to the longest real text, with zeros.
    The tower is in eval mode. after: what its first blocks gave; the pixels are then not read.
    """

    def encode(call: _Call) -> Features:
        if call.after is None:
            return tower(call.inputs, layers)
        layered = cast(LayeredBackbone, tower)
        return finished(layered, begun(layered, call.inputs, call.after), call.after.depth, layers)

    return _canonical(tower, inputs, after, encode)


def prefix_canonical(
    tower: LayeredBackbone, inputs: VisionInput | TextInput, depth: int, after: Prefix | None = None
) -> Prefix:
    """Run the embeddings and the first `depth` blocks on images [V, 3, H, W] or texts [T, L], as `encode_canonical`."""

    def encode(call: _Call) -> Features:
        state = stepped(
            tower, begun(tower, call.inputs, call.after), 0 if call.after is None else call.after.depth, depth
        )
        return Features(state.hidden, state.mask)

    features = _canonical(tower, inputs, after, encode)
    return Prefix(features.tokens, features.mask, depth)


def _canonical(
    tower: Backbone, inputs: VisionInput | TextInput, after: Prefix | None, encode: Callable[[_Call], Features]
) -> Features:
    calls = _vision_calls(inputs, after) if isinstance(inputs, VisionInput) else _text_calls(tower, inputs, after)
    device = inputs.pixels.device if isinstance(inputs, VisionInput) else inputs.token_ids.device
    rows: list[Tensor] = []
    parts: list[Features] = []
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        for call in calls:
            rows.append(call.rows)
            parts.append(_first(encode(call), len(call.rows)))
    length = _longest(parts) if isinstance(inputs, VisionInput) else int(text_lengths(inputs).max())
    return _restore(parts, torch.cat(rows), length)


def _longest(parts: Sequence[Features]) -> int | None:
    """Return how many tokens the longest image has, where padding ends some as a store reads them; else None."""
    mask = torch.cat([part.mask for part in parts])
    if mask.all():
        return None
    lengths = mask.sum(1)
    ended = torch.arange(mask.shape[1], device=mask.device) < lengths.unsqueeze(1)
    return int(lengths.max()) if torch.equal(mask, ended) else None


def text_lengths(inputs: TextInput) -> Tensor:
    """Return int64 [T]: the tokens of each text up to its last real one (at least 1)."""
    positions = torch.arange(1, inputs.mask.shape[1] + 1, device=inputs.mask.device)
    return (inputs.mask * positions).amax(1).clamp(min=1)


def bucket_lengths(tower: Backbone, inputs: TextInput) -> Tensor:
    """Return int64 [T]: in which length each text is encoded."""
    lengths = text_lengths(inputs)
    # past the tower's own limit there is no bucket: such a text keeps its length, and the tower refuses it
    rounded = -(lengths // -BUCKET_TOKENS) * BUCKET_TOKENS
    return rounded.clamp(max=tower.processor.facts.max_tokens).maximum(lengths)


def texts_a_call(length: int) -> int:
    """Return how many texts of a bucket's length are encoded in one call."""
    return max(1, TOKENS_A_CALL // length)


def _vision_calls(inputs: VisionInput, after: Prefix | None) -> Iterator[_Call]:
    for rows in _groups(torch.arange(len(inputs.pixels), device=inputs.pixels.device), IMAGES_A_CALL):
        chosen = _repeat_last(rows, IMAGES_A_CALL)
        taken = replace(inputs, **{name: value[chosen] for name, value in _tensors(inputs)})
        yield _Call(
            rows, taken, None if after is None else Prefix(after.tokens[chosen], after.mask[chosen], after.depth)
        )


def _text_calls(tower: Backbone, inputs: TextInput, after: Prefix | None) -> Iterator[_Call]:
    facts = tower.processor.facts
    buckets = bucket_lengths(tower, inputs)
    for bucket in sorted(set(buckets.tolist())):
        count = texts_a_call(bucket)
        for rows in _groups((buckets == bucket).nonzero().flatten(), count):
            chosen = _repeat_last(rows, count)
            fitted = {
                name: _fit(value[chosen], bucket, facts.pad_id if name == "token_ids" else 0)
                for name, value in _tensors(inputs)
            }
            yield _Call(rows, replace(inputs, **fitted), None if after is None else _fitted(after, chosen, bucket))


def _groups(rows: Tensor, size: int) -> list[Tensor]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _tensors(inputs: VisionInput | TextInput) -> list[tuple[str, Tensor]]:
    """Return the tensors of an input by field; each has one row a sample."""
    named = ((field.name, getattr(inputs, field.name)) for field in fields(inputs))
    return [(name, value) for name, value in named if value is not None]


def _repeat_last(rows: Tensor, count: int) -> Tensor:
    """Return `rows` with the last one repeated up to `count` of them."""
    return torch.cat((rows, rows[-1:].expand(count - len(rows))))


def _fitted(prefix: Prefix, rows: Tensor, length: int) -> Prefix:
    return Prefix(_fit(prefix.tokens[rows], length, 0), _fit(prefix.mask[rows], length, 0), prefix.depth)


def _fit(values: Tensor, length: int, fill: int) -> Tensor:
    """Cut or fill [B, L, ...] to [B, length, ...]."""
    fitted = values.new_full((len(values), length, *values.shape[2:]), fill)
    kept = min(length, values.shape[1])
    fitted[:, :kept] = values[:, :kept]
    return fitted


def _first(features: Features, count: int) -> Features:
    pooled = None if features.pooled is None else features.pooled[:count]
    layers = tuple(layer[:count] for layer in features.layers)
    return Features(features.tokens[:count], features.mask[:count], pooled, layers)


def _restore(parts: Sequence[Features], rows: Tensor, length: int | None) -> Features:
    """Join what the calls gave, in the order of the inputs; cut or padded with zeros to `length`, if there is one."""
    order = rows.argsort()

    def join(pieces: Iterable[Tensor]) -> Tensor:
        return torch.cat(tuple(pieces))[order]

    if length is not None:
        parts = [_cut(part, length) for part in parts]
    pooled = [part.pooled for part in parts if part.pooled is not None]
    return Features(
        tokens=join(part.tokens for part in parts),
        mask=join(part.mask for part in parts),
        pooled=join(pooled) if pooled else None,
        layers=tuple(join(layer) for layer in zip(*(part.layers for part in parts), strict=True)),
    )


def _cut(features: Features, length: int) -> Features:
    """Return features [B, L, D] as [B, length, D], zero where no token is real."""
    mask = _fit(features.mask, length, 0)

    def cut(tokens: Tensor) -> Tensor:
        return _fit(tokens, length, 0).masked_fill(~mask.unsqueeze(-1), 0)

    return Features(cut(features.tokens), mask, features.pooled, tuple(cut(layer) for layer in features.layers))
