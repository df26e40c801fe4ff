"""Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365) over the pixels and the word embeddings of a pair.

Both go from a baseline to the pair together, in one integral, so that what all of them add up to is the change of the
output: that is checked each time. The picture's baseline is of one colour: the mean of the tower's normalisation, or
white. That of the text has the embedding of [MASK], or of padding where there is none, in place of each word; special
tokens and padding stay, and so get nothing. Where the output turns sharply on its way, that part of the way is halved
until each part adds up: what all parts add together is what the whole adds.

Letters in shapes: H and W pixels, R and C rows and columns of patches, L tokens, S steps, E width of embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients
from torch import Tensor

from renaissance.api import TextInput, VisionInput
from renaissance.assemble import Assembly
from renaissance.errors import SpecError
from renaissance.explaining.outputs import Explained, scorer
from renaissance.explaining.tokens import WordTable, embeddings_given, word_table
from renaissance.spec import shown

Baseline = Literal["mean", "white"]
Tensors = tuple[Tensor, ...]  # pixels [1, 3, H, W] and embeddings [1, L, E]
STEPS = 16
# how often a part of the way is halved where the attributions do not add up yet
HALVINGS = 8
# the share of all that may be missed which one part may miss
OF_A_PART = 1 / 4
TOLERANCE = 0.02
# a change of the output below this is compared as if it were this: of nothing, everything is a large share
LEAST_CHANGE = 1e-2
STEPS_A_CALL = 32


@dataclass(frozen=True, slots=True)
class Attribution:
    """What each pixel fp64 [H, W] (summed over its colours) and each token [L] adds to the change of an output.

    output, baseline: the output of the pair, and of the baseline. delta: by how much captum finds the sum too large.
    steps: of each of the `parts` that the way was divided into.
    """

    pixels: Tensor
    tokens: Tensor
    output: float
    baseline: float
    steps: int
    delta: float
    parts: int = 1

    @property
    def change(self) -> float:
        """By how much the output of the pair exceeds that of the baseline."""
        return self.output - self.baseline

    @property
    def total(self) -> float:
        """What all attributions add up to."""
        return float(self.pixels.sum() + self.tokens.sum())

    @property
    def gap(self) -> float:
        """By how much the sum misses the change, as a share of the change."""
        return abs(self.total - self.change) / max(abs(self.change), LEAST_CHANGE)

    def patches(self, rows: int, columns: int) -> Tensor:
        """Return the sums [R, C] over the pixels of each patch; a pixel that two patches share is divided."""
        height, width = self.pixels.shape
        return _shares(height, rows) @ self.pixels @ _shares(width, columns).T


def check_complete(found: Attribution, tolerance: float = TOLERANCE) -> None:
    """Check that attributions add up to the change of the output.

    Raises:
        SpecError: they do not, within `tolerance` as a share of the change; the message says how many steps to take.
    """
    if not found.gap <= tolerance:  # NaN is no completeness either
        raise SpecError(
            f"The attributions add up to {found.total:.4g}, and the output changes by {found.change:.4g}: they miss it "
            f"by {100 * found.gap:.1f}%, and {100 * tolerance:.1f}% is allowed. Raise the steps from {found.steps} to "
            f"{4 * found.steps}."
        )


def integrated_gradients(
    assembly: Assembly,
    output: Explained,
    images: VisionInput,
    texts: TextInput,
    *,
    steps: int = STEPS,
    tolerance: float = TOLERANCE,
    baseline: Baseline = "mean",
) -> Attribution:
    """Attribute the output of one picture [1, 3, H, W] with one text [1, L]; see `plain_copy` for the model.

    Raises:
        SpecError: the attributions do not add up to the change of the output, or `baseline` is none.
        CapabilityError: the text tower has no word embeddings.
    """
    found = attributed(assembly, output, images, texts, steps=steps, tolerance=tolerance, baseline=baseline)
    check_complete(found, tolerance)
    return found


def attributed(
    assembly: Assembly,
    output: Explained,
    images: VisionInput,
    texts: TextInput,
    *,
    steps: int,
    tolerance: float = TOLERANCE,
    baseline: Baseline = "mean",
) -> Attribution:
    """Return the attributions of one picture with one text, whether they add up or not: see `check_complete`."""
    pixels = assembly.encoder.vision.processor.normalise(images.pixels)
    table = word_table(assembly, texts)
    with torch.no_grad():
        ends = pixels.detach(), table(table.ids).detach()
        blanks = blank_picture(assembly, pixels, baseline), table(_blank_ids(assembly, texts, table)).detach()
        forward = _forward(assembly, output, texts, table)
        last, first = float(forward(*ends)), float(forward(*blanks))
    allowed = OF_A_PART * tolerance * max(abs(last - first), LEAST_CHANGE)
    added = [torch.zeros_like(end, dtype=torch.float64) for end in ends]
    missed, parts = 0.0, 0
    waiting = [(0.0, 1.0, 0)]
    while waiting:
        start, stop, halved = waiting.pop()
        found, delta = _between(forward, blanks, ends, start, stop, steps)
        if abs(delta) > allowed and halved < HALVINGS:
            middle = (start + stop) / 2
            waiting += [(start, middle, halved + 1), (middle, stop, halved + 1)]
            continue
        added = [whole + part.double() for whole, part in zip(added, found, strict=True)]
        missed, parts = missed + delta, parts + 1
    tokens = added[1].sum(-1)[0, : texts.mask.shape[1]]
    return Attribution(added[0].sum(1)[0], tokens, last, first, steps, missed, parts)


def _between(
    forward: Any, blanks: Tensors, ends: Tensors, start: float, stop: float, steps: int
) -> tuple[Tensors, float]:
    """Return what a part of the way adds, and by how much that is too much."""
    places = [
        tuple(torch.lerp(blank, end, share) for blank, end in zip(blanks, ends, strict=True)) for share in (start, stop)
    ]
    found, delta = IntegratedGradients(forward).attribute(
        places[1],
        baselines=places[0],
        n_steps=steps,
        method="gausslegendre",
        internal_batch_size=STEPS_A_CALL,
        return_convergence_delta=True,
    )
    return tuple(part.detach() for part in found), float(delta)


def _forward(assembly: Assembly, output: Explained, texts: TextInput, table: WordTable) -> Any:
    """Return the output as a function of pixels [S, 3, H, W] and embeddings [S, L, E]."""
    score = scorer(assembly, output)

    def forward(pixels: Tensor, embeddings: Tensor) -> Tensor:
        with embeddings_given(table, embeddings):
            return score(VisionInput(pixels), _repeated(texts, len(pixels)))

    return forward


def _repeated(texts: TextInput, count: int) -> TextInput:
    def repeat(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.expand(count, -1)

    ids, mask = texts.token_ids.expand(count, -1), texts.mask.expand(count, -1)
    return TextInput(ids, mask, repeat(texts.segment_ids), words=repeat(texts.words))


def blank_picture(assembly: Assembly, pixels: Tensor, baseline: Baseline) -> Tensor:
    """Return normalised pixels [1, 3, H, W] of one colour.

    Raises:
        SpecError: there is no such baseline.
    """
    if baseline not in get_args(Baseline):
        raise SpecError(f"There is no baseline '{shown(baseline)}' for pictures. Choose from: mean, white.")
    if baseline == "mean":
        return torch.zeros_like(pixels)  # normalised, the mean colour is 0
    white = torch.full((1, 3, *pixels.shape[-2:]), 255, dtype=torch.uint8)
    blank: Tensor = assembly.encoder.vision.processor.normalise(white)
    return blank


def _blank_ids(assembly: Assembly, texts: TextInput, table: WordTable) -> Tensor:
    """Return the ids [1, L] with [MASK], or else padding, in place of each word."""
    facts = assembly.encoder.text.processor.facts
    blank = facts.pad_id if facts.mask_id is None else facts.mask_id
    kept = torch.isin(table.ids, torch.tensor(facts.special_ids))
    kept[:, : texts.mask.shape[1]] |= ~texts.mask
    kept[:, texts.mask.shape[1] :] = True
    return torch.where(kept, table.ids, torch.full_like(table.ids, blank))


def _shares(size: int, count: int) -> Tensor:
    """Return which share of each of `size` pixels in a row lies in each of `count` equal parts, fp64 [count, size]."""
    if size % count == 0:
        return F.one_hot(torch.arange(size) // (size // count), count).double().T
    edges = torch.linspace(0, size, count + 1, dtype=torch.float64)
    pixels = torch.arange(size, dtype=torch.float64)
    inside = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return inside.clamp(min=0)
