"""Attention rollout (Abnar and Zuidema 2020, arXiv 2005.00928), also through fusion heads.

In each layer a token keeps one half of what it is, the residual, and takes the other half by its attention, averaged
over heads: R <- (I + A) / 2 R. Cross attention takes that half from the rows of the other stream. What is told is which
share the input tokens have in what the pooled vectors are read from. It knows nothing of the output that is explained,
nor of values and MLPs: it shows where a model looks, not why it decides.

Letters in shapes: B inputs, N tokens of a picture, L of a text, S of both, R and C rows and columns of patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from renaissance.api import Features, Modality, TextInput, VisionInput
from renaissance.assemble import Assembly
from renaissance.builtin.fusion import CoAttentionLayer, Concat, CrossFusion, LxmertLayer
from renaissance.builtin.fusion_bridge import BridgeFusion
from renaissance.builtin.fusion_merged import MergedFusion
from renaissance.errors import CapabilityError
from renaissance.explaining.attention import Maps, recorded
from renaissance.explaining.outputs import POOLED, Explained, encoded
from renaissance.explaining.tokens import patch_grid
from renaissance.models.one_tower import OneTower
from renaissance.models.two_tower import TwoTower


@dataclass(frozen=True, slots=True)
class Rollout:
    """Shares of a picture's patches [R, C] and of a text's tokens [L], in what the pooled vectors are read from."""

    patches: Tensor
    tokens: Tensor


@dataclass(frozen=True, slots=True)
class _Streams:
    """Shares of all input tokens S in each token of the picture [N, S] and of the text [L, S]."""

    vision: Tensor
    text: Tensor


def attention_rollout(assembly: Assembly, output: Explained, images: VisionInput, texts: TextInput) -> Rollout:
    """Return the rollout of one picture [1, 3, H, W] with one text [1, L].

    Raises:
        CapabilityError: a tower, or the fusion head, has no attention from token to token; the message names it.
    """
    prefix, rows, columns = patch_grid(assembly, images)
    encoder = assembly.encoder
    with torch.no_grad():
        if isinstance(encoder, OneTower):
            shares = _one_tower(encoder, assembly, output, images, texts)
        else:
            shares = _two_tower(encoder, assembly, output, images, texts)
    length = texts.mask.shape[1]
    vision, text = shares[:-length], shares[-length:]
    return Rollout(vision[prefix:].reshape(rows, columns), text)


def rolled(maps: Sequence[Tensor]) -> Tensor:
    """Return the shares of the tokens before the first layer in those after the last, fp64 [S, S].

    maps: of each layer the probabilities [H, S, S].
    """
    shares = torch.eye(maps[0].shape[-1], dtype=torch.float64)
    for found in maps:
        shares = _half(shares, found, shares)
    return shares


def _half(own: Tensor, attention: Tensor, context: Tensor) -> Tensor:
    """Return one half of own shares [N, S] and one of the context's [M, S] by attention [H, N, M]."""
    mixed = attention.double().mean(0) @ context
    return (own[: len(mixed)] + mixed) / 2


# --- one stack of blocks ----------------------------------------------------------------------------------------------


def _blocks_of(tower: Any, what: str) -> Sequence[nn.Module]:
    if not len(tower.blocks):
        raise CapabilityError(
            f"The {what} tower is {type(tower).__name__}, which lists no blocks with attention from token to token. "
            "Leave rollout out, or choose a plain transformer such as 'vit-base'."
        )
    return list(tower.blocks)


def _of_blocks(maps: Maps, blocks: Sequence[nn.Module], count: int, what: str) -> list[Tensor]:
    """Return the probabilities [H, S, S] of each block on `count` tokens."""
    found = [maps[block] for block in blocks]
    if not all(len(block) == 1 and tuple(block[0].shape[-2:]) == (count, count) for block in found):
        raise CapabilityError(
            f"The blocks of the {what} tower ({type(blocks[0]).__name__}) do not each attend once from each of the "
            f"{count} tokens to all of them, so their attention cannot be rolled out. Use attributions in its place."
        )
    return [block[0][0] for block in found]


def _one_tower(
    encoder: OneTower, assembly: Assembly, output: Explained, images: VisionInput, texts: TextInput
) -> Tensor:
    """Return the shares [N + L]; for `itc` those of each modality, of which each has run alone."""
    vision, text = encoded(assembly, images, texts)
    if output.task == "itc":
        alone = (_alone(encoder, vision, "vision"), _alone(encoder, text, "text"))
        return torch.cat(alone)
    blocks, count = _blocks_of(encoder.base, "one"), vision.tokens.shape[1]
    with recorded(blocks) as maps:
        encoder.fuse(vision, text, POOLED)
    total = count + text.tokens.shape[1]
    shares = rolled(_of_blocks(maps, blocks, total, "one"))
    if encoder.modality == "text":  # the sequence begins with the base's own modality
        order = torch.cat((torch.arange(total - count, total), torch.arange(total - count)))
        shares = shares[order][:, order]
    mask = torch.cat((vision.mask[0], text.mask[0]))
    return _pooled_rows(encoder.pooling, shares, mask, first=count)


def _alone(encoder: OneTower, features: Features, modality: Modality) -> Tensor:
    blocks = _blocks_of(encoder.base, "one")
    with recorded(blocks) as maps:
        encoder.represent(features, modality)
    shares = rolled(_of_blocks(maps, blocks, features.tokens.shape[1], "one"))
    classless = modality == "vision" and not encoder.vision.class_token
    return _pooled_rows("mean" if classless else encoder.pooling, shares, features.mask[0], first=0)


def _pooled_rows(pooling: str, shares: Tensor, mask: Tensor, *, first: int) -> Tensor:
    """Return the shares [S] in what is pooled of rows [S, S]: the first token of a stream, the mean, or both."""
    mean = shares[mask].mean(0)
    return {"first": shares[first], "mean": mean, "both": (shares[first] + mean) / 2}[pooling]


# --- two towers and a head ----------------------------------------------------------------------------------------


def _two_tower(
    encoder: TwoTower, assembly: Assembly, output: Explained, images: VisionInput, texts: TextInput
) -> Tensor:
    """Return the shares [N + L]; for `itc` those of each tower, which never meet."""
    towers = {"vision": _blocks_of(encoder.vision, "vision"), "text": _blocks_of(encoder.text, "text")}
    layers = [] if output.task == "itc" else _head_modules(encoder.fusion)
    with recorded([*towers["vision"], *towers["text"], *layers]) as maps:
        vision, text = encoded(assembly, images, texts)
        if output.task != "itc":
            encoder.fuse(vision, text, POOLED)
    counts = {"vision": vision.tokens.shape[1], "text": text.tokens.shape[1]}
    found = {name: _of_blocks(maps, towers[name], counts[name], name) for name in towers}
    if output.task == "itc":
        return torch.cat(
            [
                _read(encoder.vision, rolled(found["vision"]), vision.mask[0]),
                _read(encoder.text, rolled(found["text"]), text.mask[0]),
            ]
        )
    streams = _side_by_side(rolled(found["vision"]), rolled(found["text"]))
    fusion: Any = encoder.fusion
    masks = vision.mask[0], text.mask[0]
    if isinstance(fusion, MergedFusion):
        return _merged(fusion, maps, streams, masks)
    if isinstance(fusion, BridgeFusion):
        streams = _bridged(fusion, maps, found)
    elif isinstance(fusion, CrossFusion):
        for layer in fusion.layers:
            streams = _crossed(layer, maps, streams)
    return _poolers(fusion, streams, masks)


def _head_modules(fusion: nn.Module) -> list[nn.Module]:
    """Return the modules of a fusion head whose attention is recorded."""
    if isinstance(fusion, MergedFusion):
        return list(fusion.layers)
    if isinstance(fusion, CrossFusion | BridgeFusion):
        return [part for layer in fusion.layers for part in layer.children() if hasattr(part, "attention")]
    if isinstance(fusion, Concat):
        return []
    raise CapabilityError(
        f"The fusion head {type(fusion).__name__} is none of those whose attention can be rolled out (lxmert, "
        "co-attention, bridge, merged-attention, concat). Use attributions in its place."
    )


def _side_by_side(vision: Tensor, text: Tensor) -> _Streams:
    """Return the shares of two towers [N, N] and [L, L] among the tokens of both."""
    both = nn.functional.pad(vision, (0, len(text), 0, len(text)))
    both[len(vision) :, len(vision) :] = text
    return _Streams(both[: len(vision)], both[len(vision) :])


def _crossed(layer: Any, maps: Maps, streams: _Streams) -> _Streams:
    """Return the streams after a layer with cross attention both ways; the last may give their first tokens alone."""
    v, t = streams.vision, streams.text
    if isinstance(layer, LxmertLayer):  # one cross attention for both, first for the picture
        seen, said = maps[layer.cross]
        crossed_v, crossed_t = _half(v, seen[0], t), _half(t, said[0], v)
        return _Streams(
            _half(crossed_v, maps[layer.vision_self][0][0], crossed_v),
            _half(crossed_t, maps[layer.text_self][0][0], crossed_t),
        )
    assert isinstance(layer, CoAttentionLayer)
    own_v = _half(v, maps[layer.vision_self][0][0], v)
    own_t = _half(t, maps[layer.text_self][0][0], t)
    return _Streams(
        _half(own_v, maps[layer.vision_cross][0][0], t),
        _half(own_t, maps[layer.text_cross][0][0], v),
    )


def _bridged(fusion: BridgeFusion, maps: Maps, found: dict[str, list[Tensor]]) -> _Streams:
    """Return the streams of a bridge: before each layer one half of each comes from a block of its tower."""
    depth = len(fusion.layers)
    before = {name: len(blocks) - depth for name, blocks in found.items()}
    streams: _Streams | None = None
    for index, layer in enumerate(fusion.layers):
        vision, text = (rolled(found[name][: before[name] + index + 1]) for name in ("vision", "text"))
        linked = _side_by_side(vision, text)
        if streams is not None:
            linked = _Streams((streams.vision + linked.vision) / 2, (streams.text + linked.text) / 2)
        streams = _crossed(layer, maps, linked)
    assert streams is not None
    return streams


def _merged(fusion: MergedFusion, maps: Maps, streams: _Streams, masks: tuple[Tensor, Tensor]) -> Tensor:
    """Return the shares [N + L] in what is pooled of one stream of both; a class token of its own is no input."""
    inputs = torch.cat((streams.vision, streams.text))  # [N + L, N + L]
    shares = torch.cat((inputs.new_zeros(fusion.extra, inputs.shape[1]), inputs))
    for layer in fusion.layers:
        shares = _half(shares, maps[layer][0][0], shares)
    if fusion.extra:
        return shares[0]
    count = len(streams.vision)
    return _poolers(fusion, _Streams(shares[:count], shares[count:]), masks)


def _poolers(fusion: Any, streams: _Streams, masks: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean of the shares [N + L] in what the two poolers read."""
    pairs = zip((fusion.vision_pooler, fusion.text_pooler), (streams.vision, streams.text), masks, strict=True)
    rows = [shares[0] if pooler.class_token else shares[mask].mean(0) for pooler, shares, mask in pairs]
    return (rows[0] + rows[1]) / 2


def _read(tower: Any, shares: Tensor, mask: Tensor) -> Tensor:
    """Return the shares [N] in the vector of a tower [N, N]: of its class token, the last real one, or all."""
    if tower.class_token:
        return shares[0]
    if getattr(tower, "pooling", None) == "last":
        return shares[int(mask.sum()) - 1]
    return shares[mask].mean(0)
