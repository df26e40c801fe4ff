"""What a head learns from items and how it is judged: one label, soft answers, or a number.

Letters in shapes: I items, K labels or 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renaissance.api import Batch, Item, Score, Views
from renaissance.builtin.labels import Labels, Numbers, SoftLabels
from renaissance.toolkit.agreement import agreement_score, determination, f1, matthews, pearson, spearman
from renaissance.toolkit.metrics import accuracy_score, chosen, macro_score, numbered, ranks
from renaissance.toolkit.vqa import Judged, cleaned, normalised

Sums = tuple[Tensor, Mapping[str, Tensor]]
Scores = Callable[[Sequence[Item], Tensor], list[Score]]
Row = Callable[[Item, Tensor], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Goal:
    """What a head gives `outputs` numbers an item for.

    loss(outputs fp32 [I, K], targets) returns the summed loss, and sums of what is logged; scores(items, outputs) what
    is measured, of items that say what is right; row(item, output [K]) that item's row of the prediction file.
    labels: what the outputs stand for; probabilities: of the labels, from output [K]; both empty for a number.
    """

    outputs: int
    targets: Callable[[Sequence[Item]], Tensor]
    loss: Callable[[Tensor, Tensor], Sums]
    scores: Scores
    row: Row
    answered: Callable[[Item], bool]
    labels: tuple[str, ...] = ()
    probabilities: Callable[[Tensor], Tensor] | None = field(default=None)

    def judged(self, items: Sequence[Item], outputs: Tensor) -> list[Score]:
        """Return the scores of outputs fp32 [I, K]; none where no item says what is right (a hidden test split)."""
        return self.scores(items, outputs) if any(map(self.answered, items)) else []


class GoalHead(nn.Module):
    """What heads with a goal have in common, whatever they read."""

    goal: Goal

    @property
    def targets(self) -> Callable[[Sequence[Item]], Tensor]:
        """What makes the targets of a batch of the items."""
        return self.goal.targets

    @property
    def labels(self) -> tuple[str, ...]:
        """What the outputs stand for; nothing where the output is a number."""
        return self.goal.labels

    def probabilities(self, output: Tensor) -> Tensor:
        """Return the probability of each label [K] from what `decide` gives for an item [K]."""
        assert self.goal.probabilities is not None
        return self.goal.probabilities(output)

    def views(self, batch: Batch) -> Views:
        """Labels are told from plain inputs."""
        return Views()


# --- one label ------------------------------------------------------------------------------------------------------


def one_label(targets: Labels, scores: Callable[[Labels], Scores] | None = None, row: Row | None = None) -> Goal:
    """Return the goal of choosing one label: cross-entropy; accuracy, each image a unit, if `scores` says no other."""
    return Goal(
        outputs=len(targets.labels),
        targets=targets,
        loss=_cross_entropy,
        scores=(scores or accuracy_by_image)(targets),
        row=row or (lambda item, output: {"id": item.id, "label": targets.labels[int(output.argmax())]}),
        answered=lambda item: targets.told(item) is not None,
        labels=targets.labels,
        probabilities=lambda output: output.softmax(-1),
    )


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Sums:
    right = (outputs.argmax(1) == targets).sum()
    return F.cross_entropy(outputs, targets, reduction="sum"), {"accuracy": right}


def image_units(items: Sequence[Item]) -> Tensor:
    """Return int64 [I]: items of the same images are one unit; items without images are one each."""
    return numbered(["\n".join(image.name for image in item.images) or item.id for item in items])


def item_units(items: Sequence[Item]) -> Tensor:
    """Return int64 [I]: each item is a unit."""
    return numbered([item.id for item in items])


def constant(numbers: Tensor) -> float:
    """Return in percent how often the commonest of labels int64 [I] is right: chance."""
    return 100 * float(numbers.bincount().max()) / len(numbers)


def accuracy_by_image(targets: Labels) -> Scores:
    """Return the measure of accuracy, resampling images."""

    def scores(items: Sequence[Item], outputs: Tensor) -> list[Score]:
        return [_accuracy(targets(items), outputs, image_units(items))]

    return scores


def _accuracy(numbers: Tensor, outputs: Tensor, units: Tensor) -> Score:
    choice, tied = chosen(outputs, numbers)
    right = (choice == numbers).double()
    return accuracy_score("accuracy", right, units=units, chance=constant(numbers), ties=float(tied.double().mean()))


def consistency(targets: Labels) -> Scores:
    """Return NLVR2's measures: accuracy, and how often all items of a sentence are right; sentences are resampled."""

    def scores(items: Sequence[Item], outputs: Tensor) -> list[Score]:
        numbers, units = targets(items), numbered([sentence(item) for item in items])
        choice, tied = chosen(outputs, numbers)
        all_right = _all(choice == numbers, units)
        constants = [float(_all(numbers == label, units).double().mean()) for label in range(len(targets.labels))]
        ties = 1 - float(_all(~tied, units).double().mean())
        return [
            _accuracy(numbers, outputs, units),
            accuracy_score(
                "consistency",
                all_right.double(),
                units=torch.arange(len(all_right)),
                chance=100 * max(constants),
                ties=ties,
            ),
        ]

    return scores


def _all(right: Tensor, units: Tensor) -> Tensor:
    """Return bool [U]: whether all of right bool [I] are, of each unit int64 [I]."""
    return units.bincount(~right) == 0


def sentence(item: Item) -> str:
    """Return which sentence an item of NLVR2 is about: its identifier with the third field blanked."""
    parts = item.fields.get("identifier", item.id).split("-")
    return "-".join([*parts[:2], "", *parts[3:]])


def classes(targets: Labels) -> Scores:
    """Return the measures of image classification: acc@1, acc@5 of more than five classes, mean per-class recall."""

    def scores(items: Sequence[Item], outputs: Tensor) -> list[Score]:
        return class_scores(outputs, targets(items), item_units(items))

    return scores


def class_scores(outputs: Tensor, numbers: Tensor, units: Tensor) -> list[Score]:
    """Return acc@1, acc@5 of more than five classes, and mean per-class recall of outputs [I, K]."""
    labels = outputs.shape[1]
    rank, tied = ranks(outputs, F.one_hot(numbers, labels).bool())
    ties = float(tied.double().mean())
    common = 100 * numbers.bincount().sort(descending=True).values.double() / len(numbers)
    found = [
        accuracy_score(f"acc@{k}", (rank <= k).double(), units=units, chance=float(common[:k].sum()), ties=ties)
        for k in (1, 5)
        if k == 1 or k < labels
    ]
    recall = 100 / len(torch.unique(numbers))
    right = (rank == 1).double()
    return [*found, macro_score("mean per-class recall", right, numbers, units=units, chance=recall, ties=ties)]


def binary(name: str) -> Callable[[Labels], Scores]:
    """Return a measure of two labels beside accuracy: "F1" of the second one, or "Matthews correlation"."""

    def of(targets: Labels) -> Scores:
        def scores(items: Sequence[Item], outputs: Tensor) -> list[Score]:
            numbers, units = targets(items), item_units(items)
            choice, tied = chosen(outputs, numbers)
            ties, share = float(tied.double().mean()), float(numbers.double().mean())
            accuracy = accuracy_score(
                "accuracy", (choice == numbers).double(), units=units, chance=constant(numbers), ties=ties
            )
            if name == "F1":
                always = 200 * share / (1 + share)
                return [accuracy, agreement_score(name, f1, choice, numbers, units=units, chance=always, ties=ties)]
            return [agreement_score(name, matthews, choice, numbers, units=units, chance=0.0, ties=ties)]

        return scores

    return of


def accuracy_by_item(targets: Labels) -> Scores:
    """Return the measure of accuracy, resampling items."""
    return lambda items, outputs: [_accuracy(targets(items), outputs, item_units(items))]


# --- answers --------------------------------------------------------------------------------------------------------


def soft_answers(targets: SoftLabels) -> Goal:
    """Return the goal of answering questions: binary cross-entropy summed over the answers; the VQA score."""

    def scores(items: Sequence[Item], outputs: Tensor) -> list[Score]:
        return answer_scores(items, outputs, targets.labels)

    def row(item: Item, output: Tensor) -> dict[str, Any]:
        answer = targets.labels[int(output.argmax())]
        if "semantic_type" in item.fields:  # a question of GQA, whose evaluation reads other names
            return {"questionId": item.id, "prediction": answer}
        return {"question_id": int(item.id) if item.id.isdecimal() else item.id, "answer": answer}

    return Goal(
        outputs=len(targets.labels),
        targets=targets,
        loss=_binary_cross_entropy,
        scores=scores,
        row=row,
        answered=lambda item: bool(item.answers),
        labels=targets.labels,
        probabilities=lambda output: output.sigmoid(),
    )


def _binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Sums:
    loss = F.binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype), reduction="sum")
    return loss, {"accuracy": targets.gather(1, outputs.argmax(1, keepdim=True)).sum()}


def answer_scores(items: Sequence[Item], outputs: Tensor, labels: Sequence[str]) -> list[Score]:
    """Return the VQA score over all questions and by answer type; accuracy where each question has a single answer.

    An item whose best outputs tie is wrong.

    Raises:
        DataError: an item has no answers.
    """
    SoftLabels("vqa", ())(items)  # each has answers
    judged = [Judged(item.answers) for item in items]
    best, tied = outputs.max(1), (outputs == outputs.amax(1, keepdim=True)).sum(1) > 1
    told = [judge.score(labels[int(i)]) for judge, i in zip(judged, best.indices, strict=True)]
    gained = torch.tensor(told, dtype=torch.float64).masked_fill(tied, 0.0)
    name = "accuracy" if all(len(item.answers) == 1 for item in items) else "VQA score"
    kinds = [item.fields.get("answer_type", "") for item in items]
    parts = [("", torch.arange(len(items)))]
    if name == "VQA score":
        parts += [(f" {kind}", torch.tensor([i for i, k in enumerate(kinds) if k == kind])) for kind in _named(kinds)]
    units = image_units(items)
    return [
        accuracy_score(
            f"{name}{kind}",
            gained[rows],
            units=units[rows],
            chance=best_constant([judged[i] for i in rows.tolist()], labels),
            ties=float(tied[rows].double().mean()),
        )
        for kind, rows in parts
    ]


def _named(kinds: Sequence[str]) -> list[str]:
    return sorted(set(kinds) - {""})


def best_constant(judged: Sequence[Judged], labels: Sequence[str]) -> float:
    """Return in percent what the best single answer scores on all questions."""
    written: dict[str, list[int]] = {}
    reduced: dict[str, list[int]] = {}
    for number, label in enumerate(labels):
        written.setdefault(cleaned(label), []).append(number)
        reduced.setdefault(normalised(cleaned(label)), []).append(number)
    sums = torch.zeros(len(labels), dtype=torch.float64)
    for question in judged:
        places = written if question.as_written else reduced
        for answer, right in question.rights.items():
            sums[places.get(answer, [])] += right
    return 100 * float(sums.max()) / len(judged)


# --- a number -------------------------------------------------------------------------------------------------------


def one_number(targets: Numbers, *, explained: bool = True, row: Row | None = None) -> Goal:
    """Return the goal of telling a number: squared error; correlations and, where `explained`, R squared."""

    def scores(items: Sequence[Item], outputs: Tensor) -> list[Score]:
        said, true, units = outputs.squeeze(1), targets(items), item_units(items)
        _, counts = torch.unique(said, return_counts=True)
        ties = float(counts[counts > 1].sum()) / len(said)
        measures = {"Pearson correlation": pearson, "Spearman correlation": spearman}
        if explained:
            measures["R squared"] = determination
        return [
            agreement_score(name, measure, said, true, units=units, chance=0.0, ties=ties)
            for name, measure in measures.items()
        ]

    return Goal(
        outputs=1,
        targets=targets,
        loss=lambda outputs, true: (F.mse_loss(outputs.squeeze(1), true.to(outputs.dtype), reduction="sum"), {}),
        scores=scores,
        row=row or (lambda item, output: {"id": item.id, "value": float(output)}),
        answered=lambda item: targets.told(item) is not None,
    )
