"""The text encoders of Hugging Face `transformers`, run block by block where we know their blocks.

Letters in shapes: T texts, L tokens, M tokens of another modality, D width, E width of the word embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from renaissance.api import Features, Positions, TextBlock, TextInput
from renaissance.builtin.transformers_joint import (
    EMBEDDING_PARTS,
    STARTS,
    HalvedBlock,
    embedded_tokens,
    joined,
    keep_embeddings,
)
from renaissance.builtin.transformers_options import Pooling
from renaissance.builtin.transformers_plain import plain_model
from renaissance.builtin.transformers_sizes import config_values
from renaissance.builtin.transformers_text_families import Family
from renaissance.builtin.transformers_text_length import lengthen, position_tables
from renaissance.builtin.transformers_text_positions import HALVED, TEXT_POSITIONS
from renaissance.errors import SpecError
from renaissance.toolkit.layered import LayerState, fold, modules_at, run_block, take_blocks
from renaissance.toolkit.pooling import masked_mean
from renaissance.toolkit.text import WordTokenizer


class LayeredText(nn.Module):
    """A text encoder whose blocks run one by one. `config` is what `_restored` builds it from."""

    def __init__(self, model: nn.Module, family: Family, processor: WordTokenizer, config: Mapping[str, Any]) -> None:
        super().__init__()
        _absorb_convolution(model)
        _drop_unused_head(model, config["pooling"])
        if not config.get("pooler", False) and isinstance(getattr(model, "pooler", None), nn.Module):
            cast(Any, model).pooler = nn.Identity()  # some are built with it whatever they are told
        self.family = family
        self._start = STARTS[family.start]
        self.positions: Positions = TEXT_POSITIONS[cast(Any, model).config.model_type]
        self.blocks = take_blocks(model, family.blocks, pair=family.pair)
        self.model = model
        self.embeddings = modules_at(model, family.embeddings)
        self._pools = bool(config.get("pooler", False))
        self.final = modules_at(model, (*family.final, *(("pooler",) if self._pools else ())))
        _set_facts(self, model, processor, config)

    width: int
    class_token: bool
    pooling: Pooling
    processor: WordTokenizer
    config: Mapping[str, Any]
    revision: str | None

    def forward(self, inputs: TextInput, layers: Sequence[int] = ()) -> Features:
        """Encode token ids [T, L] (or embeddings [T, L, E]) with their mask [T, L]; return tokens [T, L, D].

        Raises:
            SpecError: a text is longer than the model takes, or there is no such layer.
        """
        features, length = fold(self, inputs, layers), inputs.mask.shape[1]
        return replace(features, layers=tuple(layer[:, :length] for layer in features.layers))

    def embed(self, inputs: TextInput) -> LayerState:
        """Return the state before the first block."""
        arguments = model_arguments(self.model, inputs, self.processor)
        hidden, calls = self._start(self.model, arguments, self.processor.facts.pad_id)
        return LayerState(hidden, inputs.mask, calls)

    def step(self, index: int, state: LayerState) -> LayerState:
        """Run one block."""
        return run_block(self.blocks[index], index, state)

    def finish(self, state: LayerState) -> Features:
        """Apply the final norm, where there is one, and pool."""
        tokens, length = state.hidden, state.mask.shape[1]
        for module in self._norms:
            tokens = module(tokens)
        if self._pooler is not None:
            pooled = self._pooler(tokens)
        elif self.family.start == "padded" and self.pooling == "last":
            pooled = self._head(tokens[:, -1])
        else:
            pooled = pool(tokens[:, :length], state.mask, self.pooling)
        return Features(tokens[:, :length], state.mask, pooled)

    def embedded(self, inputs: TextInput) -> Features:
        """Return the tokens [T, L, D] before the first block, with their mask.

        Raises:
            SpecError: a text is longer than the model takes.
        """
        arguments = model_arguments(self.model, inputs, self.processor)
        return Features(embedded_tokens(self.model, arguments), inputs.mask)

    @property
    def _norms(self) -> Sequence[nn.Module]:
        return tuple(module for module in self.final if module is not self._head and module is not self._pooler)

    @property
    def _pooler(self) -> nn.Module | None:
        """BERT's own pooler, where it is kept."""
        return cast(nn.Module, self.model.pooler) if self._pools else None

    @property
    def _head(self) -> nn.Module:
        """What SigLIP applies to the pooled vector."""
        head = getattr(self.model, "head", None)
        return head if head is not None else nn.Identity()

    def keep_embeddings(self) -> None:
        """Drop the blocks and what follows them, for good: `embedded` is all that still works."""
        keep_embeddings(self.model)
        self.config = {**self.config, "embeddings_only": True}
        self.blocks = cast("Sequence[nn.Module]", nn.ModuleList())
        self.embeddings = modules_at(self.model, EMBEDDING_PARTS)
        if position_tables(self.model):  # distances were counted in the blocks; what is left adds a table
            self.positions = "absolute"
        self.final = ()

    def text_blocks(self) -> Sequence[TextBlock]:
        """Return the blocks in halves; they hold the very parameters of `blocks`.

        Raises:
            SpecError: the blocks of this model type are not BERT's.
        """
        if self._model_type not in HALVED:
            raise SpecError(
                f"A fusion head cannot run the blocks of the model type {self._model_type!r}: they are not an "
                f"attention and an MLP that each end with a norm. Use a text tower of one of these types: "
                f"{', '.join(sorted(HALVED))}."
            )
        return tuple(HalvedBlock(block, self.model.config) for block in self.blocks)

    def resize(self, size: int) -> tuple[str, ...]:
        """Take texts of up to `size` tokens from now on; return the names of the tensors that got longer.

        Raises:
            SpecError: `size` leaves no room for text beside the special tokens.
        """
        self.processor = self.processor.with_max_tokens(size)
        longer = {id(parameter) for parameter in lengthen(self.model, size)}
        self.config = {**self.config, "transformers": config_values(cast(PreTrainedConfig, self.model.config))}
        return tuple(name for name, parameter in self.named_parameters() if id(parameter) in longer)

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write the tokenizer's files; return the config."""
        self.processor.save(folder)
        return self.config

    def to_transformers(self) -> nn.Module:
        """Return a copy as a plain model of `transformers`.

        Raises:
            CapabilityError: only the embeddings were kept, or it has adapters.
        """
        return plain_model(self.model, self.blocks, self.family.blocks, self.config, add_pooling_layer=self._pools)

    @property
    def _model_type(self) -> str:
        return cast(str, cast(Any, self.model).config.model_type)


class JointText(LayeredText):
    """A layered text encoder that one-tower models can be based on.

    A class of its own, so that a tower has `join` exactly where its blocks take tokens of another modality.
    """

    def join(self, own: Features | None, other: Features | None) -> LayerState:
        """Return the state before the first block of own tokens [T, L, D] followed by others [T, M, D]."""
        return joined(self.model, self.family, own, other)


class ConvolvedBlock(nn.Module):
    """The first block of the DeBERTa-v2 models that add a convolution of the block's input to its output."""

    def __init__(self, block: nn.Module, convolution: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.convolution = convolution

    def forward(self, hidden: Tensor, attention_mask: Tensor, **kwargs: Any) -> Tensor:
        """Return hidden [T, L, D]; attention_mask [T, 1, L, L], non-zero where both tokens are real."""
        output = self.block(hidden, attention_mask, **kwargs)[0]
        real = (attention_mask.sum(-2) > 0).squeeze(1).long()  # [T, L]
        return cast(Tensor, self.convolution(hidden, output, real))


def _absorb_convolution(model: nn.Module) -> None:
    """Make the convolution that some DeBERTa-v2 models run between their first two blocks a part of the first."""
    encoder: Any = getattr(model, "encoder", None)
    if isinstance(getattr(encoder, "conv", None), nn.Module):
        encoder.layer[0] = ConvolvedBlock(encoder.layer[0], encoder.conv)
        encoder.conv = None


def _drop_unused_head(model: nn.Module, pooling: Pooling) -> None:
    """Drop SigLIP's last projection where it is not on the way to the pooled vector, or would change its width."""
    head, config = getattr(model, "head", None), cast(Any, model).config
    if isinstance(head, nn.Linear) and (pooling != "last" or head.out_features != config.hidden_size):
        cast(Any, model).head = None


def _set_facts(tower: LayeredText, model: nn.Module, processor: WordTokenizer, config: Mapping[str, Any]) -> None:
    tower.width = cast(PreTrainedConfig, model.config).hidden_size
    tower.pooling = config["pooling"]
    tower.class_token = tower.pooling == "first"
    tower.processor = processor
    tower.config = config
    tower.revision = config["revision"]


def model_arguments(model: nn.Module, inputs: TextInput, processor: WordTokenizer) -> dict[str, Any]:
    """Return what the library's model is called with.

    Raises:
        SpecError: the texts have more tokens than the model takes.
    """
    length, longest = inputs.mask.shape[1], processor.facts.max_tokens
    if length > longest:
        raise SpecError(
            f"The texts have {length} tokens, but max_tokens is {longest}. Truncate them, or raise max_tokens."
        )
    config: Any = model.config
    arguments: dict[str, Any] = {"attention_mask": inputs.mask.to(torch.int64)}
    if inputs.embeddings is not None:
        arguments["inputs_embeds"] = inputs.embeddings
    else:
        arguments["input_ids"] = inputs.token_ids
    types = getattr(config, "type_vocab_size", None) or 0
    if inputs.segment_ids is not None and isinstance(types, int) and types > 1:
        arguments["token_type_ids"] = inputs.segment_ids
    return arguments


def pool(tokens: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Return one vector for each text [T, D] from tokens [T, L, D] and their mask [T, L], padded on the right."""
    match pooling:
        case "first":
            return tokens[:, 0]
        case "last":
            last = mask.sum(1).clamp(min=1) - 1
            return tokens[torch.arange(tokens.shape[0], device=tokens.device), last]
        case "mean":
            return masked_mean(tokens, mask)
