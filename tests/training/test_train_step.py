"""The engine: what it encodes, what it lets tasks do, and what it leaves as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from renaissance.api import (
    Batch,
    Encoded,
    Joint,
    ModelFacts,
    Options,
    Pairs,
    TaskEntry,
    TaskLoss,
    Views,
    VisionInput,
    hookimpl,
)
from renaissance.recipe.training import Optimiser
from renaissance.registry import Plugin, Registry
from renaissance.toolkit.canonical import prefix_canonical
from renaissance.toolkit.pairing import positives
from renaissance.training.encoded import EncodedBatch
from renaissance.training.optimiser import make_optimiser
from renaissance.training.train_step import TrainStep

# --- a throw-away plugin: this module itself --------------------------------------------------------------------------


class HardNegatives(nn.Module):
    """Match each caption with its image and with the most similar other image, by the similarities of ITC."""

    def __init__(self, options: Options, *, model: ModelFacts) -> None:
        super().__init__()
        assert model.joint is not None
        self.head = nn.Linear(model.joint, 1)

    def views(self, batch: Batch) -> Views:
        return Views()

    def pairs(self, encoded: Encoded, batch: Batch, published: Mapping[str, Any]) -> Pairs:
        similarity: Tensor = published["itc"]["similarity"]  # [V, T]
        own = positives(batch.caption_keys, batch.text_keys)
        hardest = similarity.masked_fill(own, float("-inf")).argmax(0)[batch.pairs[:, 1]]
        false = torch.stack([hardest, batch.pairs[:, 1]], 1)
        targets = torch.arange(2 * len(false)) < len(false)
        return Pairs(
            encoded.vision, encoded.text, torch.cat([batch.pairs, false]), frozenset({"pooled"}), targets=targets
        )

    def loss(self, encoded: Encoded, joint: Joint | None, pairs: Pairs | None, batch: Batch) -> TaskLoss:
        assert joint is not None
        assert joint.pooled is not None
        assert pairs is not None
        assert pairs.targets is not None
        logits = self.head(joint.pooled).squeeze(-1)
        loss = F.binary_cross_entropy_with_logits(logits, pairs.targets.float(), reduction="sum")
        return TaskLoss(loss, torch.tensor(len(logits)))


class TwoImages(nn.Module):
    """Judge an item of two images and one text, as NLVR2 does."""

    def __init__(self, options: Options, *, model: ModelFacts) -> None:
        super().__init__()
        assert model.joint is not None
        self.head = nn.Linear(2 * model.joint, 2)

    def views(self, batch: Batch) -> Views:
        return Views()

    def pairs(self, encoded: Encoded, batch: Batch, published: Mapping[str, Any]) -> Pairs:
        return Pairs(encoded.vision, encoded.text, batch.pairs, frozenset({"pooled"}), batch.slots)

    def loss(self, encoded: Encoded, joint: Joint | None, pairs: Pairs | None, batch: Batch) -> TaskLoss:
        assert joint is not None
        assert joint.pooled is not None
        first, second = joint.pooled[batch.slots == 0], joint.pooled[batch.slots == 1]
        logits = self.head(torch.cat([first, second], dim=-1))
        return TaskLoss(F.cross_entropy(logits, batch.targets["label"], reduction="sum"), torch.tensor(len(logits)))


@hookimpl
def register_tasks() -> list[TaskEntry]:
    facts: dict[str, Any] = {"summary": "", "outputs": frozenset({"pooled"}), "evaluates": False}
    return [
        TaskEntry(name="hard", factory=f"{__name__}:HardNegatives", needs=("itc",), **facts),
        TaskEntry(name="two-images", factory=f"{__name__}:TwoImages", slots=2, **facts),
    ]  # fmt: skip


@pytest.fixture
def registry() -> Registry:
    return Registry([Plugin("throwaway", __name__, "renaissance-plugin-throwaway", "0")])


def steps(step: TrainStep, batch: Batch, count: int = 3) -> list[float]:
    """Train on one batch with a large learning rate; return the losses."""
    optimiser = make_optimiser(step, Optimiser(lr=2e-3, weight_decay=0.1))
    losses = []
    for _ in range(count):
        output = step(batch)
        output.loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(output.loss.detach()))
    return losses


def counted(module: nn.Module) -> list[int]:
    """Return a list that gets the size of each input that a tower is called with."""
    calls: list[int] = []
    module.register_forward_pre_hook(
        lambda _, inputs: calls.append(len(getattr(inputs[0], "pixels", getattr(inputs[0], "token_ids", ())))),
    )
    return calls


# --- what is encoded --------------------------------------------------------------------------------------------------


def test_three_tasks_cost_one_pass_of_each_with_masked_and_plain_texts_together(
    tiny_model: Callable[..., Any], tiny_batch: Any
) -> None:
    model = tiny_model()
    vision, text = counted(model.encoder.vision), counted(model.encoder.text)
    TrainStep(model, {"mlm": 1.0, "itm": 1.0, "itc": 1.0})(tiny_batch(model))
    assert vision == [4]
    assert text == [8]


def test_what_several_readers_ask_for_is_encoded_once(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model(("mlm",))
    batch = tiny_batch(model)
    vision, text = counted(model.encoder.vision), counted(model.encoder.text)
    encoded = EncodedBatch(model.encoder, batch, {"mlm": Views(texts=batch.texts, images=batch.images)})
    assert (vision, text) == ([], [])
    assert encoded.vision is encoded.vision
    assert encoded.text is encoded.text
    assert encoded.view("mlm") is encoded.view("mlm")
    assert (vision, text) == ([4, 4], [4, 4])


def test_contrast_alone_costs_one_pass_of_each(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model(("itc",))
    vision, text = counted(model.encoder.vision), counted(model.encoder.text)
    TrainStep(model, {"itc": 1.0})(tiny_batch(model))
    assert (vision, text) == ([4], [4])


def test_a_text_that_two_pairs_share_is_encoded_once_plain(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model(("itm",))
    text = counted(model.encoder.text)
    same = (("a cup", "x"), ("a cup", "y"), ("a dog", "z"))
    TrainStep(model, {"itm": 1.0})(tiny_batch(model, 3, captions=same))
    assert text == [2]


def test_stored_features_stand_in_for_the_towers(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model(("itm", "itc"), "frozen both").eval()
    batch = tiny_batch(model)
    stored = replace(
        batch,
        images=None,
        stored_vision=model.encoder.encode_vision(batch.images),
        stored_text=model.encoder.encode_text(batch.texts),
    )
    vision, text = counted(model.encoder.vision), counted(model.encoder.text)
    step = TrainStep(model, {"itm": 1.0, "itc": 1.0})
    expected = step(batch)
    calls = len(vision), len(text)
    assert torch.equal(step(stored).loss, expected.loss)
    assert (len(vision), len(text)) == calls


@pytest.mark.parametrize("rule", ["frozen text", "frozen text[:1]", ""])
@pytest.mark.parametrize("parts", [1, 2])
def test_masked_texts_run_in_their_own_length(
    rule: str, parts: int, tiny_model: Callable[..., Any], tiny_batch: Any
) -> None:
    """What no store ever holds needs no canonical shape, and a frozen tower has fewer tokens to run on."""
    model = tiny_model(("mlm",), rule)
    batch, lengths = tiny_batch(model, 5), list[tuple[int, ...]]()
    model.encoder.text.register_forward_pre_hook(lambda _, inputs: lengths.append(tuple(inputs[0].token_ids.shape)))
    TrainStep(model, {"mlm": 1.0}, parts)(batch)
    longest = batch.texts.mask.shape[1]
    assert lengths == ([(5, longest)] if parts == 1 else [(3, longest), (2, longest)])


@pytest.mark.parametrize("rule", ["frozen text", "frozen text[:1]"])
def test_a_batch_with_stored_texts_masks_and_fuses_as_without(
    rule: str, tiny_model: Callable[..., Any], tiny_batch: Any
) -> None:
    model = tiny_model(("mlm", "itm"), rule).eval()
    batch = tiny_batch(model, 5)
    depth = model.encoder.prefix("text")
    given = model.encoder.encode_text(batch.texts)
    stored = given if depth is None else prefix_canonical(model.encoder.text, batch.texts, depth)
    step = TrainStep(model, {"mlm": 1.0, "itm": 1.0}).eval()
    losses, read = step(batch).losses, step(replace(batch, stored_text=stored)).losses
    assert all(torch.equal(losses[name], read[name]) for name in ("mlm", "itm"))


def test_tasks_that_are_measured_alone_are_not_trained(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model(("mlm", "itc", "retrieval"))
    output = TrainStep(model, {"mlm": 1.0, "itc": 2.0})(tiny_batch(model))
    assert set(output.losses) == {"mlm", "itc"}
    assert torch.allclose(output.loss, output.losses["mlm"] + 2 * output.losses["itc"])


# --- what tasks can do without an edit of the engine ------------------------------------------------------------------


def test_a_hard_negative_task_trains_on_what_contrast_published(
    tiny_model: Callable[..., Any], tiny_batch: Any, registry: Registry
) -> None:
    model = tiny_model(("hard", "itc"), registry=registry)
    assert list(model.tasks) == ["itc", "hard"]
    step = TrainStep(model, {"hard": 1.0, "itc": 1.0})
    before = copy.deepcopy(model.tasks["hard"].state_dict())
    losses = steps(step, tiny_batch(model), 8)
    assert losses[-1] < losses[0]
    assert not torch.equal(before["head.weight"], model.tasks["hard"].head.weight)


def test_a_two_image_task_trains_and_tells_its_slots_apart(
    tiny_model: Callable[..., Any], tiny_batch: Any, registry: Registry
) -> None:
    model = tiny_model(("two-images",), registry=registry)
    plain = tiny_batch(model, 8)
    texts = model.encoder.text.processor(["the left one has a cup", "both are red"])
    batch = replace(
        plain,
        images=VisionInput(plain.images.pixels[:4]),
        texts=texts,
        pairs=torch.tensor([[0, 0], [1, 0], [2, 1], [3, 1]]),
        slots=torch.tensor([0, 1, 0, 1]),
        items=torch.tensor([0, 0, 1, 1]),
        seeds=plain.seeds[:4],
        targets={"label": torch.tensor([0, 1])},
    )
    step = TrainStep(model, {"two-images": 1.0})
    losses = steps(step, batch, 6)
    assert losses[-1] < losses[0]
    types = model.encoder.slots.weight
    assert types.abs().sum() > 0
    assert not torch.equal(types[0], types[1])


# --- frozen means frozen ----------------------------------------------------------------------------------------------

FROZEN = {
    "frozen vision": ("encoder.vision.",),
    "frozen text": ("encoder.text.",),
    "frozen fusion": ("encoder.fusion.",),
    "frozen both": ("encoder.vision.", "encoder.text."),
    "frozen text[:1]": ("encoder.text.blocks.0.", "encoder.text.model.embeddings."),
    "frozen vision[:1]": ("encoder.vision.blocks.0.", "encoder.vision.model.embeddings."),
    "frozen text.embeddings": ("encoder.text.model.embeddings.",),
}


@pytest.mark.parametrize("rule", FROZEN)
def test_a_frozen_part_is_bit_identical_after_training_and_the_rest_moved(
    rule: str, tiny_model: Callable[..., Any], tiny_batch: Any
) -> None:
    model = tiny_model(rules=rule, dropout=0.1)
    step = TrainStep(model, {"mlm": 1.0, "itm": 1.0, "itc": 1.0})
    before = {name: value.clone() for name, value in step.state_dict().items()}
    optimiser = make_optimiser(step, Optimiser(lr=2e-3))
    steps(step, tiny_batch(model), 3)
    listed = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    # at this size some captions hold no masked token, and a key's bias changes nothing in a softmax
    for name, parameter in step.named_parameters():
        held = name.startswith(FROZEN[rule])
        assert parameter.requires_grad is not held, name
        assert (id(parameter) in listed) is not held, name
        if held:
            assert parameter.grad is None, name
        if held or not name.endswith("bias"):
            assert torch.equal(before[name], parameter) is held, name


def test_train_does_not_bring_dropout_back_into_a_frozen_part(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model(rules="frozen text", dropout=0.5).train()
    batch = tiny_batch(model)
    assert not any(part.training for part in model.encoder.text.modules())
    assert model.encoder.vision.training
    once, again = (model.encoder.encode_text(batch.texts).tokens for _ in range(2))
    assert torch.equal(once, again)
    trained = tiny_model(dropout=0.5).train()
    once, again = (trained.encoder.encode_text(batch.texts).tokens for _ in range(2))
    assert not torch.equal(once, again)


@pytest.mark.parametrize(("rule", "modality"), [("frozen vision", "vision"), ("frozen text", "text")])
def test_a_frozen_tower_builds_no_graph(
    rule: str, modality: str, tiny_model: Callable[..., Any], tiny_batch: Any
) -> None:
    model = tiny_model(rules=rule)
    batch = tiny_batch(model)
    encoded = {"vision": model.encoder.encode_vision(batch.images), "text": model.encoder.encode_text(batch.texts)}
    for name, features in encoded.items():
        assert (features.tokens.grad_fn is None) is (name == modality)
        assert features.tokens.requires_grad is (name != modality)


def test_frozen_first_layers_build_no_graph(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model(rules="frozen text[:1], frozen vision[:1]")
    batch = tiny_batch(model)
    for tower, inputs in ((model.encoder.text, batch.texts), (model.encoder.vision, batch.images)):
        features = tower(inputs, layers=(0, 1))
        assert features.layers[0].grad_fn is None
        assert features.layers[1].grad_fn is not None


def test_a_frozen_fusion_passes_gradients_to_the_towers(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model(("itm",), "frozen fusion")
    TrainStep(model, {"itm": 1.0})(tiny_batch(model)).loss.backward()
    assert model.encoder.vision.blocks[0].attention.q_proj.weight.grad.abs().sum() > 0


def test_every_trainable_parameter_gets_a_gradient_from_the_three_tasks(
    tiny_model: Callable[..., Any], tiny_batch: Any
) -> None:
    model = tiny_model({"mlm": {"at_least_one": True}, "itm": {}, "itc": {}})
    TrainStep(model, {"mlm": 1.0, "itm": 1.0, "itc": 1.0})(tiny_batch(model)).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


# --- the optimiser ----------------------------------------------------------------------------------------------------


def test_norms_biases_and_positions_do_not_decay_and_parts_have_their_own_rates(tiny_model: Callable[..., Any]) -> None:
    step = TrainStep(tiny_model(), {"mlm": 1.0, "itm": 1.0, "itc": 1.0})
    names = {id(parameter): name for name, parameter in step.named_parameters()}
    groups = make_optimiser(step, Optimiser(lr=1e-4, weight_decay=0.1)).param_groups
    found = {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert found["encoder.text.blocks.0.attention.self.query.weight"] == (1e-4, 0.1)
    assert found["encoder.text.blocks.0.attention.self.query.bias"] == (1e-4, 0.0)
    assert found["encoder.vision.model.layernorm.weight"] == (1e-4, 0.0)
    assert found["encoder.vision.model.embeddings.position_embeddings"] == (1e-4, 0.0)
    assert found["encoder.text.model.embeddings.word_embeddings.weight"] == (1e-4, 0.1)
    assert found["encoder.fusion.layers.0.cross.attention.query.weight"] == (pytest.approx(5e-4), 0.1)
    assert found["tasks.itm.head.weight"] == (pytest.approx(5e-4), 0.1)
    assert found["tasks.itc.log_scale"] == (pytest.approx(5e-4), 0.0)
    assert len(found) == len(names)
