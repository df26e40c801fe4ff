"""Text encoders of Hugging Face `transformers` as backbones.

Letters in shapes: T texts, L tokens, D width, E width of the word embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from renaissance.api import Backbone, Features, SavedBackbone, TextInput, Weights
from renaissance.builtin.transformers_loading import (
    Source,
    empty,
    initialised,
    load_config,
    load_model,
    load_tokenizer,
    model_class,
    pinned,
    starting_config,
)
from renaissance.builtin.transformers_options import SHIPPED_TOKENIZER, Pooling, TextOptions, check
from renaissance.builtin.transformers_refusals import refuse_changes, refuse_layers, refuse_without_weights
from renaissance.builtin.transformers_sizes import config_from, config_values, text_sizes, with_sizes, with_vocabulary
from renaissance.errors import SpecError, UnknownComponentError
from renaissance.toolkit.layered import LayerState, fold, modules_at, record, run_block, take_blocks
from renaissance.toolkit.pooling import masked_mean
from renaissance.toolkit.text import TOKENIZER_FILE, WordTokenizer, infer_facts, read_tokenizer

WORDPIECE = Path(__file__).parent / "wordpiece"
DEFAULT_MAX_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Family:
    """Where a model type keeps its parts. pair: its blocks return (hidden state, attention)."""

    blocks: str = "encoder.layer"
    embeddings: tuple[str, ...] = ("embeddings",)
    final: tuple[str, ...] = ()
    pair: bool = False


FAMILIES: Mapping[str, Family] = {
    "bert": Family(),
    "roberta": Family(),
    "xlm-roberta": Family(),
    "camembert": Family(),
    "electra": Family(embeddings=("embeddings", "embeddings_project")),
    "deberta-v2": Family(embeddings=("embeddings", "encoder.rel_embeddings", "encoder.LayerNorm"), pair=True),
    "modernbert": Family(blocks="layers", final=("final_norm",)),
    "distilbert": Family(blocks="transformer.layer"),
    "mpnet": Family(embeddings=("embeddings", "encoder.relative_attention_bias"), pair=True),
}


def build(options: TextOptions, *, weights: Weights, saved: SavedBackbone | None) -> Backbone:
    """Return a text backbone of `transformers`.

    Raises:
        SpecError: the options do not fit each other, or not the pretrained weights.
        UnknownComponentError: the model is no text encoder.
        HubError: something of it cannot be read from the Hub.
    """
    if weights == "none":
        assert saved is not None, "weights='none' builds from what was saved"
        return _restored(saved)
    check(options)
    source = Source.of(options, "text")
    return _pretrained(options, source) if weights == "pretrained" else _random(options, source)


def _restored(saved: SavedBackbone) -> Backbone:
    config = config_from(saved.config["transformers"])
    model = empty(model_class(config.model_type, config), config, add_pooling_layer=False)
    processor = WordTokenizer.load(saved.folder)
    return _tower(model, config, processor, saved.config["pooling"], saved.config["revision"])


def _random(options: TextOptions, source: Source) -> Backbone:
    source = source if source.published else pinned(source)
    config = starting_config(source)
    cls = _text_class(source, config)
    processor = _tokenizer(options, source, config)
    config = with_vocabulary(config, processor.facts) if options.tokenizer is not None else config
    sizes = options.model_dump(exclude={"pooling", "tokenizer", "model", "revision"}, exclude_none=True)
    config = with_sizes(config, sizes)
    model = initialised(cls, config, add_pooling_layer=False)
    return _tower(model, config, processor, options.pooling or _usual_pooling(config), None)


def _pretrained(options: TextOptions, source: Source) -> Backbone:
    refuse_without_weights(source)
    if options.tokenizer is not None:
        raise SpecError(
            f"{source.name}: tokenizer={options.tokenizer!r} needs random weights, for the pretrained ones know the "
            "model's own tokens. Leave tokenizer out, or say 'random text'."
        )
    source = pinned(source)
    config = load_config(source)
    cls = _text_class(source, config)
    given = options.model_dump(include={"layers", "width", "heads", "mlp_width", "max_tokens"}, exclude_none=True)
    refuse_changes(source, given, text_sizes(config), fewer=("layers", "max_tokens"))
    changes = options.model_dump(include={"layers", "dropout"}, exclude_none=True)
    processor = _tokenizer(options, source, config)
    config = with_sizes(config, changes)
    model = load_model(source, cls, config, add_pooling_layer=False)
    return _tower(model, config, processor, options.pooling or _usual_pooling(config), source.revision)


def _text_class(source: Source, config: PreTrainedConfig) -> Any:
    """Return the library's class for a text encoder.

    Raises:
        UnknownComponentError: the model is none.
    """
    cls = model_class(source.name, config)
    if (
        config.is_encoder_decoder
        or getattr(cls, "main_input_name", None) != "input_ids"
        or hasattr(config, "vision_config")
    ):
        raise UnknownComponentError(
            f"{source.name}: the model type {config.model_type!r} is no text encoder. Types with all features: "
            f"{', '.join(sorted(FAMILIES))}."
        )
    return cls


def _tokenizer(options: TextOptions, source: Source, config: PreTrainedConfig) -> WordTokenizer:
    """Return the tokenizer that the options ask for, truncating to the longest text that the model will take."""
    max_tokens = options.max_tokens or text_sizes(config).get("max_tokens", DEFAULT_MAX_TOKENS)
    match options.tokenizer:
        case None if source.model is None or source.bare_type:
            raise SpecError(
                f'{source.name} has no tokenizer of its own. Say {source.name}(tokenizer="renaissance") for the one '
                "that ships with renaissance, or give a folder with a tokenizer.json."
            )
        case None:
            return load_tokenizer(source, config.vocab_size, max_tokens)
        case name if name == SHIPPED_TOKENIZER:
            return WordTokenizer.load(WORDPIECE).with_max_tokens(max_tokens)
        case folder:
            tokenizer = read_tokenizer(Path(folder) / TOKENIZER_FILE)
            return WordTokenizer(tokenizer, infer_facts(tokenizer, max_tokens=max_tokens))


def _usual_pooling(config: PreTrainedConfig) -> Pooling:
    return "first" if config.model_type in FAMILIES and config.model_type != "mpnet" else "mean"


def _tower(
    model: nn.Module, config: PreTrainedConfig, processor: WordTokenizer, pooling: Pooling, revision: str | None
) -> Backbone:
    saved = {"transformers": config_values(config), "pooling": pooling, "revision": revision}
    family = FAMILIES.get(config.model_type)
    if family is None:
        return WholeText(model, processor, saved)
    return LayeredText(model, family, processor, saved)


class LayeredText(nn.Module):
    """A text encoder whose blocks run one by one. `config` is what `_restored` builds it from."""

    def __init__(self, model: nn.Module, family: Family, processor: WordTokenizer, config: Mapping[str, Any]) -> None:
        super().__init__()
        _absorb_convolution(model)
        self.blocks = take_blocks(model, family.blocks, pair=family.pair)
        self.model = model
        self.embeddings = modules_at(model, family.embeddings)
        self.final = modules_at(model, family.final)
        _set_facts(self, model, processor, config)

    width: int
    class_token: bool
    processor: WordTokenizer
    config: Mapping[str, Any]
    revision: str | None

    def forward(self, inputs: TextInput, layers: Sequence[int] = ()) -> Features:
        """Encode token ids [T, L] (or embeddings [T, L, E]) with their mask [T, L]; return tokens [T, L, D].

        Raises:
            SpecError: a text is longer than the model takes, or there is no such layer.
        """
        return fold(self, inputs, layers)

    def embed(self, inputs: TextInput) -> LayerState:
        """Return the state before the first block."""
        hidden, calls = record(self.model, model_arguments(self.model, inputs, self.processor))
        return LayerState(hidden, inputs.mask, calls)

    def step(self, index: int, state: LayerState) -> LayerState:
        """Run one block."""
        return run_block(self.blocks[index], index, state)

    def finish(self, state: LayerState) -> Features:
        """Apply the final norm, where there is one, and pool."""
        tokens = state.hidden
        for module in self.final:
            tokens = module(tokens)
        return Features(tokens, state.mask, pool(tokens, state.mask, first=self.class_token))

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write the tokenizer's files; return the config."""
        self.processor.save(folder)
        return self.config


class WholeText(nn.Module):
    """A text encoder of a type whose blocks we do not know: it runs as the library runs it."""

    def __init__(self, model: nn.Module, processor: WordTokenizer, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.blocks: Sequence[nn.Module] = ()
        self.embeddings: Sequence[nn.Module] = ()
        self.final: Sequence[nn.Module] = ()
        _set_facts(self, model, processor, config)

    width: int
    class_token: bool
    processor: WordTokenizer
    config: Mapping[str, Any]
    revision: str | None

    def forward(self, inputs: TextInput, layers: Sequence[int] = ()) -> Features:
        """Encode token ids [T, L] (or embeddings [T, L, E]) with their mask [T, L]; return tokens [T, L, D].

        Raises:
            SpecError: a text is longer than the model takes, or layers are asked for.
        """
        refuse_layers(layers)
        tokens = self.model(**model_arguments(self.model, inputs, self.processor)).last_hidden_state
        return Features(tokens, inputs.mask, pool(tokens, inputs.mask, first=self.class_token))

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write the tokenizer's files; return the config."""
        self.processor.save(folder)
        return self.config


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


def _set_facts(
    tower: LayeredText | WholeText, model: nn.Module, processor: WordTokenizer, config: Mapping[str, Any]
) -> None:
    tower.width = cast(PreTrainedConfig, model.config).hidden_size
    tower.class_token = config["pooling"] == "first"
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
    if inputs.segment_ids is not None and getattr(config, "type_vocab_size", 0) > 1:
        arguments["token_type_ids"] = inputs.segment_ids
    return arguments


def pool(tokens: Tensor, mask: Tensor, *, first: bool) -> Tensor:
    """Return the first token, or the mean of the real ones: [T, D] from tokens [T, L, D] and mask [T, L]."""
    return tokens[:, 0] if first else masked_mean(tokens, mask)
