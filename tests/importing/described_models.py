"""Small two-tower models of transformers with random weights, saved with config, tokenizer and preprocessing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from transformers import (
    BertConfig,
    CLIPVisionConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    SiglipConfig,
    SiglipModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    ViTConfig,
)

from renaissance.toolkit.text import WORDPIECE
from tests.importing.open_clip_models import SIZE, stirred

BLOCKS: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 2}
IMAGE: dict[str, Any] = {"image_size": SIZE, "patch_size": 8}
WORDS: dict[str, Any] = {"vocab_size": 4096, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
PREPROCESSING = {"size": {"height": SIZE, "width": SIZE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
TEXTS = 24  # tokens of the longest text


def siglip_model(*, text_width: int = 32) -> Any:
    text = {"hidden_size": text_width, "intermediate_size": 48, "max_position_embeddings": TEXTS, **BLOCKS, **WORDS}
    vision = {"hidden_size": 32, "intermediate_size": 64, **BLOCKS, **IMAGE}
    return stirred(SiglipModel(SiglipConfig(text_config={**text, "projection_size": 32}, vision_config=vision)))


def vision_text_model(vision: Literal["vit", "clip"], text: Literal["bert", "roberta"]) -> Any:
    image = {"hidden_size": 48, "intermediate_size": 96, **BLOCKS, **IMAGE}
    words = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": TEXTS + 8, **BLOCKS, **WORDS}
    visions, texts = {"vit": ViTConfig, "clip": CLIPVisionConfig}, {"bert": BertConfig, "roberta": RobertaConfig}
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        visions[vision](**image), texts[text](**words), projection_dim=16
    )
    return stirred(VisionTextDualEncoderModel(config))


def saved(model: Any, folder: Path) -> Path:
    """Save a model as it is published; return its folder."""
    model.save_pretrained(folder)
    tokenizer = str(WORDPIECE / "tokenizer.json")
    PreTrainedTokenizerFast(
        tokenizer_file=tokenizer, pad_token="[PAD]", mask_token="[MASK]", unk_token="[UNK]"
    ).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING))
    return folder
