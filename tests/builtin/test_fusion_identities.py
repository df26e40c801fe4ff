"""Fusion heads against closed forms, and what becomes of the text tower's blocks in them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from renaissance.api import Features
from renaissance.toolkit.attention import Attention, Block
from tests.builtin.fusion_cases import (
    LAYERS,
    TEXT,
    WIDE,
    assert_same,
    build,
    each,
    every,
    head,
    inputs,
    tower_blocks,
    varied,
)


def still(module: Attention | nn.Linear) -> None:
    """Make a module give zeros."""
    linear = module.output if isinstance(module, Attention) else module
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)


def loud(fusion: Any) -> Any:
    """Make linear layers larger than at the start, and leave norms as they are."""
    torch.manual_seed(4)
    for module in fusion.modules():
        if isinstance(module, nn.Linear):
            varied(module)
    return fusion


def test_co_attention_with_zeroed_cross_attention_is_two_stacks_of_self_attention() -> None:
    fusion = loud(build("co-attention", WIDE))
    vision, text = inputs()
    v, t = fusion.vision_projection(vision.tokens), fusion.text_projection(text.tokens)
    for layer in fusion.layers:
        still(layer.vision_cross.attention)
        still(layer.text_cross.attention)
        v = layer.vision_mlp(layer.vision_self(v, v, vision.mask))
        t = layer.text_mlp(layer.text_self(t, t, text.mask))
    found = fusion(vision, text, every("co-attention"))
    torch.testing.assert_close(found.vision.tokens, v, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.text.tokens, t, rtol=1e-5, atol=1e-5)


def test_bridge_with_zeroed_links_is_co_attention() -> None:
    fusion = loud(build("bridge", WIDE, shared_projection=False))
    plain = build("co-attention", WIDE)
    vision, text = inputs()
    start = {"vision": fusion.vision_links, "text": fusion.text_links}
    streams = {}
    for (name, links), features in zip(start.items(), (vision, text), strict=True):
        for projection in links.projections[1:]:
            still(projection)
        streams[name] = Features(links(0, features.layers[0], torch.zeros(())), features.mask)
    for name in ("layers", "vision_pooler", "text_pooler"):
        getattr(plain, name).load_state_dict(getattr(fusion, name).state_dict())
    plain.vision_projection = plain.text_projection = nn.Identity()
    assert_same(
        each(fusion(vision, text, every("bridge")), text),
        each(plain(streams["vision"], streams["text"], every("bridge")), text),
    )


def test_each_layer_of_a_bridge_reads_its_own_block_of_each_tower() -> None:
    fusion = head("bridge")
    vision, text = inputs()
    whole = fusion(vision, text, every("bridge")).pooled
    for index in range(3):
        layers = tuple(
            layer + (2.0 if here == index else 0.0) * torch.randn_like(layer) for here, layer in enumerate(text.layers)
        )
        moved = Features(text.tokens, text.mask, layers=layers)
        assert not torch.allclose(fusion(vision, moved, every("bridge")).pooled, whole)
    final = Features(torch.zeros_like(text.tokens), text.mask, layers=text.layers)
    torch.testing.assert_close(fusion(vision, final, every("bridge")).pooled, whole)


@pytest.mark.parametrize("case", ["merged-attention", "merged-attention, post-norm, no class token"])
def test_merged_attention_with_a_block_diagonal_mask_is_two_encoders(case: str) -> None:
    fusion = head(case)
    vision, text = inputs()
    v, t = fusion.vision_projection(vision.tokens), fusion.text_projection(text.tokens)
    both = torch.cat((v, t), dim=1)
    side = torch.arange(11) < 5
    mask = (side[:, None] == side[None, :]) & torch.cat((vision.mask, text.mask), dim=1)[:, None, :]
    for layer in fusion.layers:
        v, t, both = layer(v, vision.mask), layer(t, text.mask), layer(both, mask)
    torch.testing.assert_close(both, torch.cat((v, t), dim=1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("blocks", ["shared", "inherited"])
def test_given_text_blocks_with_zeroed_cross_attention_give_what_they_give_in_the_tower(blocks: str) -> None:
    given = [loud(Block(TEXT, 2, 40, 0.0)).eval() for _ in range(3)]
    fusion = build("text-cross-attention", {**LAYERS, "text_blocks": blocks}, given)
    vision, text = inputs()
    expected: Any = text.embedded if blocks == "shared" else text.tokens
    for layer, block in zip(fusion.cross, given, strict=True):
        still(layer.attention)
        expected = block(expected, text.mask)
    found = fusion(vision, text, frozenset({"text"})).text.tokens
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


# --- the text tower's blocks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["text-cross-attention", "q-former"])
def test_shared_blocks_stay_parameters_of_the_tower_alone_and_get_gradients(name: str) -> None:
    blocks = tower_blocks()
    fusion = build(name, {**LAYERS, "text_blocks": "shared"}, blocks)
    mine = {id(p) for p in fusion.parameters()}
    theirs = [p for block in blocks for p in block.parameters()]
    assert not mine & {id(p) for p in theirs}
    joint = fusion(*inputs(), frozenset({"pooled", "text"}))
    (joint.pooled.sum() + joint.text.tokens.square().sum()).backward()
    assert all(p.grad is not None for p in theirs)


@pytest.mark.parametrize("name", ["text-cross-attention", "q-former"])
def test_inherited_blocks_are_the_heads_own_and_keep_their_weights(name: str) -> None:
    blocks = tower_blocks()
    before = [{name: value.clone() for name, value in block.state_dict().items()} for block in blocks]
    fusion = build(name, {**LAYERS, "text_blocks": "inherited"}, blocks)
    for index, weights in enumerate(before):
        for key, value in weights.items():
            torch.testing.assert_close(fusion.state_dict()[f"blocks.{index}.{key}"], value, rtol=0, atol=0)


def test_shared_blocks_read_the_embedded_text_and_inherited_ones_the_encoded() -> None:
    vision, text = inputs()
    for kind, read in (("shared", "embedded"), ("inherited", "tokens")):
        fusion = head(f"text-cross-attention, {kind}")
        whole = fusion(vision, text, frozenset({"pooled"})).pooled
        for part in ("embedded", "tokens"):
            parts: dict[str, Any] = {"tokens": text.tokens, "embedded": text.embedded, part: torch.randn(3, 6, TEXT)}
            moved = fusion(vision, Features(mask=text.mask, **parts), frozenset({"pooled"})).pooled
            assert torch.allclose(moved, whole) == (part != read)


def test_queries_attend_to_vision_in_the_first_of_every_so_many_blocks() -> None:
    for every_so_many, count in ((1, 3), (2, 2), (3, 1)):
        assert len(head("q-former", cross_every=every_so_many).cross) == count


def test_the_fused_vision_stream_of_a_q_former_is_its_queries() -> None:
    joint = head("q-former")(*inputs(), frozenset({"vision"}))
    assert joint.vision.tokens.shape == (3, 4, 16)
    assert joint.vision.mask.all()


def test_without_a_pooler_the_vector_is_the_token_itself() -> None:
    fusion = head("text-cross-attention", pooler="none")
    joint = fusion(*inputs(), every("text-cross-attention"))
    torch.testing.assert_close(joint.pooled, joint.text.tokens[:, 0])
    queries = head("q-former, shared")(*inputs(), every("q-former"))
    torch.testing.assert_close(queries.pooled, queries.vision.tokens.mean(1))
