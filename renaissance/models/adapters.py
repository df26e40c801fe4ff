"""LoRA through `peft`: matrices of low rank beside the projections of attention, put in, and taken out again."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from renaissance.errors import MissingPackageError, SpecError
from renaissance.models.one_tower import OneTower
from renaissance.models.parts import chosen_layers, is_adapter
from renaissance.models.two_tower import TwoTower
from renaissance.rules import LoraOptions, lora_options
from renaissance.spec import AdapterRule, Part, Rule

# what libraries call the projections of attention: those of queries and values, else all three in one
_QUERIES_AND_VALUES = frozenset(
    {"query", "value", "q_proj", "v_proj", "q_lin", "v_lin", "query_proj", "value_proj", "q", "v", "to_q", "to_v"}
)
_FUSED = frozenset({"qkv", "Wqkv", "qkv_proj", "in_proj", "query_key_value", "c_attn", "to_qkv"})


def lora_rules(rules: Iterable[Rule]) -> list[AdapterRule]:
    """Return the rules that put adapters into a model."""
    return [rule for rule in rules if isinstance(rule, AdapterRule) and rule.action == "lora"]


def add_adapters(encoder: TwoTower | OneTower, rule: AdapterRule) -> None:
    """Put the adapters of a 'lora' rule beside linear layers; what the model gives stays the same, as they start at 0.

    Raises:
        SpecError: the part has no such layers, or no such linear layers.
        MissingPackageError: `peft` is not installed.
    """
    if importlib.util.find_spec("peft") is None:
        raise MissingPackageError(f"'{rule}' needs the package peft. Try: pip install \"renaissance-vl[adapters]\"")
    from peft import LoraConfig, inject_adapter_in_model

    options, module = lora_options(rule), getattr(encoder, rule.part.name)
    trained = {id(parameter): parameter.requires_grad for parameter in module.parameters()}
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules="|".join(map(re.escape, _targets(encoder, rule.part, options))),
    )
    inject_adapter_in_model(config, module)
    for parameter in module.parameters():  # peft freezes all that it finds; what is frozen, rules say
        parameter.requires_grad_(trained.get(id(parameter), True))


def take_out_adapters(encoder: TwoTower | OneTower) -> None:
    """Add what adapters learned to the layers that they stand beside, and take them out.

    Raises:
        SpecError: there are none.
    """
    names = [name for name, module in encoder.named_modules() if hasattr(module, "lora_A")]
    if not names:
        raise SpecError("This model has no adapters that could be merged; say 'lora text' to train some.")
    for name in names:
        parent, _, leaf = name.rpartition(".")
        adapted: Any = encoder.get_submodule(name)
        adapted.merge(safe_merge=True)
        setattr(encoder.get_submodule(parent), leaf, adapted.get_base_layer())


def adapter_parameters(encoder: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters of adapters."""
    yield from (parameter for name, parameter in encoder.named_parameters() if is_adapter(name))


def _targets(encoder: TwoTower | OneTower, part: Part, options: LoraOptions) -> list[str]:
    """Return the names within a part of the linear layers that are adapted.

    Raises:
        SpecError: there are none.
    """
    module: nn.Module = getattr(encoder, part.name)
    layers = chosen_layers(encoder, part.name, part.layers) if part.layers else ()
    roots = [root for layer in layers for root in layer.modules] or [module]
    chosen = {id(child) for root in roots for child in root.modules() if _adaptable(child)}
    linear = [name for name, child in module.named_modules() if id(child) in chosen]
    wanted = _wanted(linear, options)
    if not wanted:
        known = sorted({name.rpartition(".")[2] for name in linear})
        listed = f"'targets' can name: {', '.join(known)}" if known else "it has no linear layers"
        what = "linear layers of these names" if options.targets else "projections of attention that are known"
        raise SpecError(f"'lora {part}' finds no {what} in that part; {listed}.")
    return wanted


def _adaptable(module: nn.Module) -> bool:
    # the output projection of nn.MultiheadAttention is read as a tensor, past any adapter
    return isinstance(module, nn.Linear) and type(module).__name__ != "NonDynamicallyQuantizableLinear"


def _wanted(names: list[str], options: LoraOptions) -> list[str]:
    if options.targets is not None:
        return [name for name in names if any(_named(name, target) for target in options.targets)]
    single = [name for name in names if name.rpartition(".")[2] in _QUERIES_AND_VALUES]
    return single or [name for name in names if name.rpartition(".")[2] in _FUSED]


def _named(name: str, target: str) -> bool:
    """Return whether a target means a layer: a bare word its last name, else all of it as a pattern."""
    return fnmatchcase(name if "." in target else name.rpartition(".")[2], target)
