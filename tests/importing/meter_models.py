"""A small METER with random weights, made of the libraries' own parts under the names that its authors gave them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import BridgeTowerConfig, BridgeTowerTextConfig, RobertaConfig, RobertaModel
from transformers.models.bridgetower.modeling_bridgetower import (
    BridgeTowerBertCrossLayer,
    BridgeTowerITMHead,
    BridgeTowerMLMHead,
    BridgeTowerPooler,
)

from tests.importing.open_clip_models import SIZE, stirred

WORDS = ("<s>", "<pad>", "</s>", "<unk>", "a", "cup", "two", "very", "long", "cats", "that", "sleep", "red", "<mask>")
WIDTH, VISION, TEXT, TOKENS = 48, 32, 24, 20
HEADS = {"vision_heads": 2, "text_heads": 3, "fusion_heads": 4}


class Clip(nn.Module):
    """CLIP as METER keeps it: the vision transformer without its projection, and remains of the text side."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = VisionTransformer(
            image_size=SIZE, patch_size=8, width=VISION, layers=2, heads=2, mlp_ratio=4.0, act_layer=QuickGELU
        )
        self.visual.proj = None
        self.token_embedding = nn.Embedding(7, 5)
        self.positional_embedding = nn.Parameter(torch.zeros(4, 5))
        self.ln_final = nn.LayerNorm(5)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return all tokens [V, N, D] after the last norm."""
        tokens: Tensor = self.visual.ln_post(self.visual.transformer(self.visual._embeds(pixels)))
        return tokens


class Meter(nn.Module):
    """METER's forward for pairs of an image and a text: both streams, their joint vector, and what its heads say."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"hidden_size": WIDTH, "num_attention_heads": HEADS["fusion_heads"], "intermediate_size": 2 * WIDTH}
        cross = BridgeTowerTextConfig(**sizes, layer_norm_eps=1e-12, vocab_size=len(WORDS), pad_token_id=1)
        cross._attn_implementation = "eager"
        heads = BridgeTowerConfig(hidden_size=WIDTH, layer_norm_eps=1e-12, text_config=cross.to_dict())
        text = RobertaConfig(
            hidden_size=TEXT,
            num_hidden_layers=2,
            num_attention_heads=HEADS["text_heads"],
            intermediate_size=40,
            vocab_size=len(WORDS),
            max_position_embeddings=TOKENS + 2,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
        )
        self.cross_modal_text_transform = nn.Linear(TEXT, WIDTH)
        self.cross_modal_image_transform = nn.Linear(VISION, WIDTH)
        self.token_type_embeddings = nn.Embedding(2, WIDTH)
        self.vit_model = Clip()
        self.text_transformer = RobertaModel(text)
        self.cross_modal_image_layers = nn.ModuleList(BridgeTowerBertCrossLayer(cross) for _ in range(3))
        self.cross_modal_text_layers = nn.ModuleList(BridgeTowerBertCrossLayer(cross) for _ in range(3))
        self.cross_modal_image_pooler = BridgeTowerPooler(cross)
        self.cross_modal_text_pooler = BridgeTowerPooler(cross)
        self.mlm_score = BridgeTowerMLMHead(heads)
        self.itm_score = BridgeTowerITMHead(2 * WIDTH)

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Run on pixels [P, 3, H, W], token ids [P, L] and their mask bool [P, L]."""
        x = self.cross_modal_text_transform(self.text_transformer(ids, mask.long()).last_hidden_state)
        y = self.cross_modal_image_transform(self.vit_model(pixels))
        x, y = x + self.token_type_embeddings.weight[0], y + self.token_type_embeddings.weight[1]
        texts = (~mask).float()[:, None, None, :] * torch.finfo(torch.float32).min
        images = torch.zeros(len(y), 1, 1, y.shape[1])
        for text, image in zip(self.cross_modal_text_layers, self.cross_modal_image_layers, strict=True):
            x, y = text(x, y, texts, images)[0], image(y, x, images, texts)[0]
        pooled = torch.cat([self.cross_modal_text_pooler(x), self.cross_modal_image_pooler(y)], dim=-1)
        return {"text": x, "image": y, "pooled": pooled, "mlm": self.mlm_score(x), "itm": self.itm_score(pooled)}


def meter() -> Any:
    return stirred(Meter())


def tokenizer_folder(folder: Path) -> str:
    """Write a tokenizer with RoBERTa's special tokens into `folder`."""
    folder.mkdir(exist_ok=True)
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return str(folder)


def written(state: dict[str, Tensor], folder: Path) -> Path:
    """Write a checkpoint into `folder`; return its path."""
    save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, folder / "meter.safetensors")
    return folder / "meter.safetensors"


def options(folder: Path) -> dict[str, Any]:
    """Return what the importer must be told of this METER."""
    return {"tokenizer": tokenizer_folder(folder / "tokenizer"), **HEADS}
