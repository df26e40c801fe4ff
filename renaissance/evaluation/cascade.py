"""Recall against cost: retrieval by ITC with the k best re-ranked by ITM, for rising k up to every pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renaissance.assemble import Assembly
from renaissance.builtin.retrieval import CASCADE, CascadeRow, Costs, cascade
from renaissance.data.cache import cache_folder
from renaissance.data.load import load_data
from renaissance.data.records import Record
from renaissance.errors import CapabilityError, DataError
from renaissance.evaluation.evaluate import section_of
from renaissance.evaluation.splits import split_scorer
from renaissance.progress import Progress, Silent
from renaissance.recipe.data import Data
from renaissance.spec import shown
from renaissance.toolkit.modes import evaluating

CostsOf = Callable[[Assembly, int], Costs]


@dataclass(frozen=True, slots=True)
class Cascade:
    """The table of one split; text_tokens: the mean number of tokens of its texts, by which FLOPs are counted."""

    split: str
    images: int
    distinct_texts: int
    text_tokens: int
    costs: Costs
    rows: Sequence[CascadeRow]

    def as_json(self) -> list[dict[str, Any]]:
        """Return a JSON-able row for each k; `full` is how many times as many FLOPs every pair takes."""
        every = self.rows[-1].flops
        return [
            {
                "split": self.split,
                "k": row.k,
                "matched": row.matched,
                "flops": row.flops,
                "full": every / row.flops,
                "scores": [score.row() for score in row.scores],
            }
            for row in self.rows
        ]


def measure_cascade(
    model: Any,
    data: Data | str | Path,
    costs: CostsOf,
    *,
    splits: Sequence[str] | None = None,
    ks: Sequence[int | None] = CASCADE,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> list[Cascade]:
    """Return recall against FLOPs on the splits of images with captions; the last row matches every pair.

    costs(assembly, tokens) gives FLOPs for texts of so many tokens (`renaissance.cost.retrieval_costs`).

    Raises:
        CapabilityError: the model was not trained for both ITC and ITM.
        DataError: there is no such split.
        SampleError: an image cannot be used.
    """
    assembly: Assembly = getattr(model, "assembly", model)
    section, whole = section_of(data, splits)
    loaded = load_data(section, cache=cache_folder(), on_bad_sample="error", validation=0)
    held = {"all": loaded.held} if whole else loaded.splits
    odd = next((name for name in splits or () if name not in held), None)
    if odd is not None:
        raise DataError(f"The data have no split '{shown(odd)}'; choose from: {', '.join(held) or 'none'}.")
    how: dict[str, Any] = {"ks": ks, "batch_size": batch_size, "progress": progress or Silent()}
    return [split_cascade(assembly, name, held[name], costs, **how) for name in splits or held]


def split_cascade(
    assembly: Assembly,
    split: str,
    records: Sequence[Record],
    costs: CostsOf,
    *,
    ks: Sequence[int | None] = CASCADE,
    batch_size: int = 64,
    progress: Progress,
) -> Cascade:
    """Return recall against FLOPs on one split.

    Raises:
        CapabilityError: the model was not trained for both ITC and ITM.
        SampleError: an image cannot be used.
    """
    missing = [name for name in ("itc", "itm") if name not in assembly.tasks]
    if missing:
        raise CapabilityError(
            f"A cascade ranks by ITC and then by ITM, and this model has no task '{missing[0]}'. Add it to its recipe."
        )
    scorer = split_scorer(assembly, split, records, batch_size=batch_size, progress=progress)
    with evaluating(assembly):
        tokens = round(float(scorer.features()[1].mask.sum(1).double().mean()))
        known = costs(assembly, tokens)
        rows = cascade(scorer, known, ks=ks)
    images, texts = scorer.positives.shape
    return Cascade(split, images, texts, tokens, known, rows)
