from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from renaissance.api import Batch as ApiBatch
from renaissance.api import Features, ModelFacts, TextInput
from renaissance.builtin.itc import MAX_SCALE, ImageTextContrast
from renaissance.builtin.task_entries import ItcOptions
from renaissance.errors import SpecError
from renaissance.resolve import resolve
from renaissance.toolkit.teaching import Taught

WIDTH = 6


def facts(*, shared: bool = True) -> ModelFacts:
    return ModelFacts(vision=WIDTH, text=WIDTH, joint=None, fused_text=None, shared_space=shared, tokenizer=None)


class Encoded:
    """Vectors given in place of a model's."""

    def __init__(self, vision: Tensor, text: Tensor) -> None:
        self.vision = Features(vision.unsqueeze(1), torch.ones(len(vision), 1, dtype=torch.bool))
        self.text = Features(text.unsqueeze(1), torch.ones(len(text), 1, dtype=torch.bool))

    def represent(self, features: Features, modality: str) -> Tensor:
        return features.tokens[:, 0]


def batch(caption_keys: list[list[int]], text_keys: list[int], image_keys: list[int] | None = None) -> ApiBatch:
    texts = TextInput(
        torch.zeros(len(text_keys), 1, dtype=torch.int64), torch.ones(len(text_keys), 1, dtype=torch.bool)
    )
    empty = torch.zeros(0, dtype=torch.int64)
    own = torch.tensor(image_keys or [hash((row, *keys)) for row, keys in enumerate(caption_keys)])
    return ApiBatch(
        images=None,
        texts=texts,
        pairs=empty.view(0, 2),
        slots=empty,
        items=empty,
        seeds=empty,
        caption_keys=torch.tensor(caption_keys),
        text_keys=torch.tensor(text_keys),
        image_keys=own,
        view_keys=own,
    )


def lost(vision: Tensor, text: Tensor, keys: Any, *, temperature: float = 1.0, **options: Any) -> Any:
    task = ImageTextContrast(ItcOptions(temperature=temperature, **options), model=facts())
    encoded: Any = Encoded(vision, text)
    return task.loss(encoded, None, None, keys)


def test_equal_vectors_lose_the_logarithm_of_the_batch() -> None:
    result = lost(torch.ones(4, WIDTH), torch.ones(4, WIDTH), batch([[1], [2], [3], [4]], [1, 2, 3, 4]))
    assert int(result.count) == 8
    assert float(result.sum.detach()) == pytest.approx(8 * math.log(4), rel=1e-5)


def test_perfect_vectors_lose_almost_nothing() -> None:
    vectors = torch.eye(WIDTH)
    keys = batch([[i] for i in range(1, 7)], [1, 2, 3, 4, 5, 6])
    assert float(lost(vectors, vectors, keys, temperature=0.02).sum.detach()) < 1e-6
    assert float(lost(vectors, -vectors, keys, temperature=0.02).sum.detach()) > 100


def test_two_pairs_have_the_closed_form() -> None:
    vectors = torch.eye(WIDTH)[:2]
    result = lost(vectors, vectors, batch([[1], [2]], [1, 2]), temperature=0.5)
    assert float(result.sum.detach()) == pytest.approx(4 * math.log(1 + math.exp(-2.0)), rel=1e-5)


def test_every_caption_of_an_image_is_a_positive() -> None:
    vision = torch.eye(WIDTH)[:2]
    text = torch.eye(WIDTH)[[0, 0, 1]]
    result = lost(vision, text, batch([[1, 2], [3, 0]], [1, 2, 3]), temperature=1.0)
    row = torch.tensor([1.0, 1.0, 0.0])
    first = float(torch.logsumexp(row, 0)) - 1.0
    second = float(torch.logsumexp(torch.tensor([0.0, 0.0, 1.0]), 0)) - 1.0
    column = float(torch.logsumexp(torch.tensor([1.0, 0.0]), 0)) - 1.0
    assert float(result.sum.detach()) == pytest.approx(first + second + 3 * column, rel=1e-5)
    assert int(result.count) == 5


def test_a_caption_that_two_images_share_is_a_positive_of_both() -> None:
    result = lost(torch.eye(WIDTH)[:2], torch.eye(WIDTH)[:1], batch([[1], [1]], [1]))
    # one candidate text: no loss by image; both images are positives of it by text
    by_text = float(torch.logsumexp(torch.tensor([1.0, 0.0]), 0)) - 0.5
    assert float(result.sum.detach()) == pytest.approx(by_text, rel=1e-5)


def test_an_equal_caption_counts_once() -> None:
    vision, text = torch.randn(2, WIDTH), torch.randn(2, WIDTH)
    once = lost(vision, text, batch([[1], [2]], [1, 2]))
    twice = lost(vision, text[[0, 1, 0]], batch([[1], [2]], [1, 2, 1]))
    torch.testing.assert_close(twice.sum, once.sum)
    assert int(twice.count) == int(once.count) == 4


def test_the_similarities_of_images_to_texts_are_published_without_gradient() -> None:
    vision = torch.randn(3, WIDTH, requires_grad=True)
    published = lost(vision, torch.randn(2, WIDTH), batch([[1], [2], [2]], [1, 2])).published["similarity"]
    assert published.shape == (3, 2)
    assert not published.requires_grad


def test_embeddings_are_unit_vectors() -> None:
    options = ItcOptions(width=5, vision_projection="residual", hidden=9, dropout=0.1, feature_dropout=0.1)
    task = ImageTextContrast(options, model=facts(shared=False)).eval()
    for modality in ("vision", "text"):
        vectors = task.embed(torch.randn(4, WIDTH) * 50, modality)  # type: ignore[arg-type]  # of two literals
        assert vectors.shape == (4, 5)
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(4))


def test_a_shared_space_is_used_as_it_is() -> None:
    task = ImageTextContrast(ItcOptions(), model=facts())
    assert [name for name, _ in task.named_parameters()] == ["log_scale"]


def test_the_temperature_starts_where_it_is_told_and_is_bounded() -> None:
    task = ImageTextContrast(ItcOptions(temperature=0.05), model=facts())
    assert float(task.log_scale.detach().exp()) == pytest.approx(20.0, rel=1e-5)
    encoded: Any = Encoded(torch.eye(WIDTH), torch.eye(WIDTH))
    task.log_scale.data.fill_(50.0)
    result = task.loss(encoded, None, None, batch([[i] for i in range(1, 7)], [1, 2, 3, 4, 5, 6]))
    assert float(result.metrics["temperature"][0]) == pytest.approx(1 / MAX_SCALE, rel=1e-5)
    assert torch.isfinite(result.sum)


def test_the_temperature_is_learned() -> None:
    task = ImageTextContrast(ItcOptions(temperature=1.0), model=facts())
    encoded: Any = Encoded(torch.eye(WIDTH), torch.eye(WIDTH))
    keys = batch([[i] for i in range(1, 7)], [1, 2, 3, 4, 5, 6])
    task.loss(encoded, None, None, keys).sum.backward()
    assert task.log_scale.grad is not None
    assert float(task.log_scale.grad) < 0  # a sharper softmax loses less on perfect vectors


# --- the sigmoid loss -----------------------------------------------------------------------------------------------


def sigmoid_loss(logit: float) -> float:
    return math.log(1 + math.exp(-logit))


def test_the_sigmoid_loss_starts_at_the_published_scale_and_bias() -> None:
    task = ImageTextContrast(ItcOptions(loss="sigmoid"), model=facts())
    assert task.bias is not None
    assert float(task.bias.detach()) == -10.0
    assert float(task.log_scale.detach()) == pytest.approx(math.log(10), rel=1e-6)


def test_two_pairs_have_the_closed_form_of_the_sigmoid_loss() -> None:
    vectors = torch.eye(WIDTH)[:2]
    result = lost(vectors, vectors, batch([[1], [2]], [1, 2]), temperature=0.5, loss="sigmoid")
    assert int(result.count) == 2
    expected = 2 * sigmoid_loss(2.0 - 10.0) + 2 * sigmoid_loss(10.0)
    assert float(result.sum.detach()) == pytest.approx(expected, rel=1e-5)


def test_every_caption_of_an_image_is_a_true_pair_of_the_sigmoid_loss() -> None:
    vision, text = torch.eye(WIDTH)[:2], torch.eye(WIDTH)[[0, 0, 1]]
    result = lost(vision, text, batch([[1, 2], [3, 0]], [1, 2, 3]), loss="sigmoid")
    assert float(result.sum.detach()) == pytest.approx(3 * sigmoid_loss(-9.0) + 3 * sigmoid_loss(10.0), rel=1e-5)
    assert int(result.count) == 2


def test_an_equal_caption_counts_once_in_the_sigmoid_loss() -> None:
    vision, text = torch.randn(2, WIDTH), torch.randn(2, WIDTH)
    once = lost(vision, text, batch([[1], [2]], [1, 2]), loss="sigmoid")
    twice = lost(vision, text[[0, 1, 0]], batch([[1], [2]], [1, 2, 1]), loss="sigmoid")
    torch.testing.assert_close(twice.sum, once.sum)


def test_the_published_similarity_leaves_the_bias_out() -> None:
    vectors, keys = torch.randn(2, WIDTH), batch([[1], [2]], [1, 2])
    softmax, sigmoid = (
        lost(vectors, vectors, keys, loss=loss).published["similarity"] for loss in ("softmax", "sigmoid")
    )
    torch.testing.assert_close(softmax, sigmoid)


def test_the_bias_and_an_unbounded_scale_are_learned() -> None:
    task = ImageTextContrast(ItcOptions(loss="sigmoid"), model=facts())
    task.log_scale.data.fill_(5.0)  # beyond CLIP's bound, as the published SigLIP models are
    encoded: Any = Encoded(torch.eye(WIDTH), torch.eye(WIDTH).roll(1, 0))
    task.loss(encoded, None, None, batch([[i] for i in range(1, 7)], [1, 2, 3, 4, 5, 6])).sum.backward()
    assert task.bias is not None
    for parameter in (task.bias, task.log_scale):
        assert parameter.grad is not None
        assert float(parameter.grad.abs()) > 1e-3


# --- a queue, and a teacher ---------------------------------------------------------------------------------------


def contrast(**options: Any) -> ImageTextContrast:
    return ImageTextContrast(ItcOptions(temperature=0.5, **options), model=facts()).double()


def past(images: int, texts: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    vectors = [torch.randn(count, WIDTH, generator=generator, dtype=torch.float64) for count in (images, texts)]
    units = [torch.nn.functional.normalize(rows, dim=-1) for rows in vectors]
    keys = torch.arange(1, images + 1).unsqueeze(1)  # the first image and text are also in the batch
    return {
        "images": units[0],
        "caption_keys": keys,
        "image_keys": torch.arange(images) - images,
        "texts": units[1],
        "text_keys": torch.arange(2, 2 + texts),
    }


def lesson(vision: Tensor, text: Tensor, task: ImageTextContrast, held: dict[str, Tensor]) -> Any:
    given: Any = Encoded(vision, text)
    return Taught(given, task, None, 7, held)


def taught_loss(task: ImageTextContrast, given: Any, vision: Tensor, text: Tensor, keys: Any) -> Any:
    inputs: Any = Encoded(vision, text)
    inputs.taught = {"itc": given}
    return task.loss(inputs, None, None, keys)


def cosine(one: Tensor, other: Tensor) -> float:
    norms = math.sqrt(float(one @ one)) * math.sqrt(float(other @ other))
    return float(one @ other) / norms


def naive_row(logits: list[float], teacher: list[float], positive: list[bool], share: float) -> float:
    """Return the loss of one query: -log softmax, averaged over the positives, and the teacher's cross-entropy."""
    whole = math.log(math.fsum(map(math.exp, logits)))
    taught = math.fsum(map(math.exp, teacher))
    own = [whole - logit for logit, right in zip(logits, positive, strict=True) if right]
    soft = math.fsum(math.exp(t) / taught * (whole - logit) for t, logit in zip(teacher, logits, strict=True))
    return (1 - share) * math.fsum(own) / len(own) + share * soft


@pytest.mark.parametrize("share", [0.0, 0.4])
@pytest.mark.parametrize("queue", [0, 8])
def test_the_taught_loss_is_that_of_a_plain_loop_in_float64(queue: int, share: float) -> None:
    if not queue and not share:
        return
    task = contrast(queue=queue, distillation=share, distillation_ramp=0)
    vision, text, taught_vision, taught_text = (torch.randn(3, WIDTH, dtype=torch.float64) for _ in range(4))
    image_keys, text_keys = [[1, 9], [2, 0], [3, 0]], [1, 2, 3]
    held = past(2, 3) if queue else {}
    found = taught_loss(
        task, lesson(taught_vision, taught_text, contrast(), held), vision, text, batch(image_keys, text_keys)
    )
    old_images, old_texts = (list(held["images"]), list(held["texts"])) if queue else ([], [])
    old_image_keys = held["caption_keys"].tolist() if queue else []
    old_text_keys = held["text_keys"].tolist() if queue else []
    expected = 0.0
    for own, (query, taught) in enumerate(zip(vision, taught_vision, strict=True)):
        keys = [*(taught_text if queue else text), *old_texts]
        logits = [2 * cosine(query, key) for key in keys]
        soft = [2 * cosine(taught, key) for key in (*taught_text, *old_texts)]
        expected += naive_row(logits, soft, [key in image_keys[own] for key in text_keys + old_text_keys], share)
    for own, (query, taught) in enumerate(zip(text, taught_text, strict=True)):
        keys = [*(taught_vision if queue else vision), *old_images]
        logits = [2 * cosine(query, key) for key in keys]
        soft = [2 * cosine(taught, key) for key in (*taught_vision, *old_images)]
        expected += naive_row(logits, soft, [text_keys[own] in keys for keys in image_keys + old_image_keys], share)
    assert float(found.sum.detach()) == pytest.approx(expected, rel=1e-9)
    assert int(found.count) == 6


@pytest.mark.parametrize(("queue", "share"), [(0, 0.4), (8, 0.4), (8, 0.0)])
def test_the_taught_gradient_is_right(queue: int, share: float) -> None:
    task = contrast(queue=queue, distillation=share, distillation_ramp=0)
    vision, text, taught_vision, taught_text = (torch.randn(2, WIDTH, dtype=torch.float64) for _ in range(4))
    given = lesson(taught_vision, taught_text, contrast(), past(2, 2) if queue else {})
    keys = batch([[1], [2]], [1, 2])
    # the teacher's targets are divided by the same temperature, which learns nothing from them
    scale = task.log_scale.detach().clone().requires_grad_(share == 0)
    assert torch.autograd.gradcheck(
        lambda v, t, s: taught_loss(with_scale(task, s), given, v, t, keys).sum,
        (vision.requires_grad_(), text.requires_grad_(), scale),
    )


def with_scale(task: ImageTextContrast, log_scale: Tensor) -> Any:
    del task.log_scale
    task.log_scale = log_scale  # type: ignore[assignment]  # a tensor in the parameter's place
    return task


def test_the_queue_gets_the_vectors_and_keys_of_the_teacher() -> None:
    task = contrast(queue=4)
    vision, text = torch.randn(2, WIDTH, dtype=torch.float64), torch.randn(2, WIDTH, dtype=torch.float64)
    found = taught_loss(task, lesson(vision, text, contrast(), {}), -vision, -text, batch([[1, 5], [2, 0]], [1, 2]))
    new = found.published["enqueue"]
    torch.testing.assert_close(new["images"], torch.nn.functional.normalize(vision, dim=-1))
    torch.testing.assert_close(new["texts"], torch.nn.functional.normalize(text, dim=-1))
    assert (new["caption_keys"].tolist(), new["text_keys"].tolist()) == ([[1, 5], [2, 0]], [1, 2])


def test_equal_captions_of_a_batch_are_one_candidate_with_a_teacher_too() -> None:
    task = contrast(distillation=0.4, distillation_ramp=0)
    vision, text = torch.randn(2, WIDTH, dtype=torch.float64), torch.randn(2, WIDTH, dtype=torch.float64)
    given = lesson(vision, text, contrast(), {})
    once = taught_loss(task, given, vision, text, batch([[1], [2]], [1, 2]))
    again = [0, 1, 0]
    given = lesson(vision, text[again], contrast(), {})
    twice = taught_loss(task, given, vision, text[again], batch([[1], [2]], [1, 2, 1]))
    torch.testing.assert_close(twice.sum, once.sum)


@pytest.mark.parametrize("options", [{"queue": 4}, {"distillation": 0.4}])
def test_the_sigmoid_loss_takes_no_queue_and_no_teacher(options: Any, tiny_spec: Any) -> None:
    with pytest.raises(SpecError, match="is for the softmax over candidates"):
        resolve(tiny_spec(), {"itc": {"loss": "sigmoid", **options}})
