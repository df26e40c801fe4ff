"""The built-in components hold the rules that plugins hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from renaissance.api import BackboneEntry, Item
from renaissance.registry import BUILTIN_MODULE
from renaissance.testing.conforming import Case, case_id, cases_of, offered
from renaissance.testing.items import Example, Picture

OFTEN = ("tiny-vit", "tiny-bert", "post-norm-vit")  # of the backbones, whose families the sweep goes through


SUGARCREPE = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")


def probed(subsets: Sequence[str]) -> Example:
    """Return an image with its own text and two others for each subset."""
    texts, right = ("a", "b", "c"), [torch.eye(3)[number % 3] for number in range(len(subsets))]
    return Example(
        [
            Item(id=name, images=(Picture(number),), texts=texts, target=number % 3, fields={"subset": name})
            for number, name in enumerate(subsets)
        ],
        right,
    )


EXAMPLES = {"aro": probed(["order", "relation"]), "sugarcrepe": probed(SUGARCREPE)}


def cases() -> Iterator[Any]:
    for case in cases_of(*offered(BUILTIN_MODULE), EXAMPLES):
        entry = case.bench.entry
        rare = isinstance(entry, BackboneEntry) and entry.name not in OFTEN
        yield pytest.param(case, id=case_id(case), marks=[pytest.mark.slow] if rare else [])


@pytest.mark.parametrize("rule", list(cases()))
def test_built_ins_conform(rule: Case) -> None:
    rule()
