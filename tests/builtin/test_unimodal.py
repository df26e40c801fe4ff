"""Labels for images alone and texts alone, their metrics, and zero-shot classification."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from renaissance.builtin.downstream_options import ZeroShotOptions
from renaissance.builtin.zero_shot import ZeroShotClassification
from renaissance.errors import DataError, SpecError
from renaissance.evaluation.items import ModelItemScorer
from renaissance.progress import Silent
from renaissance.resolve import resolve
from renaissance.toolkit.agreement import average_ranks, determination, f1, matthews, pearson, spearman
from tests.builtin.item_cases import FACTS, FakeScorer, item

SPEC = "tiny-vit + tiny-bert, random both"


def test_a_text_is_classified_by_its_tower_alone(tiny_model: Callable[..., Any]) -> None:
    assembly = tiny_model({"text-classification": {"labels": ["no", "yes"]}}).eval()
    items = [item(n, images=0, texts=1 + n % 2) for n in (0, 2, 4)]
    task = assembly.tasks["text-classification"]
    scorer = ModelItemScorer(assembly, items, {"text-classification": task}, Silent().track)
    with torch.inference_mode():
        features = assembly.encoder.encode_text(assembly.encoder.text.processor([i.texts[0] for i in items]))
        expected = task.head(assembly.encoder.represent(features, "text"))
    torch.testing.assert_close(torch.stack(scorer.decisions("text-classification")), expected, atol=1e-5, rtol=1e-5)


def test_two_texts_are_read_as_one_pair(tiny_model: Callable[..., Any]) -> None:
    assembly = tiny_model({"text-classification": {"subset": "mrpc"}}).eval()
    items = [item(n, images=0, texts=2) for n in range(3)]
    task = assembly.tasks["text-classification"]
    scorer = ModelItemScorer(assembly, items, {"text-classification": task}, Silent().track)
    with torch.inference_mode():
        inputs = assembly.encoder.text.processor([i.texts[0] for i in items], [i.texts[1] for i in items])
        expected = task.head(assembly.encoder.represent(assembly.encoder.encode_text(inputs), "text"))
    torch.testing.assert_close(torch.stack(scorer.decisions("text-classification")), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"subset": "cola", "labels": ["a", "b"]}])
def test_a_text_task_has_labels_or_a_subset(options: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="either 'labels', or the 'subset'"):
        resolve(SPEC, {"text-classification": options})


def test_another_subset_of_glue_is_refused(tiny_model: Callable[..., Any]) -> None:
    task = tiny_model({"text-classification": {"subset": "mrpc"}}).tasks["text-classification"]
    with pytest.raises(DataError, match="of 'qqp', and 'text-classification' is for 'mrpc'"):
        task.targets([item(0, label="1", fields={"subset": "qqp"})])


def test_a_label_that_stands_twice_is_refused() -> None:
    with pytest.raises(SpecError, match="'a' stands there twice"):
        resolve(SPEC, {"image-classification": {"labels": ["a", "b", "a"]}})


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_the_matthews_correlation_is_the_correlation_of_two_labels() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        said, true = generator.integers(0, 2, (2, 40))
        assert matthews(said, true) == pytest.approx(np.corrcoef(said, true)[0, 1])
        assert pearson(said.astype(float), true.astype(float)) == pytest.approx(np.corrcoef(said, true)[0, 1])


def test_f1_is_the_harmonic_mean_of_precision_and_recall() -> None:
    said, true = np.array([1, 1, 1, 0, 0]), np.array([1, 0, 0, 1, 0])
    precision, recall = 1 / 3, 1 / 2
    assert f1(said, true) == pytest.approx(2 * precision * recall / (precision + recall))


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    assert average_ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]


def test_correlations_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(0)
    for _ in range(20):
        said, true = np.round(generator.normal(size=(2, 30)), 1)
        assert pearson(said, true) == pytest.approx(stats.pearsonr(said, true)[0])
        assert spearman(said, true) == pytest.approx(stats.spearmanr(said, true)[0])


def test_spearman_sees_order_alone() -> None:
    values = np.array([0.1, 0.5, 2.0, 7.0])
    assert spearman(np.exp(values), values) == pytest.approx(1)
    assert spearman(-values, values) == pytest.approx(-1)


def test_the_mean_explains_nothing() -> None:
    true = np.array([1.0, 2.0, 6.0])
    assert determination(np.full(3, true.mean()), true) == pytest.approx(0)
    assert determination(true, true) == 1
    assert pearson(np.full(3, 0.1), true) == 0


# --- zero-shot --------------------------------------------------------------------------------------------------------


def test_a_class_is_the_normalised_mean_of_its_normalised_sentences() -> None:
    torch.manual_seed(0)
    table = {f"{kind} {name}": F.normalize(torch.randn(5), dim=0) for kind in ("a", "the") for name in ("cat", "dog")}
    images = {f"q-{n}": F.normalize(torch.randn(5), dim=0) for n in range(6)}
    items = [item(n, texts=0, label=("cat", "dog")[n % 2]) for n in range(6)]
    options = ZeroShotOptions(labels=("cat", "dog"), templates=("a {}", "the {}"))
    scorer: Any = FakeScorer(items, images, lambda texts: torch.stack([table[text] for text in texts]))
    rows = ZeroShotClassification(options, model=FACTS).submission(scorer)
    for row in rows:
        near = {}
        for name in ("cat", "dog"):
            mean = (table[f"a {name}"] + table[f"the {name}"]) / 2
            near[name] = float(images[row["id"]] @ mean / mean.norm())
        assert row["label"] == max(near, key=near.__getitem__)


def test_a_class_of_sentences_that_agree_little_is_no_farther_for_that() -> None:
    # the mean of the cat's sentences points at the image and is short; those of the dog are 30 degrees away
    table = {"a cat": [1.0, 0.0], "the cat": [0.0, 1.0]}
    table |= {f"{kind} dog": [math.cos(math.pi / 12), math.sin(math.pi / 12)] for kind in ("a", "the")}
    options = ZeroShotOptions(labels=("cat", "dog"), templates=("a {}", "the {}"))
    image = {"q-0": F.normalize(torch.ones(2), dim=0)}
    scorer: Any = FakeScorer([item(0, texts=0)], image, lambda texts: torch.tensor([table[text] for text in texts]))
    assert ZeroShotClassification(options, model=FACTS).submission(scorer) == [{"id": "q-0", "label": "cat"}]


def test_the_labels_of_the_split_are_the_classes_where_none_are_given() -> None:
    task = ZeroShotClassification(ZeroShotOptions(), model=FACTS)
    scorer: Any = FakeScorer([item(n, label=("old_dog", "cat")[n % 2]) for n in range(4)])
    assert task.labels(scorer) == ("cat", "old_dog")


def test_a_template_without_a_place_is_refused() -> None:
    with pytest.raises(SpecError, match="no place for the class"):
        resolve(SPEC, {"itc": {}, "zero-shot-classification": {"templates": ["a photo"]}})
