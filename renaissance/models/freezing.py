"""Frozen means frozen: no weight gradient, eval mode that `train()` cannot undo, nothing in the optimiser.

A frozen prefix (a whole tower, or its embeddings and first blocks) builds no autograd graph either: nothing upstream
of it asks for a gradient, so PyTorch records none. What is frozen above something that trains passes gradients on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from renaissance.models.one_tower import OneTower
from renaissance.models.parts import is_adapter, is_bias, layers_of, parameters_of, part_names, plain_name
from renaissance.models.two_tower import TwoTower
from renaissance.spec import STARTS, Rule

Encoder = TwoTower | OneTower
_FIXED = "parameters_that_never_train"


def freeze(encoder: Encoder, rules: Iterable[Rule], *, train_mode: bool = False) -> None:
    """Freeze what rules say, and let all else train; whatever was frozen before is forgotten.

    Modules all of whose parameters are frozen stay in eval mode; with the fault `train_mode` none does.

    Raises:
        SpecError: a part has no such layers or parameters.
    """
    frozen = frozen_parameters(encoder, rules)
    _release(encoder)
    for parameter in encoder.parameters():
        parameter.requires_grad_(id(parameter) not in frozen)
    if not train_mode:
        for module in _wholly(encoder, frozen):
            stay_in_eval(module)


def frozen_parameters(encoder: Encoder, rules: Iterable[Rule]) -> frozenset[int]:
    """Return the ids of the parameters that rules freeze, later ones winning, and of those that never train.

    Raises:
        SpecError: a part has no such layers or parameters.
    """
    frozen: set[int] = set()
    for rule in rules:
        if rule.action in STARTS:
            continue
        for name, parameter in parameters_of(encoder, rule.part).items():
            if _trains(rule, name, parameter):
                frozen.discard(id(parameter))
            else:
                frozen.add(id(parameter))
    return frozenset(frozen | _fixed(encoder))


def hold_statistics(tower: nn.Module) -> None:
    """Keep the batch statistics of a pretrained tower as they are, in training too; its weights still train."""
    for module in tower.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
            still: Any = partial(_keep_statistics, module)  # survives deepcopy and pickling
            module.train = still  # type: ignore[method-assign]


def _trains(rule: Rule, name: str, parameter: nn.Parameter) -> bool:
    match rule.action:
        case "lora":
            return is_adapter(name)
        case "bitfit":
            return is_bias(name, parameter)
        case action:
            return action == "trainable"


def _fixed(encoder: Encoder) -> set[int]:
    """Return the ids of parameters that are built not to train, such as tables of sines; known since the first call."""
    if not hasattr(encoder, _FIXED):
        names = frozenset(plain_name(name) for name, p in encoder.named_parameters() if not p.requires_grad)
        setattr(encoder, _FIXED, names)
    fixed: Collection[str] = getattr(encoder, _FIXED)
    return {id(parameter) for name, parameter in encoder.named_parameters() if plain_name(name) in fixed}


def _wholly(encoder: Encoder, frozen: Collection[int]) -> Iterator[nn.Module]:
    """Yield the modules all of whose parameters are frozen, and those that are no more than a layer of such."""

    def still(*modules: nn.Module) -> bool:
        parameters = [parameter for module in modules for parameter in module.parameters()]
        return bool(parameters) and all(id(parameter) in frozen for parameter in parameters)

    for name in part_names(encoder):
        part: nn.Module = getattr(encoder, name)
        yield from (module for module in part.modules() if still(module))
        for layer in layers_of(encoder, name):
            if still(*layer.modules):
                yield from layer.modules


def stay_in_eval(module: nn.Module) -> None:
    """Shadow `train` on each module: a parent's `train()` asks each child's, and these stay as they are."""
    for part in module.modules():
        if "train" not in vars(part):
            part.eval()
            part.train = partial(_unmoved, part)  # type: ignore[method-assign]  # survives deepcopy and pickling


def _release(encoder: nn.Module) -> None:
    """Let modules that were held in eval mode follow `train()` again."""
    for module in encoder.modules():
        if getattr(vars(module).get("train"), "func", None) is _unmoved:
            del module.train
            module.training = encoder.training


def _unmoved(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


def _keep_statistics(module: nn.Module, mode: bool = True) -> nn.Module:
    return module
