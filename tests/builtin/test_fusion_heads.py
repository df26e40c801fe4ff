from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from renaissance.api import FusionHeadEntry, TowerNeeds
from renaissance.builtin.fusion_entries import FUSION_HEADS
from renaissance.errors import SpecError
from renaissance.resolve import resolve
from tests.builtin.fusion_cases import (
    ENTRIES,
    assert_same,
    build,
    changed,
    each,
    each_case,
    each_token,
    every,
    head,
    inputs,
    padded,
)


@each_token
@each_case
def test_padding_changes_nothing(case: str, class_tokens: bool) -> None:
    fusion = head(case, class_tokens=class_tokens)
    vision, text = inputs()
    plain, wide = (
        each(fusion(v, t, every(case)), text) for v, t in ((vision, text), (padded(vision, 3), padded(text, 4)))
    )
    if "vision" in plain:
        wide["vision"] = wide["vision"][:, : plain["vision"].shape[1]]
    assert_same(wide, plain)


@each_case
def test_what_stands_in_the_padding_changes_nothing(case: str) -> None:
    fusion = head(case, class_tokens=False)
    vision, text = inputs()
    other = changed(text, lambda x: x.masked_fill(~text.mask.unsqueeze(-1), 99.0), text.mask)
    assert_same(each(fusion(vision, other, every(case)), text), each(fusion(vision, text, every(case)), text))


@each_case
def test_an_item_does_not_see_its_batch(case: str) -> None:
    fusion = head(case)
    vision, text = inputs()
    whole = each(fusion(vision, text, every(case)))
    for row in range(3):
        v, t = (changed(f, lambda x, row=row: x[row : row + 1], f.mask[row : row + 1]) for f in (vision, text))
        assert_same(each(fusion(v, t, every(case))), {name: value[row : row + 1] for name, value in whole.items()})


@each_token
@each_case
def test_what_is_asked_for_alone_is_what_it_is_among_all(case: str, class_tokens: bool) -> None:
    fusion = head(case, class_tokens=class_tokens)
    vision, text = inputs()
    whole = each(fusion(vision, text, every(case)))
    for asked in ({"pooled"}, {"text"}, {"vision"}, {"pooled", "text"}, {"vision", "text"}):
        wanted: Any = frozenset(asked) & every(case)
        assert_same(each(fusion(vision, text, wanted)), {name: whole[name] for name in wanted})
    assert each(fusion(vision, text, frozenset())) == {}


@each_case
def test_widths_are_those_of_the_outputs(case: str) -> None:
    fusion = head(case)
    joint = fusion(*inputs(), every(case))
    assert joint.pooled.shape == (3, fusion.pooled_width)
    assert {f.tokens.shape[-1] for f in (joint.vision, joint.text) if f is not None} == {fusion.width}
    assert all(f.tokens.shape[:2] == f.mask.shape for f in (joint.vision, joint.text) if f is not None)


@each_token
@each_case
def test_a_gradient_reaches_every_parameter(case: str, class_tokens: bool) -> None:
    fusion = head(case, class_tokens=class_tokens)
    sum(value.square().sum() for value in each(fusion(*inputs(), every(case))).values()).backward()  # type: ignore[union-attr]  # no empty sum
    silent = [name for name, p in fusion.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert [name for name in silent if not name.endswith("key.bias")] == []  # a key's bias cancels in a softmax


def eager(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor) -> Tensor:
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    weights: Tensor = scores.masked_fill(~attn_mask, float("-inf")).softmax(-1)
    return weights @ value


@each_case
def test_scaled_dot_product_attention_gives_the_numbers_of_the_plain_formula(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fusion = head(case)
    found = each(fusion(*inputs(), every(case)))
    monkeypatch.setattr(F, "scaled_dot_product_attention", eager)
    assert_same(each(fusion(*inputs(), every(case))), found)


@each_case
def test_recomputing_layers_in_the_backward_pass_gives_the_same_gradients(case: str) -> None:
    dropout: dict[str, Any] = {} if case == "concat" else {"dropout": 0.2}
    gradients = []
    for recompute in (False, True):
        fusion = head(case, **dropout).train()
        fusion.recompute = recompute
        torch.manual_seed(3)
        sum(value.square().sum() for value in each(fusion(*inputs(), every(case))).values()).backward()  # type: ignore[union-attr]  # no empty sum
        gradients.append({name: p.grad for name, p in fusion.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_recomputing_runs_each_layer_again_and_only_where_there_is_a_backward_pass() -> None:
    fusion = head("merged-attention")
    fusion.recompute = True
    calls: list[int] = []
    for index, layer in enumerate(fusion.layers):
        layer.mlp.start.register_forward_hook(lambda *_, index=index: calls.append(index))
    with torch.no_grad():
        fusion(*inputs(), every("merged-attention"))
    assert calls == [0, 1, 2]
    fusion(*inputs(), every("merged-attention")).pooled.sum().backward()
    assert sorted(calls) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_the_last_layer_computes_only_what_is_asked_for() -> None:
    for case, layer in (("merged-attention", "layers.2.mlp.inner"), ("text-cross-attention", "blocks.2.mlp.inner")):
        fusion = head(case)
        shapes: list[torch.Size] = []
        fusion.get_submodule(layer).register_forward_hook(lambda _, given, out, to=shapes: to.append(out.shape))
        fusion(*inputs(), frozenset({"pooled"}))
        assert shapes == [torch.Size([3, 1, 64])]


# --- entries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [entry.name for entry in FUSION_HEADS if "heads" in entry.options.model_fields])
def test_heads_that_do_not_divide_the_width_are_refused_with_the_nearest_number(name: str) -> None:
    entry: Any = ENTRIES[name]
    with pytest.raises(SpecError, match="5 heads do not divide a width of 48; the nearest number is 4"):
        entry.check(entry.options(width=48, heads=5))


@pytest.mark.parametrize("name", ["text-cross-attention", "q-former"])
def test_heads_that_do_not_divide_the_text_towers_width_are_refused_at_the_build(name: str) -> None:
    with pytest.raises(SpecError, match="3 heads do not divide a width of 20; the nearest number is 2"):
        build(name, {"heads": 3})


@pytest.mark.parametrize("name", ["text-cross-attention", "q-former"])
def test_a_width_beside_blocks_of_the_text_tower_is_refused(name: str) -> None:
    entry: Any = ENTRIES[name]
    with pytest.raises(SpecError, match="leave out width=32"):
        entry.check(entry.options(width=32, text_blocks="shared"))


def test_an_mlp_ratio_beside_the_mlps_of_the_text_tower_is_refused() -> None:
    entry: Any = ENTRIES["text-cross-attention"]
    with pytest.raises(SpecError, match=r"leave out mlp_ratio=2\.0"):
        entry.check(entry.options(mlp_ratio=2.0, text_blocks="inherited"))
    queries: Any = ENTRIES["q-former"]  # its queries have MLPs of their own
    queries.check(queries.options(mlp_ratio=2.0, text_blocks="inherited"))


def test_heads_say_what_they_need_of_the_towers() -> None:
    def needs(name: str, **options: Any) -> TowerNeeds:
        entry = ENTRIES[name]
        return entry.needs(entry.options(**options))

    assert needs("bridge", layers=4) == TowerNeeds(layers=4)
    for name in ("text-cross-attention", "q-former"):
        assert needs(name, layers=4) == TowerNeeds()
        assert needs(name, layers=4, text_blocks="shared") == TowerNeeds(text_blocks="shared", count=4, embedded=True)
        assert needs(name, layers=4, text_blocks="inherited") == TowerNeeds(text_blocks="inherited", count=4)
    assert needs("merged-attention") == needs("concat") == TowerNeeds()


@pytest.mark.parametrize("entry", FUSION_HEADS, ids=lambda entry: entry.name)
def test_tiny_options_are_valid(entry: FusionHeadEntry) -> None:
    entry.check(entry.options(**entry.tiny))


@pytest.mark.parametrize("name", ["text-cross-attention", "q-former"])
def test_heads_that_do_not_divide_the_text_towers_width_are_refused_before_a_build(name: str) -> None:
    with pytest.raises(SpecError, match="3 heads do not divide a width of 128; the nearest number is 2"):
        resolve(f"tiny-vit + tiny-bert, random both, {name}(heads=3)")


def test_a_norm_placement_beside_blocks_of_the_text_tower_is_refused() -> None:
    with pytest.raises(SpecError, match="leave norm out"):
        resolve('tiny-vit + tiny-bert, random both, text-cross-attention(layers=2, text_blocks="shared", norm="pre")')
