"""BLIP's image-text matching: its tokens, what it says of pairs, and its features, all with padding in the batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from renaissance.api import Features, Joint, Output, TextInput, VisionInput
from renaissance.container import load
from renaissance.importing import import_checkpoint
from tests.importing.fused_models import blip, blip_folder, inputs

REFERENCE = "transformers.BlipForImageTextRetrieval"
READ: frozenset[Output] = frozenset({"text", "pooled"})


@pytest.fixture(params=[1e-5, 1e-6], ids="norms of {}".format)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Any]:
    """Return a BLIP, and the model that its import wrote."""
    theirs = blip(layer_norm_eps=request.param)
    import_checkpoint("blip-itm", blip_folder(theirs, tmp_path / "theirs"), tmp_path / "ours")
    return theirs, load(tmp_path / "ours")


@torch.no_grad()
def encoded(ours: Any, pixels: Tensor, texts: TextInput) -> tuple[Features, Features, Joint]:
    encoder = ours.encoder
    vision, text = encoder.encode_vision(VisionInput(pixels)), encoder.encode_text(texts)
    return vision, text, encoder.fuse(vision, text, READ)


@torch.no_grad()
def expected(theirs: Any, ours: Any, pixels: Tensor, texts: TextInput, *, fused: bool) -> Any:
    images = ours.encoder.vision.processor.normalise(pixels)
    return theirs(texts.token_ids, images, use_itm_head=fused, attention_mask=texts.mask.long())


def test_the_tokens_of_both_towers_and_of_the_fusion_are_those_of_blip(
    pair: tuple[Any, Any], parity: Callable[[str], Any]
) -> None:
    theirs, ours = pair
    pixels, texts = inputs()
    vision, text, joint = encoded(ours, pixels, texts)
    alone, fused = (expected(theirs, ours, pixels, texts, fused=fused) for fused in (False, True))
    same = parity(REFERENCE)
    same.close("vision tokens", vision.tokens, alone.last_hidden_state)
    same.close("text tokens", text.tokens, alone.question_embeds, texts.mask)
    assert joint.text is not None
    same.close("fused text tokens", joint.text.tokens, fused.question_embeds, texts.mask)


def test_the_logit_of_a_match_is_that_of_blip_over_that_of_no_match(
    pair: tuple[Any, Any], parity: Callable[[str], Any]
) -> None:
    theirs, ours = pair
    pixels, texts = inputs()
    _, _, joint = encoded(ours, pixels, texts)
    scores = expected(theirs, ours, pixels, texts, fused=True).itm_score
    parity(REFERENCE).close("ITM logits", ours.tasks["itm"].predict(joint), scores[:, 1] - scores[:, 0])


def test_features_and_their_similarity_are_those_of_blip(pair: tuple[Any, Any], parity: Callable[[str], Any]) -> None:
    theirs, ours = pair
    pixels, texts = inputs()
    vision, text, _ = encoded(ours, pixels, texts)
    represent, itc = ours.encoder.represent, ours.tasks["itc"]
    found = itc.embed(represent(vision, "vision"), "vision"), itc.embed(represent(text, "text"), "text")
    output = expected(theirs, ours, pixels, texts, fused=False)
    images = normalize(theirs.vision_proj(output.last_hidden_state[:, 0]), dim=-1)
    same = parity(REFERENCE)
    same.close("ITC image features", found[0], images)
    same.close("ITC text features", found[1], normalize(theirs.text_proj(output.question_embeds[:, 0]), dim=-1))
    same.close("ITC similarity", found[0] @ found[1].T, output.itm_score)
