"""Every task on the generated world: a small trained model beside four models that no score may be fooled by.

python benchmarks/tasks.py [--scenes N] [--pretraining N] [--steps N] [--seed N]

oracle: always right. collapsed: the same output for everything. random: normal noise. inverted: the oracle's outputs
times -1. They stand in the place of a model's outputs, behind which all is as in `renaissance evaluate`: items of
prepared data, the tasks and their scores. The trained models are those of recipes/finetune/world/: one is pretrained on
captions, and from it another is fine-tuned for each task that has a head of its own, for `steps` updates; they are
measured as by `renaissance evaluate --all-tasks`.

Letters in shapes: V images, T texts, I items, K classes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from paired import table
from small_world import PRETRAINING, RECIPES, pretrained, pretraining_of, settings, shortened, write
from torch import Tensor
from torch.nn import functional as F

import renaissance
from renaissance.api import Item, Score, TaskEntry
from renaissance.builtin.choice import overlap
from renaissance.data.captions import caption_key
from renaissance.data.collate import caption_keys
from renaissance.data.load import captioned
from renaissance.data.prepared import Prepared
from renaissance.data.records import Record
from renaissance.evaluation.choosing import chosen_measures
from renaissance.evaluation.evaluate import evaluate_all
from renaissance.recipe import load_recipe
from renaissance.registry import default_registry
from renaissance.toolkit.pairing import positives

LAYOUTS = (
    "coco-captions", "flickr30k", "vqav2", "gqa", "nlvr2", "snli-ve", "refcoco", "refcoco+", "refcocog",
    "image-classification", "winoground", "aro", "sugarcrepe",
)  # fmt: skip
CAPTIONS = ("coco-captions", "flickr30k")
# by the task of each head, the recipe that trains it, and on which corpus; every corpus of its task is measured
TRAINED_ON = {
    "vqa": ("vqav2", "vqav2"),
    "nlvr2": ("nlvr2", "nlvr2"),
    "visual-entailment": ("snli-ve", "snli-ve"),
    "referring": ("refcoco+", "refcoco+"),
    "image-classification": ("cifar-10", "image-classification"),
}
FOOLS = ("oracle", "collapsed", "random", "inverted")
Transform = Callable[[Tensor], Tensor]
Key = tuple[str, str, str, str]


def fool(name: str, seed: int) -> Transform:
    """Return what makes a fool's outputs of those of the oracle."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "oracle": lambda right: right,
        "collapsed": torch.ones_like,
        "random": lambda right: torch.randn(right.shape, generator=generator),
        "inverted": lambda right: -right,
    }[name]


@dataclass(frozen=True, slots=True)
class FoolOnItems:
    """Stands for a model that is measured on items; `transform` changes what the oracle says."""

    items: Sequence[Item]
    tasks: Mapping[str, Any]
    transform: Transform

    def on(self, items: Sequence[Item]) -> FoolOnItems:
        """Return the same model on other items: of detected boxes, the right one is that nearest to the true box."""
        meant = {item.id: item for item in self.items}
        return FoolOnItems([_found_again(item, meant[item.id]) for item in items], self.tasks, self.transform)

    def decisions(self, task: str) -> list[Tensor]:
        """Return the outputs for each item: 1 for what is right, 0 for what is wrong; of answers, how right each is."""
        module = self.tasks[task]
        targets = module.targets(self.items)
        if task == "referring":
            return [
                self.transform(F.one_hot(target, len(item.boxes)).float())
                for item, target in zip(self.items, targets, strict=True)
            ]
        right = targets if targets.dim() == 2 else F.one_hot(targets, len(module.labels))
        return [self.transform(row.float()) for row in right]

    def matches(self, *, regions: bool = False, by: Literal["itm", "itc"] | None = None) -> list[Tensor]:
        """Return [images, texts] of each item: image i and text i belong together, or the only image and the target."""
        right = []
        for item in self.items:
            target = torch.arange(len(item.images)) if len(item.images) > 1 else torch.tensor([item.target or 0])
            right.append(self.transform(F.one_hot(target, len(item.texts)).float()))
        return right

    def image_vectors(self) -> Tensor:
        """Return unit vectors [I, K]: that of the item's class."""
        classes = self._classes()
        numbers = torch.tensor([classes.index(item.label or "") for item in self.items])
        return F.normalize(self.transform(F.one_hot(numbers, len(classes)).float()), dim=-1)

    def text_vectors(self, texts: Sequence[str]) -> Tensor:
        """Return unit vectors [T, K]: that of the class that a text names."""
        return torch.tensor([[float(label in text.split(" ")[-1]) for label in self._classes()] for text in texts])

    def _classes(self) -> list[str]:
        return sorted({item.label for item in self.items if item.label is not None})


def _found_again(item: Item, meant: Item) -> Item:
    assert meant.target is not None
    overlaps = [overlap(box, meant.boxes[meant.target]) for box in item.boxes]
    return replace(item, target=overlaps.index(max(overlaps)))


@dataclass(frozen=True, slots=True)
class FoolOnCaptions:
    """Stands for a model that is measured on images with captions; 1 is a pair, -1 none. positives: bool [V, T]."""

    positives: Tensor
    transform: Transform

    def similarity(self) -> Tensor:
        """Return what is said of all pairs [V, T]."""
        return self.transform(2 * self.positives.float() - 1)

    def match(self, index: Tensor, by: str = "itm") -> Tensor:
        """Return what is said of the pairs in index int64 [P, 2]."""
        return self.transform(2 * self.positives[index[:, 0], index[:, 1]].float() - 1)


# --- the data -------------------------------------------------------------------------------------------------------


def there(root: Path) -> list[str]:
    """Return the layouts that are prepared."""
    return [layout for layout in LAYOUTS if (root / layout).is_dir()]


def held_out(place: Path) -> list[str]:
    """Return the splits of prepared data that are not trained on."""
    return [split for split in Prepared(place).splits if not split.startswith(("train", "restval"))]


def says_what_is_right(item: Item) -> bool:
    """Return whether an item can be measured: hidden test splits say nothing."""
    return bool(item.answers) or item.label is not None or item.target is not None or len(item.images) > 1


def labels_of(root: Path, layouts: Sequence[str]) -> list[str]:
    """Return all labels of some corpora, as far as they are prepared."""
    data = [Prepared(root / layout) for layout in layouts if (root / layout).is_dir()]
    labels = {item.label for prepared in data for split in prepared.splits for item in prepared.items(split)}
    return sorted(label for label in labels if label is not None)


def heads(root: Path) -> dict[str, dict[str, Any]]:
    """Return the tasks that have heads of their own and data to train them on, with options."""
    options: dict[str, dict[str, Any]] = {
        name: {} for name, (_, layout) in TRAINED_ON.items() if (root / layout).is_dir()
    }
    for name, layouts in (("vqa", ["vqav2", "gqa"]), ("image-classification", ["image-classification"])):
        if name in options:
            options[name] = {"labels": labels_of(root, layouts)}
    return options


# --- the models -----------------------------------------------------------------------------------------------------


def scores_of_fools(root: Path, seed: int) -> dict[Key, dict[str, Score]]:
    """Return by (data, split, task, score) the score of each fool."""
    tasks: dict[str, dict[str, Any]] = {"itm": {}, "itc": {}, "retrieval": {}, **heads(root)}
    spec = load_recipe(PRETRAINING).dump()["start"]
    assembly = renaissance.build(spec, tasks=tasks).assembly  # its heads say how their outputs are measured
    found: dict[Key, dict[str, Score]] = {}
    for layout in there(root):
        measures = chosen_measures(assembly, None, layout=layout, registry=default_registry())
        modules = {name: measure.task for name, measure in measures.items()}
        for split in held_out(root / layout):
            items = tuple(Prepared(root / layout).items(split))
            if layout not in CAPTIONS and not any(map(says_what_is_right, items)):
                continue
            for name in FOOLS:
                for task, measure in measures.items():
                    scorer = _scorer(measure.entry, items, modules, fool(name, seed))
                    for score in measure.task.score(scorer):
                        found.setdefault((layout, split, task, score.name), {})[name] = score
    return found


def _scorer(entry: TaskEntry, items: Sequence[Item], modules: Mapping[str, Any], transform: Transform) -> Any:
    if entry.data == "items":
        return FoolOnItems(items, modules, transform)
    records: list[Record] = [captioned(item) for item in items]
    texts = sorted({caption_key(caption) for record in records for caption in record.captions})
    return FoolOnCaptions(positives(caption_keys(records), torch.tensor(texts)), transform)


def scores_of_trained(
    root: Path, folder: Path, pretraining: int | None, steps: int | None, seed: int, batch: int | None = None
) -> dict[Key, Score]:
    """Return by (data, split, task, score) what models trained on each task, from one that read captions, score.

    pretraining, steps: updates of the one and of each other; batch: samples of each; None: as in the recipes.
    """
    from_captions = partial(pretrained, root, seed=seed, steps=pretraining, batch=batch)
    starts = {PRETRAINING.stem: from_captions(folder / PRETRAINING.stem)}
    models = [starts[PRETRAINING.stem]]
    for task, options in heads(root).items():
        name, layout = TRAINED_ON[task]
        start = pretraining_of(name) or PRETRAINING.stem
        if start not in starts:
            starts[start] = from_captions(folder / start, recipe=RECIPES / f"{start}.yaml")
        recipe = settings(RECIPES / f"{name}.yaml", root / layout, starts[start], seed)
        recipe["tasks"][task]["options"] = options
        # measured below, on all that there is
        recipe["data"]["splits"] = held_out(root / layout)[:1]
        recipe["evaluation"] |= {"blind": None, "primary": None}
        models.append(renaissance.run(shortened(recipe, steps, batch), out=folder / task).folder)
    splits = sorted({split for layout in there(root) for split in held_out(root / layout)})
    found: dict[Key, Score] = {}
    for model in models:
        for scores in evaluate_all(renaissance.from_pretrained(model / "model"), root, splits=splits):
            for task, measured in scores.scores.items():
                for score in measured:
                    found.setdefault((scores.data, scores.split, task, score.name), score)
    return found


# --- the table ------------------------------------------------------------------------------------------------------


def rows(fools: Mapping[Key, Mapping[str, Score]], trained: Mapping[Key, Score]) -> Iterator[list[str]]:
    """Yield a row for each score; of retrieval, the mean recalls of both directions."""
    for key, scores in fools.items():
        name = key[-1]
        if name.startswith(("text R@", "image R@", "sum of R@")):
            continue
        said = scores["oracle"]
        values = [f"{scores[one].value:.1f}" for one in FOOLS]
        score = trained.get(key)
        told = "" if score is None else f"{score.value:.1f} [{score.low:.1f}, {score.high:.1f}]"
        yield [*key, str(said.n), f"{said.chance:.1f}", *values, told]


HEADER = ("data", "split", "task", "score", "n", "chance", *FOOLS, "trained [95%]")


def report(scenes: int, pretraining: int | None, steps: int | None, seed: int) -> str:
    """Return the table; `pretraining` 0: without trained models."""
    with tempfile.TemporaryDirectory() as folder:
        root = write(Path(folder), scenes, seed, LAYOUTS)
        fools = scores_of_fools(root, seed)
        trained = {} if pretraining == 0 else scores_of_trained(root, Path(folder), pretraining, steps, seed)
        return table(HEADER, list(rows(fools, trained)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Every task: a trained model beside four fools.")
    parser.add_argument("--scenes", type=int, default=4000)
    parser.add_argument("--pretraining", type=int, help="updates; 0: no trained models; default: as in the recipe")
    parser.add_argument("--steps", type=int, help="updates of each task; default: as in its recipe")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(report(arguments.scenes, arguments.pretraining, arguments.steps, arguments.seed))


if __name__ == "__main__":
    main()
