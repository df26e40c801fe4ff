"""Every way to freeze and adapt a part, trained for a few updates: what is frozen stays, and all else moves."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from renaissance.assemble import Assembly, assemble
from renaissance.recipe.training import Optimiser
from renaissance.resolve import resolve
from renaissance.training.optimiser import make_optimiser
from renaissance.training.train_step import TrainStep

SIZES = "layers=3, width=16, heads=2, mlp_width=32, dropout=0.1"
VISION, TEXT = f"tiny-vit({SIZES}, image_size=32, patch_size=16)", f"tiny-bert({SIZES})"
TWO_TOWERS = f"{VISION} + {TEXT}, random both, lxmert(layers=3, width=16, heads=2, dropout=0.1)"
ONE_TOWER = f"{VISION} + {TEXT}, one-tower, random encoder, random text"
UPDATES = 3

# what can be said of a part that lists three layers, and of which of its parameters it then lets train
CLAUSES = (
    "",
    "frozen {}",
    "frozen {}.norms",
    "frozen {}.biases",
    "frozen {}[:1]",
    "frozen {}[1:2]",
    "frozen {}[-1:]",
    "frozen {}.norms[:2]",
    "frozen {}, trainable {}[-1:]",
    "frozen {}, trainable {}.norms",
    'frozen {}("*attention*")',
    "bitfit {}",
    "bitfit {}[1:]",
    "lora(rank=2) {}",
    "frozen {}, lora(rank=2) {}[-2:]",
)
EMBEDDINGS = "frozen {}.embeddings"
ADDED = ("", "frozen text", "frozen text.norms", "bitfit text")  # of embeddings that a one-tower model adds


def two_towers() -> Iterator[str]:
    of_tower = (*CLAUSES, EMBEDDINGS)
    for vision, text, fusion in itertools.product(of_tower, of_tower, CLAUSES):
        yield line(
            TWO_TOWERS,
            vision.format("vision", "vision"),
            text.format("text", "text"),
            fusion.format("fusion", "fusion"),
        )


def one_tower() -> Iterator[str]:
    for encoder, added in itertools.product((*CLAUSES, EMBEDDINGS), ADDED):
        yield line(ONE_TOWER, encoder.format("encoder", "encoder"), added)


def line(*clauses: str) -> str:
    return ", ".join(clause for clause in clauses if clause)


ALL = (*two_towers(), *one_tower())


# --- what rules mean, said once more --------------------------------------------------------------------------------


def where(name: str) -> tuple[str, str, str]:
    """Return the part of a parameter, its layer there, and the rest of its name."""
    place, _, rest = name.partition(".")
    part = {"base": "encoder", "other": "text"}.get(place, place)
    if found := re.match(r"(?:blocks|layers)\.(\d)\.(.*)", rest):
        return part, found[1], found[2]
    if part == "fusion":
        return part, "embeddings" if "projection" in rest else "final", rest
    return part, "embeddings" if "embeddings" in rest else "final", rest


def meant(part: str, name: str) -> bool:
    """Return whether a part as a rule writes it holds a parameter of the encoder."""
    whole = re.fullmatch(r'(\w+)(?:\.(\w+))?(?:\[(-?\d*):(-?\d*)\])?(?:\("\*(\w+)\*"\))?', part)
    assert whole is not None
    wanted, group, start, stop, word = whole.groups()
    own, layer, rest = where(name)
    if own != wanted or (word and word not in rest):
        return False
    if group == "embeddings" and layer != "embeddings":
        return False
    if group == "norms" and not re.search(r"norm", rest.lower()):
        return False
    if group == "biases" and not rest.endswith("bias"):
        return False
    if start is None:
        return True
    order = ["embeddings", "0", "1", "2", "final"]
    first = 0 if not start else 1 + int(start) % 3
    last = 5 if not stop else 1 + (int(stop) - 1) % 3 + 1
    return layer in order[first:last]


def trains(spec: str, name: str) -> bool:
    """Return whether a parameter trains, as the last rule that means it says."""
    plain, added = name.replace(".base_layer.", "."), ".lora_" in name
    verdict = True
    for verb, part in re.findall(r"(frozen|trainable|bitfit|lora)(?:\(rank=2\))? ([^,]+)", spec):
        if meant(part, plain):
            verdict = {"frozen": False, "trainable": True, "bitfit": plain.endswith("bias"), "lora": added}[verb]
    return verdict


# --- trained --------------------------------------------------------------------------------------------------------


def trained(spec: str, tiny_batch: Callable[..., Any]) -> tuple[Assembly, Mapping[str, Tensor], Mapping[str, float]]:
    """Train for a few updates; return the model, its encoder's parameters before, and their greatest gradients."""
    assembly = assemble(resolve(spec, {"mlm": {}, "itm": {}, "itc": {"width": 8}})).train()
    before = {name: parameter.detach().clone() for name, parameter in assembly.encoder.named_parameters()}
    step = TrainStep(assembly, dict.fromkeys(assembly.tasks, 1.0))
    optimiser = make_optimiser(step, Optimiser(lr=1e-2, weight_decay=0.0))
    batch = tiny_batch(assembly)
    largest: dict[str, float] = {}
    for update in range(UPDATES):
        torch.manual_seed(update)
        step(batch).loss.backward()
        for name, parameter in assembly.encoder.named_parameters():
            if parameter.grad is not None:
                largest[name] = max(largest.get(name, 0.0), float(parameter.grad.abs().max()))
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return assembly, before, largest


@cache
def used(spec: str, tiny_batch: Callable[..., Any]) -> frozenset[str]:
    """Return the names of the parameters that get a gradient worth the name where all of a model trains."""
    _, _, largest = trained(spec, tiny_batch)
    return frozenset(name for name, value in largest.items() if value > 1e-5)


def check(spec: str, tiny_batch: Callable[..., Any]) -> None:
    assembly, before, gradients = trained(spec, tiny_batch)
    moving = used(ONE_TOWER if "one-tower" in spec else TWO_TOWERS, tiny_batch)
    for name, parameter in assembly.encoder.named_parameters():
        if not trains(spec, name):
            assert name not in gradients, f"{name} has a gradient in {spec}"
            assert torch.equal(parameter, before[name]), f"{name} moved in {spec}"
        elif re.sub(r"\.lora_[AB]\.default|\.base_layer", "", name) in moving:
            assert not torch.equal(parameter, before[name]), f"{name} did not move in {spec}"


@given(spec=st.sampled_from(ALL))
@settings(deadline=None, max_examples=20, derandomize=True, suppress_health_check=list(HealthCheck))
def test_what_is_frozen_stays_bit_for_bit_and_all_else_moves(spec: str, tiny_batch: Callable[..., Any]) -> None:
    check(spec, tiny_batch)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_every_combination(tiny_batch: Callable[..., Any]) -> None:
    for spec in ALL:
        check(spec, tiny_batch)


@pytest.mark.parametrize("part", ["vision", "text", "fusion"])
def test_a_frozen_middle_lets_what_is_below_it_learn(part: str, tiny_batch: Callable[..., Any]) -> None:
    spec = f"{TWO_TOWERS}, frozen {part}[1:2]"
    assembly, before, gradients = trained(spec, tiny_batch)
    below = [name for name in before if where(name)[:2] in ((part, "embeddings"), (part, "0"))]
    held = [name for name in before if where(name)[:2] == (part, "1")]
    assert held
    assert not set(held) & set(gradients)
    moved = [name for name in below if not torch.equal(assembly.encoder.get_parameter(name), before[name])]
    assert len(moved) >= len(set(below) & used(TWO_TOWERS, tiny_batch)) > 0
