"""METER, whose parts stand in installed libraries: streams, joint vector, and logits of matching and masked tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch

from renaissance.container import load
from renaissance.importing import import_checkpoint
from tests.importing.meter_models import meter, options, written
from tests.importing.open_clip_models import SIZE, noise_pictures

CAPTIONS = ["a red cup", "two very long cats that sleep", "cats"]


def test_an_imported_meter_is_that_of_its_parts(tmp_path: Path, parity: Callable[[str], Any]) -> None:
    whole, compare = meter(), parity("transformers.BridgeTowerBertCrossLayer")
    import_checkpoint("meter", written(whole.state_dict(), tmp_path), tmp_path / "ours", **options(tmp_path))
    ours: Any = load(tmp_path / "ours")
    pictures, texts = noise_pictures(), ours.encoder.text.processor(CAPTIONS)
    pixels = torch.stack([open_clip.image_transform(SIZE, is_train=False)(picture) for picture in pictures])
    assert not texts.mask.all()
    with torch.no_grad():
        expected = whole(pixels, texts.token_ids, texts.mask)
        vision = ours.encoder.encode_vision(ours.encoder.vision.processor(pictures))
        joint = ours.encoder.fuse(vision, ours.encoder.encode_text(texts), frozenset({"vision", "text", "pooled"}))
        masked, matched = ours.tasks["mlm"], ours.tasks["itm"].predict(joint)
        words = masked.decoder(masked.head(joint.text.tokens))
    compare.close("METER: image stream", joint.vision.tokens, expected["image"])
    compare.close("METER: text stream", joint.text.tokens, expected["text"], texts.mask)
    text, image = expected["pooled"].chunk(2, dim=-1)
    compare.close("METER: joint vector", joint.pooled, torch.cat([image, text], dim=-1))
    compare.close("METER: ITM logit", matched, expected["itm"][:, 1] - expected["itm"][:, 0])
    compare.close("METER: MLM logits", words, expected["mlm"], texts.mask)
