"""Build text encoders of Hugging Face `transformers`: from the Hub, a folder, a config, or what was saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import nn
from transformers import PreTrainedConfig

from renaissance.api import Backbone, SavedBackbone, Weights
from renaissance.builtin.towers import filled
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
from renaissance.builtin.transformers_sizes import (
    config_from,
    config_values,
    text_sizes,
    with_overrides,
    with_sizes,
    with_vocabulary,
)
from renaissance.builtin.transformers_text_families import FAMILIES
from renaissance.builtin.transformers_text_positions import NO_BASES
from renaissance.builtin.transformers_text_towers import JointText, LayeredText
from renaissance.builtin.transformers_text_whole import DEFAULT_MAX_TOKENS, WholeText, drop_unused, seen_in
from renaissance.errors import SpecError, UnknownComponentError
from renaissance.toolkit.text import TOKENIZER_FILE, WordTokenizer, infer_facts, read_tokenizer

WORDPIECE = Path(__file__).parent / "wordpiece"
# model types that hold an encoder of each modality
TWO_TOWERS = frozenset({"clip", "siglip", "chinese_clip", "metaclip_2", "siglip2", "vision-text-dual-encoder"})
# what a type must be told: BigBird would leave its sparse attention for good at its first short text
SETTINGS: Mapping[str, Mapping[str, Any]] = {"big_bird": {"attention_type": "original_full"}}
# decoders are built with the encoders that are taken from them, and thrown away
SMALLEST_DECODER = {"decoder_layers": 1, "num_decoder_layers": 1, "decoder_ffn_dim": 1}


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
    pooler = saved.config.get("pooler", False)
    cls = model_class(config.model_type, config)
    model = _encoder(empty(cls, _without_decoder(config), add_pooling_layer=pooler))
    processor = WordTokenizer.load(saved.folder)
    if config.model_type not in FAMILIES:
        drop_unused(model, saved.config["unused"])
        return WholeText(model, processor, saved.config)
    kept = _saved(config, saved.config["pooling"], saved.config["revision"], pooler=pooler)
    tower = _layered(model, config, processor, kept)
    if saved.config.get("embeddings_only", False):
        tower.keep_embeddings()
    return tower


def _random(options: TextOptions, source: Source) -> Backbone:
    source = source if source.published else pinned(source)
    config = _text_config(starting_config(source))
    cls = _text_class(source, config)
    overrides = getattr(options, "overrides", {})
    processor = _tokenizer(options, source, with_overrides(config, overrides))  # an override may shorten its texts
    config = with_vocabulary(config, processor.facts) if options.tokenizer is not None else config
    config = with_overrides(config, overrides)
    others = {"pooling", "tokenizer", "model", "revision", "pooler", "overrides"}
    config = with_sizes(config, options.model_dump(exclude=others, exclude_none=True))
    try:
        model = _encoder(initialised(cls, _without_decoder(config), add_pooling_layer=options.pooler))
    except (ValueError, RuntimeError, AssertionError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise SpecError(
            f"{source.name} cannot be built with these sizes ({error}). Change them, or overrides."
        ) from error
    return _tower(model, config, processor, options, source)


def _pretrained(options: TextOptions, source: Source) -> Backbone:
    refuse_without_weights(source, options)
    if source.bundled:
        return filled(_random(options, source), source.name)
    if options.tokenizer is not None:
        raise SpecError(
            f"{source.name}: tokenizer={options.tokenizer!r} needs random weights, for the pretrained ones know the "
            "model's own tokens. Leave tokenizer out, or say 'random text'."
        )
    if getattr(options, "overrides", None):
        raise SpecError(f"{source.name}: pretrained weights fit no overrides. Drop these, or add 'random text'.")
    source = pinned(source)
    config = _text_config(load_config(source))
    cls = _text_class(source, config)
    given = options.model_dump(include={"layers", "width", "heads", "mlp_width", "max_tokens"}, exclude_none=True)
    refuse_changes(source, given, text_sizes(config), fewer=("layers", "max_tokens"))
    changes = options.model_dump(include={"layers", "dropout"}, exclude_none=True)
    processor = _tokenizer(options, source, config)
    config = with_sizes(config, changes)
    model = _encoder(load_model(source, cls, config, add_pooling_layer=options.pooler))
    return _tower(model, config, processor, options, source)


def _text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the config of the text encoder, where the model holds one of each modality."""
    config = config.text_config if config.model_type in TWO_TOWERS else config
    return _changed(config, SETTINGS.get(config.model_type, {}))


def _without_decoder(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the config with the smallest decoder that there can be, where it has one."""
    values = config_values(config)
    return _changed(config, {name: value for name, value in SMALLEST_DECODER.items() if name in values})


def _changed(config: PreTrainedConfig, fields: Mapping[str, Any]) -> PreTrainedConfig:
    return config_from({**config_values(config), **fields}) if fields else config


def _encoder(model: nn.Module) -> nn.Module:
    """Return the encoder of a model that may have a decoder as well."""
    whole: Any = model
    return cast(nn.Module, whole.get_encoder()) if whole.config.is_encoder_decoder else model


def _text_class(source: Source, config: PreTrainedConfig) -> Any:
    """Return the library's class for a text encoder.

    Raises:
        UnknownComponentError: the model is none.
    """
    cls = model_class(source.name, config)
    reads_words = getattr(cls, "main_input_name", None) == "input_ids" and getattr(config, "vocab_size", None)
    if not reads_words or hasattr(config, "vision_config"):
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


def _check_pooler(options: TextOptions, source: Source, model: Any) -> None:
    """Check that a model has the pooler that is asked for.

    Raises:
        SpecError: it has none, or it is not known how it runs.
    """
    if options.pooler and (model.config.model_type not in FAMILIES or getattr(model, "pooler", None) is None):
        raise SpecError(
            f"{source.name}: models of the type {model.config.model_type!r} have no pooler to keep. Leave pooler out."
        )


def _tower(
    model: nn.Module, config: PreTrainedConfig, processor: WordTokenizer, options: TextOptions, source: Source
) -> LayeredText | WholeText:
    _check_pooler(options, source, model)
    pooling = options.pooling or _usual_pooling(config)
    saved = _saved(config, pooling, source.revision, pooler=options.pooler)
    if config.model_type in FAMILIES:
        return _layered(model, config, processor, saved)
    seen = seen_in(model, source.name)
    drop_unused(model, seen.unused)
    return WholeText(model, processor, saved | {"by_length": seen.by_length, "unused": list(seen.unused)})


def _layered(
    model: nn.Module, config: PreTrainedConfig, processor: WordTokenizer, saved: Mapping[str, Any]
) -> LayeredText:
    tower = LayeredText if config.model_type in NO_BASES else JointText
    return tower(model, FAMILIES[config.model_type], processor, saved)


def _saved(config: PreTrainedConfig, pooling: Pooling, revision: str | None, *, pooler: bool) -> dict[str, Any]:
    return {"transformers": config_values(config), "pooling": pooling, "revision": revision, "pooler": pooler}
