"""What of a model is explained: one number for each pair of an image and a text.

Letters in shapes: P pairs, V images, T texts, L tokens of a text, H and W pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from renaissance.api import Features, Output, TextInput, VisionInput
from renaissance.assemble import Assembly
from renaissance.builtin.classification import JointHead
from renaissance.errors import CapabilityError, SpecError
from renaissance.spec import did_you_mean, shown

# the number of pair i, fp32 [P], of images [P, 3, H, W] and texts [P, L]
Scorer = Callable[[VisionInput, TextInput], Tensor]
POOLED: frozenset[Output] = frozenset({"pooled"})
# in this order the first that a model has is explained, where nothing else is said
PREFERRED = ("itm", "itc")


@dataclass(frozen=True, slots=True)
class Explained:
    """One number of a model: the logit of `itm`, the similarity of `itc`, or a label's logit of a classification."""

    task: str
    label: str | None = None

    @property
    def name(self) -> str:
        """What it is called in figures."""
        if self.label is not None:
            return f"logit of '{self.label}' ({self.task})"
        return "similarity (itc)" if self.task == "itc" else f"logit ({self.task})"


def plain_copy(assembly: Assembly) -> Assembly:
    """Return a copy to explain: fp32, on the CPU, for inference.

    Nothing of it is frozen: what is frozen from its input on runs without a graph, and has no gradient.
    """
    return copy.deepcopy(assembly).float().cpu().eval().requires_grad_(True)


def explained_output(assembly: Assembly, task: str | None = None, label: str | None = None) -> Explained:
    """Return the number that is meant; without a task the first of `itm`, `itc` and classifications of pairs.

    Raises:
        CapabilityError: the model was not trained for it, or the task gives no number for an image with a text.
        SpecError: the task has no such label, or several and none is said.
    """
    heads = {name: head for name, head in assembly.tasks.items() if name in PREFERRED or _classifies(head)}
    known = [name for name in PREFERRED if name in heads] or list(heads)
    there = ", ".join(heads) or "none"
    if task is None and not known:
        raise CapabilityError(
            f"Nothing of this model can be explained: it gives no number for an image with a text (tasks: "
            f"{', '.join(assembly.tasks) or 'none'}). Train one with tasks: [itm]."
        )
    chosen = known[0] if task is None else task
    if chosen not in heads:
        raise CapabilityError(
            f"The task '{shown(chosen)}' of this model cannot be explained: those that give a number for an image "
            f"with a text are: {there}. Choose one of them, or train one with tasks: [itm]."
        )
    return Explained(chosen, _label(chosen, heads[chosen], label))


def _classifies(head: Any) -> bool:
    return isinstance(head, JointHead) and head.slots == 1


def _label(task: str, head: Any, label: str | None) -> str | None:
    labels: tuple[str, ...] = getattr(head, "labels", ()) if isinstance(head, JointHead) else ()
    if not labels:
        if label is not None:
            raise SpecError(f"The task '{task}' has no labels. Leave out --label.")
        return None
    if label is None:
        raise SpecError(f"The task '{task}' has {len(labels)} labels; say which one: --label '{shown(labels[0])}'.")
    if label not in labels:
        raise SpecError(f"The task '{task}' has no label '{shown(label)}'.{did_you_mean(label, labels)}")
    return label


def scorer(assembly: Assembly, output: Explained) -> Scorer:
    """Return what gives the number of each pair of an image and a text."""
    encoder, head = assembly.encoder, _head(assembly, output.task)

    def similarity(images: VisionInput, texts: TextInput) -> Tensor:
        vision = head.embed(encoder.represent(encoder.encode_vision(images), "vision"), "vision")
        text = head.embed(encoder.represent(encoder.encode_text(texts), "text"), "text")
        return (vision * text).sum(-1)  # type: ignore[no-any-return]  # heads are nn.Modules

    def match(images: VisionInput, texts: TextInput) -> Tensor:
        found: Tensor = head.predict(encoder.fuse(*encoded(assembly, images, texts), POOLED))
        return found

    def label(images: VisionInput, texts: TextInput) -> Tensor:
        joint = encoder.fuse(*encoded(assembly, images, texts), POOLED)
        items = torch.arange(len(texts.mask), device=texts.mask.device)
        outputs: Tensor = head.predict(joint, items, torch.zeros_like(items))  # [P, K]
        return outputs[:, 0 if output.label is None else head.labels.index(output.label)]

    return similarity if output.task == "itc" else match if output.task == "itm" else label


def encoded(assembly: Assembly, images: VisionInput, texts: TextInput) -> tuple[Features, Features]:
    """Return what the encoder makes of images [V, 3, H, W] and of texts [T, L]."""
    return assembly.encoder.encode_vision(images), assembly.encoder.encode_text(texts)


def scores(
    assembly: Assembly, output: Explained, pictures: Sequence[Any], texts: Sequence[str], *, batch: int = 64
) -> Tensor:
    """Return the numbers fp64 [P] of picture i with text i."""
    score, found = scorer(assembly, output), []
    with torch.inference_mode():
        for start in range(0, len(texts), batch):
            images = assembly.encoder.vision.processor(list(pictures[start : start + batch]))
            words = assembly.encoder.text.processor(list(texts[start : start + batch]))
            found.append(score(images, words).double())
    return torch.cat(found)


def _head(assembly: Assembly, task: str) -> Any:
    return assembly.tasks[task]
