"""The model that users hold: built from a spec or loaded, saved or published, asked for vectors and for matches.

Letters in shapes: V images, T texts, n pairs, W width of the shared space.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from renaissance.api import Box, Features, Output, TextInput, VisionInput
from renaissance.assemble import Assembly, Encoder, assemble, encoder_report, merge_adapters
from renaissance.container import load, save
from renaissance.errors import CapabilityError, ModelFileError, SampleError, SpecError
from renaissance.evaluation.given import Picture, Prediction, given_items, numbers, opened, prediction
from renaissance.evaluation.items import ModelItemScorer
from renaissance.hub import REPO, Upload, download, upload
from renaissance.manifest import model_in
from renaissance.models.transfer import TransferReport
from renaissance.progress import Silent
from renaissance.registry import Registry, default_registry
from renaissance.resolve import TaskUses, resolve
from renaissance.spec import OneTowerSpec, TwoTowerSpec
from renaissance.toolkit.devices import moved
from renaissance.toolkit.modes import evaluating
from renaissance.trust import trusted

_POOLED: frozenset[Output] = frozenset({"pooled"})


class Embeddings(NamedTuple):
    """Unit vectors fp32 on the CPU: images [V, W] and texts [T, W], None where none were given."""

    images: Tensor | None
    texts: Tensor | None


class Model(nn.Module):
    """An encoder with its tasks' heads. `spec` is what it was built from, in canonical form."""

    def __init__(self, assembly: Assembly) -> None:
        super().__init__()
        self.assembly = assembly

    @property
    def encoder(self) -> Encoder:
        """The towers and their fusion, or the one tower."""
        return self.assembly.encoder

    @property
    def tasks(self) -> nn.ModuleDict:
        """The tasks, by name, with their heads."""
        return self.assembly.tasks

    @property
    def spec(self) -> TwoTowerSpec | OneTowerSpec:
        """The canonical spec."""
        return self.assembly.plan.spec

    def transfer_report(self) -> TransferReport:
        """Return which of the encoder's tensors its spec takes from pretrained backbones, which are resized, or new."""
        return encoder_report(self.assembly)

    def merge_adapters(self) -> None:
        """Add what LoRA adapters learned to the layers beside them; what is left, with its spec, is a plain model.

        Raises:
            SpecError: there are no adapters.
        """
        merge_adapters(self.assembly)

    def save(self, folder: str | Path, *, extra: Mapping[str, bytes] | None = None) -> None:
        """Write the model to `folder`, wholly or not at all; see `renaissance.container.save`.

        Raises:
            OutputError: `folder` holds something else than a model, or cannot be written.
            NonFiniteError: a weight is NaN or infinite.
        """
        save(self.assembly, folder, extra=extra)

    def push_to_hub(
        self,
        repo: str,
        *,
        private: bool = False,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = "Upload model",
    ) -> Upload:
        """Make the Hub's repository 'organisation/name' this model, by one commit, or none if it is so already.

        Raises:
            HubError: the Hub cannot be reached or refuses; the message says what to do.
            NonFiniteError: a weight is NaN or infinite.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save(Path(folder) / "model")
            place = Path(folder) / "model"
            return upload(place, repo, private=private, token=token, revision=revision, message=commit_message)

    def embed(
        self,
        images: Picture | Sequence[Picture] | None = None,
        texts: str | Sequence[str] | None = None,
        *,
        batch_size: int = 64,
    ) -> Embeddings:
        """Return unit vectors of images and texts in one space: the dot product of two is how alike they are.

        An image is a PIL picture, a path or the bytes of a file.

        Raises:
            CapabilityError: the model was not trained for it (task `itc`).
            SampleError: an image cannot be read, or a text is empty.
        """
        head = self._head("itc", "embed")

        def embed_images(batch: list[tuple[int, Picture]]) -> Tensor:
            return head.embed(self.encoder.represent(self._encode_images(batch), "vision"), "vision")  # type: ignore[no-any-return]  # a task's method

        def embed_texts(batch: list[tuple[int, str]]) -> Tensor:
            return head.embed(self.encoder.represent(self._encode_texts(batch), "text"), "text")  # type: ignore[no-any-return]  # a task's method

        with evaluating(self):
            return Embeddings(
                images=None if images is None else _batched(embed_images, _pictures(images), batch_size),
                texts=None if texts is None else _batched(embed_texts, _words(texts), batch_size),
            )

    def match(self, images: Picture | Sequence[Picture], texts: str | Sequence[str], *, batch_size: int = 64) -> Tensor:
        """Return the probability that image i and text i belong together, fp32 [n] on the CPU.

        Raises:
            CapabilityError: the model was not trained for it (task `itm`).
            SpecError: there are not as many images as texts.
            SampleError: an image cannot be read, or a text is empty.
        """
        head = self._head("itm", "match")
        pictures, captions = _pictures(images), _words(texts)
        if len(pictures) != len(captions):
            raise SpecError(
                f"match compares image i with text i, and there are {len(pictures)} images and {len(captions)} texts. "
                "Give as many of each."
            )

        def probabilities(batch: list[tuple[int, tuple[Picture, str]]]) -> Tensor:
            vision = self._encode_images([(index, picture) for index, (picture, _) in batch])
            text = self._encode_texts([(index, words) for index, (_, words) in batch])
            return torch.sigmoid(head.predict(self.encoder.fuse(vision, text, _POOLED)))

        with evaluating(self):
            return _batched(probabilities, list(zip(pictures, captions, strict=True)), batch_size)

    def predict(
        self,
        task: str,
        images: Sequence[Picture | Sequence[Picture]] | Picture | None = None,
        texts: Sequence[str | Sequence[str]] | str | None = None,
        *,
        boxes: Sequence[Sequence[Box]] | None = None,
    ) -> list[Prediction]:
        """Return what a task that chooses a label, or one of several candidates, says of each item: image i, text i.

        An item of a task on two images has two pictures in place of one; an item of a task on two texts has two texts.
        boxes: for each image the regions (left, top, width, height) in pixels that 'referring' chooses from. Candidates
        are told by their number, from "0".

        Raises:
            CapabilityError: the model was not trained for it, or the task chooses nothing.
            SpecError: there are not as many images as texts, or boxes are missing, or for a task without boxes.
            DataError: an item has no candidates, or several things that they are candidates for.
            SampleError: an image cannot be read, a text is empty, or a box lies outside of its image.
        """
        head = self._head(task, "predict")
        labels, candidates = getattr(head, "labels", ()), getattr(head, "candidates", None)
        if not labels and candidates is None:
            raise CapabilityError(
                f"model.predict tells labels, and the task '{task}' has none. See model.embed, .match."
            )
        if (candidates == "boxes") is (boxes is None):
            needs = "chooses one of an image's boxes: give them as" if boxes is None else "reads no boxes: leave out"
            raise SpecError(f"'{task}' {needs} boxes=.")
        items = given_items(images, texts, boxes)
        if candidates is not None:
            head.check(items)
        with evaluating(self):
            outputs = ModelItemScorer(self.assembly, items, {task: head}, Silent().track).decisions(task)
        return [prediction(labels or numbers(len(output)), head.probabilities(output)) for output in outputs]

    def _head(self, task: str, method: str) -> Any:
        """Return the head of a task, or say which task `method` lacks."""
        if task not in self.tasks:
            there = ", ".join(self.tasks) or "none"
            raise CapabilityError(
                f"model.{method} needs a head trained for '{task}', and this model has the tasks: {there}. "
                f"Train one with tasks: [{task}]."
            )
        return self.tasks[task]

    def _encode_images(self, batch: Sequence[tuple[int, Picture]]) -> Features:
        pictures = [opened(picture, f"images[{index}]") for index, picture in batch]
        inputs: VisionInput = self._processor("vision")(pictures)
        return self.encoder.encode_vision(moved(inputs, self._device()))

    def _encode_texts(self, batch: Sequence[tuple[int, str]]) -> Features:
        for index, words in batch:
            if not isinstance(words, str) or not words.strip():
                raise SampleError(f"texts[{index}] is empty, or no text. Leave it out.")
        inputs: TextInput = self._processor("text")([words for _, words in batch])
        return self.encoder.encode_text(moved(inputs, self._device()))

    def _processor(self, tower: str) -> Any:
        return getattr(self.encoder, tower).processor

    def _device(self) -> torch.device:
        return next(self.parameters()).device


def build(
    spec: object, *, tasks: Sequence[str] | TaskUses = (), seed: int = 0, registry: Registry | None = None
) -> Model:
    """Return the model that a spec describes: a line of shorthand, a mapping or a `ModelSpec`.

    `tasks` are names, or names with options. What is not pretrained is drawn from `seed`.

    Raises:
        SpecError: a name, an option or a combination is wrong.
        HubError: pretrained weights cannot be had.
    """
    uses = (tasks,) if isinstance(tasks, str) else tasks
    return Model(assemble(resolve(spec, uses, registry=registry), seed=seed))


def from_pretrained(
    name_or_folder: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    trust: Sequence[str] = (),
    registry: Registry | None = None,
) -> Model:
    """Return a saved model in evaluation mode: from its folder, a run's folder, or the Hub's 'organisation/name'.

    A model of the Hub uses third-party plugins only where `trust` names them: "xyz", or "xyz==1.2".

    Raises:
        ModelFileError: the model is damaged, or there is none.
        HubError: the Hub has no such model, or cannot be reached.
        PluginError: a plugin that it needs is missing, or not trusted.
    """
    place = Path(name_or_folder).expanduser()
    if os.path.exists(place):  # unlike the method, it has an answer for names that no file can have
        if revision is not None:
            raise SpecError(f"{place} is a folder, and has no revisions. Leave revision= out.")
        return Model(load(model_in(place), registry=registry))
    if not REPO.fullmatch(str(name_or_folder)):
        raise ModelFileError(f"There is no folder {place}, and a model of the Hub is called 'organisation/name'.")
    folder = download(
        str(name_or_folder), revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
    )
    return Model(load(folder, registry=trusted(folder, trust, registry or default_registry()), verify=False))


def _pictures(images: Picture | Sequence[Picture]) -> list[Picture]:
    return [images] if isinstance(images, Picture) else list(images)


def _words(texts: str | Sequence[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)


def _batched(call: Callable[[list[tuple[int, Any]]], Tensor], items: Sequence[Any], batch_size: int) -> Tensor:
    """Return `call` of the numbered items, batch after batch, as one fp32 tensor on the CPU."""
    if batch_size < 1:
        raise SpecError(f"batch_size must be at least 1, and is {batch_size}.")
    if not items:
        raise SampleError("There is nothing to compute: the list is empty. Give at least one.")
    numbered = list(enumerate(items))
    parts = []
    for start in range(0, len(numbered), batch_size):
        with torch.inference_mode():
            parts.append(call(numbered[start : start + batch_size]).float().cpu())
    return torch.cat(parts)  # outside of inference mode: a plain tensor
