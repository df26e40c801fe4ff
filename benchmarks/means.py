"""What each means to speed is worth: a step of renaissance without it, over a step with all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, cast
from unittest import mock

import torch
import torch.nn.functional as F
from paired import table, take_turns
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from trials import CASES, PLAIN_LENGTH, SIZES, STORES, assembled, make_batch, our_loss, plain_adamw, stored_batch

from renaissance.api import Batch, TextInput
from renaissance.builtin import fusion, fusion_streams
from renaissance.models.two_tower import TwoTower
from renaissance.recipe.training import Optimiser
from renaissance.toolkit import attention
from renaissance.toolkit.attention import Attention
from renaissance.toolkit.dropout import Dropout
from renaissance.training.encoded import EncodedBatch
from renaissance.training.optimiser import make_optimiser
from renaissance.training.train_step import TrainStep

Without = Callable[[TrainStep], AbstractContextManager[object]]


def means_report(cases: Sequence[str], *, size: str, batch: int, pairs: int) -> str:
    """Return a table: for each means, the CPU seconds of a step without it over those of a step with all."""
    rows: list[list[str]] = [[name] for name in ["CPU s with all", *_without(), "AdamW fused", "text to the longest"]]
    rows.append(["frozen towers from the store"])
    for case in cases:
        for row, figure in zip(rows, _case(case, size, batch, pairs), strict=True):
            row.append(figure)
    header = ("without", *(f"{case} frozen" for case in cases))
    return f"a step without one means, over one with all; medians of {pairs} rounds\n{table(header, rows)}"


def _case(case: str, size: str, batch: int, pairs: int) -> list[str]:
    frozen = CASES[case]
    assembly = assembled(SIZES[size], frozen)
    inputs = make_batch(assembly, batch)
    stored = STORES["stored"] & frozen
    read = stored_batch(assembly, inputs, stored) if stored else lambda: inputs
    step = TrainStep(assembly, {"mlm": 1.0, "itm": 1.0}).train()
    fused, default = make_optimiser(step, Optimiser()), plain_adamw(step, Optimiser())

    def run(batch: Callable[[], Batch], optimiser: torch.optim.Optimizer, without: Without | None = None) -> None:
        with nullcontext() if without is None else without(step):
            optimiser.zero_grad(set_to_none=True)
            our_loss(step, batch).backward()  # type: ignore[no-untyped-call]
            optimiser.step()

    padded = _padded(inputs)
    actions: dict[str, Callable[[], object]] = {"all": partial(run, read, fused)}
    actions |= {name: partial(run, read, fused, without) for name, without in _without().items()}
    actions["optimiser"] = partial(run, read, default)
    actions["padding"] = partial(run, lambda: replace(read(), texts=padded.texts), fused)
    if stored:
        actions["store"] = partial(run, lambda: inputs, fused)
    timings = take_turns(actions, pairs)
    names = [*_without(), "optimiser", "padding", "store"]
    ratios = (str(timings.ratio(name, "all")) if name in actions else "-" for name in names)
    return [str(timings.spread("all")), *ratios]


def _padded(batch: Batch) -> Batch:
    extra = (0, PLAIN_LENGTH - batch.texts.mask.shape[1])
    return replace(batch, texts=TextInput(F.pad(batch.texts.token_ids, extra), F.pad(batch.texts.mask, extra)))


def _without() -> Mapping[str, Without]:
    """Return by the name of a means what takes it away for a while."""
    return {
        "scaled-dot-product attention": lambda step: sdpa_kernel(SDPBackend.MATH),
        "products of attention in the cheapest order": lambda step: mock.patch.object(Attention, "_cheapest", _plain),
        "dropout of 16 bits": _library_dropout,
        "MLM head at masked positions alone": _every_position,
        "last fusion layer as far as it is read": lambda step: _both(fusion, fusion_streams, "how_much", _all),
        "masked and plain texts in one call": lambda step: mock.patch.object(EncodedBatch, "_each", _one_by_one),
        "one encoding of each image": lambda step: mock.patch.object(EncodedBatch, "vision", property(_again)),
        "canonical shapes of frozen towers": lambda step: mock.patch.object(TwoTower, "_encode", _as_given),
        "masked texts of a frozen tower in their own length": lambda step: mock.patch.object(
            TwoTower, "encode_text", _always_canonical
        ),
        "GELU of the fusion computed again in backward": lambda step: mock.patch.object(
            attention, "not_keeping_between", lambda first, second, values: second(first(values))
        ),
    }


def _plain(self: Attention, queries: int, keys: int) -> Callable[..., torch.Tensor]:
    return self._plain


@contextmanager
def _library_dropout(step: TrainStep) -> Iterator[None]:
    chosen = [part for part in step.modules() if isinstance(part, Dropout)]
    for part in chosen:
        part.__class__ = cast(Any, nn.Dropout)
    yield
    for part in chosen:
        part.__class__ = cast(Any, Dropout)


@contextmanager
def _every_position(step: TrainStep) -> Iterator[None]:
    task: Any = step.tasks["mlm"]
    with mock.patch.object(type(task), "predict", lambda self, tokens, at: self.decoder(self.head(tokens))[at]):
        yield


@contextmanager
def _both(first: Any, second: Any, name: str, value: object) -> Iterator[None]:
    with mock.patch.object(first, name, value), mock.patch.object(second, name, value):
        yield


def _all(stream: object, outputs: object, *, class_token: bool) -> str:
    return "all"


_ENCODE_TEXT = TwoTower.encode_text


def _always_canonical(self: Any, texts: TextInput, stored: Any = None, *, changed: bool = False) -> Any:
    return _ENCODE_TEXT(self, texts, stored)


def _one_by_one(encoded: Any, texts: Sequence[TextInput]) -> list[object]:
    return [encoded._encoder.encode_text(one, changed=True) for one in texts]


def _again(encoded: Any) -> object:
    """Return the images, encoded anew for each task that asks."""
    batch = encoded._batch
    return encoded._encoder.encode_vision(batch.images, batch.stored_vision)


def _as_given(self: Any, modality: str, inputs: Any, stored: Any, **unused: object) -> Any:
    """Run a tower on its inputs as they are, in one call, however it is frozen."""
    return getattr(self, modality)(inputs, range(-self.needs.layers, 0)) if stored is None else stored
