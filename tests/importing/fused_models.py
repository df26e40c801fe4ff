"""Small models of BLIP and of ALBEF with random weights, their checkpoints, and images with texts that are padded."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import BertConfig, BertForMaskedLM, BlipConfig, BlipForImageTextRetrieval, BlipTextConfig
from transformers.models.blip.modeling_blip_text import BlipTextLayer

from renaissance.api import TextInput
from renaissance.toolkit.text import TOKENIZER_FILE, WORDPIECE

SIZE, PATCH, VISION, WIDTH, SHARED, WORDS, LENGTH = 32, 8, 48, 32, 24, 4096, 16


def stirred(model: nn.Module) -> Any:
    """Move every parameter off the zeros and ones that some start from, where wrong wiring could not show."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


def written(state: dict[str, Tensor], folder: Path) -> Path:
    """Write a checkpoint, and its tokenizer beside it; return its path."""
    folder.mkdir(exist_ok=True)
    shutil.copy(WORDPIECE / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    save_file({name: tensor.detach().clone() for name, tensor in state.items()}, folder / "model.safetensors")
    return folder / "model.safetensors"


def inputs() -> tuple[Tensor, TextInput]:
    """Return uint8 pixels of three images, and three texts of different lengths."""
    pixels = torch.randint(0, 256, (3, 3, SIZE, SIZE), dtype=torch.uint8)
    mask = torch.arange(9) < torch.tensor([[5], [9], [2]])
    return pixels, TextInput(torch.randint(1, WORDS, (3, 9)).masked_fill(~mask, 0), mask)


def mask_bias(mask: Tensor) -> Tensor:
    """Return what is added to attention scores [B, 1, 1, L] for a mask [B, L]."""
    return (~mask).float()[:, None, None, :] * torch.finfo(torch.float32).min


# --- BLIP -----------------------------------------------------------------------------------------------------------


def blip(**vision: Any) -> Any:
    """Return a small BLIP with two words that no tokenizer gives, as the published ones have."""
    text = {"hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
    image = {"hidden_size": VISION, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
    config = BlipConfig(
        text_config={
            **text,
            "vocab_size": WORDS + 2,
            "max_position_embeddings": LENGTH,
            "encoder_hidden_size": VISION,
            "bos_token_id": None,
        },
        vision_config={**image, "image_size": SIZE, "patch_size": PATCH, **vision},
        image_text_hidden_size=SHARED,
    )
    return stirred(BlipForImageTextRetrieval(config))


def blip_folder(model: Any, folder: Path) -> Path:
    """Write a BLIP as its library does, with a tokenizer; return the folder."""
    model.save_pretrained(folder)
    shutil.copy(WORDPIECE / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    return folder


# --- ALBEF ----------------------------------------------------------------------------------------------------------


class Albef(nn.Module):
    """ALBEF out of classes that are installed: timm's ViT, and a BERT whose upper blocks are BLIP's."""

    def __init__(self, own: int = 2, fused: int = 3) -> None:
        super().__init__()
        self.own = own
        self.visual_encoder = VisionTransformer(
            img_size=SIZE, patch_size=PATCH, embed_dim=VISION, depth=2, num_heads=3, mlp_ratio=2.0, num_classes=0
        )
        sizes = {"hidden_size": WIDTH, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": own}
        config = {"vocab_size": WORDS, "max_position_embeddings": LENGTH, "attn_implementation": "eager"}
        self.text_encoder = BertForMaskedLM(BertConfig(**sizes, **config))
        upper = BlipTextConfig(**sizes, encoder_hidden_size=VISION, is_decoder=True)
        self.text_encoder.bert.encoder.layer.extend(BlipTextLayer(upper, own + index) for index in range(fused))
        self.vision_proj, self.text_proj = nn.Linear(VISION, SHARED), nn.Linear(WIDTH, SHARED)
        self.itm_head = nn.Linear(WIDTH, 2)
        self.temp = nn.Parameter(torch.tensor(0.07))

    def encode(self, pixels: Tensor, texts: TextInput) -> tuple[Tensor, Tensor, Tensor]:
        """Return the tokens of vision [B, N, D], of the text tower [B, L, W], and of the fusion [B, L, W]."""
        vision: Tensor = self.visual_encoder.forward_features(pixels)
        bias, layers = mask_bias(texts.mask), self.text_encoder.bert.encoder.layer
        hidden = self.text_encoder.bert.embeddings(texts.token_ids)
        for layer in layers[: self.own]:
            hidden = _output(layer(hidden, bias))
        text = hidden
        for layer in layers[self.own :]:
            hidden = _output(layer(hidden, encoder_hidden_states=vision, attention_mask=bias))
        return vision, text, hidden

    def features(self, vision: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return the unit vectors of both [B, S]."""
        return normalize(self.vision_proj(vision[:, 0]), dim=-1), normalize(self.text_proj(text[:, 0]), dim=-1)

    def checkpoint(self) -> dict[str, Tensor]:
        """Return the tensors as ALBEF names them, with those that its training needs."""
        state = {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}
        state["text_encoder.bert.embeddings.position_ids"] = torch.arange(LENGTH).unsqueeze(0)
        parts = ("visual_encoder", "text_encoder", "vision_proj", "text_proj")
        copies = {
            name.replace(part, f"{part}_m", 1): tensor + 1
            for name, tensor in state.items()
            for part in parts
            if name.startswith(f"{part}.")
        }
        queues = {"image_queue": torch.randn(SHARED, 8), "text_queue": torch.randn(SHARED, 8)}
        return state | copies | queues | {"queue_ptr": torch.zeros(1, dtype=torch.int64)}


def _output(output: Any) -> Tensor:
    tokens: Tensor = output[0] if isinstance(output, tuple) else output
    return tokens


def albef() -> Any:
    """Return a small ALBEF with random weights."""
    return stirred(Albef())
