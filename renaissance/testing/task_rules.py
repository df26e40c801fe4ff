"""What every task must hold, in a tiny model as the engine runs it: its loss, what it learns, and how it scores.

Letters in shapes: K outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from renaissance.api import TaskLoss
from renaissance.errors import NonFiniteError
from renaissance.testing.items import Example, judge_of
from renaissance.testing.subjects import NotApplicable, check_close, check_equal, failure, seeded
from renaissance.testing.task_trials import TaskTrial

STEPS, LEARNING_RATE = 30, 3e-3
LEARNED = 0.6  # of the first loss: what may be left of it on a batch seen thirty times
EXACT = 1e-4
BEST = 100.0  # percent; a sum of several figures may be above


# --- training ---------------------------------------------------------------------------------------------------------


def _loss(trial: TaskTrial) -> None:
    """Its loss is one finite number, a sum over so many decisions."""
    loss = trial.loss(trial.batch())
    check_equal("loss", "shapes of sum and count", (tuple(loss.sum.shape), tuple(loss.count.shape)), ((), ()))
    check_equal("loss", "a finite sum", bool(loss.sum.isfinite()), True)
    if not float(loss.count) > 0:
        raise failure("loss", f"a count of {float(loss.count)}", "at least one decision in this batch")


def _learns(trial: TaskTrial) -> None:
    """It overfits one batch in thirty steps, and each of its parameters gets a gradient."""
    batch = trial.batch()
    model = trial.fresh().train()
    step = trial.step(model)
    head = model.tasks[trial.entry.name]
    optimiser = torch.optim.AdamW([p for p in step.parameters() if p.requires_grad], lr=LEARNING_RATE)
    losses = []
    with seeded(0):
        for _ in range(STEPS):
            optimiser.zero_grad()
            output = step(batch)
            output.loss.backward()
            idle = [name for name, p in head.named_parameters() if p.requires_grad and p.grad is None]
            check_equal("learns", "parameters without a gradient", idle, [])
            optimiser.step()
            step.momentum.update()
            losses.append(float(output.losses[trial.entry.name]))
    if not min(losses[-3:]) <= LEARNED * losses[0]:
        raise failure("learns", f"a loss from {losses[0]:.3f} to {losses[-1]:.3f}", f"{LEARNED:.0%} of it, or less")


def _batch_order(trial: TaskTrial) -> None:
    """The loss of a batch does not depend on the order of its samples, unless it draws false pairs of them by place."""
    if trial.entry.needs_negatives and trial.fuses:
        raise NotApplicable("it may draw what it fuses by its place in the batch")
    whole = trial.loss(trial.batch())
    _same("batch order", trial.loss(trial.batch(range(trial.count)[::-1])), whole)


def _batch_size(trial: TaskTrial) -> None:
    """The losses of the halves of a batch add up to that of the whole, unless it contrasts samples with each other."""
    if trial.entry.needs_negatives:
        raise NotApplicable("it contrasts the samples of a batch with each other")
    whole, places, half = trial.loss(trial.batch()), range(trial.count), trial.count // 2
    halves = [trial.loss(trial.batch(part)) for part in (places[:half], places[half:])]
    _same("batch size", TaskLoss(halves[0].sum + halves[1].sum, halves[0].count + halves[1].count), whole)


def _same(rule: str, seen: TaskLoss, expected: TaskLoss) -> None:
    check_equal(rule, "count", float(seen.count), float(expected.count))
    apart = abs(float(seen.sum - expected.sum)) / max(1.0, abs(float(expected.sum)))
    if not apart <= EXACT:
        raise failure(rule, f"a loss of {float(seen.sum):.5f}", f"{float(expected.sum):.5f}")


# --- scoring ----------------------------------------------------------------------------------------------------------


def _oracle(trial: TaskTrial) -> None:
    """A model that is always right has the top score, and one that says the same of everything has not."""
    judged = trial.judged()
    scores = judged(lambda right: right)
    if not scores:
        raise failure("oracle", "no scores", "at least one")
    below = {score.name: score.value for score in scores if not score.value >= BEST - EXACT}
    check_equal("oracle", "scores of a model that is always right", below, {})
    collapsed = judged(lambda right: torch.full_like(right, 0.5))
    best = {score.name: score.value for score in scores}
    fooled = {score.name: score.value for score in collapsed if not score.value < best[score.name] - EXACT}
    check_equal("oracle", "top scores of a model that says the same of everything", fooled, {})


def _nan(trial: TaskTrial) -> None:
    """Predictions that are not numbers are an error, never a score."""
    judged = trial.judged(right=False)
    try:
        scores = judged(lambda right: torch.full_like(right, float("nan")))
    except NonFiniteError:
        return
    told = {score.name: score.value for score in scores}
    raise failure("nan", f"the scores {told} of predictions that are NaN", "NonFiniteError")


def _items_apart(trial: TaskTrial) -> None:
    """What is decided of an item is the same alone, among others and in another order; so is the score."""
    example = trial.decided
    items = example.items
    together = trial.decisions(items)
    turned = trial.decisions(items[::-1])[::-1]
    alone = [trial.decisions([item])[0] for item in items]
    for found, expected in zip([*turned, *alone], [*together, *together], strict=True):
        check_close("items apart", found, expected)
    if example.right is None:  # pairs of images and texts are scored by other tasks
        return
    told, backwards = replace(example, right=together), Example(items[::-1], together[::-1])
    scores, others = (judge_of(trial.task, example)(lambda right: right) for example in (backwards, told))
    for score, other in zip(scores, others, strict=True):
        if abs(score.value - other.value) > EXACT:
            raise failure("items apart", f"{score.name} {score.value} in another order", str(other.value))


RULES: dict[str, Callable[[TaskTrial], None]] = {
    "loss": _loss,
    "learns": _learns,
    "batch order": _batch_order,
    "batch size": _batch_size,
    "oracle": _oracle,
    "nan": _nan,
    "items apart": _items_apart,
}
