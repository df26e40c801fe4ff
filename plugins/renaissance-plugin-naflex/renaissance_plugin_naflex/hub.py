"""Pretrained weights from the Hub or a folder: safetensors alone, and no code from there is run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import Siglip2VisionConfig, Siglip2VisionModel

from renaissance.errors import HubError, SpecError
from renaissance.toolkit.quiet import quiet
from renaissance_plugin_naflex.entries import BaseOptions

FIXED = ("hidden_size", "num_attention_heads", "intermediate_size", "patch_size", "num_patches")


def pretrained(options: BaseOptions, config: Siglip2VisionConfig) -> tuple[Any, str | None]:
    """Return the model with pretrained weights in float32, its first blocks alone, and the commit that they are of.

    Raises:
        HubError: the weights cannot be read, or are not those of this model.
        SpecError: the options name other sizes than the weights have.
    """
    with _reading(options):
        published = Siglip2VisionConfig.from_pretrained(options.repository, revision=options.revision)
    _check_sizes(options, config, published)
    with _reading(options):
        model, report = Siglip2VisionModel.from_pretrained(
            options.repository,
            # the commit of the config: a branch may move between the two
            revision=getattr(published, "_commit_hash", None) or options.revision,
            config=config,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    wrong = sorted([*report["missing_keys"], *(str(key[0]) for key in report["mismatched_keys"])])
    if wrong:
        raise HubError(
            f"naflex: the weights of '{options.repository}' lack {len(wrong)} tensors, or have others in their place "
            f"({', '.join(wrong[:3])} ...). Choose another repository, or say 'random vision'."
        )
    return model.train(), getattr(published, "_commit_hash", None)


def _check_sizes(options: BaseOptions, config: Siglip2VisionConfig, published: Siglip2VisionConfig) -> None:
    """Refuse sizes that the weights do not have; of its blocks a tower may keep the first ones."""
    other = [name for name in FIXED if getattr(config, name) != getattr(published, name)]
    if config.num_hidden_layers > published.num_hidden_layers:
        other.append("num_hidden_layers")
    if other:
        told = ", ".join(f"{name} {getattr(published, name)} and not {getattr(config, name)}" for name in other)
        raise SpecError(
            f"naflex: the pretrained weights of '{options.repository}' have {told}. Leave the sizes out, or say "
            "'random vision'."
        )


@contextmanager
def _reading(options: BaseOptions) -> Iterator[None]:
    """Turn whatever the libraries raise inside into one `HubError` that says the way out; keep their bars away."""
    try:
        with quiet():
            yield
    except Exception as error:  # offline, missing, damaged and refused each raise classes of their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise HubError(
            f"naflex: '{options.repository}' cannot be read ({reason}). Connect to the Hub, or set HF_HOME to a cache "
            "that has it; or say 'random vision' to start from random weights."
        ) from None
