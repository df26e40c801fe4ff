"""Gradient checkpointing changes memory, and no gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from renaissance.assemble import Assembly, assemble
from renaissance.errors import SpecError
from renaissance.models.recomputing import recompute
from renaissance.resolve import resolve
from renaissance.training.train_step import TrainStep

SMALL = "layers=2, width=32, heads=2, mlp_width=64, dropout=0.2"
VISION = f"tiny-vit(image_size=32, patch_size=8, {SMALL})"
TEXT = f"tiny-bert(max_tokens=32, {SMALL})"
SWIN = "swin-tiny(image_size=32, patch_size=4, width=32, depths=[1, 1], heads=[1, 2], window=4)"
SPECS = {
    "two-tower": f"{VISION} + {TEXT}, random both, lxmert(layers=2, width=32, heads=2)",
    "frozen text": f"{VISION} + {TEXT}, random both, frozen text, co-attention(layers=2, width=32, heads=2)",
    "bridge": f"{VISION} + {TEXT}, random both, bridge(layers=2, width=32, heads=2)",
    "one-tower": f"{VISION} + {TEXT}, one-tower, random encoder, random text",
    "one-tower on text": f"{TEXT} + {VISION}, one-tower, random encoder, random vision, frozen encoder[:1]",
}


def built(spec: str) -> Assembly:
    return assemble(resolve(spec, ("mlm", "itm"))).train()


def inner(assembly: Assembly) -> dict[str, list[torch.nn.Module]]:
    """Return one module inside of each block, by tower."""
    names = ("vision", "text") if hasattr(assembly.encoder, "fusion") else ("encoder",)
    towers: dict[str, Any] = {name: getattr(assembly.encoder, name) for name in names}
    return {name: [next(m for m in b.modules() if m is not b) for b in tower.blocks] for name, tower in towers.items()}


def gradients(assembly: Assembly, batch: Any) -> dict[str, Any]:
    torch.manual_seed(5)
    TrainStep(assembly, {"mlm": 1.0, "itm": 1.0})(batch).loss.backward()
    return {name: parameter.grad for name, parameter in assembly.named_parameters()}


@pytest.mark.parametrize("case", SPECS)
def test_gradients_are_the_same_bit_for_bit_with_dropout(case: str, tiny_batch: Callable[..., Any]) -> None:
    plain, again = built(SPECS[case]), built(SPECS[case])
    recompute(again.encoder)
    batch = tiny_batch(plain)
    expected, found = gradients(plain, batch), gradients(again, batch)
    for name, gradient in expected.items():
        assert (gradient is None) == (found[name] is None), name
        assert gradient is None or torch.equal(found[name], gradient), name


def test_blocks_of_trained_towers_run_again_in_the_backward_pass_alone(tiny_batch: Callable[..., Any]) -> None:
    assembly = built(SPECS["frozen text"])
    recompute(assembly.encoder)
    counts = {"vision": 0, "text": 0}
    for tower, modules in inner(assembly).items():

        def counted(*_: Any, tower: str = tower) -> None:
            counts[tower] += 1

        for module in modules:
            module.register_forward_hook(counted)
    batch = tiny_batch(assembly)
    with torch.no_grad():
        assembly.encoder.encode_vision(batch.images)
    assert counts == {"vision": 2, "text": 0}
    loss = TrainStep(assembly, {"itm": 1.0})(batch).loss
    forward = dict(counts)
    loss.backward()
    assert counts == {"vision": forward["vision"] + 2, "text": forward["text"]}


HEADS = ("lxmert", "co-attention", "bridge", "text-cross-attention", "merged-attention", "q-former")


@pytest.mark.parametrize("head", HEADS)
def test_layers_of_the_fusion_head_run_again_in_the_backward_pass(head: str, tiny_batch: Callable[..., Any]) -> None:
    assembly = built(f"{VISION} + {TEXT}, random both, {head}(layers=2, width=32, heads=2)")
    fusion: Any = assembly.encoder.fusion
    counts = dict.fromkeys((name for name, part in fusion.named_modules() if isinstance(part, torch.nn.Linear)), 0)
    for name in counts:

        def counted(*_: Any, name: str = name) -> None:
            counts[name] += 1

        fusion.get_submodule(name).register_forward_hook(counted)
    batch = tiny_batch(assembly)
    vision, text = assembly.encoder.encode_vision(batch.images), assembly.encoder.encode_text(batch.texts)
    again = {}
    for recomputed in (False, True):
        if recomputed:
            recompute(assembly.encoder)
        joint = fusion(vision, text, frozenset({"pooled"}))
        forward = dict(counts)
        joint.pooled.sum().backward(retain_graph=not recomputed)
        again[recomputed] = {name for name, count in counts.items() if count > forward[name]}
    ran = {name for name, count in counts.items() if count}  # attention may read weights of its own and call no part
    layers = {name for name in ran if name.split(".")[0] in {"layers", "blocks"} and ".0." in f".{name}."}
    assert again[False] == set()
    assert layers
    assert layers <= again[True]


def test_a_trained_tower_without_blocks_is_refused_and_a_frozen_one_is_not() -> None:
    with pytest.raises(SpecError, match="vision tower does not list its blocks"):
        recompute(built(f"{SWIN} + {TEXT}, random both").encoder)
    recompute(built(f"{SWIN} + {TEXT}, random both, frozen vision").encoder)
