"""BridgeTower, both towers included: what is imported of transformers' models gives their hidden states and logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from renaissance.api import Joint, Output, TextInput, VisionInput
from renaissance.container import load
from renaissance.importing import import_checkpoint
from tests.importing.bridgetower_models import BLOCKS, VISION, WIDTH, bridgetower, inputs, outputs, unread, written

EVERY: frozenset[Output] = frozenset({"vision", "text", "pooled"})


class Both(NamedTuple):
    """One of our models with what transformers' model, whose weights it has, makes of the same inputs."""

    model: Any
    images: VisionInput
    texts: TextInput
    expected: Any

    def joint(self) -> Joint:
        """Return what our model makes of the inputs."""
        encoder = self.model.encoder
        with torch.no_grad():
            fused: Joint = encoder.fuse(encoder.encode_vision(self.images), encoder.encode_text(self.texts), EVERY)
        return fused


@pytest.fixture
def both(tmp_path: Path) -> Callable[..., Both]:
    """Return both sides of a form of BridgeTower, ours imported from what theirs saved."""

    def made(form: str, **changes: Any) -> Both:
        reference = bridgetower(form, **changes)
        import_checkpoint(
            "bridgetower", written(reference, tmp_path / "theirs"), tmp_path / "ours", leave_out=unread(form)
        )
        model = load(tmp_path / "ours").eval()
        images, texts = inputs(model)
        return Both(model, images, texts, outputs(reference, model, images, texts))

    return made


def test_each_block_of_both_towers_is_that_of_bridgetower(
    both: Callable[..., Both], parity: Callable[[str], Any]
) -> None:
    model, images, texts, expected = both("BridgeTowerModel")
    with torch.no_grad():
        text = model.encoder.text(texts, range(BLOCKS)).layers
        vision = model.encoder.vision(images, range(BLOCKS)).layers
    same = parity("transformers.BridgeTowerModel")
    for index in range(BLOCKS):
        same.close("text tower's hidden states", text[index], expected.hidden_states[0][index + 1], texts.mask)
        theirs = expected.hidden_states[1][index + 1].transpose(0, 1)  # [P, N, D]
        same.close("vision tower's hidden states", vision[index], theirs)


@pytest.mark.parametrize("shared", [True, False], ids=["one projection", "a projection for each layer"])
@pytest.mark.parametrize("layers", [1, 3, 4])
def test_the_whole_model_is_bridgetower(
    shared: bool, layers: int, both: Callable[..., Both], parity: Callable[[str], Any]
) -> None:
    pair = both("BridgeTowerModel", num_hidden_layers=layers, share_cross_modal_transformer_layers=shared)
    joint, expected, same = pair.joint(), pair.expected, parity("transformers.BridgeTowerModel")
    assert joint.vision is not None
    assert joint.text is not None
    assert joint.pooled is not None
    same.close("fused vision stream", joint.vision.tokens, expected.image_features)
    same.close("fused text stream", joint.text.tokens, expected.text_features, pair.texts.mask)
    swapped = torch.cat(expected.pooler_output.split(WIDTH, dim=-1)[::-1], dim=-1)  # theirs: text first
    same.close("pooled vector", joint.pooled, swapped)


@pytest.mark.parametrize("tied", [False, True])
def test_masked_language_modelling_is_that_of_bridgetower(
    tied: bool, both: Callable[..., Both], parity: Callable[[str], Any]
) -> None:
    pair = both("BridgeTowerForMaskedLM", tie_word_embeddings=tied)
    joint, head = pair.joint(), pair.model.tasks["mlm"]
    assert joint.text is not None
    logits = head.decoder(head.head(joint.text.tokens))
    same = parity("transformers.BridgeTowerForMaskedLM")
    same.close("logits of each token", logits, pair.expected.logits, pair.texts.mask)


def test_image_text_matching_is_that_of_bridgetower(both: Callable[..., Both], parity: Callable[[str], Any]) -> None:
    pair = both("BridgeTowerForImageAndTextRetrieval")
    found, theirs = pair.model.tasks["itm"].predict(pair.joint()), pair.expected.logits
    same = parity("transformers.BridgeTowerForImageAndTextRetrieval")
    same.close("logit, as the difference of both classes'", found, theirs[:, 1] - theirs[:, 0])
    same.close("probability of a match", found.sigmoid(), theirs.softmax(-1)[:, 1])


def test_contrast_is_that_of_bridgetower(both: Callable[..., Both], parity: Callable[[str], Any]) -> None:
    wide = {"width": VISION, "heads": 4}  # theirs adds the fusion's token types to the vision tower's tokens
    model, images, texts, expected = both("BridgeTowerForContrastiveLearning", **wide)
    encoder, head = model.encoder, model.tasks["itc"]
    with torch.no_grad():
        image_embeds = head.embed(encoder.represent(encoder.encode_vision(images), "vision"), "vision")
        text_embeds = head.embed(encoder.represent(encoder.encode_text(texts), "text"), "text")
    same = parity("transformers.BridgeTowerForContrastiveLearning")
    same.close("image embeddings", image_embeds, expected.image_embeds)
    same.close("text embeddings", text_embeds, expected.text_embeds)
    scale = model.tasks["itc"].log_scale.exp()
    theirs = expected.text_embeds @ expected.image_embeds.T * scale
    same.close("logits of texts and images", text_embeds @ image_embeds.T * scale, theirs)
