"""No score of any task is fooled: collapsed, random, inverted, perfect and NaN models, on every built-in task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from renaissance.api import Item, Score, TaskEntry
from renaissance.builtin.aro_relations import SYMMETRIC
from renaissance.components import checked_options
from renaissance.errors import NonFiniteError
from renaissance.registry import Registry, load_factory
from tests.builtin.item_cases import FACTS, FakeScorer, item

REGISTRY = Registry()
COUNT = 480
Transform = Callable[[Tensor, torch.Generator], Tensor]


def one_hot(place: int, count: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(place), count).float()


@dataclass(frozen=True)
class Case:
    """A task with options, items, and the outputs of a model that is always right."""

    task: str
    options: dict[str, Any]
    items: Sequence[Item]
    perfect: Sequence[Tensor]
    vectors: Callable[[Sequence[str]], Tensor] = field(default=lambda texts: torch.zeros(len(texts), 2))

    def scores(self, transform: Transform, *, order: Sequence[int] | None = None) -> list[Score]:
        generator = torch.Generator().manual_seed(3)
        outputs = {i.id: transform(each, generator) for i, each in zip(self.items, self.perfect, strict=True)}
        items = [self.items[place] for place in order] if order is not None else self.items
        scorer = FakeScorer(items, outputs, self.vectors)
        module: Any = built(self.task, self.options)
        return list(module.score(scorer))


def built(task: str, options: dict[str, Any]) -> Any:
    entry: Any = REGISTRY.find("task", task).entry
    return load_factory(entry)(checked_options(entry, options, of=task), model=FACTS)


def labelled(labels: Sequence[str], *, images: int = 1, texts: int = 1, **fields: str) -> list[Item]:
    return [
        item(n, images=images, texts=texts, label=labels[n % len(labels)], fields=dict(fields)) for n in range(COUNT)
    ]


def by_label(items: Sequence[Item], labels: Sequence[str]) -> list[Tensor]:
    return [one_hot(labels.index(i.label or ""), len(labels)) for i in items]


def label_case(task: str, labels: Sequence[str], options: dict[str, Any], **kwargs: Any) -> Case:
    items = labelled(labels, **kwargs)
    return Case(task, options, items, by_label(items, labels))


def vqa_case(annotators: int) -> Case:
    answers = {"yes": "yes/no", "no": "yes/no", "1": "number", "2": "number", "red": "other", "blue": "other"}
    names = tuple(answers)
    items = []
    for n in range(COUNT):
        right = names[n % len(names)]
        given = (right,) * 7 + ("green", "black", "white") if annotators > 1 else (right,)
        items.append(item(n, label=right, answers=given, fields={"answer_type": answers[right]}))
    return Case("vqa", {"labels": list(names)}, items, by_label(items, names))


def nlvr2_case() -> Case:
    labels = ("False", "True")
    items = [
        item(n, images=2, label=labels[n // 4 % 2], fields={"identifier": f"dev-{n // 4}-{n % 4}-0"})
        for n in range(COUNT)
    ]
    return Case("nlvr2", {}, items, by_label(items, labels))


def referring_case() -> Case:
    boxes = ((0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 10.0, 10.0), (0.0, 20.0, 10.0, 10.0))
    items = [item(n, boxes=boxes, target=n % 3, fields={"ann_id": str(n // 2)}) for n in range(COUNT)]
    return Case("referring", {}, items, [one_hot(n % 3, 3) for n in range(COUNT)])


def detections_case() -> Case:
    items = [
        item(
            n,
            boxes=((0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 10.0, 10.0)),
            target=n % 2,
            fields={"detections": "[[1,0,10,10,0.9],[21,0,10,10,0.8]]"},
        )
        for n in range(COUNT)
    ]
    return Case("referring", {}, items, [one_hot(n % 2, 2) for n in range(COUNT)])


def choice_case() -> Case:
    items = [item(n, texts=4, target=n % 4) for n in range(COUNT)]
    return Case("choice", {}, items, [one_hot(n % 4, 4) for n in range(COUNT)])


def number_case(task: str, options: dict[str, Any]) -> Case:
    values = [(n * 37 % 97) / 20 for n in range(COUNT)]
    items = [item(n, label=str(value)) for n, value in enumerate(values)]
    return Case(task, options, items, [torch.tensor([value]) for value in values])


def zero_shot_case() -> Case:
    labels = ("cat", "cup", "dog", "hat", "sun", "tea", "van")
    items = labelled(labels)

    def vectors(texts: Sequence[str]) -> Tensor:
        return torch.stack([one_hot(next(n for n, label in enumerate(labels) if label in t), 7) for t in texts])

    return Case("zero-shot-classification", {}, items, by_label(items, labels), vectors)


def winoground_case() -> Case:
    return Case("winoground", {}, [item(n, images=2, texts=2) for n in range(COUNT)], [torch.eye(2)] * COUNT)


def aro_case() -> Case:
    items, perfect = [], []
    for n in range(COUNT):
        subset = ("relation", "attribution", "coco-order")[n % 3]
        told = {"relation": {"relation": ("on", "behind", "near")[n % 9 // 3]}, "attribution": {"attributes": "a_b"}}
        items.append(item(n, texts=5 if n % 3 == 2 else 2, target=0, fields={"subset": subset, **told.get(subset, {})}))
        perfect.append(one_hot(0, len(items[-1].texts)).unsqueeze(0))
    return Case("aro", {}, items, perfect)


def sugarcrepe_case() -> Case:
    kinds = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
    items = [item(n, texts=2, target=0, fields={"subset": kinds[n % 7]}) for n in range(COUNT)]
    return Case("sugarcrepe", {}, items, [one_hot(0, 2).unsqueeze(0)] * COUNT)


THREE = ("contradiction", "neutral", "entailment")
CASES = {
    "vqa": vqa_case(10),
    "vqa of one answer": vqa_case(1),
    "nlvr2": nlvr2_case(),
    "visual-entailment": label_case("visual-entailment", THREE, {}),
    "referring": referring_case(),
    "referring with detections": detections_case(),
    "image-classification": label_case("image-classification", tuple("abcdefg"), {"labels": list("abcdefg")}, texts=0),
    "text-classification": label_case("text-classification", THREE, {"labels": list(THREE)}, images=0, texts=2),
    "cola": label_case("text-classification", ("0", "1"), {"subset": "cola"}, images=0),
    "mrpc": label_case("text-classification", ("0", "1"), {"subset": "mrpc"}, images=0, texts=2),
    "mnli": label_case("text-classification", THREE, {"subset": "mnli"}, images=0, texts=2),
    "stsb": number_case("text-classification", {"subset": "stsb"}),
    "zero-shot-classification": zero_shot_case(),
    "winoground": winoground_case(),
    "aro": aro_case(),
    "sugarcrepe": sugarcrepe_case(),
    "classification": label_case("classification", ("x", "y", "z"), {"labels": ["x", "y", "z"]}),
    "pair": label_case("pair", ("x", "y"), {"labels": ["x", "y"]}, images=2),
    "choice": choice_case(),
    "regression": number_case("regression", {}),
}
ALL = pytest.mark.parametrize("case", list(CASES.values()), ids=list(CASES))


@ALL
def test_a_perfect_model_has_100(case: Case) -> None:
    for score in case.scores(lambda perfect, _: 10 * perfect if case.perfect[0].numel() > 1 else perfect):
        assert score.value == pytest.approx(100, abs=1e-9), score
        assert score.low == pytest.approx(score.high)


@ALL
def test_a_collapsed_model_is_at_chance_or_below(case: Case) -> None:
    for score in case.scores(lambda perfect, _: torch.full_like(perfect, 0.5)):
        assert score.value <= score.chance + 1e-9, score
        assert score.value < 100
        assert score.ties == 100


@ALL
def test_a_random_model_is_not_above_chance(case: Case) -> None:
    for score in case.scores(lambda perfect, generator: torch.randn(perfect.shape, generator=generator)):
        assert score.value <= score.chance + 10, score
        assert score.low <= score.value <= score.high


@ALL
def test_an_inverted_model_is_below_chance(case: Case) -> None:
    for score in case.scores(lambda perfect, _: -perfect):
        assert score.value < score.chance, score


@ALL
def test_a_nan_is_an_error_and_never_a_score(case: Case) -> None:
    def broken(perfect: Tensor, _: torch.Generator) -> Tensor:
        return torch.full_like(perfect, torch.nan)

    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        case.scores(broken)


@ALL
def test_every_score_says_what_it_is_of(case: Case) -> None:
    scores = case.scores(lambda perfect, generator: torch.randn(perfect.shape, generator=generator))
    assert len({score.name for score in scores}) == len(scores) > 0
    for score in scores:
        assert 0 < score.units <= score.n <= COUNT
        assert 0 <= score.chance <= 100


@ALL
def test_the_order_of_the_items_changes_nothing(case: Case) -> None:
    outputs = {id(each): torch.randn(each.shape, generator=torch.Generator().manual_seed(7)) for each in case.perfect}
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(1)).tolist()

    def known(perfect: Tensor, _: torch.Generator) -> Tensor:
        return perfect + outputs[id(perfect)]

    for one, other in zip(case.scores(known), case.scores(known, order=order), strict=True):
        assert (one.name, one.n, one.units) == (other.name, other.n, other.units)
        for what in ("value", "low", "high", "chance", "ties"):
            assert getattr(one, what) == pytest.approx(getattr(other, what), abs=1e-9)


def test_every_task_on_items_that_measures_is_in_the_table() -> None:
    entries: list[Any] = [component.entry for component in REGISTRY.components("task")]
    measured = {e.name for e in entries if isinstance(e, TaskEntry) and e.data == "items" and e.evaluates}
    assert measured == {case.task for case in CASES.values()}


def test_a_split_without_labels_has_predictions_and_no_scores() -> None:
    items = [item(n, fields={"identifier": f"test-{n}-0-0"}, images=2) for n in range(3)]
    module = built("nlvr2", {})
    scorer = FakeScorer(items, {i.id: torch.tensor([0.0, 1.0]) for i in items})
    assert module.score(scorer) == []
    assert module.submission(scorer)[0] == {"identifier": "test-0-0-0", "prediction": "True"}


# --- tasks on images with captions ------------------------------------------------------------------------------------


class FakeMatcher:
    """Scores of 12 images with 2 captions each."""

    def __init__(self, transform: Callable[[Tensor], Tensor]) -> None:
        self.positives = torch.eye(12).repeat_interleave(2, 1).bool()
        self.scored = transform(2 * self.positives.float() - 1)

    def similarity(self) -> Tensor:
        return self.scored

    def match(self, index: Tensor, by: str = "itm") -> Tensor:
        return self.scored[index[:, 0], index[:, 1]]


@pytest.mark.parametrize("task", ["itm", "retrieval"])
def test_captions_fool_no_one_either(task: str) -> None:
    module = built(task, {})

    def scores(transform: Callable[[Tensor], Tensor]) -> list[Score]:
        return list(module.score(FakeMatcher(transform)))

    generator = torch.Generator().manual_seed(0)
    for score in scores(lambda perfect: perfect):
        assert score.value == (600 if score.name.startswith("sum") else 100)
    for collapsed in (0.0, 3.0):
        for score in scores(lambda perfect, constant=collapsed: torch.full_like(perfect, constant)):
            assert score.value <= score.chance
    for score in scores(lambda perfect: -perfect):
        assert score.value < score.chance
    for score in scores(lambda perfect: torch.randn(perfect.shape, generator=generator)):
        assert abs(score.value - score.chance) < (150 if score.name.startswith("sum") else 35)
    with pytest.raises(NonFiniteError):
        scores(lambda perfect: torch.full_like(perfect, torch.nan))


def test_aro_leaves_out_157_relations() -> None:
    assert len(SYMMETRIC) == 157
    assert {"near", "next to", "wrapped in", "on the other side of"} <= SYMMETRIC
    assert not {"on", "behind", "in front of", "to the left of", "under"} & SYMMETRIC
