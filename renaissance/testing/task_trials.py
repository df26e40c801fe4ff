"""Where a task is tried: in a tiny model of its own, on captions or on items that it takes.

Letters in shapes: K outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from renaissance.api import Batch, Item, TaskEntry, TaskLoss
from renaissance.assemble import Assembly
from renaissance.data.collate_items import collator_of
from renaissance.errors import RenaissanceError
from renaissance.evaluation.items import ModelItemScorer
from renaissance.registry import Component, Registry
from renaissance.testing.items import Example, Judged, captioned_items, judge_of, shapes
from renaissance.testing.models import CAPTIONS, caption_batch, model_with
from renaissance.testing.subjects import NotApplicable, NotTried, seeded
from renaissance.training.train_step import TrainStep

MATCHING: Mapping[str, Mapping[str, Any]] = {"itc": {"width": 16}, "itm": {}}  # heads that other tasks read


class TaskTrial:
    """A task under test, in a tiny model of its own.

    example: items that it takes, of which it is known what is right; None: some are made up.
    """

    def __init__(self, component: Component, registry: Registry, example: Example | None = None) -> None:
        self.component, self.registry, self._given = component, registry, example

    @property
    def entry(self) -> TaskEntry:
        """The task's entry."""
        entry = self.component.entry
        assert isinstance(entry, TaskEntry)
        return entry

    def fresh(self) -> Assembly:
        """Return a new tiny model with the task, and with those that it needs."""
        others = {name: MATCHING.get(name, {}) for name in (*self.entry.needs, *MATCHING) if name != self.entry.name}
        return model_with(self.component, self.registry, {**others, self.component.qualified: self.entry.tiny})

    @cached_property
    def model(self) -> Assembly:
        """A tiny model with the task, in eval mode; rules leave it as it is."""
        return self.fresh().eval()

    @property
    def fuses(self) -> bool:
        """Whether its loss reads fused pairs."""
        return bool(self.entry.outputs)

    @property
    def count(self) -> int:
        """Of how many samples its whole batch is."""
        return len(CAPTIONS) if self.example is None else len(self.example.items)

    @property
    def task(self) -> Any:
        """The task of that model."""
        return self.model.tasks[self.entry.name]

    def step(self, model: Assembly) -> TrainStep:
        """Return the train step of the task alone, and of what it reads in training."""
        names = [self.entry.name, *getattr(model.tasks[self.entry.name], "reads", ())]
        return TrainStep(model, dict.fromkeys(names, 1.0))

    @cached_property
    def example(self) -> Example | None:
        """Items that the task takes; None where it learns from captions.

        Raises:
            NotTried: it takes none of the made-up items.
        """
        if self.entry.data == "captions":
            return None
        return self._given or self._fitting()

    def _fitting(self) -> Example:
        """Return the first made-up items that the task takes.

        Raises:
            NotTried: it refuses all of them.
        """
        errors: list[Exception] = []
        for example in shapes(self.task, self.entry.slots):
            try:
                if self.entry.trains:
                    self.step(self.model)(self.collated(example.items))
                else:
                    judge_of(self.task, example)(lambda right: right)
            except NotApplicable:
                raise
            except Exception as error:  # a plugin's own code: anything can come of items that it does not know
                errors.append(error)
            else:
                return example
        refusal = next((error for error in errors if isinstance(error, RenaissanceError)), None)
        if refusal is None:  # it fails on whatever it gets
            raise errors[0]
        raise NotTried(f"it takes none of the made-up items ({refusal}) Give it some")

    @property
    def decided(self) -> Example:
        """Items of which the task decides something; right is None where it scores their images with their texts.

        Raises:
            NotApplicable: it decides nothing of items.
            NotTried: it takes none of the made-up items.
        """
        if self.entry.name in MATCHING:
            return Example(captioned_items())
        if not (self.entry.evaluates and self.entry.trains) or self.example is None:
            raise NotApplicable("it decides nothing of items")
        return replace(self.example, right=self.example.right or ())

    def collated(self, items: Sequence[Item]) -> Batch:
        """Return the batch of items, as a training makes it."""
        encoder: Any = self.model.encoder
        processors = (encoder.vision.processor, encoder.text.processor)
        return collator_of({self.entry.name: self.task}, *processors, seed=0)(items, 0)

    def batch(self, order: Sequence[int] | None = None) -> Batch:
        """Return a batch of what the task learns from, all of it or these places in this order.

        Raises:
            NotApplicable: it has nothing to train.
            NotTried: it takes none of the made-up items.
        """
        if not self.entry.trains:
            raise NotApplicable("it has nothing to train")
        if self.example is None:
            return caption_batch(self.model, tuple(range(len(CAPTIONS))) if order is None else order)
        items = self.example.items
        return self.collated(items if order is None else [items[place] for place in order])

    def loss(self, batch: Batch) -> TaskLoss:
        """Return the loss of a batch, in evaluation."""
        step, found = self.step(self.model).eval(), list[TaskLoss]()
        task: Any = step.tasks[self.entry.name]
        compute = task.loss

        def noted(*given: Any) -> TaskLoss:
            found.append(compute(*given))
            return found[-1]

        task.loss = noted
        try:
            with torch.no_grad(), seeded(0):
                step(batch)
        finally:
            del task.loss
        return found[-1]

    def judged(self, *, right: bool = True) -> Judged:
        """Return what the task scores for what is right, transformed; not `right`: for whatever has its shape.

        Raises:
            NotApplicable: it measures nothing.
            NotTried: what is right of its items is not known.
        """
        if not self.entry.evaluates:
            raise NotApplicable("it measures nothing")
        example = self.example
        if example is not None and not self._known(example):
            if right or not self.entry.trains:
                raise NotTried("what is right of the made-up items is not known; give it some, and what is right")
            example = replace(example, right=self.decisions(example.items))
        return judge_of(self.task, example)

    def _known(self, example: Example) -> bool:
        """Return whether it is known what is right; what is made up is not, where decisions have another shape."""
        if example.right is None:
            return False
        if self._given is not None or not self.entry.trains:
            return True
        return self.decisions(example.items)[0].shape == example.right[0].reshape(-1).shape

    def decisions(self, items: Sequence[Item]) -> list[Tensor]:
        """Return what the tiny model decides of items, each [K]; of images with texts for a head that matches them."""
        scorer = ModelItemScorer(self.model, items, {self.entry.name: self.task}, _untracked)
        match self.entry.name:
            case "itm" | "itc" as name:
                return scorer.matches(by=name)
        return scorer.decisions(self.entry.name)


def _untracked(parts: Any, total: int, what: str) -> Iterator[Any]:
    yield from parts
