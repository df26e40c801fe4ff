"""Attention rollout: probabilities as libraries give them, shares that add up, and planted attention."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig, BertModel

from renaissance.api import TextInput
from renaissance.assemble import Assembly
from renaissance.errors import CapabilityError
from renaissance.explaining.attention import probabilities, recorded
from renaissance.explaining.outputs import Explained, plain_copy
from renaissance.explaining.pairs import Pair
from renaissance.explaining.rollout import attention_rollout, rolled
from renaissance.explaining.tokens import words_of
from tests.explaining.models import LINES, TEXT, VISION, made

SIZES = '{"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32}'
OPEN_CLIP = f"open-clip:ViT-B-32(overrides={SIZES})"


@pytest.mark.parametrize("kind", ["plain", "bool mask", "float mask", "causal", "grouped", "scaled"])
def test_probabilities_mix_the_values_as_torch_does(kind: str) -> None:
    query, key, value = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 5, 8), torch.randn(2, 4, 5, 8)
    cases: dict[str, dict[str, Any]] = {
        "bool mask": {"attn_mask": torch.rand(2, 1, 5, 5) > 0.3},
        "float mask": {"attn_mask": torch.randn(1, 4, 5, 5)},
        "causal": {"is_causal": True},
        "grouped": {"enable_gqa": True},
        "scaled": {"scale": 0.7},
    }
    named = cases.get(kind, {})
    if kind == "grouped":
        key, value = key[:, :2], value[:, :2]
    if kind == "bool mask":
        named["attn_mask"][..., 0] = True
    mixed = probabilities(query, key, value, **named)
    repeated = value.repeat_interleave(4 // value.shape[1], dim=1)
    torch.testing.assert_close(mixed @ repeated, F.scaled_dot_product_attention(query, key, value, **named))


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_recorded_maps_are_the_attentions_that_transformers_gives(implementation: str) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=50, attn_implementation=implementation, **sizes)
    model = BertModel(config, add_pooling_layer=False).eval()
    ids, mask = torch.randint(0, 50, (2, 7)), torch.ones(2, 7, dtype=torch.int64)
    mask[1, 4:] = 0
    with torch.no_grad(), recorded(model.encoder.layer) as maps:
        model(input_ids=ids, attention_mask=mask)
    model.set_attn_implementation("eager")
    expected = model(input_ids=ids, attention_mask=mask, output_attentions=True).attentions
    for layer, wanted in zip(model.encoder.layer, expected, strict=True):
        (found,) = maps[layer]
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("asked", [False, True])
def test_multi_head_attention_of_torch_gives_its_weights_and_the_same_output(asked: bool) -> None:
    layer, tokens = nn.MultiheadAttention(8, 2, batch_first=True).eval(), torch.randn(3, 5, 8)
    with torch.no_grad():
        plain, wanted = layer(tokens, tokens, tokens, average_attn_weights=False)
        with recorded([layer]) as maps:
            output, weights = layer(tokens, tokens, tokens, need_weights=asked)
    torch.testing.assert_close(output, plain)
    torch.testing.assert_close(maps[layer], [wanted])
    assert (weights is not None) is asked
    assert weights is None or torch.allclose(weights, wanted.mean(1))


def test_nothing_is_recorded_afterwards() -> None:
    layer = nn.MultiheadAttention(8, 2)
    with recorded([layer]) as maps:
        pass
    layer(*[torch.randn(3, 1, 8)] * 3)
    assert maps[layer] == []


def test_rollout_is_the_product_of_half_attention_and_half_identity() -> None:
    maps = [torch.rand(2, 4, 4).softmax(-1) for _ in range(3)]
    halves = [(torch.eye(4) + found.mean(0)).double() / 2 for found in maps]
    torch.testing.assert_close(rolled(maps), halves[2] @ halves[1] @ halves[0])


@pytest.mark.parametrize("task", ["itm", "itc"])
@pytest.mark.parametrize("name", LINES)
def test_shares_of_all_tokens_add_up_and_padding_has_none(name: str, task: str, pairs: list[Pair]) -> None:
    own = plain_copy(made(LINES[name]).assembly)
    images, texts = own.encoder.vision.processor([pairs[0].picture]), own.encoder.text.processor([pairs[0].text])
    blank = torch.full((1, 3), own.encoder.text.processor.facts.pad_id)
    padded = TextInput(torch.cat((texts.token_ids, blank), 1), torch.cat((texts.mask, torch.zeros(1, 3).bool()), 1))
    plain = attention_rollout(own, Explained(task), images, texts)
    more = attention_rollout(own, Explained(task), images, padded)
    torch.testing.assert_close(more.patches, plain.patches)
    torch.testing.assert_close(more.tokens[:-3], plain.tokens)
    assert not more.tokens[-3:].any()
    total = float(plain.patches.sum() + plain.tokens.sum())
    whole = 1 if task == "itm" else 2  # for itc each modality has its own vector
    assert 0.5 * whole < total < whole + 1e-9  # what is missing is of the class token, or of the head's own
    assert plain.patches.min() > 0 or name in ("concat", "lxmert")


def plant(own: Assembly, patch: int, place: int) -> None:
    """Let each token of a one-tower on ViT attend to one patch and one word, and change nothing but by attention."""
    encoder: Any = own.encoder
    width, heads = encoder.base.width, 2
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
        encoder.base.model.embeddings.position_embeddings[0, 1 + patch, 0] = 40.0
        encoder.other.embedder.table.weight[place, 0] = 40.0
        encoder.other.embedder.norm.weight[:] = 1.0
        for block in encoder.base.blocks:
            block.layernorm_before.weight[:] = 1.0
            for first in range(0, width, width // heads):
                block.attention.q_proj.bias[first] = 10.0  # of all queries
                block.attention.k_proj.weight[first, 0] = 1.0  # of the keys, what was planted


def test_planted_attention_is_found(pairs: list[Pair]) -> None:
    own = plain_copy(made(LINES["one-tower on vision"]).assembly)
    text = pairs[2].text
    plant(own, patch=9, place=4)
    images, texts = own.encoder.vision.processor([pairs[2].picture]), own.encoder.text.processor([text])
    found = attention_rollout(own, Explained("itm"), images, texts)
    assert found.patches.flatten().argmax() == 9
    assert found.tokens.argmax() in (0, 4)  # the first token is the one that is pooled
    assert found.tokens[1:].argmax() + 1 == 4
    word = next(word for word in words_of(own.encoder.text.processor, text) if word.start <= 4 < word.stop)
    assert found.tokens[word.start : word.stop].sum() > 10 * found.tokens[5:].sum()


@pytest.mark.parametrize("line", [f"{OPEN_CLIP} + {TEXT}", f"timm:test_vit(image_size=64) + {TEXT}"])
def test_towers_of_other_libraries_are_rolled_out(line: str, pairs: list[Pair]) -> None:
    own = plain_copy(made(f"{line}, random both, concat(width=32)").assembly)
    given = own.encoder.vision.processor([pairs[0].picture]), own.encoder.text.processor([pairs[0].text])
    found = attention_rollout(own, Explained("itm"), *given)
    assert found.patches.min() > 0
    assert 0.8 < float(found.patches.sum() + found.tokens.sum()) < 1


def test_a_tower_without_blocks_is_named(pairs: list[Pair]) -> None:
    line = f"timm:test_efficientnet(image_size=64) + {TEXT}, random both, lxmert(layers=1, width=32, heads=2)"
    own = plain_copy(made(line).assembly)
    given = own.encoder.vision.processor([pairs[0].picture]), own.encoder.text.processor([pairs[0].text])
    with pytest.raises(CapabilityError, match="The vision tower is TimmVision, which lists no blocks"):
        attention_rollout(own, Explained("itm"), *given)


def test_a_head_whose_attention_cannot_be_had_is_named(pairs: list[Pair]) -> None:
    own = plain_copy(made(f"{VISION} + {TEXT}, random both, q-former(layers=1, heads=2, queries=4)").assembly)
    given = own.encoder.vision.processor([pairs[0].picture]), own.encoder.text.processor([pairs[0].text])
    with pytest.raises(CapabilityError, match="The fusion head QFormer is none of those"):
        attention_rollout(own, Explained("itm"), *given)


def test_a_query_that_may_attend_to_nothing_has_no_probabilities() -> None:
    mask = torch.tensor([[True, True], [False, False]])
    found = probabilities(torch.randn(1, 1, 2, 4), torch.randn(1, 1, 2, 4), torch.randn(1, 1, 2, 4), mask)
    assert not found[0, 0, 1].any()
    assert math.isclose(found[0, 0, 0].sum(), 1, rel_tol=1e-6)
