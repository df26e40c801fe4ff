from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from renaissance.api import Features, TextInput, TokenizerFacts, VisionInput
from renaissance.toolkit.canonical import encode_canonical, text_lengths


class TinyVision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
        self.calls: list[tuple[int, ...]] = []

    def forward(self, inputs: VisionInput, layers: tuple[int, ...] = ()) -> Features:
        self.calls.append(tuple(inputs.pixels.shape))
        tokens = self.network.forward_features(inputs.pixels).flatten(2).transpose(1, 2)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
        return Features(tokens, mask, tokens.mean(1), tuple(tokens * (1 + layer) for layer in layers))


class Processor:
    facts = TokenizerFacts(vocabulary=64, pad_id=0, mask_id=4, special_ids=(0, 1, 2), max_tokens=30)


class TinyText(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
        )
        self.network = BertModel(config, add_pooling_layer=False)
        self.processor = Processor()
        self.calls: list[tuple[int, ...]] = []

    def forward(self, inputs: TextInput, layers: tuple[int, ...] = ()) -> Features:
        self.calls.append(tuple(inputs.token_ids.shape))
        tokens = self.network(input_ids=inputs.token_ids, attention_mask=inputs.mask.long()).last_hidden_state
        return Features(tokens, inputs.mask, None, tuple(tokens * (1 + layer) for layer in layers))


@pytest.fixture(scope="module")
def vision() -> TinyVision:
    torch.manual_seed(0)
    return TinyVision().eval()


@pytest.fixture(scope="module")
def text() -> TinyText:
    torch.manual_seed(0)
    return TinyText().eval()


def pictures(count: int) -> Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def sentences(lengths: list[int], width: int | None = None) -> TextInput:
    ids = torch.zeros(len(lengths), width or max(lengths), dtype=torch.int64)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(5, 64, (length,), generator=torch.Generator().manual_seed(row))
    return TextInput(ids, ids > 0)


def chosen(inputs: TextInput, rows: list[int]) -> TextInput:
    return TextInput(inputs.token_ids[rows], inputs.mask[rows])


LENGTHS = [3, 8, 9, 17, 30, 5, 5, 24, 25, 1, *[6] * 20]


@pytest.mark.parametrize("rows", [[7], [18, 0, 7], list(range(19))[::-1], [3, 3, 3]])
def test_an_image_gives_the_same_bits_in_any_batch(vision: TinyVision, rows: list[int]) -> None:
    everything = encode_canonical(vision, VisionInput(pictures(19)))
    some = encode_canonical(vision, VisionInput(pictures(19)[rows]))
    assert torch.equal(some.tokens, everything.tokens[rows])
    assert some.pooled is not None
    assert everything.pooled is not None
    assert torch.equal(some.pooled, everything.pooled[rows])


@pytest.mark.parametrize("rows", [[4], [9], [0, 29, 4], list(range(30))[::-1]])
def test_a_text_gives_the_same_bits_in_any_batch_and_order(text: TinyText, rows: list[int]) -> None:
    inputs = sentences(LENGTHS)
    everything, some = encode_canonical(text, inputs), encode_canonical(text, chosen(inputs, rows))
    length = some.tokens.shape[1]
    assert length == max(LENGTHS[row] for row in rows)
    assert torch.equal(some.tokens, everything.tokens[rows][:, :length])
    assert torch.equal(some.mask, everything.mask[rows][:, :length])


def test_padding_changes_nothing(text: TinyText) -> None:
    short, padded = sentences([3, 7]), sentences([3, 7], width=29)
    assert torch.equal(encode_canonical(text, short).tokens, encode_canonical(text, padded).tokens)


def test_padded_positions_are_zero(text: TinyText) -> None:
    features = encode_canonical(text, sentences([2, 13]), layers=(0,))
    assert not features.tokens[0, 2:].any()
    assert not features.layers[0][0, 2:].any()


def test_every_call_has_a_canonical_shape(vision: TinyVision, text: TinyText) -> None:
    vision.calls.clear()
    text.calls.clear()
    encode_canonical(vision, VisionInput(pictures(11)))
    encode_canonical(text, sentences([*[3] * 9, 17, 30]))
    assert vision.calls == [(4, 3, 64, 64)] * 3
    # 30 tokens are the most that this tower takes: its last bucket ends there
    assert text.calls == [(8, 8), (8, 8), (2, 24), (2, 30)]


def test_the_result_is_what_the_tower_computes(vision: TinyVision, text: TinyText) -> None:
    pixels, inputs = pictures(3), sentences([4, 11])
    with torch.no_grad():
        torch.testing.assert_close(
            encode_canonical(vision, VisionInput(pixels)).tokens, vision(VisionInput(pixels)).tokens
        )
        plain = text(inputs).tokens * inputs.mask.unsqueeze(-1)
    torch.testing.assert_close(encode_canonical(text, inputs).tokens, plain, atol=1e-5, rtol=1e-5)


def test_layers_come_back_in_the_order_of_the_inputs(vision: TinyVision) -> None:
    features = encode_canonical(vision, VisionInput(pictures(9)), layers=(0, 1))
    assert torch.equal(features.layers[0], features.tokens)
    assert torch.equal(features.layers[1], features.tokens * 2)


def test_no_graph_is_built_and_autocast_changes_nothing(text: TinyText) -> None:
    inputs = sentences([4, 11])
    plain = encode_canonical(text, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encode_canonical(text, inputs).tokens, plain.tokens)
    assert not plain.tokens.requires_grad
    assert not plain.tokens.is_inference()


def test_text_lengths_count_up_to_the_last_real_token() -> None:
    mask = torch.tensor([[True, True, False], [False, True, False], [False, False, False]])
    assert text_lengths(TextInput(mask.long(), mask)).tolist() == [2, 2, 1]
