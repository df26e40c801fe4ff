from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from renaissance.api import Capabilities, Features, SavedBackbone, TextInput
from renaissance.builtin.timm_entries import TimmOptions
from renaissance.builtin.timm_vision import build as build_vision
from renaissance.builtin.transformers_options import LibraryTextOptions
from renaissance.builtin.transformers_text import build as build_text
from renaissance.testing.backbones import CHECKS, ConformanceError, check_backbone

VISION = TimmOptions(
    model="vit_tiny_patch16_224", image_size=64, overrides={"embed_dim": 32, "depth": 2, "num_heads": 2}
)
TEXT = LibraryTextOptions(
    model="bert", layers=2, width=32, heads=2, mlp_width=64, max_tokens=24, tokenizer="renaissance"
)


def vision() -> Any:
    torch.manual_seed(0)
    return build_vision(VISION, weights="random")


def text() -> Any:
    torch.manual_seed(0)
    return build_text(TEXT, weights="random", saved=None)


def check(backbone: Any, facts: Capabilities | None = None, rebuild: Any = None) -> tuple[str, ...]:
    is_text = hasattr(backbone.processor, "facts")
    build, options = (build_text, TEXT) if is_text else (build_vision, VISION)

    def again(saved: SavedBackbone) -> Any:
        return build(options, weights="none", saved=saved)  # type: ignore[operator]  # either of two factories

    modality: Any = "text" if is_text else "vision"
    return check_backbone(backbone, facts or Capabilities(), modality=modality, rebuild=rebuild or again)


def changed(backbone: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The backbone with other tokens."""

    def hook(_: nn.Module, __: Any, features: Features) -> Features:
        return replace(features, tokens=change(features.tokens))

    backbone.register_forward_hook(hook)
    return backbone


def transposed(tokens: Tensor) -> Tensor:
    grid = tokens[:, 1:].unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2)
    return torch.cat([tokens[:, :1], grid], dim=1)


def test_every_check_that_applies_is_made() -> None:
    assert check(vision()) == tuple(name for name in CHECKS if name != "padding")
    assert check(text()) == tuple(name for name in CHECKS if name != "grid order")


def test_checks_leave_the_backbone_as_it_is() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(32)

        def forward(self, tokens: Tensor) -> Tensor:
            normed: Tensor = self.norm(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
            return normed

    def normed(backbone: Any) -> Any:
        backbone.model.norm = Normed()
        return backbone

    backbone = normed(vision())
    parameter = next(backbone.parameters())
    parameter.grad = torch.ones_like(parameter)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    check(backbone, rebuild=lambda saved: normed(build_vision(VISION, weights="none", saved=saved)))
    assert [name for name, tensor in backbone.state_dict().items() if not torch.equal(tensor, before[name])] == []
    assert parameter.grad.eq(1).all()


@pytest.mark.parametrize(
    "wrong", [{"depth": 3}, {"width": 64}, {"class_token": False}, {"grid": (2, 8)}, {"patch_size": 8}]
)
def test_wrong_facts_are_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConformanceError, match=rf"'width and depth' failed: {next(iter(wrong))}"):
        check(vision(), Capabilities(**wrong))


def test_tokens_column_by_column_are_rejected() -> None:
    with pytest.raises(ConformanceError, match="'grid order'"):
        check(changed(vision(), transposed))


def test_looking_for_the_grid_of_a_net_with_batch_norms_leaves_their_statistics() -> None:
    torch.manual_seed(0)
    net: Any = build_vision(TimmOptions(model="test_resnet", image_size=96), weights="random")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    broken = changed(net, lambda tokens: tokens.roll(1, dims=1))
    with pytest.raises(ConformanceError, match="'grid order'"):
        check(broken)
    assert [name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])] == []


def test_a_text_whose_padding_is_attended_to_is_rejected() -> None:
    def all_real(_: nn.Module, args: tuple[TextInput]) -> TextInput:
        return replace(args[0], mask=torch.ones_like(args[0].mask))

    def padded(_: nn.Module, args: tuple[TextInput], features: Features) -> Features:
        return replace(features, mask=args[0].token_ids != 0)

    broken = text()
    broken.register_forward_pre_hook(all_real)
    broken.register_forward_hook(padded)
    with pytest.raises(ConformanceError, match="'padding' failed: a difference"):
        check(broken)


def test_an_input_that_sees_its_batch_is_rejected() -> None:
    with pytest.raises(ConformanceError, match="'batch'"):
        check(changed(vision(), lambda tokens: tokens - 0.1 * tokens.mean(dim=0)))


def test_chance_in_evaluation_is_rejected() -> None:
    with pytest.raises(ConformanceError, match="'eval'"):
        check(changed(vision(), lambda tokens: tokens + 1e-6 * torch.rand_like(tokens)))


def test_a_call_that_is_not_the_fold_of_its_blocks_is_rejected() -> None:
    with pytest.raises(ConformanceError, match="'layers'"):
        check(changed(vision(), lambda tokens: tokens * 1.000001))


def test_a_parameter_without_use_is_rejected() -> None:
    broken = vision()
    broken.leftover = nn.Parameter(torch.zeros(1))
    with pytest.raises(ConformanceError, match=r"'gradients' failed.*leftover"):
        check(broken)


class Around(nn.Module):
    """A linear layer, with a weight that `change` puts in place of its own."""

    def __init__(self, inner: nn.Linear, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.bias, self.change = inner.weight, inner.bias, change

    def forward(self, tokens: Tensor) -> Tensor:
        return nn.functional.linear(tokens, self.change(self.weight), self.bias)


@pytest.mark.parametrize(
    "change",
    [lambda weight: weight.detach() + 0 * weight, lambda weight: 0 * weight],
    ids=["cut off", "multiplied by zero"],
)
def test_a_weight_matrix_whose_gradient_is_zero_is_rejected(change: Callable[[Tensor], Tensor]) -> None:
    broken = vision()
    broken.blocks[1].mlp.fc1 = Around(broken.blocks[1].mlp.fc1, change)
    with pytest.raises(ConformanceError, match=r"'gradients' failed: weight matrices .*'model\.blocks\.1\.mlp\.fc1\.w"):
        check(broken)


def test_a_path_that_chance_drops_for_all_inputs_of_one_pass_is_not_rejected() -> None:
    class Dropped(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, tokens: Tensor) -> Tensor:
            kept: Tensor = self.inner(tokens)
            return kept * (torch.rand(()) > 0.5) if self.training else kept

    def dropped(backbone: Any) -> Any:
        for block in backbone.blocks:
            block.mlp = Dropped(block.mlp)
        return backbone

    check(dropped(vision()), rebuild=lambda saved: dropped(build_vision(VISION, weights="none", saved=saved)))


def test_a_weight_matrix_of_which_the_sign_alone_is_read_is_not_rejected() -> None:
    flat = vision()
    flat.blocks[1].mlp.fc1 = Around(flat.blocks[1].mlp.fc1, lambda weight: 0.1 * weight.sign() + 0 * weight)
    nn.init.constant_(flat.blocks[1].mlp.fc1.weight, 0.2)
    check(flat, rebuild=lambda saved: with_signs(build_vision(VISION, weights="none", saved=saved)))


def with_signs(backbone: Any) -> Any:
    backbone.blocks[1].mlp.fc1 = Around(backbone.blocks[1].mlp.fc1, lambda weight: 0.1 * weight.sign() + 0 * weight)
    return backbone


def test_zero_gradients_of_a_bias_and_of_a_table_whose_padding_alone_is_read_are_not_rejected() -> None:
    class Padded(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.table = inner, nn.Embedding(3, 32, padding_idx=0)
            self.bias = nn.Parameter(torch.ones(32))
            nn.init.normal_(self.table.weight)

        def forward(self, tokens: Tensor) -> Tensor:
            row: Tensor = self.table(torch.zeros(1, dtype=torch.long))
            normed: Tensor = self.inner(tokens)
            return normed + row + 0 * self.bias

    def padded(backbone: Any) -> Any:
        backbone.model.norm = Padded(backbone.model.norm)
        return backbone

    check(padded(vision()), rebuild=lambda saved: padded(build_vision(VISION, weights="none", saved=saved)))


def test_a_backbone_that_is_built_again_otherwise_is_rejected() -> None:
    def shallower(saved: SavedBackbone) -> Any:
        return build_vision(VISION.model_copy(update={"layers": 1}), weights="random")

    with pytest.raises(ConformanceError, match=r"'round trip' failed.*blocks\.1"):
        check(vision(), rebuild=shallower)


def test_a_backbone_that_takes_another_path_in_half_precision_is_rejected() -> None:
    with pytest.raises(ConformanceError, match=r"'bf16' failed: a difference of .*at most 0\.1"):
        check(changed(vision(), lambda tokens: tokens if tokens.dtype == torch.float32 else tokens.flip(-1)))


def test_a_backbone_that_cannot_run_in_half_precision_is_rejected() -> None:
    with pytest.raises(ConformanceError, match=r"'bf16' failed: .*dtype.*expected: a run with weights in bfloat16"):
        check(changed(text(), lambda tokens: (tokens @ torch.eye(32)) if tokens.requires_grad is False else tokens))


def test_text_blocks_that_are_declared_must_run_in_halves() -> None:
    with pytest.raises(ConformanceError, match="'width and depth' failed: text_blocks: True; expected: False"):
        check(text(), Capabilities(text_blocks=False))
