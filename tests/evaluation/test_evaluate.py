from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from renaissance.api import Features
from renaissance.data.load import load_data
from renaissance.data.prepared import ParquetImage
from renaissance.errors import CapabilityError, DataError, NonFiniteError, SpecError
from renaissance.evaluation.choosing import Measure
from renaissance.evaluation.evaluate import evaluate
from renaissance.evaluation.scorer import ModelScorer
from renaissance.evaluation.splits import evaluate_split
from renaissance.progress import Silent
from renaissance.recipe.data import WorldData
from tests.evaluation.prepared_cases import captioned, write

WORLD = WorldData(train=8, test=6, captions=2, image_size=32)


@pytest.fixture
def model(tiny_model: Callable[..., Any], cache: Path) -> Any:
    return tiny_model(("mlm", "itm", "itc", "retrieval"), dropout=0.3)


@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_left_in_the_mode_in_which_it_came(training: bool, model: Any) -> None:
    model.train(training)
    evaluate(model, WORLD)
    assert model.training is training
    assert model.encoder.vision.training is training


def test_a_frozen_part_stays_in_eval(tiny_model: Callable[..., Any], cache: Path) -> None:
    model = tiny_model(("itm",), "frozen text", dropout=0.3)
    evaluate(model, WORLD)
    assert model.training
    assert not any(part.training for part in model.encoder.text.modules())


def test_measuring_twice_gives_the_same_scores_whatever_the_batch(model: Any) -> None:
    first, again, other = (evaluate(model, WORLD, batch_size=size) for size in (4, 4, 5))
    assert first == again
    assert [s.value for s in first[0].scores["retrieval"]] == [s.value for s in other[0].scores["retrieval"]]


def test_measuring_changes_no_weight_and_draws_nothing(model: Any) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    evaluate(model, WORLD)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_every_image_and_caption_of_the_split_counts(model: Any) -> None:
    (scores,) = evaluate(model, WORLD)
    assert (scores.split, scores.images, scores.captions, scores.distinct_texts) == ("test", 6, 12, 12)
    by_name = {score.name: score for score in scores.scores["retrieval"]}
    assert by_name["text R@1"].n == 6
    assert by_name["image R@1"].n == 12
    assert json.loads(json.dumps(scores.rows()))[0]["split"] == "test"


def test_each_distinct_input_is_encoded_once_however_many_tasks_ask(model: Any) -> None:
    sizes: dict[str, int] = {"vision": 0, "text": 0}

    def count(tower: str, inputs: Any) -> None:
        sizes[tower] += len(inputs.pixels if tower == "vision" else inputs.token_ids)

    model.encoder.vision.register_forward_pre_hook(lambda _, given: count("vision", given[0]))
    model.encoder.text.register_forward_pre_hook(lambda _, given: count("text", given[0]))
    evaluate(model, WORLD)
    assert sizes == {"vision": 6, "text": 12}


def test_only_the_tasks_and_splits_that_are_named_are_measured(model: Any) -> None:
    (scores,) = evaluate(model, WORLD, tasks=["itm"], splits=["test"])
    assert list(scores.scores) == ["itm"]


def test_what_cannot_be_measured_says_what_can(model: Any) -> None:
    with pytest.raises(CapabilityError, match="cannot be measured by 'mlm'; it can by: itm, retrieval"):
        evaluate(model, WORLD, tasks=["mlm"])
    with pytest.raises(DataError, match="The data have no split 'tset'; choose from: test"):
        evaluate(model, WORLD, splits=["tset"])


def test_a_model_without_tasks_to_measure_says_what_to_add(tiny_model: Callable[..., Any], cache: Path) -> None:
    with pytest.raises(CapabilityError, match="Add 'itm', 'itc' with 'retrieval'"):
        evaluate(tiny_model(("mlm",)), WORLD)


def test_reranking_without_matching_says_what_to_add(tiny_model: Callable[..., Any]) -> None:
    with pytest.raises(SpecError, match="rerank orders by ITM scores; add the task 'itm'"):
        tiny_model({"itc": {}, "retrieval": {"rerank": 3}})


def test_a_model_of_matching_alone_is_measured_by_its_full_matrix(tiny_model: Callable[..., Any], cache: Path) -> None:
    model = tiny_model({"itm": {}, "retrieval": {"rerank": "all"}})
    (scores,) = evaluate(model, WORLD, tasks=["retrieval"], splits=["test"])
    assert {score.name for score in scores.scores["retrieval"]} > {"full text R@1", "full image R@1"}


def test_retrieval_that_a_saved_model_was_not_given_says_how_matching_alone_does_it(
    tiny_model: Callable[..., Any], cache: Path
) -> None:
    with pytest.raises(CapabilityError, match=r"add the task 'itc', or say rerank=all.* the model's recipe"):
        evaluate(tiny_model(("itm",)), WORLD, tasks=["retrieval"])


def test_a_damaged_model_is_an_error_not_a_score(model: Any) -> None:
    model.tasks["itm"].head.weight.data.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="itm: 12 of 12 scores are NaN"):
        evaluate(model, WORLD, tasks=["itm"])


def test_a_folder_is_measured_whole(model: Any, cache: Path) -> None:
    evaluate(model, WORLD)
    (folder,) = [path for path in cache.glob("world-*") if _images(path) == 14]
    (scores,) = evaluate(model, folder, tasks=["itm"])
    assert (scores.split, scores.images) == ("all", 14)


def _images(folder: Path) -> int:
    return sum(1 for _ in folder.rglob("*.png"))


def test_scores_of_pairs_are_those_of_the_model(model: Any, cache: Path) -> None:
    """The scorer's padding and batching change nothing of what the model itself gives."""
    model.eval()
    records = load_data(WORLD, cache=cache, on_bad_sample="error", validation=0).splits["test"]
    from renaissance.data.collate import image_batches, text_batches

    texts = [record.captions[0] for record in records]
    with torch.inference_mode():
        images = model.encoder.encode_vision(next(image_batches(records, model.encoder.vision.processor, 6)))
        plain = model.encoder.encode_text(next(text_batches(texts, model.encoder.text.processor, 6)))
        parts = [model.encoder.encode_text(part) for part in text_batches(texts, model.encoder.text.processor, 1)]
        joint = model.encoder.fuse(images, plain, frozenset({"pooled"}))
        expected = model.tasks["itm"].predict(joint)
    keys = torch.arange(1, 7)
    scorer = ModelScorer(model, lambda: [images], lambda: parts, keys.unsqueeze(1), keys, Silent().track)
    index = torch.stack([torch.arange(6), torch.arange(6)], 1)
    torch.testing.assert_close(scorer.match(index), expected, rtol=1e-5, atol=1e-5)
    similarity = scorer.similarity()
    assert similarity.shape == (6, 6)
    assert float(similarity.abs().max()) <= 1 + 1e-5
    assert isinstance(scorer.features()[0], Features)


def test_a_split_of_one_image_cannot_be_matched(model: Any, cache: Path) -> None:
    records = load_data(WORLD, cache=cache, on_bad_sample="error", validation=0).splits["test"][:1]
    with pytest.raises(DataError, match="this split has none"):
        evaluate_split(
            model,
            "one",
            records,
            {"itm": Measure(model.plan.tasks["itm"].entry, model.tasks["itm"])},
            progress=Silent(),
        )


def test_records_of_one_image_are_one_image_with_all_their_captions(model: Any, tmp_path: Path, cache: Path) -> None:
    """As the regions of Visual Genome: two rows of one image would tie with each other."""
    regions = [captions | {"images": [number // 2]} for number, captions in enumerate(captioned(*range(8)))]
    (scores,) = evaluate(model, write(tmp_path / "genome", "visual-genome", {"test": regions}))
    assert (scores.images, scores.captions, scores.distinct_texts) == (4, 16, 16)
    by_name = {score.name: score for score in scores.scores["retrieval"]}
    assert (by_name["text R@1"].n, by_name["text R@1"].units, by_name["text R@1"].ties) == (4, 4, 0.0)
    assert (by_name["image R@1"].n, by_name["image R@1"].units) == (16, 4)


def test_an_image_is_decoded_once_where_bad_ones_are_left_out(
    model: Any, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "coco", "coco-captions", {"test": captioned(*range(5))})
    reads: list[str] = []
    read = ParquetImage.read

    def counted(image: ParquetImage) -> bytes:
        reads.append(image.name)
        data = read(image)
        return data[:60] if image.name.endswith("p2") else data

    monkeypatch.setattr(ParquetImage, "read", counted)
    (scores,) = evaluate(model, folder, on_bad_sample="skip", batch_size=2)
    assert sorted(reads) == [f"coco/p{number}" for number in range(5)]
    assert (scores.images, len(scores.skipped)) == (4, 1)
    assert "p2" in scores.skipped[0]


def test_what_is_left_out_changes_no_score_of_the_others(model: Any, tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "coco", "coco-captions", {"test": captioned(*range(5))})
    (one,), (other,) = (evaluate(model, folder, on_bad_sample=how) for how in ("error", "skip"))
    assert one == other
