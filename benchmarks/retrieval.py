"""Retrieval by every pair (ITM) beside a cascade (ITC, then ITM for the k best): time, FLOPs and recall.

python benchmarks/retrieval.py [--pairs N] [--images N] [--model NAME]

A model that ships searches drawn scenes, each with two captions, in both directions. Each side encodes all images and
texts and ranks: what a search of a new collection takes. All sides run in turns, each round beginning with another;
the ratios are taken within a round.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from paired import Spread, table, take_turns

import renaissance
from renaissance.assemble import Assembly
from renaissance.builtin.retrieval import Costs, Retrieval
from renaissance.builtin.task_entries import RetrievalOptions
from renaissance.cost import retrieval_costs
from renaissance.data.cache import cache_folder
from renaissance.data.load import load_data
from renaissance.data.records import Record
from renaissance.evaluation.cascade import Cascade, split_cascade
from renaissance.evaluation.splits import split_scorer
from renaissance.progress import Silent
from renaissance.recipe.data import WorldData
from renaissance.toolkit.modes import evaluating

HEADER = (
    "k",
    "pairs matched",
    "GFLOP",
    "FLOPs: all / this",
    "CPU seconds",
    "time: all / this",
    "text R@1",
    "image R@1",
)
CAPTIONS = 2


KS = (1, 4, 16, 64)
SEED = 20_000  # of scenes that no model that ships was trained on


def loaded(model: str, images: int) -> tuple[Assembly, list[Record]]:
    """Return a saved model, and drawn scenes of the size of its images with their captions."""
    assembly: Assembly = cast(Any, renaissance.from_pretrained(model)).assembly.eval()
    side = assembly.encoder.vision.processor.image_size[0]
    world = WorldData(train=1, test=images, captions=CAPTIONS, image_size=side, seed=SEED)
    held = load_data(world, cache=cache_folder(), on_bad_sample="error", validation=0)
    return assembly, list(cast(Any, held.splits["test"]))


def searches(assembly: Assembly, records: Sequence[Record], ks: Sequence[int]) -> dict[str, Callable[[], object]]:
    """Return the search by each k and by every pair, each from the images and captions on."""

    def search(rerank: Any) -> Callable[[], object]:
        task = Retrieval(RetrievalOptions(rerank=rerank), model=assembly.encoder.facts())

        def run() -> object:
            with evaluating(assembly):
                return task.score(split_scorer(assembly, "test", records, progress=Silent()))

        return run

    return {**{str(k): search(k) for k in ks}, "all": search("all")}


def costs(assembly: Assembly, records: Sequence[Record], ks: Sequence[int]) -> Cascade:
    """Return recall and FLOPs for each k, and for every pair."""

    def flops(model: Assembly, tokens: int) -> Costs:
        return retrieval_costs(model, text_tokens=tokens)

    return split_cascade(assembly, "test", records, flops, ks=(*ks, None), progress=Silent())


def rows(assembly: Assembly, records: Sequence[Record], ks: Sequence[int], pairs: int) -> list[list[str]]:
    """Return a row of the table for each k."""
    told = costs(assembly, records, ks)
    timings = take_turns(searches(assembly, records, ks), pairs)
    cells = []
    for row, facts in zip(told.rows, told.as_json(), strict=True):
        name = "all" if row.k is None else str(row.k)
        recall = {score.name: f"{score.value:.1f} [{score.low:.1f}, {score.high:.1f}]" for score in row.scores}
        ratio: Spread = timings.ratio("all", name)
        cells.append(
            [
                name, f"{row.matched:,}", f"{row.flops / 1e9:.1f}", f"{facts['full']:.1f}",
                str(timings.spread(name)), str(ratio), recall["text R@1"], recall["image R@1"],
            ]
        )  # fmt: skip
    return cells


def main() -> None:
    """Train, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5, help="rounds")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--model", default="renaissance/two-tower-unfrozen", help="a folder, or a name of the zoo")
    given = parser.parse_args()
    torch.set_num_threads(1)
    assembly, records = loaded(given.model, given.images)
    print(f"{given.model}, {len(records):,} images, {CAPTIONS * len(records):,} captions\n")
    print(table(HEADER, rows(assembly, records, [k for k in KS if k < given.images], given.pairs)))


if __name__ == "__main__":
    main()
