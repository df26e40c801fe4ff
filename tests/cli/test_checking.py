"""`check --deep`: the build without weights says what the spec alone cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from renaissance.assemble import assemble
from renaissance.cost import assemble_on_meta
from renaissance.resolve import resolve

LINE = "timm:test_vit(image_size=32) + tiny-bert(layers=1), random both, frozen text, lxmert(layers=1)"


def test_a_deep_check_counts_the_parameters_of_each_part(cli: Callable[..., Any]) -> None:
    result = cli("check", LINE, "--task", "itm", "--deep")
    assert result.code == 0
    assert "on the meta device: all parts fit" in result.out
    assert "checked at build" not in result.out
    counts = cli("check", LINE, "--task", "itm", "--deep", "--json").json()["parameters"]
    built = assemble(resolve(LINE, ("itm",)))
    total = sum(parameter.numel() for parameter in built.parameters())
    assert counts["total"] == {
        "total": total,
        "trainable": sum(parameter.numel() for parameter in built.parameters() if parameter.requires_grad),
    }
    assert counts["text"]["trainable"] == 0
    assert f"{total:,}" in result.out


def test_a_deep_check_makes_no_weights() -> None:
    model = assemble_on_meta(resolve(LINE, ("itm",)))
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("timm:vit_of_nowhere + tiny-bert, random text", "has no model called 'vit_of_nowhere'"),
        (
            'timm:test_vit(overrides={"depth": 2}) + tiny-bert, random both, frozen vision[:9]',
            "has 2 layers",
        ),
        ('timm:test_vit(overrides={"dept": 2}) + tiny-bert, random both', "cannot be built with these options"),
    ],
)
def test_a_deep_check_fails_as_the_build_would(cli: Callable[..., Any], line: str, told: str) -> None:
    assert cli("check", line).code == 0
    result = cli("check", line, "--deep")
    assert (result.code, result.out) == (2, "")
    assert told in result.err


def test_the_help_says_what_a_deep_check_does(cli: Callable[..., Any]) -> None:
    told = cli("check", "--help").out
    assert "--deep" in told
    assert "meta device" in told


def test_a_recipe_in_place_of_a_spec_is_told(cli: Callable[..., Any]) -> None:
    result = cli("check", "pretrain.yaml")
    assert (result.code, result.out) == (2, "")
    assert "'pretrain.yaml' is a recipe's file, and no spec; a recipe is read by 'renaissance run FILE'" in result.err
