"""Build text encoders of Hugging Face `transformers`: from the Hub, a folder, a config, or what was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, SiglipTextConfig, SiglipTextModel

from renaissance.api import Backbone, SavedBackbone, Weights
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
from renaissance.builtin.transformers_refusals import refuse_changes, refuse_without_weights
from renaissance.builtin.transformers_sizes import config_from, config_values, text_sizes, with_sizes, with_vocabulary
from renaissance.builtin.transformers_text_families import FAMILIES
from renaissance.builtin.transformers_text_positions import NO_BASES
from renaissance.builtin.transformers_text_towers import DEFAULT_MAX_TOKENS, JointText, LayeredText, WholeText
from renaissance.errors import SpecError, UnknownComponentError
from renaissance.toolkit.text import TOKENIZER_FILE, WordTokenizer, infer_facts, read_tokenizer

WORDPIECE = Path(__file__).parent / "wordpiece"
# model types that hold an encoder of each modality
TWO_TOWERS = frozenset({"clip", "siglip"})


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
    model = empty(_encoder_class(config.model_type, config), config, add_pooling_layer=False)
    processor = WordTokenizer.load(saved.folder)
    tower = _tower(model, config, processor, saved.config["pooling"], saved.config["revision"])
    if saved.config.get("embeddings_only", False):
        assert isinstance(tower, LayeredText), "only a layered backbone lets its blocks go"
        tower.keep_embeddings()
    return tower


def _random(options: TextOptions, source: Source) -> Backbone:
    source = source if source.published else pinned(source)
    config = _text_config(starting_config(source))
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
    config = _text_config(load_config(source))
    cls = _text_class(source, config)
    given = options.model_dump(include={"layers", "width", "heads", "mlp_width", "max_tokens"}, exclude_none=True)
    refuse_changes(source, given, text_sizes(config), fewer=("layers", "max_tokens"))
    changes = options.model_dump(include={"layers", "dropout"}, exclude_none=True)
    processor = _tokenizer(options, source, config)
    config = with_sizes(config, changes)
    model = load_model(source, cls, config, add_pooling_layer=False)
    return _tower(model, config, processor, options.pooling or _usual_pooling(config), source.revision)


def _text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the config of the text encoder, where the model holds one of each modality."""
    return config.text_config if config.model_type in TWO_TOWERS else config


def _encoder_class(source_name: str, config: PreTrainedConfig) -> Any:
    """Return the library's class of a config; SigLIP's text encoder is in none of its tables."""
    return SiglipTextModel if isinstance(config, SiglipTextConfig) else model_class(source_name, config)


def _text_class(source: Source, config: PreTrainedConfig) -> Any:
    """Return the library's class for a text encoder.

    Raises:
        UnknownComponentError: the model is none.
    """
    cls = _encoder_class(source.name, config)
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
    family = FAMILIES.get(config.model_type)
    return "mean" if family is None else family.pooling


def _tower(
    model: nn.Module, config: PreTrainedConfig, processor: WordTokenizer, pooling: Pooling, revision: str | None
) -> LayeredText | WholeText:
    saved = {"transformers": config_values(config), "pooling": pooling, "revision": revision}
    family = FAMILIES.get(config.model_type)
    if family is None:
        return WholeText(model, processor, saved)
    tower = LayeredText if config.model_type in NO_BASES else JointText
    return tower(model, family, processor, saved)
