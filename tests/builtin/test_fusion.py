from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from renaissance.api import Features, Joint, Output, TowerFacts
from renaissance.builtin.fusion import CoAttentionLayer, CrossFusion, LxmertLayer, co_attention, dual, lxmert
from renaissance.builtin.fusion_entries import CrossOptions, DualOptions

OPTIONS = CrossOptions(layers=3, width=16, heads=2, dropout=0.0)
HEADS = {"lxmert": lxmert, "co-attention": co_attention}
ALL: frozenset[Output] = frozenset({"vision", "text", "pooled"})


def head(
    name: str, *, vision_token: bool = True, text_token: bool = True, options: CrossOptions = OPTIONS
) -> CrossFusion:
    torch.manual_seed(1)
    built = HEADS[name](OPTIONS, vision=TowerFacts(12, vision_token), text=TowerFacts(20, text_token)).eval()
    for parameter in built.parameters():  # larger than at the start, so that every path counts
        nn.init.normal_(parameter, std=0.3)
    return built


def inputs(pairs: int = 3, images: int = 5, words: int = 6) -> tuple[Features, Features]:
    """Return a vision stream [P, N, 12] without padding and a text stream [P, L, 20] with some."""
    generator = torch.Generator().manual_seed(2)
    mask = torch.arange(words) < torch.arange(words - pairs + 1, words + 1).unsqueeze(1)
    vision = Features(torch.randn(pairs, images, 12, generator=generator), torch.ones(pairs, images, dtype=torch.bool))
    return vision, Features(torch.randn(pairs, words, 20, generator=generator), mask)


def padded(features: Features, by: int) -> Features:
    tokens = torch.nn.functional.pad(features.tokens, (0, 0, 0, by), value=50.0)
    return Features(tokens, torch.nn.functional.pad(features.mask, (0, by)))


def each(joint: Joint) -> dict[str, Tensor]:
    found = {"pooled": joint.pooled}
    found |= {name: None if f is None else f.tokens for name, f in (("vision", joint.vision), ("text", joint.text))}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


@pytest.mark.parametrize("class_tokens", [True, False])
@pytest.mark.parametrize("name", HEADS)
def test_padding_changes_nothing(name: str, class_tokens: bool) -> None:
    fusion = head(name, vision_token=class_tokens, text_token=class_tokens)
    vision, text = inputs()
    plain = fusion(vision, text, ALL)
    wide = fusion(padded(vision, 3), padded(text, 4), ALL)
    torch.testing.assert_close(wide.pooled, plain.pooled, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(wide.vision.tokens[:, :5], plain.vision.tokens, rtol=1e-5, atol=1e-5)
    real = text.mask
    torch.testing.assert_close(wide.text.tokens[:, :6][real], plain.text.tokens[real], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_what_stands_in_the_padding_changes_nothing(name: str) -> None:
    fusion = head(name, text_token=False)
    vision, text = inputs()
    other = Features(text.tokens.masked_fill(~text.mask.unsqueeze(-1), 99.0), text.mask)
    torch.testing.assert_close(
        fusion(vision, other, ALL).pooled, fusion(vision, text, ALL).pooled, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("name", HEADS)
def test_an_item_does_not_see_its_batch(name: str) -> None:
    fusion = head(name)
    vision, text = inputs()
    whole = each(fusion(vision, text, ALL))
    for row in range(3):
        one = each(
            fusion(
                Features(vision.tokens[row : row + 1], vision.mask[row : row + 1]),
                Features(text.tokens[row : row + 1], text.mask[row : row + 1]),
                ALL,
            )
        )
        for output, value in one.items():
            torch.testing.assert_close(value[0], whole[output][row], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("class_tokens", [True, False])
@pytest.mark.parametrize("outputs", [{"pooled"}, {"text"}, {"vision"}, {"pooled", "text"}, {"vision", "text"}])
@pytest.mark.parametrize("name", HEADS)
def test_what_is_asked_for_alone_is_what_it_is_among_all(name: str, outputs: set[Output], class_tokens: bool) -> None:
    fusion = head(name, vision_token=class_tokens, text_token=class_tokens)
    vision, text = inputs()
    some, whole = each(fusion(vision, text, frozenset(outputs))), each(fusion(vision, text, ALL))
    assert set(some) == outputs
    for output, value in some.items():
        torch.testing.assert_close(value, whole[output], rtol=1e-5, atol=1e-5)


def test_less_is_computed_where_less_is_asked_for() -> None:
    fusion = head("lxmert")
    vision, text = inputs()
    calls: list[torch.Size] = []
    fusion.layers[-1].vision_mlp.register_forward_hook(lambda _, given, out: calls.append(out.shape))
    fusion(vision, text, frozenset({"text"}))
    assert calls == []
    fusion(vision, text, frozenset({"pooled"}))
    assert calls == [torch.Size([3, 1, 16])]


@pytest.mark.parametrize("class_tokens", [True, False])
@pytest.mark.parametrize("name", HEADS)
def test_a_gradient_reaches_every_parameter_from_pooled_and_text(name: str, class_tokens: bool) -> None:
    fusion = head(name, vision_token=class_tokens, text_token=class_tokens)
    joint = fusion(*inputs(), frozenset({"pooled", "text"}))
    (joint.pooled.square().sum() + joint.text.tokens.square().sum()).backward()
    silent = [name for name, p in fusion.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert [name for name in silent if not name.endswith("key.bias")] == []  # a key's bias cancels in a softmax


@pytest.mark.parametrize("name", HEADS)
def test_without_a_class_token_the_real_tokens_are_averaged(name: str) -> None:
    fusion = head(name, vision_token=False, text_token=False)
    vision, text = inputs()
    joint = fusion(vision, text, ALL)
    parts = []
    for features, pooler in ((joint.vision, fusion.vision_pooler), (joint.text, fusion.text_pooler)):
        means = torch.stack([t[m].mean(0) for t, m in zip(features.tokens, features.mask, strict=True)])
        parts.append(torch.tanh(pooler.dense(means)))
    torch.testing.assert_close(joint.pooled, torch.cat(parts, -1), rtol=1e-5, atol=1e-5)


def test_with_a_class_token_the_first_tokens_are_read() -> None:
    fusion = head("lxmert")
    joint = fusion(*inputs(), ALL)
    parts = [fusion.vision_pooler.dense(joint.vision.tokens[:, 0]), fusion.text_pooler.dense(joint.text.tokens[:, 0])]
    torch.testing.assert_close(joint.pooled, torch.tanh(torch.cat(parts, -1)))
    assert joint.pooled.shape == (3, fusion.pooled_width)


def test_co_attention_has_weights_of_its_own_for_each_stream_and_lxmert_shares_the_cross_attention() -> None:
    def names(layer: nn.Module) -> set[str]:
        return {name for name, _ in layer.named_children()}

    assert names(CoAttentionLayer(OPTIONS)) == {
        "vision_self", "vision_cross", "vision_mlp", "text_self", "text_cross", "text_mlp",
    }  # fmt: skip
    assert names(LxmertLayer(OPTIONS)) == {"cross", "vision_self", "text_self", "vision_mlp", "text_mlp"}


def test_co_attention_reads_the_other_stream_only_in_its_cross_attention() -> None:
    layer = CoAttentionLayer(OPTIONS).eval()
    nn.init.zeros_(layer.vision_cross.attention.output.weight)
    vision, text = torch.randn(2, 5, 16), torch.randn(2, 6, 16)
    masks = torch.ones(2, 5, dtype=torch.bool), torch.ones(2, 6, dtype=torch.bool)
    found = [layer.vision_stream(vision, other, *masks, "all") for other in (text, torch.randn(2, 6, 16))]
    torch.testing.assert_close(*found)
    texts = [layer.text_stream(other, text, *masks, "all") for other in (vision, torch.randn(2, 5, 16))]
    assert not torch.allclose(*texts)


def test_a_dual_head_projects_each_modality_into_one_space() -> None:
    fusion = dual(DualOptions(width=8), vision=TowerFacts(12, True), text=TowerFacts(20, True))
    assert fusion.project(torch.randn(2, 12), "vision").shape == (2, 8)
    assert fusion.project(torch.randn(3, 20), "text").shape == (3, 8)
    assert each(fusion(*inputs(), frozenset())) == {}
