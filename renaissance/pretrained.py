"""The model that users hold: built from a spec or loaded, saved or published, asked for vectors and for matches.

Letters in shapes: V images, T texts, n pairs, W width of the shared space.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from renaissance.api import Box
from renaissance.assemble import Assembly, Encoder, assemble, encoder_report, merge_adapters
from renaissance.container import load, save, stored_type
from renaissance.errors import CapabilityError, ModelFileError, SpecError
from renaissance.evaluation.given import (
    Picture,
    Prediction,
    given_items,
    numbers,
    prediction,
)
from renaissance.evaluation.items import ModelItemScorer
from renaissance.hub import Upload, download
from renaissance.inference import RERANKED, Embeddings, Ranking, embed, match, rank
from renaissance.manifest import REPO, model_in
from renaissance.models.taken_out import Tower
from renaissance.models.transfer import TransferReport
from renaissance.progress import Silent
from renaissance.publishing import push
from renaissance.registry import Registry, default_registry
from renaissance.resolve import TaskUses, resolve
from renaissance.saved_config import StoredType
from renaissance.spec import OneTowerSpec, TwoTowerSpec, shown
from renaissance.toolkit.messages import first_line
from renaissance.toolkit.modes import evaluating
from renaissance.trust import trusted
from renaissance.zoo import shipped


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

    @property
    def vision(self) -> Tower:
        """What encodes images; `to_transformers()` or `to_timm()` take it out for use without renaissance."""
        return Tower("vision", self.encoder.vision)

    @property
    def text(self) -> Tower:
        """What encodes texts; `to_transformers()` takes it out for use without renaissance."""
        return Tower("text", self.encoder.text)

    def transfer_report(self) -> TransferReport:
        """Return which of the encoder's tensors its spec takes from pretrained backbones, which are resized, or new."""
        return encoder_report(self.assembly)

    def merge_adapters(self) -> None:
        """Add what LoRA adapters learned to the layers beside them; what is left, with its spec, is a plain model.

        Raises:
            SpecError: there are no adapters.
        """
        merge_adapters(self.assembly)

    def save(
        self,
        folder: str | Path,
        *,
        extra: Mapping[str, bytes] | None = None,
        dtype: StoredType = "float32",
        trained_only: bool = False,
    ) -> None:
        """Write the model to `folder`, wholly or not at all; see `renaissance.container.save`.

        Raises:
            OutputError: `folder` holds something else than a model, or cannot be written.
            NonFiniteError: a weight is NaN or infinite, or would be as `dtype`.
            SpecError: `trained_only`, and no tower is pretrained and wholly frozen.
        """
        save(self.assembly, folder, extra=extra, dtype=dtype, trained_only=trained_only)

    def push_to_hub(
        self,
        repo: str,
        *,
        private: bool = False,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = "Upload model",
        dtype: StoredType = "float32",
        trained_only: bool = False,
    ) -> Upload:
        """Make the Hub's repository 'organisation/name' this model, by one commit, or none if it is so already.

        `dtype` and `trained_only` are those of `save`. A run with its scores is published by `renaissance.publish`.

        Raises:
            HubError: the Hub cannot be reached or refuses; the message says what to do.
            CardError: its config names a local path; save it, shorten that, and push what is loaded again.
            NonFiniteError: a weight is NaN or infinite.
        """
        return push(
            self.assembly,
            repo,
            private=private,
            token=token,
            revision=revision,
            message=commit_message,
            dtype=dtype,
            trained_only=trained_only,
        )

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
            SpecError: there are neither images nor texts.
            SampleError: an image cannot be read, or a text is empty.
        """
        self._head("itc", "embed")
        return embed(self.assembly, images, texts, batch_size=batch_size)

    def match(self, images: Picture | Sequence[Picture], texts: str | Sequence[str], *, batch_size: int = 64) -> Tensor:
        """Return the probability that image i and text i belong together, fp32 [n] on the CPU.

        Raises:
            CapabilityError: the model was not trained for it (task `itm`).
            SpecError: there are not as many images as texts.
            SampleError: an image cannot be read, or a text is empty.
        """
        self._head("itm", "match")
        return match(self.assembly, images, texts, batch_size=batch_size)

    def rank(
        self,
        images: Picture | Sequence[Picture],
        texts: str | Sequence[str],
        *,
        top: int | None = None,
        rerank: int | None = None,
        batch_size: int = 64,
    ) -> Ranking:
        """Order images for one text, or texts for one image, which is given alone; return the `top` best, or all.

        They are ordered by the dot products that `embed` gives; the `rerank` best of them again, by the probabilities
        that `match` gives, where the model was trained for both (None: 16 of them). rerank=0: by dot products alone.

        Raises:
            CapabilityError: the model was not trained for it (task `itc`), or not for `rerank` (task `itm`).
            SpecError: not exactly one of `images` and `texts` is given alone, or a number is out of its range.
            SampleError: an image cannot be read, or a text is empty.
        """
        self._head("itc", "rank")
        if rerank:
            self._head("itm", "rank")
        best = rerank if rerank is not None else RERANKED if "itm" in self.tasks else 0
        return rank(self.assembly, images, texts, top=top, rerank=best, batch_size=batch_size)

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
        if not hasattr(head, "decide"):
            raise CapabilityError(
                f"'{task}' measures whole splits, and decides nothing of one item. Compare vectors: model.embed of the "
                "images, and of texts that name the classes."
            )
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
    verify: bool = True,
    device: str | torch.device = "cpu",
    dtype: StoredType | torch.dtype = "float32",
    registry: Registry | None = None,
) -> Model:
    """Return a saved model in evaluation mode: from its folder, a run's folder, or the Hub's 'organisation/name'.

    device, dtype: where its weights are, and in which type; what it answers is fp32 on the CPU in any case.

    "renaissance/..." are models that ship with renaissance, and need no network; `revision`, or HF_ENDPOINT in the
    environment, asks for those of the Hub instead. A model of the Hub uses third-party plugins only where `trust` names
    them: "xyz", or "xyz==1.2". `verify=False` skips the digests of a folder's files and the self-test.

    Raises:
        SpecError: nothing can be computed on `device` here, there is no such `dtype`, or a folder is given a revision.
        ModelFileError: the model is damaged, fails its self-test, or there is none.
        HubError: the Hub has no such model, or cannot be reached.
        PluginError: a plugin that it needs is missing, or not trusted.
    """
    place, name = Path(name_or_folder).expanduser(), str(name_or_folder)
    usable, kind = _usable(device), stored_type(dtype)

    def placed(assembly: Assembly) -> Model:
        return Model(assembly).to(device=usable, dtype=kind).eval()

    if os.path.exists(place):  # unlike the method, it has an answer for names that no file can have
        if revision is not None:
            raise SpecError(f"{place} is a folder, and has no revisions. Leave revision= out.")
        return placed(load(model_in(place), registry=registry, verify=verify))
    if not REPO.fullmatch(name):
        raise ModelFileError(f"There is no folder {place}, and a model of the Hub is called 'organisation/name'.")
    ships = shipped(name, revision)
    if ships is not None:
        return placed(load(ships, registry=registry, verify=verify))
    folder = download(name, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only)
    known = trusted(folder, trust, registry or default_registry())
    return placed(load(folder, registry=known, verify=verify, intact=True))


def _usable(device: str | torch.device) -> torch.device:
    """Return a device, after making a tensor there and reading it.

    Raises:
        SpecError: that cannot be.
    """
    try:
        made = torch.zeros(1, device=device)
        made.cpu()  # of "meta" nothing can be read
        return made.device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # each device fails in its own way
        raise SpecError(
            f"Nothing can be computed on the device '{shown(device)}' here ({shown(first_line(error), 200)}). "
            "Use 'cpu'."
        ) from error
