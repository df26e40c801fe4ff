from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import renaissance
from renaissance.assemble import encoder_report
from renaissance.cost import assemble_on_meta
from renaissance.errors import MissingPackageError, SpecError
from renaissance.models.parts import is_adapter
from renaissance.pretrained import Model
from renaissance.resolve import resolve
from renaissance.training.encoded import EncodedBatch

Tiny = Callable[..., Any]
TINY_TEXT = "tiny-bert(layers=2, width=32, heads=2, mlp_width=64)"
HEAD = "lxmert(layers=1, width=32, heads=2)"


def adapted(model: Any) -> set[str]:
    """Return the linear layers that have adapters."""
    return {name.partition(".lora_")[0] for name, _ in model.encoder.named_parameters() if is_adapter(name)}


@torch.no_grad()
def outputs(model: Any, batch: Any) -> list[torch.Tensor]:
    encoded = EncodedBatch(model.encoder, batch, {})
    vision, text = encoded.vision, encoded.text
    joint = model.encoder.fuse(vision, text, frozenset({"pooled"}))
    return [vision.tokens, text.tokens, joint.pooled]


def learned(model: Any) -> Any:
    """Give every adapter weights that change what it gives; B alone starts at zero."""
    with torch.no_grad():
        for name, parameter in model.encoder.named_parameters():
            if is_adapter(name):
                parameter.normal_(std=0.05)
    return model.eval()


def test_lora_adapts_the_queries_and_values_of_each_block(tiny_model: Tiny) -> None:
    model = tiny_model(("itm",), "lora both, lora fusion[:1]")
    assert adapted(model) == {
        *(f"text.blocks.{i}.attention.self.{name}" for i in range(2) for name in ("query", "value")),
        *(f"vision.blocks.{i}.attention.{name}" for i in range(2) for name in ("q_proj", "v_proj")),
        *(
            f"fusion.layers.0.{layer}.attention.{name}"
            for layer in ("cross", "vision_self", "text_self")
            for name in ("query", "value")
        ),
    }


def test_adapters_start_without_an_effect(tiny_model: Tiny, tiny_batch: Tiny) -> None:
    plain, model = tiny_model(("itm",)).eval(), tiny_model(("itm",), "lora both, lora fusion").eval()
    batch = tiny_batch(plain)
    for ours, theirs in zip(outputs(model, batch), outputs(plain, batch), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("vision", ["tiny-vit(image_size=32, width=32, heads=2)", "timm:test_vit(image_size=32)"])
def test_merged_adapters_give_what_they_gave_before(vision: str, tiny_batch: Tiny, tmp_path: Path) -> None:
    spec = f"{vision} + {TINY_TEXT}, random both, lora(rank=4, alpha=8) both, lora(rank=2) fusion, {HEAD}"
    model = learned(renaissance.build(spec, tasks=("itm",)))
    batch = tiny_batch(model)
    before = outputs(model, batch)
    plain = outputs(renaissance.build(spec, tasks=("itm",)).eval(), batch)
    assert all(not torch.allclose(ours, theirs, atol=1e-4) for ours, theirs in zip(before, plain, strict=True))
    model.merge_adapters()
    assert not adapted(model)
    for ours, theirs in zip(outputs(model, batch), before, strict=True):
        assert float((ours - theirs).abs().max()) <= 1e-6 * max(1.0, float(theirs.abs().max()))
    model.save(tmp_path / "plain")
    again = renaissance.from_pretrained(tmp_path / "plain")
    assert not any(rule.action == "lora" for rule in again.spec.rules)
    assert all(torch.equal(*pair) for pair in zip(outputs(again, batch), outputs(model, batch), strict=True))
    assert all(parameter.requires_grad for parameter in again.encoder.text.parameters())


def test_a_model_is_saved_and_loaded_with_its_adapters(tiny_model: Tiny, tiny_batch: Tiny, tmp_path: Path) -> None:
    model = learned(tiny_model(("itm",), "lora(rank=2) text, frozen vision"))
    Model(model).save(tmp_path / "model")
    again = renaissance.from_pretrained(tmp_path / "model")
    assert again.spec == model.plan.spec
    batch = tiny_batch(model)
    assert all(torch.equal(*pair) for pair in zip(outputs(again, batch), outputs(model, batch), strict=True))
    trained = {name for name, parameter in again.encoder.text.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in again.encoder.text.named_parameters() if is_adapter(name)}


def test_attention_with_one_fused_projection_is_adapted_there() -> None:
    model = renaissance.build(f"timm:test_vit(image_size=32) + {TINY_TEXT}, random both, lora vision, {HEAD}")
    assert {name.rpartition(".")[2] for name in adapted(model)} == {"qkv"}


def test_targets_name_linear_layers_by_their_last_name_or_by_a_pattern(tiny_model: Tiny) -> None:
    assert {name.rpartition(".")[2] for name in adapted(tiny_model(("itm",), 'lora(targets=["key"]) text'))} == {"key"}
    found = adapted(tiny_model(("itm",), 'lora(targets=["*.output.dense"]) text[1:]'))
    assert found == {"text.blocks.1.attention.output.dense", "text.blocks.1.output.dense"}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ('lora(targets=["nothing"]) text', "finds no linear layers of these names in that part; .* dense, key, query"),
        ("lora text[2:]", r"'\[2:\]' of the 2 layers of 'tiny-bert' is empty"),
        ("lora fusion[:3]", r"The fusion head has 2 layers; 'fusion\[:3\]' reaches beyond them"),
    ],
)
def test_what_cannot_be_adapted_is_refused(rules: str, message: str, tiny_model: Tiny) -> None:
    with pytest.raises(SpecError, match=message):
        tiny_model(("itm",), rules)


def test_projections_that_are_read_past_their_module_are_refused() -> None:
    spec = f"open-clip:ViT-B-32 + {TINY_TEXT}, random both, lora vision, {HEAD}"
    with pytest.raises(SpecError, match="'lora vision' finds no projections of attention that are known in that part"):
        assemble_on_meta(resolve(spec))


def test_without_adapters_there_is_nothing_to_merge(tiny_model: Tiny) -> None:
    with pytest.raises(SpecError, match="This model has no adapters that could be merged; say 'lora text'"):
        Model(tiny_model(("itm",))).merge_adapters()


def test_without_peft_the_pip_line_is_told(tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install \"renaissance-vl\[adapters\]\""):
        tiny_model(("itm",), "lora text")


def test_adapters_are_new_in_the_report_of_a_build(tiny_model: Tiny) -> None:
    model = tiny_model(("itm",), "lora text")
    assert adapted(model) == {name.partition(".lora_")[0] for name in encoder_report(model).new if is_adapter(name)}


def test_a_build_without_weights_has_the_adapters_too(tiny_spec: Callable[..., str]) -> None:
    model = assemble_on_meta(resolve(tiny_spec("lora(rank=4) text")))
    added = [parameter for name, parameter in model.encoder.named_parameters() if is_adapter(name)]
    assert len(added) == 2 * 2 * 2
    assert all(parameter.is_meta and parameter.requires_grad for parameter in added)
