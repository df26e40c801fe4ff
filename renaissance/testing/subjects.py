"""What the checks of the conformance kit share: the component under test, its inputs, and how failures are told.

Letters in shapes: B inputs, D width, H and W height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from renaissance.api import Backbone, Capabilities, Features, Modality, SavedBackbone, TextInput, VisionInput
from renaissance.errors import RenaissanceError

TOLERANCE = 1e-5
TEXTS = (
    "a red cup stands on a table",
    "two dogs run in a big park near the old stone bridge",
    "snow",
)


class ConformanceError(RenaissanceError):
    """A component breaks a rule; the message names the rule, what was seen and what was expected."""

    exit_code = 6


class NotApplicable(Exception):  # noqa: N818 - no error: a rule says why it has nothing to say here
    """A rule does not apply to a component, for the reason that the message gives."""


class NotTried(Exception):  # noqa: N818 - no error of the component: the kit lacks what the rule needs
    """A rule applies to a component, and cannot be tried on what the kit can make up."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The backbone under test, its declared facts, and how it is built again."""

    backbone: Any
    facts: Capabilities
    modality: Modality
    rebuild: Callable[[SavedBackbone], Backbone]

    def inputs(self, count: int = 3, *, seed: int = 0) -> Any:
        """Return images of the processor's size, or texts of different lengths, padded."""
        return made_up(self.backbone.processor, self.modality, count, seed=seed)

    def one(self, inputs: Any, index: int) -> Any:
        """Return one input alone, a text without its padding."""
        if isinstance(inputs, VisionInput):
            return VisionInput(inputs.pixels[index : index + 1])
        length = int(inputs.mask[index].sum())
        return TextInput(inputs.token_ids[index : index + 1, :length], inputs.mask[index : index + 1, :length])


def made_up(processor: Any, modality: Modality, count: int = 3, *, seed: int = 0) -> Any:
    """Return random images of the processor's size, or texts of different lengths, padded."""
    generator = torch.Generator().manual_seed(seed)
    if modality == "text":
        return _random_words(processor, count, generator)
    shape = (count, 3, *processor.image_size)
    return VisionInput(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator))


def token_grid(subject: Subject, count: int) -> tuple[tuple[int, int], int]:
    """Return rows and columns of the `count` tokens of an image, and how many stand before them."""
    grid = getattr(subject.backbone, "grid", None) or subject.facts.grid
    if isinstance(grid, tuple):
        return (grid[0], grid[1]), count - grid[0] * grid[1]
    prefix = int(subject.backbone.class_token)
    side = round((count - prefix) ** 0.5)
    if side * side != count - prefix:
        raise failure("width and depth", f"{count} tokens", "a declared grid, or a square of tokens")
    return (side, side), prefix


def _random_words(processor: Any, count: int, generator: torch.Generator) -> TextInput:
    """Return `count` texts as the tokenizer makes them, their words replaced by random ids of the vocabulary."""
    inputs: TextInput = processor([TEXTS[index % len(TEXTS)] for index in range(count)])
    facts = processor.facts
    words = torch.tensor(
        [id_ for id_ in range(facts.vocabulary) if id_ not in facts.special_ids and id_ != facts.pad_id]
    )
    drawn = words[torch.randint(0, len(words), inputs.token_ids.shape, generator=generator)]
    kept = ~inputs.mask | torch.isin(inputs.token_ids, torch.tensor([*facts.special_ids, facts.pad_id]))
    return replace(inputs, token_ids=torch.where(kept, inputs.token_ids, drawn))


def tensors_of(features: Features) -> dict[str, Tensor]:
    """Return real tokens [K, D] and the pooled vectors [B, D] by name, so that they can be compared."""
    pooled = {} if features.pooled is None else {"pooled": features.pooled}
    return {"tokens": features.tokens[features.mask], **pooled}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global random state, and put it back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def failure(check: str, seen: str, expected: str) -> ConformanceError:
    """Return the error of a check: what was seen, and what was expected."""
    return ConformanceError(f"The check '{check}' failed: {seen}; expected: {expected}.")


def check_equal(check: str, what: str, seen: object, expected: object) -> None:
    """Raise unless what was seen is what was expected."""
    if seen != expected:
        raise failure(check, f"{what}: {seen!r}", repr(expected))


def check_close(check: str, seen: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    """Compare in units of the greatest value, where this is above 1."""
    check_equal(check, "shape", tuple(seen.shape), tuple(expected.shape))
    worst = float((seen - expected).abs().max() / expected.abs().max().clamp(min=1))
    if not worst <= tolerance:
        raise failure(check, f"a difference of {worst:.1e}", f"at most {tolerance:.0e}")


def check_pooled(check: str, seen: Features, expected: Features) -> None:
    """Compare the pooled vectors [B, D] as `check_close` does, where both have one."""
    if seen.pooled is not None and expected.pooled is not None:
        check_close(check, seen.pooled, expected.pooled)


def check_identical(check: str, seen: Features, expected: Features) -> None:
    """Compare real tokens and the pooled vector bit for bit."""
    check_equal(check, "mask", seen.mask.tolist(), expected.mask.tolist())
    pairs = [("tokens", seen.tokens[seen.mask], expected.tokens[expected.mask])]
    if seen.pooled is not None and expected.pooled is not None:
        pairs.append(("pooled vectors", seen.pooled, expected.pooled))
    for what, found, wanted in pairs:
        if not torch.equal(found, wanted):
            raise failure(check, f"{what} that differ by {float((found - wanted).abs().max()):.1e}", "the same bits")
