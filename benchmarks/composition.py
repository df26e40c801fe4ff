"""What one writes without renaissance: the same towers and fusion layers of `transformers`, and both losses by hand.

Letters in shapes: P pairs (as many images and captions), N tokens of an image, L of a caption, D a tower's width,
W the fusion's width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, LxmertConfig
from transformers.models.lxmert.modeling_lxmert import LxmertAttention, LxmertXLayer

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Work:
    """What one step computes: P pairs, their masked captions, and the images that matching shows with the captions.

    pixels float [P, 3, H, W]; ids, masked_ids and labels int64 [P, L]; mask bool [P, L]; shown int64 [P]: the image of
    each pair in matching; matched bool [P]: whether it is the pair's own.
    """

    pixels: Tensor
    ids: Tensor
    mask: Tensor
    masked_ids: Tensor
    labels: Tensor
    shown: Tensor
    matched: Tensor

    def padded(self, length: int) -> Work:
        """Return the same work with captions padded to `length` tokens."""
        extra = (0, length - self.ids.shape[1])
        ids, mask, masked = (F.pad(part, extra) for part in (self.ids, self.mask, self.masked_ids))
        return Work(self.pixels, ids, mask, masked, F.pad(self.labels, extra, value=IGNORED), self.shown, self.matched)


class Composition(nn.Module):
    """Two towers and LXMERT's cross-modality layers, as `transformers` has them, with heads for MLM and ITM.

    vision, text: configs of the towers; fusion: the fusion's layers, width, heads and dropout. `frozen` towers have
    requires_grad=False, and nothing else is done about them here.
    """

    def __init__(
        self,
        vision: Mapping[str, Any],
        text: Mapping[str, Any],
        fusion: Mapping[str, Any],
        *,
        attention: str,
        frozen: frozenset[str],
    ) -> None:
        super().__init__()
        width = fusion["width"]
        configs = AutoConfig.for_model(**vision), AutoConfig.for_model(**text)
        self.vision = AutoModel.from_config(configs[0], attn_implementation=attention, add_pooling_layer=False)
        bare = {"add_pooling_layer": False} if text["model_type"] == "bert" else {}  # what nothing reads
        self.text = AutoModel.from_config(configs[1], attn_implementation=attention, **bare)
        self.vision_projection = nn.Linear(self.vision.config.hidden_size, width)
        self.text_projection = nn.Linear(self.text.config.hidden_size, width)
        self.layers = nn.ModuleList(LxmertXLayer(lxmert_config(fusion)) for _ in range(fusion["layers"]))
        self.vision_pooler = nn.Linear(width, width)
        self.text_pooler = nn.Linear(width, width)
        self.mlm_head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=1e-12))
        self.mlm_decoder = nn.Linear(width, self.text.config.vocab_size)
        self.itm_head = nn.Linear(2 * width, 1)
        for name in frozen:
            self.get_submodule(name).requires_grad_(False)

    def fuse(self, vision: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse vision [P, N, D] and text [P, L, D] under an additive mask [P, 1, 1, L]; return both streams."""
        vision, text = self.vision_projection(vision), self.text_projection(text)
        for layer in self.layers:
            text, vision = layer(text, mask, vision, None)
        return vision, text

    def match(self, vision: Tensor, text: Tensor) -> Tensor:
        """Return the logit of belonging together [P] from the first tokens of fused streams [P, N, W], [P, L, W]."""
        pooled = torch.tanh(self.vision_pooler(vision[:, 0])), torch.tanh(self.text_pooler(text[:, 0]))
        return self.itm_head(torch.cat(pooled, dim=-1)).squeeze(-1)  # type: ignore[no-any-return]


def plain_loss(model: Composition, work: Work) -> Tensor:
    """Return MLM + ITM as two passes of everything, the MLM head over every position of a full-length text."""
    mask = additive(work.mask)
    vision = model.vision(pixel_values=work.pixels).last_hidden_state
    text = model.text(input_ids=work.masked_ids, attention_mask=work.mask.long()).last_hidden_state
    _, text = model.fuse(vision, text, mask)
    logits = model.mlm_decoder(model.mlm_head(text))  # [P, L, vocabulary]
    mlm = F.cross_entropy(logits.flatten(0, 1), work.labels.flatten(), ignore_index=IGNORED)

    vision = model.vision(pixel_values=work.pixels[work.shown]).last_hidden_state
    text = model.text(input_ids=work.ids, attention_mask=work.mask.long()).last_hidden_state
    itm = F.binary_cross_entropy_with_logits(model.match(*model.fuse(vision, text, mask)), work.matched.float())
    return mlm + itm


def sensible_loss(model: Composition, work: Work) -> Tensor:
    """Return MLM + ITM: images encoded once, frozen towers without a graph, the MLM head at masked positions only."""
    mask = additive(work.mask)
    with _context(model.vision):
        vision = model.vision(pixel_values=work.pixels).last_hidden_state
    with _context(model.text):
        masked_text = model.text(input_ids=work.masked_ids, attention_mask=work.mask.long()).last_hidden_state
        plain_text = model.text(input_ids=work.ids, attention_mask=work.mask.long()).last_hidden_state
    _, text = model.fuse(vision, masked_text, mask)
    at = work.labels != IGNORED
    mlm = F.cross_entropy(model.mlm_decoder(model.mlm_head(text[at])), work.labels[at])
    logits = model.match(*model.fuse(vision[work.shown], plain_text, mask))
    return mlm + F.binary_cross_entropy_with_logits(logits, work.matched.float())


def additive(mask: Tensor) -> Tensor:
    """Return what is added to attention scores [P, 1, 1, L]: nothing for real tokens, the lowest float for padding."""
    return (~mask)[:, None, None, :] * torch.finfo(torch.float32).min


class FusedAttention(LxmertAttention):  # type: ignore[misc]  # transformers is untyped
    """LXMERT's attention, with the same parameters, on scaled-dot-product attention; without attention dropout."""

    def forward(
        self, hidden_states: Tensor, context: Tensor, attention_mask: Tensor | None = None, **unused: object
    ) -> tuple[Tensor]:
        """Return what each token of hidden_states [P, L, W] gathers from context [P, N, W]."""
        parts = (self.query(hidden_states), self.key(context), self.value(context))
        q, k, v = (part.unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2) for part in parts)
        gathered = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask)
        return (gathered.transpose(1, 2).flatten(2),)


def make_sensible(model: Composition) -> Composition:
    """Put frozen towers into eval mode, and scaled-dot-product attention into the fusion; return the model."""
    for part in model.layers.modules():
        if isinstance(part, LxmertAttention):
            part.__class__ = FusedAttention
    for tower in (model.vision, model.text):
        tower.train(not _frozen(tower))
    return model


# From our names of parameters to those of the composition; both hold the same tensors.
_NAMES = (
    (r"^encoder\.vision\.blocks\.", "vision.layers."),
    (r"^encoder\.text\.blocks\.", "text.encoder.layer."),
    (r"^encoder\.(vision|text)\.model\.", r"\1."),
    (r"^encoder\.fusion\.(vision|text)_pooler\.dense\.", r"\1_pooler."),
    (r"^encoder\.fusion\.", ""),
    (r"^(layers\.\d+)\.cross\.attention\.(query|key|value)\.", r"\1.visual_attention.att.\2."),
    (r"^(layers\.\d+)\.cross\.", r"\1.visual_attention."),
    (r"^(layers\.\d+)\.vision_", r"\1.visn_"),
    (r"^(layers\.\d+)\.text_", r"\1.lang_"),
    (r"_self\.attention\.(query|key|value)\.", r"_self_att.self.\1."),
    (r"_self\.", "_self_att."),
    (r"^(layers.*)\.attention\.output\.", r"\1.output.dense."),
    (r"_mlp\.inner\.", "_inter.dense."),
    (r"_mlp\.outer\.", "_output.dense."),
    (r"_mlp\.end\.norm\.", "_output.LayerNorm."),
    (r"^(layers.*)\.end\.norm\.", r"\1.output.LayerNorm."),
    (r"^tasks\.(mlm|itm)\.(head|decoder)\.", r"\1_\2."),
)


def copy_weights(assembly: nn.Module, model: Composition) -> None:
    """Give the composition the weights of our assembly; a tensor that only one of them has is an error."""
    model.load_state_dict({renamed(name): tensor for name, tensor in assembly.state_dict().items()})


def renamed(name: str) -> str:
    """Return what the composition calls one of our tensors."""
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _context(tower: nn.Module) -> Any:
    return torch.no_grad() if _frozen(tower) else nullcontext()


def _frozen(tower: nn.Module) -> bool:
    return not any(parameter.requires_grad for parameter in tower.parameters())


def lxmert_config(fusion: Mapping[str, Any]) -> LxmertConfig:
    """Return the config of the fusion's layers."""
    return LxmertConfig(
        hidden_size=fusion["width"],
        num_attention_heads=fusion["heads"],
        intermediate_size=4 * fusion["width"],
        hidden_dropout_prob=fusion["dropout"],
        attention_probs_dropout_prob=0.0,  # as in ours: attention kernels without dropout are the fast ones
    )
