"""Small BridgeTower models of transformers with random weights, their checkpoints, and inputs for both sides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    BridgeTowerConfig,
    BridgeTowerForContrastiveLearning,
    BridgeTowerForImageAndTextRetrieval,
    BridgeTowerForMaskedLM,
    BridgeTowerModel,
)

from renaissance.api import TextInput, VisionInput
from tests.importing.open_clip_models import stirred

SIZE, WIDTH, VISION, SHARED, BLOCKS, LAYERS = 24, 24, 128, 20, 4, 3
WORDS = ["a", "cup", "cat", "cats", "dog", "green", "mat", "on", "red", "sits", "the", "two"]
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
PADDING = 1
CAPTIONS = ("a cup", "the two cats on a green mat", "red")
FORMS = {
    "BridgeTowerModel": BridgeTowerModel,
    "BridgeTowerForMaskedLM": BridgeTowerForMaskedLM,
    "BridgeTowerForImageAndTextRetrieval": BridgeTowerForImageAndTextRetrieval,
    "BridgeTowerForContrastiveLearning": BridgeTowerForContrastiveLearning,
}


def bridgetower(
    form: str = "BridgeTowerModel",
    *,
    width: int = WIDTH,
    heads: int = 3,
    vision_blocks: int = BLOCKS,
    text_blocks: int = BLOCKS,
    **changes: Any,
) -> Any:
    """Return a model of transformers whose every parameter is random."""
    sizes = {"hidden_size": width, "num_attention_heads": heads}
    text = {
        **sizes,
        "num_hidden_layers": text_blocks,
        "intermediate_size": 72,
        "vocab_size": len(SPECIAL) + len(WORDS),
        "max_position_embeddings": 18,
    }
    vision = {"hidden_size": VISION, "num_hidden_layers": vision_blocks, "patch_size": 8, "image_size": SIZE}
    config = BridgeTowerConfig(
        **{**sizes, "num_hidden_layers": LAYERS, "contrastive_hidden_size": SHARED, "logit_scale_init_value": 1.5}
        | changes,
        text_config=text,
        vision_config=vision,
    )
    torch.manual_seed(1)
    return stirred(FORMS[form](config))


def written(model: Any, folder: Path) -> Path:
    """Write a model as transformers does, with its config and tokenizer, into `folder`."""
    model.save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def tokenizer() -> Tokenizer:
    """Return a tokenizer of words with RoBERTa's special tokens."""
    names = (*SPECIAL, *WORDS)
    made = Tokenizer(WordLevel({word: number for number, word in enumerate(names)}, unk_token="<unk>"))
    made.pre_tokenizer = Whitespace()
    made.add_special_tokens(list(SPECIAL))
    made.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return made


def unread(form: str = "BridgeTowerModel") -> list[str]:
    """Return what an import must be told to leave out: the pooler that nothing reads, and the head of fused pairs."""
    prefix = "" if form == "BridgeTowerModel" else "bridgetower."
    names = [f"{prefix}text_model.pooler.dense.{leaf}" for leaf in ("weight", "bias")]
    if form == "BridgeTowerForContrastiveLearning":
        names += [f"itc_cross_modal_head.fc.{leaf}" for leaf in ("weight", "bias")]
    return names


def change_config(folder: Path, **changes: Any) -> None:
    """Change values of the config.json in `folder`."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def inputs(model: Any) -> tuple[VisionInput, TextInput]:
    """Return pictures of noise, and captions of which all but one are padded, for one of our models."""
    pixels = torch.randint(0, 256, (3, 3, SIZE, SIZE), dtype=torch.uint8)
    texts = model.encoder.text.processor(list(CAPTIONS))
    assert not texts.mask.all()
    return VisionInput(pixels), texts


def outputs(reference: Any, model: Any, images: VisionInput, texts: TextInput) -> Any:
    """Return what the reference makes of inputs of one of our models, hidden states included."""
    pixels: Tensor = model.encoder.vision.processor.normalise(images.pixels)
    with torch.no_grad():
        return reference(texts.token_ids, texts.mask.long(), pixel_values=pixels, output_hidden_states=True)
