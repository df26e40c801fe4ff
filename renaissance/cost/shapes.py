"""Models of parameters that have shapes and no values, and the batch that they are run on."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from accelerate import init_empty_weights
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from renaissance.api import Batch, TextInput, TokenizerFacts, VisionInput
from renaissance.assemble import Assembly, assemble
from renaissance.cost.items import item_batch
from renaissance.errors import SpecError
from renaissance.plans import AnyPlan, TowerPlan

Module = TypeVar("Module", bound=nn.Module)

PRESETS: Mapping[str, str] = {
    "two-tower-1b": (
        "transformers:vit(layers=32, width=1024, heads=16, mlp_width=4096) + "
        'transformers:bert(tokenizer="renaissance", layers=32, width=1024, heads=16, mlp_width=4096), '
        "random both, lxmert(layers=6, width=1024, heads=16)"
    ),
    "two-tower-3b": (
        "transformers:vit(layers=32, width=1792, heads=28, mlp_width=7168) + "
        'transformers:bert(tokenizer="renaissance", layers=32, width=1792, heads=28, mlp_width=7168), '
        "random both, lxmert(layers=6, width=1792, heads=28)"
    ),
    "two-tower-8b": (
        "transformers:vit(layers=40, width=2560, heads=40, mlp_width=10240) + "
        'transformers:bert(tokenizer="renaissance", layers=40, width=2560, heads=40, mlp_width=10240), '
        "random both, lxmert(layers=8, width=2560, heads=40)"
    ),
    "one-tower-1b": (
        "transformers:vit(layers=41, width=1408, heads=16, mlp_width=5632), "
        'one-tower(modality="vision"), random encoder'
    ),
    "one-tower-3b": (
        "transformers:vit(layers=46, width=2304, heads=36, mlp_width=9216), "
        'one-tower(modality="vision"), random encoder'
    ),
    "one-tower-8b": (
        "transformers:vit(layers=51, width=3584, heads=56, mlp_width=14336), "
        'one-tower(modality="vision"), random encoder'
    ),
}
MASKED_SHARE = 0.15

# --- the model, without weights -------------------------------------------------------------------------------------


def assemble_without_weights(plan: AnyPlan) -> Assembly:
    """Build what a plan says with parameters that have shapes and no values; pretrained towers only as to their size.

    Raises:
        HubError: a library's model is named whose config only the Hub has.
    """
    with _unweighted_plan(plan) as changed:
        try:
            with init_empty_weights(include_buffers=False):
                assembly = assemble(changed)
        except (NotImplementedError, RuntimeError, SpecError):  # some backbones are run while they are built (timm)
            assembly = assemble(changed)
    return _faked(assembly)


def assemble_on_meta(plan: AnyPlan) -> Assembly:
    """Build what a plan says, all of it on the meta device: every part has its sizes, and none can be run.

    Pretrained towers are built as random ones, so it is not seen whether their weights can be had.

    Raises:
        SpecError: the parts do not fit, as their build would say.
        HubError: a library's model is named whose config only the Hub has.
    """
    with _unweighted_plan(plan) as changed:
        try:
            with torch.device("meta"):
                return assemble(changed)
        except (NotImplementedError, RuntimeError):  # a backbone that reads a tensor while it is built
            return assemble(changed)
        except SpecError as error:  # timm and open_clip do so too, and their adapters speak for them
            if not isinstance(error.__cause__, NotImplementedError | RuntimeError):
                raise
            return assemble(changed)


@contextmanager
def _unweighted_plan(plan: AnyPlan) -> Iterator[AnyPlan]:
    """Give the plan with random weights in all towers, as long as their tokenizers' folder is there."""
    with tempfile.TemporaryDirectory() as folder:
        towers = {
            field.name: _unweighted(value, Path(folder))
            for field in fields(plan)
            if isinstance(value := getattr(plan, field.name), TowerPlan)
        }
        yield replace(plan, **cast("dict[str, Any]", towers))


def _unweighted(tower: TowerPlan, folder: Path) -> TowerPlan:
    """Return a tower with random weights; a tokenizer that only the Hub has becomes one of the same size."""
    options = tower.options
    vocabulary = tower.facts.vocabulary
    if tower.entry.modality == "text" and isinstance(vocabulary, int) and getattr(options, "tokenizer", "") is None:
        _write_tokenizer(folder / "tokenizer.json", vocabulary, _pad_id(options))
        options = options.model_copy(update={"tokenizer": str(folder)})
    return replace(tower, options=options, weights="random", embeddings="random")


def _pad_id(options: Any) -> int:
    """Return the padding id of a short name: RoBERTa's positions start after it."""
    from transformers import AutoConfig

    published = options.published
    config = AutoConfig.for_model(published.model_type, **published.config)
    return int(config.pad_token_id or 0)


def _write_tokenizer(path: Path, vocabulary: int, pad_id: int) -> None:
    """Write a tokenizer with so many words; what they are changes no size."""
    words = {f"word{index}": index for index in range(vocabulary)}
    special = {"[PAD]": pad_id, "[MASK]": 2, "[UNK]": 3}
    words = {word: index for word, index in words.items() if index not in special.values()} | special
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": index, "content": word, **flags} for word, index in sorted(special.items(), key=lambda x: x[1])]
    described = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"},
    }
    path.write_text(json.dumps(described), encoding="utf-8")


def without_values(module: Module) -> Module:
    """Return a copy of a module whose parameters have shapes and no values; the module stays as it is."""
    return _faked(deepcopy(module, {id(parameter): parameter for parameter in module.parameters()}))


def _faked(whole: Module) -> Module:
    """Put parameters without values in the place of all; shared ones stay shared. Buffers stay as they are."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    faked: dict[int, nn.Parameter] = {}
    for module in whole.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in faked:
                with mode:
                    empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                faked[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
            module._parameters[name] = faked[id(parameter)]
    return whole


# --- the batch ------------------------------------------------------------------------------------------------------


def masked_tokens(batch: int, text_tokens: int, masked: int | None) -> int:
    """Return how many tokens of a batch 'mlm' predicts; each text has two special tokens.

    Raises:
        SpecError: there are not so many.
    """
    most = batch * (text_tokens - 2)
    if masked is not None and not 0 <= masked <= most:
        raise SpecError(f"A batch of {batch} x {text_tokens} tokens has no {masked} to mask; give 0 to {most}.")
    return round(MASKED_SHARE * most) if masked is None else masked


def synthetic_batch(assembly: Assembly, batch: int, text_tokens: int, masked: int | None = None) -> Batch:
    """Return `batch` pairs of an image and a text of their own; each text has `text_tokens`, all real.

    Ordinary words are just those that 'mlm' is to predict; every other token is a special one. For tasks on items these
    are `batch` items, see `item_batch`.

    Raises:
        SpecError: there are too few pairs or tokens, a text is longer than the tower takes, or some tasks are on items
            and others on captions.
    """
    facts: TokenizerFacts = assembly.encoder.text.processor.facts
    negatives = [task for task in assembly.plan.tasks.values() if task.entry.needs_negatives]
    least = 2 if negatives else 1
    if batch < least:
        raise SpecError(f"A batch of {batch} is too small; these tasks need at least {least} pairs.")
    if not 3 <= text_tokens <= facts.max_tokens:
        raise SpecError(f"Texts of {text_tokens} tokens; this text tower takes 3 to {facts.max_tokens}.")
    image_size = assembly.encoder.vision.processor.image_size
    trained = {name: task.entry for name, task in assembly.plan.tasks.items() if task.entry.trains}
    items = [name for name, entry in trained.items() if entry.data == "items"]
    if items and len(items) < len(trained):
        raise SpecError(
            f"Of {', '.join(trained)} some are on items with labels, and others on images with captions; ask for the "
            "cost of either."
        )
    if items:
        return item_batch(
            {name: assembly.tasks[name] for name in items},
            batch,
            image_size,
            lambda count: _texts(facts, count, text_tokens, 0),
        )
    keys = torch.arange(1, batch + 1)
    rows = torch.arange(batch)
    pixels = torch.zeros(batch, 3, *image_size, dtype=torch.uint8)
    return Batch(
        images=VisionInput(pixels),
        texts=_texts(facts, batch, text_tokens, masked_tokens(batch, text_tokens, masked)),
        pairs=torch.stack([rows, rows], dim=1),
        slots=torch.zeros(batch, dtype=torch.int64),
        items=rows,
        seeds=7919 * keys,
        caption_keys=keys.unsqueeze(1),
        text_keys=keys,
        image_keys=keys,
        view_keys=keys,
    )


def without_pixels(batch: Batch, assembly: Assembly) -> Batch:
    """Return a batch whose images have no values, as the parameters of the assembly; many of them would fill memory."""
    mode = next((p.fake_mode for p in assembly.parameters() if isinstance(p, FakeTensor)), None)
    if batch.images is None or mode is None:
        return batch
    return replace(batch, images=replace(batch.images, pixels=mode.from_tensor(batch.images.pixels)))


def _texts(facts: TokenizerFacts, batch: int, length: int, words: int) -> TextInput:
    """Return texts [batch, length] that hold `words` ordinary tokens, spread evenly; the others are special ones."""
    special = [index for index in facts.special_ids if index != facts.pad_id] or [facts.pad_id]
    word = next(index for index in range(facts.vocabulary) if index not in facts.special_ids)
    ids = torch.full((batch, length), special[0])
    for row in range(batch):
        count = words // batch + (row < words % batch)
        ids[row, 1 : 1 + count] = word
    by_text = facts.pieces is not None and facts.pieces.by_text
    each = torch.arange(length).repeat(batch, 1) if by_text else None
    return TextInput(ids, torch.ones(batch, length, dtype=torch.bool), words=each)
