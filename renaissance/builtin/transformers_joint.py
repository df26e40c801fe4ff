"""Text encoders of `transformers` whose blocks also run on tokens of another modality, or in halves.

What a block is called with comes from the library, as in `toolkit.layered`: masks from its own mask functions, and
all else from its own encoder, recorded. Own tokens come first and keep their positions; the others have none here.

Letters in shapes: B inputs, N own tokens, C the most that a model takes, M others, D width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers.masking_utils import (
    create_bidirectional_mask,
    create_bidirectional_sliding_window_mask,
    create_causal_mask,
)

from renaissance.api import Features
from renaissance.builtin.transformers_text_families import Family
from renaissance.toolkit.layered import Call, LayerState, record

EMBEDDING_PARTS = ("embeddings", "embeddings_project")


def embedded_tokens(model: nn.Module, arguments: Mapping[str, Any]) -> Tensor:
    """Return the tokens before the first block [B, N, D] of a model that would be called with these arguments."""
    embeddings, project = (getattr(model, name, None) for name in EMBEDDING_PARTS)
    given = {"input_ids": None, **arguments, "mask": arguments["attention_mask"]}
    taken = inspect.signature(cast(nn.Module, embeddings).forward).parameters
    hidden = cast(Any, embeddings)(**{name: value for name, value in given.items() if name in taken})
    return cast(Tensor, hidden if project is None else project(hidden))


Start = tuple[Tensor, tuple[Call, ...]]


def recorded_start(model: nn.Module, arguments: Mapping[str, Any], pad_id: int) -> Start:
    """Return the hidden state before the first block [B, N, D], and the call of each block, as the library has them."""
    return record(model, arguments)


def causal_start(model: nn.Module, arguments: Mapping[str, Any], pad_id: int) -> Start:
    """Return the same of CLIP, without what the library's model does with the ids after its blocks.

    It looks for one end-of-text id there, which tokenizers other than CLIP's do not have.
    """
    hidden, config = embedded_tokens(model, arguments), cast(Any, model).config
    mask = create_causal_mask(
        config=config, inputs_embeds=hidden, attention_mask=arguments["attention_mask"], past_key_values=None
    )
    encoder = model.get_submodule("encoder")
    return record(encoder, {"inputs_embeds": hidden, "attention_mask": mask, "is_causal": True})


def padded_start(model: nn.Module, arguments: Mapping[str, Any], pad_id: int) -> Start:
    """Return the same [B, C, D] of SigLIP, which was trained on texts padded to the longest, and sees the padding."""
    real = arguments["attention_mask"].bool()
    words: Any = cast(Any, model).get_input_embeddings()
    given = arguments["inputs_embeds"] if "inputs_embeds" in arguments else words(arguments["input_ids"])
    missing = cast(Any, model).config.max_position_embeddings - real.shape[1]
    padding = words(torch.tensor(pad_id, device=given.device))
    full = torch.where(pad(real, (0, missing)).unsqueeze(-1), pad(given, (0, 0, 0, missing)), padding)  # [B, C, D]
    hidden = embedded_tokens(model, {"inputs_embeds": full, "attention_mask": None})
    return record(model.get_submodule("encoder"), {"inputs_embeds": hidden, "attention_mask": None})


STARTS: Mapping[str, Callable[[nn.Module, Mapping[str, Any], int], Start]] = {
    "recorded": recorded_start,
    "causal": causal_start,
    "padded": padded_start,
}


def keep_embeddings(model: nn.Module) -> None:
    """Drop every part of a model that `embedded_tokens` does not use."""
    for name, _ in list(model.named_children()):
        if name not in EMBEDDING_PARTS:
            delattr(model, name)


def joined(model: nn.Module, family: Family, own: Features | None, other: Features | None) -> LayerState:
    """Return the state before the first block of own tokens [B, N, D] followed by others [B, M, D]."""
    streams = [stream for stream in (own, other) if stream is not None]
    hidden = torch.cat([stream.tokens for stream in streams], dim=1)  # [B, N + M, D]
    mask = torch.cat([stream.mask for stream in streams], dim=1)
    others = 0 if other is None else other.mask.shape[1]
    match cast(Any, model).config.model_type:
        case "modernbert":
            calls = _rotating_calls(model, hidden, mask, others)
        case "mpnet":
            calls = _biased_calls(model, family, hidden, mask, others)
        case _:
            calls = _encoder_calls(model, family, hidden, _attention_mask(model, hidden, mask))
    return LayerState(hidden, mask, calls)


def _attention_mask(model: nn.Module, hidden: Tensor, mask: Tensor) -> Tensor | None:
    """Return the mask bool [B, N] in the library's form."""
    config: Any = model.config
    form = create_bidirectional_mask(config=config, inputs_embeds=hidden, attention_mask=mask.to(torch.int64))
    return cast("Tensor | None", form)


def _encoder_calls(model: nn.Module, family: Family, hidden: Tensor, mask: Tensor | None) -> tuple[Call, ...]:
    """Return what the library's encoder calls its blocks with."""
    return record(model.get_submodule(family.body), {"hidden_states": hidden, "attention_mask": mask})[1]


def _biased_calls(model: nn.Module, family: Family, hidden: Tensor, mask: Tensor, others: int) -> tuple[Call, ...]:
    """Return MPNet's calls: the bias of distances [B, heads, N, N] is zero to and from other tokens."""
    own = hidden[:, : hidden.shape[1] - others]
    calls = _encoder_calls(model, family, own, _attention_mask(model, hidden, mask))
    bias = pad(calls[0].args[1], (0, others, 0, others))  # [B, heads, N + M, N + M]
    return tuple(replace(call, args=(call.args[0], bias, *call.args[2:])) for call in calls)


def _rotating_calls(model: nn.Module, hidden: Tensor, mask: Tensor, others: int) -> tuple[Call, ...]:
    """Return ModernBERT's calls: others are not rotated, and no window parts them from any token."""
    config: Any = model.config
    count = hidden.shape[1] - others
    local = create_bidirectional_sliding_window_mask(
        config=config,
        inputs_embeds=hidden,
        attention_mask=mask.to(torch.int64),
        or_mask_function=(lambda batch, head, row, column: (row >= count) | (column >= count)) if others else None,
    )
    masks = {"full_attention": _attention_mask(model, hidden, mask), "sliding_attention": local}
    rotations = {kind: _rotations(model, hidden[:, :count], kind, others) for kind in masks}
    return tuple(
        Call((), {"attention_mask": masks[kind], "position_embeddings": rotations[kind]}) for kind in config.layer_types
    )


def _rotations(model: nn.Module, own: Tensor, kind: str, others: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines [1, N + M, D / heads] of the rotations in blocks of one kind."""
    positions = torch.arange(own.shape[1], device=own.device).unsqueeze(0)
    cosines, sines = cast(Any, model).rotary_emb(own, positions, kind)
    return pad(cosines, (0, 0, 0, others), value=1.0), pad(sines, (0, 0, 0, others))


class HalvedBlock(nn.Module):
    """A block of BERT and its kin in two halves; it holds the library's block itself."""

    def __init__(self, block: nn.Module, config: Any) -> None:
        super().__init__()
        self.block = block
        self.config = config

    def attend(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return hidden [B, N, D] after self attention, residual and norm.

        mask bool [B, N] (True: real), or [B, N, N] (True: row may attend to column).
        """
        # scaled-dot-product attention, the one that we build with, takes a bool mask as it is
        prepared = mask.unsqueeze(1) if mask.ndim == 3 else mask
        form = create_bidirectional_mask(config=self.config, inputs_embeds=hidden, attention_mask=prepared)
        return cast(Tensor, cast(Any, self.block).attention(hidden, form)[0])

    def feed(self, hidden: Tensor) -> Tensor:
        """Return hidden [B, N, D] after the MLP, residual and norm."""
        return cast(Tensor, cast(Any, self.block).feed_forward_chunk(hidden))
