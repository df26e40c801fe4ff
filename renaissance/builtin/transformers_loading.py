"""Configs, weights and processors of `transformers` models, from the Hub or a folder, with typed errors.

Weights come from safetensors files alone, and no code from the Hub is ever run.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from accelerate import init_empty_weights
from huggingface_hub import list_repo_files
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig
from transformers.utils import cached_file

from renaissance.api import Modality, TokenizerFacts
from renaissance.builtin.transformers_options import Published
from renaissance.builtin.transformers_sizes import config_from, is_model_type
from renaissance.errors import HubError, RenaissanceError, SpecError, UnknownComponentError
from renaissance.toolkit.images import ImageProcessor
from renaissance.toolkit.quiet import quiet
from renaissance.toolkit.text import WordTokenizer

RESAMPLING: Mapping[int, Literal["nearest", "lanczos", "bilinear", "bicubic"]] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
}
# names of weights in a repository
SAFE = frozenset({"model.safetensors", "model.safetensors.index.json"})
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a backbone comes from. name: as the user wrote it. published: what a short name says without the Hub."""

    name: str
    modality: Modality
    model: str | None
    revision: str | None
    published: Published | None

    @classmethod
    def of(cls, options: Any, modality: Modality) -> Source:
        """Return the source that a short name or a library name stands for."""
        if (published := options.published) is not None:
            return cls(published.name, modality, published.model, None, published)
        return cls(f"transformers:{options.model}", modality, options.model, options.revision, None)

    @property
    def bundled(self) -> bool:
        """Whether its weights ship with renaissance."""
        return self.published is not None and self.published.bundled

    @property
    def bare_type(self) -> bool:
        """Whether the model is a bare model type: sizes by default, no weights, no processor."""
        return self.model is not None and is_model_type(self.model) and not Path(self.model).is_dir()


@contextmanager
def _from_hub(source: Source, what: str, way_out: str | None = None) -> Iterator[None]:
    """Turn whatever the libraries raise inside into one `HubError` that says the way out."""
    try:
        with quiet():
            yield
    except RenaissanceError:
        raise
    except Exception as error:  # offline, missing, damaged and refused each raise classes of their own, some ten in all
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        way_out = way_out or f"say 'random {source.modality}' to start from random weights"
        raise HubError(
            f"{source.name}: {what} of {source.model!r} cannot be read ({reason}). Connect to the Hub, or set HF_HOME "
            f"to a cache that has it; or {way_out}."
        ) from None


def pinned(source: Source) -> Source:
    """Return the source at the commit that its revision stands for now, so that all its files are of one commit.

    Short names without weights and bare model types have no files, folders no commits.

    Raises:
        HubError: the model cannot be reached.
    """
    if source.model is None or source.bare_type:
        return source
    with _from_hub(source, "the config", _without_hub(source)):
        path = Path(str(cached_file(source.model, "config.json", revision=source.revision)))
    # a file in the cache lies at .../snapshots/<commit>/config.json
    return replace(source, revision=path.parent.name if path.parent.parent.name == "snapshots" else None)


def load_config(source: Source) -> PreTrainedConfig:
    """Return the config of a model on the Hub or in a folder.

    Raises:
        HubError: it cannot be read.
    """
    with _from_hub(source, "the config", _without_hub(source)):
        return AutoConfig.from_pretrained(source.model, revision=source.revision, trust_remote_code=False)


def _without_hub(source: Source) -> str | None:
    """Return how to do without the config of a library's model, or None for a short name, which knows its own."""
    if source.published is not None:
        return None
    kind = "bert" if source.modality == "text" else "vit"
    return f"name a model type, whose sizes are known without the Hub: 'transformers:{kind}' with random weights"


def starting_config(source: Source) -> PreTrainedConfig:
    """Return the config from which a model with random weights starts; short names and types need no Hub.

    Raises:
        HubError: it cannot be read.
    """
    if source.published is not None:
        return config_from({"model_type": source.published.model_type, **source.published.config})
    if source.bare_type:
        return config_from({"model_type": source.model})
    return load_config(source)


def model_class(source_name: str, config: PreTrainedConfig) -> Any:
    """Return the library's class of a config.

    Raises:
        UnknownComponentError: the library has no encoder for it.
    """
    if type(config) in transformers.MODEL_MAPPING:
        found = transformers.MODEL_MAPPING[type(config)]
        return found[0] if isinstance(found, (list, tuple)) else found
    # the halves of models with two towers are in none of the library's tables
    cls = getattr(transformers, type(config).__name__.removesuffix("Config") + "Model", None)
    if cls is None:
        raise UnknownComponentError(
            f"{source_name}: transformers has no encoder for the model type {config.model_type!r}. "
            "Choose another model."
        )
    return cls


def initialised(cls: Any, config: PreTrainedConfig, **arguments: Any) -> nn.Module:
    """Return the model with random float32 weights, a function of torch's seed."""
    with quiet():
        model: nn.Module = cls._from_config(config, dtype=torch.float32, **accepted(cls, arguments))
    return model


def empty(cls: Any, config: PreTrainedConfig, **arguments: Any) -> nn.Module:
    """Return the model without weights: parameters on the meta device, buffers real."""
    with quiet(), init_empty_weights(include_buffers=False):
        model: nn.Module = cls._from_config(config, dtype=torch.float32, **accepted(cls, arguments))
    return model


def load_model(
    source: Source, cls: Any, config: PreTrainedConfig, *, may_miss: tuple[str, ...] = (), **arguments: Any
) -> nn.Module:
    """Return the model with its pretrained weights, in float32; keys that start with one of `may_miss` may be missing.

    Raises:
        HubError: the weights cannot be read, are no safetensors, or are not those of this model.
    """
    try:
        with _from_hub(source, "the weights"):
            model, report = cls.from_pretrained(
                source.model,
                revision=source.revision,
                config=config,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                **accepted(cls, arguments),
            )
    except HubError:
        _refuse_pickled(source)
        raise
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(may_miss or ("\0",)))
    wrong = missing + sorted(str(key[0]) for key in report["mismatched_keys"])
    if wrong:
        raise HubError(
            f"{source.name}: the weights of {source.model!r} lack {len(wrong)} tensors, or have others in their place "
            f"({', '.join(wrong[:3])} ...). Choose another model, or say 'random {source.modality}'."
        )
    result: nn.Module = model
    return result.train()


def _refuse_pickled(source: Source) -> None:
    """Refuse a model of which the weights are there as a pickle alone, by saying so.

    Raises:
        HubError: they are.
    """
    names: set[str] = set()
    with suppress(Exception):  # whoever cannot be asked has nothing to add to the error that is told
        folder = Path(str(source.model))
        there = os.listdir(folder) if folder.is_dir() else list_repo_files(folder.as_posix(), revision=source.revision)
        names = set(there)
    pickled = next((name for name in PICKLED if name in names), None)
    if pickled is not None and not names & SAFE:
        raise HubError(
            f"{source.name}: the weights of {source.model!r} are a pickle alone ({pickled}), which can run code and is "
            "never opened. Give a revision that has model.safetensors, as many models have one in a pull request "
            f"('transformers:{source.model}@refs/pr/1'), choose another model, or say 'random {source.modality}'."
        )


def accepted(cls: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the arguments that the class takes."""
    parameters = inspect.signature(cls.__init__).parameters
    return {name: value for name, value in arguments.items() if name in parameters}


def load_tokenizer(source: Source, vocabulary: int, max_tokens: int) -> WordTokenizer:
    """Return the model's own tokenizer.

    Raises:
        HubError: it cannot be read, or is not the one that the model was trained with.
    """
    with _from_hub(source, "the tokenizer", f"use the one that ships: {_with_tokenizer(source)}"):
        tokenizer = AutoTokenizer.from_pretrained(source.model, revision=source.revision, trust_remote_code=False)
        backend: Tokenizer = tokenizer.backend_tokenizer
        facts = _tokenizer_facts(tokenizer, backend, max_tokens)
    # a tokenizer whose vocabulary file was not found comes back with its few special tokens, without an error
    if not vocabulary / 2 <= facts.vocabulary <= vocabulary:
        raise HubError(
            f"{source.name}: the tokenizer of {source.model!r} has {facts.vocabulary} entries, the model {vocabulary}: "
            "they do not belong together. Choose another model."
        )
    return WordTokenizer(backend, facts)


def _tokenizer_facts(tokenizer: Any, backend: Tokenizer, max_tokens: int) -> TokenizerFacts:
    special = {id_ for id_ in tokenizer.all_special_ids if id_ is not None}
    special |= {id_ for id_, added in backend.get_added_tokens_decoder().items() if added.special}
    if tokenizer.pad_token_id is None:
        raise ValueError("it has no padding token")
    return TokenizerFacts(
        vocabulary=max(backend.get_vocab(with_added_tokens=True).values()) + 1,
        pad_id=tokenizer.pad_token_id,
        mask_id=tokenizer.mask_token_id,
        special_ids=tuple(sorted(special)),
        max_tokens=max_tokens,
    )


def _with_tokenizer(source: Source) -> str:
    return f"{source.name}(tokenizer=\"renaissance\"), with 'random {source.modality}'"


def load_preprocessing(source: Source) -> ImageProcessor:
    """Return the preprocessing that a vision model was trained with.

    Raises:
        HubError: it cannot be read, or asks for something that is not supported.
    """
    with _from_hub(source, "the preprocessing (preprocessor_config.json)"):
        path = cached_file(source.model, "preprocessor_config.json", revision=source.revision)
        return preprocessing_from(json.loads(Path(str(path)).read_text(encoding="utf-8")))


def preprocessing_from(values: Mapping[str, Any]) -> ImageProcessor:
    """Return the processor that a `preprocessor_config.json` describes.

    Raises:
        SpecError: it asks for something that is not supported.
    """
    size, shortest = _resize_size(values)
    frame = _crop_size(values) if values.get("do_center_crop") and "crop_size" in values else size
    if abs(values.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-6:
        raise SpecError(f"rescale_factor={values['rescale_factor']} is not supported. Choose another model.")
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if values.get("do_normalize", True):
        red, green, blue = values.get("image_mean", (0.5, 0.5, 0.5))
        mean = (red, green, blue)
        red, green, blue = values.get("image_std", (0.5, 0.5, 0.5))
        std = (red, green, blue)
    return ImageProcessor(
        frame,
        crop=min(1.0, frame[0] / size[0]),
        resize="shortest" if shortest else "squash",
        interpolation=RESAMPLING[values.get("resample", 2)],
        mean=mean,
        std=std,
    )


def _resize_size(values: Mapping[str, Any]) -> tuple[tuple[int, int], bool]:
    """Return (height, width) before the crop, and whether proportions are kept."""
    size = values["size"]
    if isinstance(size, int):  # written before sizes were named; CLIP's alone meant the shortest side
        kind = str(values.get("image_processor_type") or values.get("feature_extractor_type"))
        return (size, size), kind.startswith("CLIP")
    if "shortest_edge" in size:
        return (size["shortest_edge"], size["shortest_edge"]), True
    return (size["height"], size["width"]), False


def _crop_size(values: Mapping[str, Any]) -> tuple[int, int]:
    size = values["crop_size"]
    return (size, size) if isinstance(size, int) else (size["height"], size["width"])
