from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from renaissance.api import Features, Joint, ModelFacts
from renaissance.assemble import assemble
from renaissance.builtin.mim import MaskedImageModelling
from renaissance.builtin.task_entries import MimOptions
from renaissance.errors import SpecError
from renaissance.resolve import resolve
from renaissance.toolkit.patches import blocks, hidden, normalised_patches, patches, scattered
from renaissance.training.train_step import TrainStep

FACTS = ModelFacts(vision=8, text=8, joint=16, fused_text=6, shared_space=False, tokenizer=None)
CHECKS = settings(deadline=None, max_examples=60, derandomize=True)
TEXT = "tiny-bert(layers=2, width=32, heads=2, mlp_width=64)"
FUSION = "lxmert(layers=1, width=32, heads=2, dropout=0.0)"
BACKBONES = {
    "transformers ViT": ("tiny-vit(layers=2, width=32, heads=2, mlp_width=64, image_size=32, patch_size=8)", 8),
    "timm ViT": (
        'timm:vit_tiny_patch16_224(image_size=32, overrides={"embed_dim": 24, "depth": 2, "num_heads": 2})', 16,
    ),
    "timm ViT without prefix": (
        'timm:vit_base_patch16_siglip_224(image_size=32, overrides={"embed_dim": 24, "depth": 1, "num_heads": 2})', 16,
    ),
}  # fmt: skip


# --- which patches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choose", [scattered, blocks])
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), share=st.floats(0, 1), seed=st.integers(0, 2**60))
@CHECKS
def test_exactly_so_many_patches_are_hidden(choose: Any, rows: int, columns: int, share: float, seed: int) -> None:
    count = round(share * rows * columns)
    found = choose(torch.arange(4) + seed, count, (rows, columns))
    assert found.shape == (4, rows * columns)
    assert found.sum(1).tolist() == [count] * 4


@pytest.mark.parametrize("choose", [scattered, blocks])
def test_what_is_hidden_depends_on_the_seed_alone(choose: Any) -> None:
    seeds = torch.arange(12) * 7919
    whole = choose(seeds, 6, (4, 4))
    alone = torch.cat([choose(seeds[i : i + 1], 6, (4, 4)) for i in range(12)])
    assert torch.equal(whole, alone)
    assert len({tuple(row) for row in whole.tolist()}) > 6


def test_every_patch_is_hidden_equally_often() -> None:
    share = scattered(torch.arange(20_000), 6, (4, 4)).double().mean(0)
    assert float((share - 6 / 16).abs().max()) < 0.015


def test_blocks_hang_together_more_than_single_patches() -> None:
    def neighbours(masked: Tensor) -> float:
        grid = masked.view(-1, 14, 14)
        return float((grid[:, 1:] & grid[:, :-1]).sum() + (grid[:, :, 1:] & grid[:, :, :-1]).sum()) / len(grid)

    seeds = torch.arange(200)
    assert neighbours(blocks(seeds, 78, (14, 14))) > 1.5 * neighbours(scattered(seeds, 78, (14, 14)))


# --- hiding them --------------------------------------------------------------------------------------------------


def test_patches_are_those_of_a_plain_loop() -> None:
    pixels = torch.randn(2, 3, 6, 4)
    found = patches(pixels, 2)
    for row in range(3):
        for column in range(2):
            piece = pixels[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert torch.equal(found[:, 2 * row + column], piece.flatten(1))


def test_a_hidden_patch_holds_the_learned_one_and_the_rest_is_as_it_was() -> None:
    pixels, patch = torch.randn(2, 3, 6, 4), torch.randn(3, 2, 2)
    masked = torch.tensor([[1, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1]], dtype=torch.bool)
    shown = patches(hidden(pixels, masked, patch), 2)
    assert torch.equal(shown[masked], patch.flatten().expand(3, -1))
    assert torch.equal(shown[~masked], patches(pixels, 2)[~masked])


def test_targets_have_mean_0_and_variance_1_in_each_patch() -> None:
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    found = normalised_patches(pixels, 4)
    torch.testing.assert_close(found.mean(-1), torch.zeros(2, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.var(-1), torch.ones(2, 4), atol=1e-3, rtol=0)
    assert torch.isfinite(normalised_patches(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 4)).all()


def test_what_is_hidden_cannot_be_seen(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model({"mim": {"patch_size": 8}}).eval()
    task, batch = model.tasks["mim"], tiny_batch(model)
    masked = task.views(batch).images.masked_patches  # [P, N]
    noise = torch.randint(0, 256, batch.images.pixels.shape, dtype=torch.uint8)
    where = masked.view(-1, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    other = replace(batch, images=replace(batch.images, pixels=torch.where(where, noise, batch.images.pixels)))
    with torch.no_grad():
        found = [encoded_view(model, one) for one in (batch, other)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], model.encoder.encode_vision(batch.images).tokens)


def encoded_view(model: Any, batch: Any) -> Tensor:
    from renaissance.training.encoded import EncodedBatch

    views = {"mim": model.tasks["mim"].views(batch)}
    images, _ = EncodedBatch(model.encoder, batch, views, model.tasks).view("mim")
    assert images is not None
    return images.tokens


# --- the loss -----------------------------------------------------------------------------------------------------


def test_the_loss_is_that_of_a_plain_loop_in_float64(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    batch = tiny_batch(tiny_model(("mlm",)))
    task = MaskedImageModelling(MimOptions(patch_size=16), model=FACTS).double()
    tokens = torch.randn(4, 5, 6, dtype=torch.float64)  # a class token and 2 x 2 patches
    joint = Joint(vision=Features(tokens, torch.ones(4, 5, dtype=torch.bool)))
    encoded: Any = type("Encoded", (), {"view": lambda _, name: (joint.vision, None), "text": joint.vision})()
    pairs = task.pairs(encoded, batch, {})
    found = task.loss(encoded, joint, pairs, batch)
    expected, count = 0.0, 0
    for pair in range(4):
        for patch in range(4):
            if not pairs.targets[pair, patch]:
                continue
            row, column = divmod(patch, 2)
            piece = batch.images.pixels[pair, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            values = (piece.flatten().double() / 255).tolist()
            mean = sum(values) / len(values)
            variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
            predicted = task.head(tokens[pair, 1 + patch]).tolist()
            errors = [
                (p - (value - mean) / (variance + 1e-6) ** 0.5) ** 2 for p, value in zip(predicted, values, strict=True)
            ]
            expected += sum(errors) / len(errors)
            count += 1
    assert int(found.count) == count == 4 * 2
    assert float(found.sum.detach()) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_is_right(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    batch = tiny_batch(tiny_model(("mlm",)), 2)
    task = MaskedImageModelling(MimOptions(patch_size=16), model=FACTS).double()

    def lost(tokens: Tensor) -> Tensor:
        vision = Features(tokens, torch.ones(2, 5, dtype=torch.bool))
        encoded: Any = type("Encoded", (), {"view": lambda _, name: (vision, None), "text": vision})()
        return task.loss(encoded, Joint(vision=vision), task.pairs(encoded, batch, {}), batch).sum

    assert torch.autograd.gradcheck(lost, (torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True),))


@pytest.mark.parametrize("masking", ["random", "blocks"])
@pytest.mark.parametrize("target", ["pixels", "features", "vision"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_it_trains_on_vit_likes_of_both_libraries(backbone: str, target: str, masking: str, tiny_batch: Any) -> None:
    vision, side = BACKBONES[backbone]
    options = {"patch_size": side, "target": target, "masking": masking}
    plan = resolve(f"{vision} + {TEXT}, random both, {FUSION}", {"mim": options})
    check_it_learns(assemble(plan).train(), tiny_batch)


@pytest.mark.parametrize("target", ["pixels", "features"])
@pytest.mark.parametrize(
    "line",
    [
        "tiny-vit(layers=2, width=32, heads=2, mlp_width=64, image_size=32, patch_size=8), one-tower, random encoder",
        "tiny-bert(layers=2, width=32, heads=2, mlp_width=64), one-tower(image_size=32, patch_size=8), random encoder",
    ],
    ids=["vision-based", "text-based"],
)
def test_it_trains_on_one_tower_models(line: str, target: str, tiny_batch: Any) -> None:
    plan = resolve(line, {"mim": {"patch_size": 8, "target": target}})
    check_it_learns(assemble(plan).train(), tiny_batch)


def check_it_learns(model: Any, tiny_batch: Any) -> None:
    step, batch = TrainStep(model, {"mim": 1.0}), tiny_batch(model)
    optimiser = torch.optim.AdamW(step.parameters(), lr=3e-3)
    losses = []
    for _ in range(6):
        output = step(batch)
        output.loss.backward()
        assert model.tasks["mim"].mask_token.grad.abs().sum() > 0
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(output.loss.detach()))
    assert losses[-1] < losses[0]


def test_the_tower_of_the_teacher_is_the_target_as_it_was_before_the_training(
    tiny_model: Callable[..., Any], tiny_batch: Any
) -> None:
    model = tiny_model({"mim": {"patch_size": 8, "target": "vision"}})
    batch = tiny_batch(model)
    with torch.no_grad():
        tokens = model.eval().encoder.encode_vision(batch.images).tokens[batch.pairs[:, 0], 1:]  # no class token
    expected = torch.nn.functional.layer_norm(tokens, tokens.shape[-1:])
    step = TrainStep(model.train(), {"mim": 1.0})
    found: list[Tensor] = []
    task, real = step.tasks["mim"], type(step.tasks["mim"])._whole
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(task), "_whole", lambda *given: found.append(real(*given)) or found[-1])
        for _ in range(2):
            step(batch).loss.backward()
            with torch.no_grad():
                for parameter in model.encoder.parameters():
                    parameter += 0.1
    for whole in found:
        torch.testing.assert_close(whole, expected, atol=1e-5, rtol=0)
        assert not whole.requires_grad


def test_a_model_without_a_vision_tower_has_no_such_target() -> None:
    line = "tiny-vit(layers=2, width=32, heads=2, image_size=32, patch_size=8), one-tower, random encoder"
    with pytest.raises(SpecError, match="target=vision is for models with a vision tower; say target=features"):
        assemble(resolve(line, {"mim": {"patch_size": 8, "target": "vision"}}))


# --- what is refused ----------------------------------------------------------------------------------------------


def test_a_frozen_tower_is_refused_with_the_reason(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model({"mim": {"patch_size": 8}}, "frozen vision")
    with pytest.raises(SpecError, match="the frozen vision tower would learn nothing from it"):
        TrainStep(model, {"mim": 1.0})


def test_stored_images_are_refused_with_the_reason(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model({"mim": {"patch_size": 8}})
    with pytest.raises(SpecError, match="their features are read from a store"):
        model.tasks["mim"].views(replace(tiny_batch(model), images=None))


@pytest.mark.parametrize(
    ("side", "message"),
    [(16, "17 image tokens are no grid of 2 x 2 patches"), (4, "no grid of 8 x 8"), (5, "do not fill images")],
)
def test_patches_of_another_size_than_the_tokens_are_refused(
    side: int, message: str, tiny_model: Callable[..., Any], tiny_batch: Any
) -> None:
    model = tiny_model({"mim": {"patch_size": side}})
    with pytest.raises(SpecError, match=message):
        TrainStep(model, {"mim": 1.0})(tiny_batch(model))


def test_a_head_without_a_vision_stream_is_refused(tiny_spec: Callable[..., str]) -> None:
    with pytest.raises(SpecError, match="The task 'mim' reads the fused vision output"):
        resolve(tiny_spec(fusion="dual"), {"mim": {}})
