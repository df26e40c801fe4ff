"""Retrieval by every pair (ITM) beside a cascade (ITC, then ITM for the k best): time, FLOPs and recall.

python benchmarks/retrieval.py [--pairs N] [--images N] [--steps N] [--size full|tiny]

A model is trained on drawn scenes for `steps` updates of ITC and ITM, and held-out scenes, each with two captions, are
searched in both directions. Each side encodes all images and texts and ranks: what a search of a new collection takes.
All sides run in turns, each round beginning with another; the ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from renaissance.recipe import validate_recipe
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


@dataclass(frozen=True, slots=True)
class Size:
    """The spec, pixels a side, and the k's below the number of images."""

    spec: str
    image_size: int
    ks: tuple[int, ...]


SIZES: Mapping[str, Size] = {
    "full": Size(
        "tiny-vit(layers=6, width=192, heads=3, mlp_width=768, image_size=64, patch_size=8) + "
        "tiny-bert(layers=4, width=192, heads=3, mlp_width=768), random both, lxmert(layers=3, width=192, heads=3)",
        64,
        (1, 4, 16, 64),
    ),
    "tiny": Size(
        "tiny-vit(layers=1, width=16, heads=2, mlp_width=16, image_size=32, patch_size=16) + "
        "tiny-bert(layers=1, width=16, heads=2, mlp_width=16), random both, lxmert(layers=1, width=16, heads=2)",
        32,
        (1, 4),
    ),
}


def trained(size: Size, images: int, steps: int, folder: Path) -> tuple[Assembly, list[Record]]:
    """Return a model after `steps` updates, and the held-out images with their captions."""
    recipe = validate_recipe(
        {
            "start": size.spec,
            "tasks": {"itc": {}, "itm": {"options": {"negatives": "hard"}}},
            "data": {
                "kind": "world", "train": max(64, 8 * images), "test": images, "captions": CAPTIONS,
                "image_size": size.image_size,
            },
            "batch": {"size": 32},
            "budget": {"steps": steps},
            "schedule": {"warmup_steps": steps // 10},
            "optimiser": {"lr": 0.001},
            "evaluation": {"untrained": False, "shuffled": False, "tasks": {"itm": {}}},
        }
    )  # fmt: skip
    done = renaissance.run(recipe, out=folder / "run")
    model: Any = renaissance.from_pretrained(done.model_folder)
    held = load_data(recipe.data, cache=cache_folder(), on_bad_sample="error", validation=0)
    return model.assembly.eval(), list(held.splits["test"])


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
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--size", choices=list(SIZES), default="full")
    given = parser.parse_args()
    torch.set_num_threads(1)
    size = SIZES[given.size]
    with tempfile.TemporaryDirectory() as folder:
        assembly, records = trained(size, given.images, given.steps, Path(folder))
        print(f"{len(records):,} images, {CAPTIONS * len(records):,} captions, {given.steps} updates\n")
        print(table(HEADER, rows(assembly, records, size.ks, given.pairs)))


if __name__ == "__main__":
    main()
