from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from renaissance.api import Features, TextInput
from renaissance.models.two_tower import holds_still


@pytest.mark.parametrize("rules", ["", "frozen both"])
def test_padding_of_the_text_changes_nothing_from_end_to_end(
    rules: str, tiny_model: Callable[..., Any], tiny_batch: Any
) -> None:
    encoder = tiny_model(("itm",), rules).eval().encoder
    batch = tiny_batch(tiny_model(("itm",)))
    wide = TextInput(
        torch.nn.functional.pad(batch.texts.token_ids, (0, 9)), torch.nn.functional.pad(batch.texts.mask, (0, 9))
    )
    outputs = frozenset({"pooled", "text"})
    vision = encoder.encode_vision(batch.images)
    plain, padded = (encoder.fuse(vision, encoder.encode_text(texts), outputs) for texts in (batch.texts, wide))
    torch.testing.assert_close(padded.pooled, plain.pooled, rtol=1e-5, atol=1e-5)
    mask = batch.texts.mask
    found = padded.text.tokens[:, : mask.shape[1]][mask]
    torch.testing.assert_close(found, plain.text.tokens[mask], rtol=1e-5, atol=1e-5)


def test_a_pair_does_not_see_the_other_pairs(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model(("itm",)).eval()
    whole, one = tiny_batch(model, 4), tiny_batch(model, 1)
    results = []
    for batch in (whole, one):
        vision, text = model.encoder.encode_vision(batch.images), model.encoder.encode_text(batch.texts)
        results.append(model.encoder.fuse(vision, text, frozenset({"pooled"})).pooled[0])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_both_streams_reach_the_joint_vector(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model(("itm",)).eval()
    batch = tiny_batch(model)
    vision, text = model.encoder.encode_vision(batch.images), model.encoder.encode_text(batch.texts)
    pooled = [
        model.encoder.fuse(v, t, frozenset({"pooled"})).pooled
        for v, t in ((vision, text), (_rolled(vision), text), (vision, _rolled(text)))
    ]
    assert not torch.allclose(pooled[0], pooled[1])
    assert not torch.allclose(pooled[0], pooled[2])


def _rolled(features: Features) -> Features:
    return Features(features.tokens.roll(1, 0), features.mask.roll(1, 0))


def test_one_vector_represents_an_input_of_either_modality(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    for fusion, width in (("lxmert", 32), ("dual", 32)):
        model = tiny_model(("itc",), fusion=fusion).eval()
        batch = tiny_batch(model)
        vision = model.encoder.represent(model.encoder.encode_vision(batch.images), "vision")
        text = model.encoder.represent(model.encoder.encode_text(batch.texts), "text")
        assert vision.shape == text.shape == (4, width)


def test_the_facts_of_a_model_are_those_of_its_parts(tiny_model: Callable[..., Any]) -> None:
    facts = tiny_model(("itm",)).encoder.facts()
    assert (facts.vision, facts.text, facts.joint, facts.fused_text) == (32, 32, 64, 32)
    assert facts.tokenizer is not None
    assert facts.tokenizer.vocabulary == 4096
    dual = tiny_model(("itc",), fusion="dual").encoder.facts()
    assert (dual.joint, dual.fused_text, dual.shared_space) == (None, None, True)


def test_a_tower_holds_still_when_no_parameter_of_it_is_trained(tiny_model: Callable[..., Any]) -> None:
    assert holds_still(tiny_model(("itm",), "frozen text").encoder.text)
    assert not holds_still(tiny_model(("itm",), "frozen text[:1]").encoder.text)


def test_a_pair_without_a_slot_is_the_first_image_of_its_item(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model(("itm",)).eval()
    batch, encoder = tiny_batch(model), model.encoder
    encoder.set_slots(2)
    torch.nn.init.normal_(encoder.slots.weight)
    vision, text = encoder.encode_vision(batch.images), encoder.encode_text(batch.texts)
    plain, first, second = (
        encoder.fuse(vision, text, frozenset({"pooled"}), slots).pooled
        for slots in (None, torch.zeros(len(vision.tokens), dtype=torch.int64), torch.ones(len(vision.tokens)).long())
    )
    torch.testing.assert_close(plain, first)
    assert not torch.allclose(first, second)


def test_slots_that_stay_keep_what_was_learned_of_them(tiny_model: Callable[..., Any]) -> None:
    encoder = tiny_model(("itm",)).encoder
    encoder.set_slots(2)
    torch.nn.init.normal_(encoder.slots.weight)
    learned = encoder.slots.weight.detach().clone()
    encoder.set_slots(3)
    assert torch.equal(encoder.slots.weight[:2], learned)
    assert torch.equal(encoder.slots.weight[2], torch.zeros_like(learned[0]))
    encoder.set_slots(1)
    assert encoder.slots is None
