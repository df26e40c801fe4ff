"""Tasks that choose a label: their heads, losses and how images of an item come together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from renaissance.api import Batch, Item, Joint, ModelFacts, Score
from renaissance.assemble import assemble
from renaissance.builtin.classification import nlvr2, vqa
from renaissance.builtin.downstream_options import Nlvr2Options, VqaOptions
from renaissance.errors import DataError, SpecError
from renaissance.resolve import resolve
from renaissance.training.train_step import TrainStep
from tests.builtin.item_cases import FakeScorer, item

OWN = {"labels": ["a", "b"]}
FACTS = ModelFacts(vision=None, text=None, joint=6, fused_text=None, shared_space=False, tokenizer=None)


def pairs_of_two(batch: Batch) -> Batch:
    """Return the batch with two items of two images each, the pairs in an odd order."""
    return replace(
        batch,
        pairs=torch.tensor([[1, 0], [0, 0], [0, 1], [1, 1]]),
        slots=torch.tensor([1, 0, 0, 1]),
        items=torch.tensor([0, 0, 1, 1]),
    )


def test_soft_labels_cost_the_binary_cross_entropy_summed_over_answers() -> None:
    torch.manual_seed(0)
    task = vqa(VqaOptions(labels=("a", "b", "c")), model=FACTS)
    batch: Any = type("Labels", (), {"targets": {"vqa": torch.tensor([[0.3, 1.0, 0.0], [0.0, 0.0, 0.6]])}})
    batch.items, batch.slots = torch.arange(2), torch.zeros(2, dtype=torch.int64)
    joint = Joint(pooled=torch.randn(2, 6))
    with torch.no_grad():
        lost = task.loss(None, joint, None, batch)  # type: ignore[arg-type]  # it reads no encoded input
        p = task.predict(joint, batch.items, batch.slots).double().sigmoid()
    t = batch.targets["vqa"].double()
    naive = sum(-(t[i, k] * p[i, k].log() + (1 - t[i, k]) * (1 - p[i, k]).log()) for i in range(2) for k in range(3))
    assert float(lost.sum) == pytest.approx(float(naive), abs=1e-5)
    assert int(lost.count) == 2


def test_two_images_of_an_item_stand_side_by_side_in_the_order_of_their_slots() -> None:
    torch.manual_seed(0)
    task = nlvr2(Nlvr2Options(hidden=5), model=FACTS).eval()
    pooled = torch.randn(4, 6)  # item 1's second, item 0's first, item 0's second, item 1's first
    items, slots = torch.tensor([1, 0, 0, 1]), torch.tensor([1, 0, 1, 0])
    found = task.predict(Joint(pooled=pooled), items, slots)
    expected = torch.stack([torch.cat([pooled[1], pooled[2]]), torch.cat([pooled[3], pooled[0]])])
    torch.testing.assert_close(found, task.outer(F.gelu(task.norm(task.inner(expected)))))


@pytest.mark.parametrize("name", ["vqa", "nlvr2"])
def test_a_model_trains_on_labels(tiny_model: Callable[..., Any], tiny_batch: Callable[..., Any], name: str) -> None:
    assembly = tiny_model((name,))
    batch = tiny_batch(assembly)
    if name == "nlvr2":
        batch = pairs_of_two(batch)
    items = int(batch.items.max()) + 1
    targets = torch.rand(items, 2) if name == "vqa" else torch.arange(items) % 2
    output = TrainStep(assembly, {name: 1.0})(replace(batch, targets={name: targets}))
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in assembly.tasks.parameters())
    assert float(output.losses[name]) > 0


def test_data_without_labels_is_refused(tiny_model: Callable[..., Any], tiny_batch: Callable[..., Any]) -> None:
    assembly = tiny_model(("vqa",))
    with pytest.raises(DataError, match="'vqa' needs a label"):
        TrainStep(assembly, {"vqa": 1.0})(tiny_batch(assembly))


def test_a_single_label_is_refused() -> None:
    with pytest.raises(SpecError, match="labels"):
        resolve("tiny-vit + tiny-bert, random both", {"vqa": {"labels": ["yes"]}})


# --- what is measured -------------------------------------------------------------------------------------------------


def scored(task: Any, items: list[Item], outputs: list[list[float]]) -> dict[str, Score]:
    scorer: Any = FakeScorer(items, {i.id: torch.tensor(out) for i, out in zip(items, outputs, strict=True)})
    return {score.name: score for score in task.score(scorer)}


def test_consistency_asks_for_all_items_of_a_sentence() -> None:
    # the third field of an identifier is the pair of images; the rest is the sentence
    names = ["dev-7-0-1", "dev-7-1-1", "dev-7-0-2", "dev-8-0-1"]
    labels = ["True", "False", "True", "True"]
    items = [
        item(n, images=2, label=label, fields={"identifier": name})
        for n, (name, label) in enumerate(zip(names, labels, strict=True))
    ]
    found = scored(nlvr2(Nlvr2Options(), model=FACTS), items, [[0, 1], [0, 1], [0, 1], [0, 1]])
    assert (found["accuracy"].value, found["accuracy"].chance, found["accuracy"].units) == (75, 75, 3)
    assert found["consistency"].value == pytest.approx(200 / 3)
    assert found["consistency"].chance == pytest.approx(200 / 3)
    assert found["consistency"].n == 3


def test_the_vqa_score_is_told_by_answer_type_and_its_chance_is_the_best_constant_answer() -> None:
    told = [("yes/no", ["yes"] * 10), ("yes/no", ["no"] * 8 + ["yes"] * 2), ("number", ["2"] * 10)]
    items = [item(n, answers=tuple(a), fields={"answer_type": kind}) for n, (kind, a) in enumerate(told)]
    task = vqa(VqaOptions(labels=("yes", "no", "2")), model=FACTS)
    found = scored(task, items, [[1, 0, 0], [1, 0, 0], [1, 0, 0]])
    assert found["VQA score"].value == pytest.approx(100 * (1 + 0.6) / 3)
    assert found["VQA score"].chance == pytest.approx(100 * (1 + 0.6) / 3)
    assert found["VQA score yes/no"].value == pytest.approx(80)
    assert (found["VQA score number"].value, found["VQA score number"].chance) == (0, 100)
    assert (found["VQA score"].n, found["VQA score"].units) == (3, 2)


def test_a_tie_is_wrong_even_where_the_right_label_comes_first() -> None:
    items = [item(0, label="False", images=2), item(1, label="True", images=2)]
    found = scored(nlvr2(Nlvr2Options(), model=FACTS), items, [[1, 1], [1, 1]])
    assert (found["accuracy"].value, found["accuracy"].ties) == (0, 100)


def test_a_tie_of_answers_gains_nothing_even_where_the_right_one_comes_first() -> None:
    items = [item(n, answers=("yes",) * 10) for n in range(2)]
    found = scored(vqa(VqaOptions(labels=("yes", "no")), model=FACTS), items, [[1, 1], [1, 0]])["VQA score"]
    assert (found.value, found.ties) == (50, 50)


def test_prediction_files_are_in_the_form_of_the_benchmarks() -> None:
    task = vqa(VqaOptions(labels=("yes", "no")), model=FACTS)
    questions = [
        Item(id="262148000", images=(), texts=("q",)),
        Item(id="05451384", images=(), texts=("q",), fields={"semantic_type": "obj"}),
    ]
    scorer: Any = FakeScorer(questions, {i.id: torch.tensor([0.0, 1.0]) for i in questions})
    assert task.submission(scorer) == [
        {"question_id": 262148000, "answer": "no"},
        {"questionId": "05451384", "prediction": "no"},
    ]


def test_one_tower_models_answer_too() -> None:
    plan = resolve("tiny-bert, one-tower(image_size=32, patch_size=16), random encoder", {"vqa": {}, "pair": OWN})
    assembly = assemble(plan).eval()
    assert assembly.tasks["vqa"].labels == ("no", "yes")
    assert assembly.tasks["pair"].inner.in_features == 2 * assembly.encoder.facts().joint
