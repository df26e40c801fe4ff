from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from renaissance.builtin.retrieval import PairScores
from renaissance.data.captions import caption_key
from renaissance.errors import CapabilityError, SampleError, SpecError
from renaissance.evaluation.scorer import ModelScorer
from renaissance.inference import encode_images, encode_texts, ranking
from renaissance.pretrained import Model, build, from_pretrained
from renaissance.registry import Registry

REGISTRY = Registry()
TOWERS = "tiny-vit(width=32, layers=2, heads=2, mlp_width=64) + tiny-bert(width=32, layers=2, heads=2, mlp_width=64)"
SPEC = f"{TOWERS}, random both, lxmert(layers=1, width=32, heads=2)"
PICTURES = [Image.linear_gradient("L").convert("RGB").rotate(30 * turn) for turn in range(6)]
CAPTIONS = ["a red cup on a table", "two dogs", "rain", "a large blue square above a circle", "snow on a hill"]


@pytest.fixture(scope="module")
def model() -> Model:
    return stirred(build(SPEC, tasks=("itm", "itc"), registry=REGISTRY))


def stirred(model: Model) -> Model:
    """Return the model with weights so large that its answers differ clearly."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model.eval()


def scorer(model: Model) -> ModelScorer:
    """Return what evaluation scores these pictures and captions by."""
    keys = torch.tensor([caption_key(text) for text in CAPTIONS])
    return ModelScorer(
        model.assembly,
        lambda: [encode_images(model.encoder, list(enumerate(PICTURES)))],
        lambda: [encode_texts(model.encoder, list(enumerate(CAPTIONS)))],
        torch.zeros(len(PICTURES), 1, dtype=torch.int64),
        keys,
        lambda parts, total, label: iter(parts),
    )


# --- rank -------------------------------------------------------------------------------------------------------------


def test_images_are_ranked_for_a_text_by_the_products_that_embed_gives(model: Model) -> None:
    images, texts = model.embed(PICTURES, CAPTIONS[0])
    assert images is not None
    assert texts is not None
    expected = images @ texts[0]
    found = model.rank(PICTURES, CAPTIONS[0], rerank=0)
    assert found.probability is None
    assert found.indices.tolist() == expected.argsort(descending=True).tolist()
    torch.testing.assert_close(found.similarity, expected[found.indices], rtol=0, atol=1e-6)


def test_texts_are_ranked_for_an_image_and_only_the_best_are_told(model: Model) -> None:
    whole, best = model.rank(PICTURES[2], CAPTIONS), model.rank(PICTURES[2], CAPTIONS, top=2)
    assert sorted(whole.indices.tolist()) == list(range(len(CAPTIONS)))
    assert best.indices.tolist() == whole.indices[:2].tolist()
    assert model.rank(PICTURES[2], CAPTIONS, top=99).indices.tolist() == whole.indices.tolist()


@pytest.mark.parametrize("k", [1, 3, 99])
def test_the_best_are_ordered_again_as_the_cascade_of_evaluation_orders_them(model: Model, k: int) -> None:
    by_image, by_text = PairScores(scorer(model), "itm").reranked(k)
    for place, picture in enumerate(PICTURES):
        expected = by_image[place].argsort(descending=True).tolist()
        assert model.rank(picture, CAPTIONS, rerank=k).indices.tolist() == expected
    for place, text in enumerate(CAPTIONS):
        expected = by_text[place].argsort(descending=True).tolist()
        assert model.rank(PICTURES, text, rerank=k).indices.tolist() == expected


def test_probabilities_are_those_of_match_and_told_of_the_best_alone(model: Model) -> None:
    found = model.rank(PICTURES, CAPTIONS[1], rerank=3, batch_size=2)
    assert found.probability is not None
    assert found.probability.isnan().tolist() == [False] * 3 + [True] * 3
    pairs = model.match([PICTURES[place] for place in found.indices[:3]], [CAPTIONS[1]] * 3)
    torch.testing.assert_close(found.probability[:3], pairs, rtol=0, atol=1e-6)
    assert found.probability[:3].tolist() == sorted(pairs.tolist(), reverse=True)


def test_equal_candidates_keep_their_order_and_are_not_matched_by_luck() -> None:
    asked: list[int] = []

    def match(places: Tensor) -> Tensor:
        asked.extend(places.tolist())
        return places.float()

    found = ranking(torch.tensor([0.1, 0.5, 0.5, 0.9]), match, rerank=2, top=None)
    assert found.indices.tolist() == [3, 1, 2, 0]
    assert asked == [3]  # the second best ties with the third, which is beyond the two


def test_a_model_without_the_task_says_which_to_train() -> None:
    only_contrast = build(SPEC, tasks="itc", registry=REGISTRY)
    assert only_contrast.rank(PICTURES, "rain").probability is None
    with pytest.raises(CapabilityError, match=r"model\.rank needs a head trained for 'itm'"):
        only_contrast.rank(PICTURES, "rain", rerank=2)
    with pytest.raises(CapabilityError, match=r"model\.rank needs a head trained for 'itc'"):
        build(SPEC, tasks="itm", registry=REGISTRY).rank(PICTURES, "rain")


def test_what_cannot_be_ranked_is_refused(model: Model) -> None:
    for images, texts in ((PICTURES, CAPTIONS), (PICTURES[0], CAPTIONS[0])):
        with pytest.raises(SpecError, match="Give one of them alone"):
            model.rank(images, texts)
    for given in ({"top": 0}, {"rerank": -1}):
        with pytest.raises(SpecError, match="top must be at least 1"):
            model.rank(PICTURES, "rain", **given)
    with pytest.raises(SampleError, match=r"texts\[1\]"):
        model.rank(PICTURES[0], ["rain", " "])
    with pytest.raises(SampleError, match="empty"):
        model.rank([], "rain")


def test_what_is_neither_one_nor_several_is_refused_by_name(model: Model) -> None:
    with pytest.raises(SpecError, match="nothing to embed"):
        model.embed()
    for wrong in (5, b"rain", {"rain": 1}, None):
        with pytest.raises(SpecError, match=r"^texts= is a "):
            model.match(PICTURES[:1], wrong)  # type: ignore[arg-type]  # what a user may do
    for unread in (7, io.BytesIO(b"x")):
        with pytest.raises(SpecError, match=r"^images= is a "):
            model.embed(unread)  # type: ignore[arg-type]  # what a user may do
    with pytest.raises(SampleError, match=r"images\[1\] is a ndarray"):
        model.embed([PICTURES[0], np.zeros((8, 8, 3))])  # type: ignore[list-item]  # what a user may do
    for size in (0, 1.5, "2"):
        with pytest.raises(SpecError, match="batch_size must be a whole number, at least 1"):
            model.embed(PICTURES, batch_size=size)  # type: ignore[arg-type]  # what a user may do
    with pytest.raises(SpecError, match="whole numbers"):
        model.rank(PICTURES, "rain", top="2")  # type: ignore[arg-type]  # what a user may do


@pytest.mark.parametrize("place", ["missing.png", "", "https://example.org/cup.png", "a\0b", "x" * 5000])
def test_a_path_that_cannot_be_read_says_what_helps_here(model: Model, place: str) -> None:
    with pytest.raises(SampleError, match=r"^images\[0\]") as caught:
        model.embed(place)
    assert "--on-bad-sample" not in str(caught.value)  # that is for data that are prepared or evaluated
    assert len(str(caught.value)) < 500


def test_iterables_and_files_of_any_mode_are_taken(model: Model, tmp_path: Path) -> None:
    PICTURES[0].save(tmp_path / "one.png")
    given = [PICTURES[0].convert(mode) for mode in ("RGB", "L", "RGBA")]
    several: Any = (picture for picture in [*given, str(tmp_path / "one.png"), tmp_path / "one.png"])
    vectors = model.embed(several).images
    assert vectors is not None
    torch.testing.assert_close(vectors, vectors[:1].expand(5, -1), rtol=0, atol=1e-6)


# --- types and devices ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", ["", ", frozen both", ", frozen vision, frozen text[:1]"])
def test_answers_in_bf16_are_fp32_and_within_two_hundredths(rules: str, tmp_path: Path) -> None:
    line = SPEC.replace(", lxmert", f"{rules}, lxmert")
    stirred(build(line, tasks=("itm", "itc"), registry=REGISTRY)).save(tmp_path / "model")
    exact = from_pretrained(tmp_path / "model", registry=REGISTRY)
    short = from_pretrained(tmp_path / "model", dtype="bfloat16", registry=REGISTRY)
    assert {parameter.dtype for parameter in short.parameters()} == {torch.bfloat16}
    for one, two in zip(exact.embed(PICTURES, CAPTIONS), short.embed(PICTURES, CAPTIONS), strict=True):
        assert one is not None
        assert two is not None
        assert two.dtype == torch.float32
        torch.testing.assert_close(two, one, rtol=0, atol=0.02)
    pairs = (PICTURES[:5], CAPTIONS)
    assert short.match(*pairs).dtype == torch.float32
    torch.testing.assert_close(short.match(*pairs), exact.match(*pairs), rtol=0, atol=0.02)
    assert short.rank(PICTURES, CAPTIONS[0]).similarity.dtype == torch.float32


def test_predictions_in_bf16_are_close_too() -> None:
    model = stirred(build(SPEC, tasks={"visual-entailment": {"labels": ["yes", "no"]}}, registry=REGISTRY))
    exact = model.predict("visual-entailment", PICTURES[:2], CAPTIONS[:2])
    short = model.to(torch.bfloat16).predict("visual-entailment", PICTURES[:2], CAPTIONS[:2])
    for one, two in zip(exact, short, strict=True):
        assert two.probabilities == pytest.approx(one.probabilities, abs=0.02)


def test_the_batch_size_changes_no_answer(model: Model) -> None:
    for one, two in zip(model.embed(PICTURES, CAPTIONS), model.embed(PICTURES, CAPTIONS, batch_size=1), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ({"device": "nowhere"}, "device 'nowhere' here .*Use 'cpu'"),
        ({"device": "cuda:99"}, "device 'cuda:99' here .*Use 'cpu'"),  # with GPUs, too
        ({"device": "meta"}, "device 'meta' here .*Use 'cpu'"),  # nothing is computed there
        ({"dtype": "int8"}, "'int8' is no type that weights are stored in"),
        ({"dtype": torch.float64}, "'float64' is no type that weights are stored in"),
    ],
)
def test_a_device_or_a_type_that_cannot_be_is_told_before_anything_is_loaded(
    tmp_path: Path, where: dict[str, Any], told: str
) -> None:
    with pytest.raises(SpecError, match=told) as caught:
        from_pretrained(tmp_path / "no-model", **where)
    assert len(str(caught.value)) < 400  # torch lists all that it was built with


def test_a_loaded_model_is_in_evaluation_mode_of_the_type_that_torch_names(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    loaded = from_pretrained(tmp_path / "model", dtype=torch.bfloat16, registry=REGISTRY)
    assert {module.training for module in loaded.modules()} == {False}
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_on_a_gpu_answers_the_same_on_the_cpu(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    moved = from_pretrained(tmp_path / "model", device="cuda", registry=REGISTRY)
    for one, two in zip(moved.embed(PICTURES, CAPTIONS), model.embed(PICTURES, CAPTIONS), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-4)  # both on the CPU
    torch.testing.assert_close(
        moved.match(PICTURES[:5], CAPTIONS), model.match(PICTURES[:5], CAPTIONS), rtol=0, atol=1e-4
    )
    assert moved.rank(PICTURES, "rain").indices.tolist() == model.rank(PICTURES, "rain").indices.tolist()
