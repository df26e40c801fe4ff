"""The encoded inputs of a batch: each distinct one once, however many tasks read it.

Letters in shapes: V distinct images, T distinct texts, N tokens of an image, L of a text, D width, B any inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from renaissance.api import Batch, Features, Modality, TextInput, Views, VisionInput
from renaissance.assemble import Encoder
from renaissance.models.two_tower import TwoTower
from renaissance.toolkit.patches import hidden
from renaissance.toolkit.teaching import Taught
from renaissance.training.cached import taken
from renaissance.training.metering import Meter, Metered

FIELDS = tuple(field.name for field in fields(TextInput))


class EncodedBatch:
    """What a batch's inputs and the views of its tasks become, each computed at the first use, and once.

    tasks: where the learned patch lies that a task hides others with. parts: in how many the encoder runs, which is
    `taught` where it is a teacher's. `self.taught`: what a teacher makes of the batch.
    """

    def __init__(
        self,
        encoder: Encoder,
        batch: Batch,
        views: Mapping[str, Views],
        tasks: Mapping[str, Any] | None = None,
        parts: int = 1,
        meter: Meter | None = None,
        *,
        taught: bool = False,
    ) -> None:
        # what may come from a store is computed apart from what no store holds, so that both are the same, bit for bit
        self._storable = isinstance(encoder, TwoTower) and encoder.prefix("text") != 0
        self._encoder = Metered(encoder, parts, meter, taught=taught)
        self._batch, self._views, self._tasks = batch, views, tasks or {}
        self.taught: dict[str, Taught] = {}
        self._vision: Features | None = None
        self._text: Features | None = None
        self._viewed: dict[str, tuple[Features | None, Features | None]] = {}
        self._viewed_texts: dict[str, Features] = {}

    @property
    def vision(self) -> Features:
        """The distinct images [V, N, D], from the store as far as they are stored."""
        if self._vision is None:
            self._vision = self._encoder.encode_vision(self._batch.images, self._batch.stored_vision)
        return self._vision

    @property
    def text(self) -> Features:
        """The distinct texts, unmasked [T, L, D], from the store as far as they are stored."""
        if self._text is None and not self._viewed_texts:
            self._encode_texts()
        if self._text is None:
            self._text = self._encoder.encode_text(self._batch.texts, self._batch.stored_text)
        return self._text

    def view(self, task: str) -> tuple[Features | None, Features | None]:
        """The (images, texts) that this task's `views` asked for."""
        if task not in self._viewed:
            views = self._views[task]
            images = None if views.images is None else self._encoder.encode_vision(self._shown(task, views.images))
            if views.texts is not None and not self._viewed_texts:
                self._encode_texts()
            self._viewed[task] = images, self._viewed_texts.get(task)
        return self._viewed[task]

    def represent(self, features: Features, modality: Modality) -> Tensor:
        """One vector [B, D] for each input of one modality."""
        return self._encoder.represent(features, modality)

    def _encode_texts(self) -> None:
        """Encode the texts of all views, and with them the plain ones if a task reads those: one call costs less."""
        views = {task: view.texts for task, view in self._views.items() if view.texts is not None}
        # a task that brings no texts of its own reads the plain ones
        plain = len(views) < len(self._views) and self._batch.stored_text is None and not self._storable
        found = self._each([*([self._batch.texts] if plain else []), *views.values()])
        if plain:
            self._text = found.pop(0)
        self._viewed_texts = dict(zip(views, found, strict=True))

    def _each(self, texts: Sequence[TextInput]) -> list[Features]:
        """Encode each of these texts [T, L], in one call where they are alike in all but their number.

        All processes decide alike: only T depends on what a process has got.
        """
        shapes = {tuple(getattr(getattr(one, name), "shape", (0,))[1:] for name in FIELDS) for one in texts}
        present = {tuple(getattr(one, name) is None for name in FIELDS) for one in texts}
        if len(texts) < 2 or len(shapes) > 1 or len(present) > 1:
            return [self._encoder.encode_text(one, changed=True) for one in texts]
        columns = {name: [getattr(one, name) for one in texts] for name in FIELDS}
        together: Any = {name: None if parts[0] is None else torch.cat(parts) for name, parts in columns.items()}
        features = self._encoder.encode_text(TextInput(**together), changed=True)
        stops = list(accumulate(len(one.mask) for one in texts))
        return [taken(features, slice(start, stop)) for start, stop in pairwise([0, *stops])]

    def _shown(self, task: str, images: VisionInput) -> VisionInput:
        """Return the images with the task's learned patch in the place of those that it masks.

        The patch is one of normalised pixels, so that any backbone embeds it as it embeds every other.
        """
        if images.masked_patches is None:
            return images
        processor: Any = self._encoder.vision.processor
        pixels = hidden(processor.normalise(images.pixels), images.masked_patches, self._tasks[task].mask_token)
        return VisionInput(pixels, images.mask)
