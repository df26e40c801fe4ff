"""ALBEF out of the classes of timm and transformers that it is made of: tokens, features, ITM and MLM, with padding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from renaissance.api import Output, VisionInput
from renaissance.container import load
from renaissance.importing import import_checkpoint
from tests.importing.fused_models import albef, inputs, written

VISION, TEXT = "timm.VisionTransformer", "transformers.BertForMaskedLM"
FUSION = "transformers.BlipTextLayer"
READ: frozenset[Output] = frozenset({"text", "pooled"})


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Any, Any]:
    """Return an ALBEF, and the model that its import wrote."""
    theirs = albef()
    path = written(theirs.checkpoint(), tmp_path / "theirs")
    import_checkpoint("albef", path, tmp_path / "ours", vision_heads=3, text_heads=4)
    return theirs, load(tmp_path / "ours")


@torch.no_grad()
def test_tokens_features_and_heads_are_those_of_albef(pair: tuple[Any, Any], parity: Callable[[str], Any]) -> None:
    theirs, ours = pair
    pixels, texts = inputs()
    encoder, tasks = ours.encoder, ours.tasks
    vision, text = encoder.encode_vision(VisionInput(pixels)), encoder.encode_text(texts)
    joint = encoder.fuse(vision, text, READ)
    expected = theirs.encode(encoder.vision.processor.normalise(pixels), texts)
    parity(VISION).close("ALBEF: vision tokens", vision.tokens, expected[0])
    parity(TEXT).close("ALBEF: text tokens", text.tokens, expected[1], texts.mask)
    same = parity(FUSION)
    same.close("ALBEF: fused text tokens", joint.text.tokens, expected[2], texts.mask)
    classes = theirs.itm_head(expected[2][:, 0])
    same.close("ALBEF: ITM logits", tasks["itm"].predict(joint), classes[:, 1] - classes[:, 0])
    images = tasks["itc"].embed(encoder.represent(vision, "vision"), "vision")
    words = tasks["itc"].embed(encoder.represent(text, "text"), "text")
    features = theirs.features(*expected[:2])
    parity(VISION).close("ALBEF: ITC image features", images, features[0])
    parity(TEXT).close("ALBEF: ITC text features", words, features[1])
    scaled = tasks["itc"].log_scale.exp() * images @ words.T
    parity(TEXT).close("ALBEF: ITC similarity", scaled, features[0] @ features[1].T / theirs.temp)
    mlm = tasks["mlm"]
    predicted = theirs.text_encoder.cls(expected[2])
    parity(TEXT).close("ALBEF: MLM logits", mlm.decoder(mlm.head(joint.text.tokens)), predicted, texts.mask)
