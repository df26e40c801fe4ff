from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from renaissance.errors import SpecError
from renaissance.models.freezing import freeze, hold_statistics, stay_in_eval
from renaissance.spec import Layers, Part, PartRule


def frozen(part: Part) -> PartRule:
    return PartRule(action="frozen", part=part)


def hold_still(module: nn.Module) -> None:
    module.requires_grad_(False)
    stay_in_eval(module)


def block() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))


def test_held_still_batch_statistics_do_not_move_and_dropout_does_nothing() -> None:
    model = nn.Sequential(block(), nn.Conv2d(4, 4, 1))
    hold_still(model[0])
    before = copy.deepcopy(model[0].state_dict())
    model.train()
    pictures = torch.randn(8, 3, 8, 8) * 5 + 3
    assert torch.equal(model[0](pictures), model[0](pictures))
    assert all(torch.equal(value, before[name]) for name, value in model[0].state_dict().items())
    assert not any(parameter.requires_grad for parameter in model[0].parameters())
    assert all(parameter.requires_grad for parameter in model[1].parameters())


def test_train_cannot_undo_it_from_above_beside_or_below() -> None:
    model = nn.ModuleDict({"held": block(), "free": block()})
    hold_still(model["held"])
    for part in (model, model["held"], *model["held"].modules()):
        part.train()
        part.train(True)
    assert not any(part.training for part in model["held"].modules())
    assert all(part.training for part in model["free"].modules())
    model.eval()
    assert not any(part.training for part in model.modules())


def test_it_survives_copies_and_pickles_which_hold_themselves() -> None:
    held = block()
    hold_still(held)
    for again in (copy.deepcopy(held), pickle.loads(pickle.dumps(held))):
        again.train()
        assert not any(part.training for part in again.modules())
        assert again.train() is again


def test_held_statistics_leave_the_weights_trainable() -> None:
    tower = block()
    hold_statistics(tower)
    tower.train()
    before = tower[1].running_mean.clone()
    tower(torch.randn(8, 3, 8, 8) + 7).sum().backward()
    assert torch.equal(tower[1].running_mean, before)
    assert tower[2].training
    assert all(parameter.grad is not None for parameter in tower.parameters())


@pytest.mark.parametrize(
    ("part", "held"),
    [
        (Part(name="text"), {"text"}),
        (Part(name="text", layers=Layers(start=None, stop=1)), {"text.blocks.0", "text.model.embeddings"}),
        (Part(name="text", layers=Layers(start=None, stop=2)), {"text.blocks", "text.model.embeddings"}),
        (Part(name="text", layers=Layers(start=None, stop=-1)), {"text.blocks.0", "text.model.embeddings"}),
        (Part(name="text", layers=Layers(start=0, stop=None)), {"text"}),
        (Part(name="text", layers=Layers(start=-1, stop=None)), {"text.blocks.1"}),
        (Part(name="fusion", layers=Layers(start=1, stop=2)), {"fusion.layers.1"}),
        (Part(name="vision", group="embeddings"), {"vision.model.embeddings"}),
        (Part(name="fusion"), {"fusion"}),
    ],
)
def test_exactly_the_named_part_is_held(part: Part, held: set[str], tiny_model: Callable[..., Any]) -> None:
    encoder = tiny_model(("itm",)).encoder
    freeze(encoder, [frozen(part)])
    for name, parameter in encoder.named_parameters():
        assert parameter.requires_grad is not any(name == h or name.startswith(f"{h}.") for h in held), name


def test_layers_beyond_the_last_are_refused(tiny_model: Callable[..., Any]) -> None:
    with pytest.raises(SpecError, match=r"The text tower has 2 layers; 'text\[:3\]' reaches beyond them"):
        freeze(tiny_model(("itm",)).encoder, [frozen(Part(name="text", layers=Layers(start=None, stop=3)))])


@pytest.mark.parametrize(("stop", "fault"), [(-2, "holds none"), (0, "holds none"), (-3, "reaches beyond")])
def test_a_range_that_the_build_shows_to_be_wrong_is_refused(
    stop: int, fault: str, tiny_model: Callable[..., Any]
) -> None:
    with pytest.raises(SpecError, match=fault):
        freeze(tiny_model(("itm",)).encoder, [frozen(Part(name="text", layers=Layers(start=None, stop=stop)))])


def test_layers_of_a_tower_that_does_not_list_them_are_refused(tiny_model: Callable[..., Any]) -> None:
    encoder = tiny_model(("itm",)).encoder
    encoder.text.blocks = nn.ModuleList()
    with pytest.raises(SpecError, match="does not list its layers; write 'frozen text'"):
        freeze(encoder, [frozen(Part(name="text", layers=Layers(start=None, stop=1)))])
