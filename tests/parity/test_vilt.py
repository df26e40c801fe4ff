"""ViLT: the tokens and the pooled vector of the model, and what its heads say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    ViltConfig,
    ViltForImageAndTextRetrieval,
    ViltForImagesAndTextClassification,
    ViltForMaskedLM,
    ViltForQuestionAnswering,
    ViltModel,
)

from renaissance.api import TextInput, VisionInput
from renaissance.container import load
from renaissance.importing import import_checkpoint

SIZE, PATCH, WIDTH, HEADS, VOCABULARY, LENGTH = 32, 8, 24, 3, 4096, 12
ALL = frozenset({"vision", "text", "pooled"})
# more than ten: config.json sorts their numbers as words
ANSWERS = tuple(f"answer {index}" for index in range(12))


def reference(kind: Any, **config: Any) -> Any:
    """Return a small ViLT whose every weight is random."""
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": HEADS, "intermediate_size": 40}
    texts = {"vocab_size": VOCABULARY, "max_position_embeddings": LENGTH}
    model = kind(ViltConfig(**sizes, **texts, image_size=SIZE, patch_size=PATCH, **config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


def imported(model: Any, folder: Path, **options: Any) -> Any:
    """Return our model of a checkpoint, as it is read again."""
    theirs = folder / "theirs"
    model.save_pretrained(theirs)
    import_checkpoint("vilt", theirs, folder / "ours", tokenizer="renaissance", **options)
    return load(folder / "ours")


def texts(count: int = 4) -> TextInput:
    """Return texts of different lengths, all but one padded."""
    mask = torch.arange(10) < torch.tensor([3, 10, 6, 8])[:count, None]
    return TextInput(torch.randint(5, VOCABULARY, mask.shape).masked_fill(~mask, 0), mask)


def pixels(size: int = SIZE, count: int = 4) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


def given(ours: Any, images: Tensor, words: TextInput) -> dict[str, Any]:
    """Return what the reference takes."""
    return {
        "input_ids": words.token_ids,
        "attention_mask": words.mask.long(),
        "pixel_values": ours.encoder.vision.processor.normalise(images),
        "pixel_mask": torch.ones(len(images), *images.shape[-2:], dtype=torch.long),
    }


@torch.no_grad()
def joined(ours: Any, images: Tensor, words: TextInput, slots: Tensor | None = None) -> Any:
    encoder = ours.encoder
    return encoder.fuse(encoder.encode_vision(VisionInput(images)), encoder.encode_text(words), ALL, slots)


def patches_of(model: Any, inputs: dict[str, Any], seed: int) -> Tensor:
    """Return the place of each token [P, 1 + N, 1] among ours: ViLT shuffles the patches of an image."""
    torch.manual_seed(seed)
    _, _, (places, (_, columns)) = model.embeddings.visual_embed(inputs["pixel_values"], inputs["pixel_mask"], -1)
    order = 1 + places[..., 0] * columns + places[..., 1]
    return torch.cat((torch.zeros_like(order[:, :1]), order), dim=1).unsqueeze(-1)


@pytest.mark.parametrize("size", [SIZE, 48, 24])
def test_tokens_and_pooled_vectors_are_those_of_vilt(size: int, parity: Callable[[str], Any], tmp_path: Path) -> None:
    model = reference(ViltModel)
    ours = imported(model, tmp_path, image_size=size)
    images, words = pixels(size), texts()
    inputs = given(ours, images, words)
    with torch.no_grad():
        order = patches_of(model, inputs, seed=3)
        torch.manual_seed(3)
        expected = model(**inputs)
    found, length = joined(ours, images, words), words.mask.shape[1]
    compared = parity("transformers.ViltModel")
    compared.close("text tokens", found.text.tokens, expected.last_hidden_state[:, :length], words.mask)
    reordered = found.vision.tokens.gather(1, order.expand(-1, -1, WIDTH))
    assert not torch.equal(order.squeeze(-1), order.squeeze(-1).sort(1).values)
    compared.close("image tokens", reordered, expected.last_hidden_state[:, length:])
    compared.close("pooled vector", found.pooled, expected.pooler_output)


def test_logits_of_masked_words_are_those_of_vilt(parity: Callable[[str], Any], tmp_path: Path) -> None:
    model = reference(ViltForMaskedLM)
    ours = imported(model, tmp_path)
    images, words = pixels(), texts()
    with torch.no_grad():
        expected = model(**given(ours, images, words)).logits
        task = ours.tasks["mlm"]
        found = task.decoder(task.head(joined(ours, images, words).text.tokens))
    parity("transformers.ViltForMaskedLM").close("logits", found, expected, words.mask)


def test_matching_logits_are_those_of_vilt(parity: Callable[[str], Any], tmp_path: Path) -> None:
    model = reference(ViltForImageAndTextRetrieval)
    ours = imported(model, tmp_path)
    images, words = pixels(), texts()
    with torch.no_grad():
        expected = model(**given(ours, images, words)).logits.squeeze(1)
        found = ours.tasks["itm"].predict(joined(ours, images, words))
    parity("transformers.ViltForImageAndTextRetrieval").close("logits", found, expected)


def test_answers_are_those_of_vilt(parity: Callable[[str], Any], tmp_path: Path) -> None:
    model = reference(ViltForQuestionAnswering, id2label=dict(enumerate(ANSWERS)))
    ours = imported(model, tmp_path)
    images, words, each = pixels(), texts(), torch.arange(4)
    with torch.no_grad():
        expected = model(**given(ours, images, words)).logits
        found = ours.tasks["vqa"].predict(joined(ours, images, words), each, each * 0)
    parity("transformers.ViltForQuestionAnswering").close("logits", found, expected)
    assert ours.tasks["vqa"].labels == ANSWERS


def test_what_is_true_of_two_images_is_that_of_vilt(parity: Callable[[str], Any], tmp_path: Path) -> None:
    model = reference(ViltForImagesAndTextClassification, num_images=2, modality_type_vocab_size=3)
    ours = imported(model, tmp_path)
    first, second, words = pixels(count=3), pixels(count=3), texts(3)
    inputs = given(ours, first, words)
    both = torch.stack([ours.encoder.vision.processor.normalise(images) for images in (first, second)], 1)
    inputs |= {"pixel_values": both, "pixel_mask": torch.ones(3, 2, SIZE, SIZE, dtype=torch.long)}
    items, slots = torch.arange(3).repeat(2), torch.tensor([0, 0, 0, 1, 1, 1])
    twice = TextInput(words.token_ids.repeat(2, 1), words.mask.repeat(2, 1))
    with torch.no_grad():
        expected = model(**inputs).logits
        joint = joined(ours, torch.cat((first, second)), twice, slots)
        found = ours.tasks["nlvr2"].predict(joint, items, slots)
    parity("transformers.ViltForImagesAndTextClassification").close("logits", found, expected)


def test_gradients_are_those_of_vilt(parity: Callable[[str], Any], tmp_path: Path) -> None:
    model = reference(ViltForImageAndTextRetrieval)
    ours = imported(model, tmp_path)
    images, words, encoder = pixels(), texts(), ours.encoder
    model(**given(ours, images, words)).logits.square().sum().backward()
    joint = encoder.fuse(encoder.encode_vision(VisionInput(images)), encoder.encode_text(words), ALL)
    ours.tasks["itm"].predict(joint).square().sum().backward()
    theirs, patches = model.vilt, encoder.base.model.embeddings.patch_embeddings
    pairs = {
        "patches": (patches.projection, theirs.embeddings.patch_embeddings.projection),
        "types": (encoder.types, theirs.embeddings.token_type_embeddings),
        "first block": (encoder.base.blocks[0].mlp.fc1, theirs.encoder.layer[0].intermediate.dense),
    }
    compared = parity("transformers.ViltForImageAndTextRetrieval")
    for what, (own, reference_part) in pairs.items():
        scale = reference_part.weight.grad.abs().max()
        compared.close(f"gradient of {what}", own.weight.grad / scale, reference_part.weight.grad / scale)
