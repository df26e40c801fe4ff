from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

SPEC = "tiny-vit(layers=3) + tiny-bert(layers=3), random both, lxmert(layers=2), {}"
RECIPE = """
start: "tiny-vit(layers=2) + tiny-bert(layers=2), random both, frozen both, lxmert(layers=1)"
tasks: {itm: {}}
budget: {epochs: 9}
optimiser: {layer_decay: 0.5, fusion_multiplier: 3.0}
freezing: {unit: epoch, stages: [{at: 2, thaw: ["text[-1:]"]}]}
"""


def states(found: Any, part: str, stage: int = 0) -> dict[str, str]:
    return {row["layer"]: row["cells"][stage]["state"] for row in found["rows"] if row["part"] == part}


def test_the_map_tells_a_prefix_from_a_frozen_middle_and_what_is_adapted(cli: Cli) -> None:
    rules = "frozen vision[:2], frozen vision.norms[2:3], frozen text[1:2], lora(rank=2) fusion[:1]"
    found = cli("freeze-map", SPEC.format(rules), "--json").json()
    assert states(found, "vision") == {
        "embeddings": "prefix", "0": "prefix", "1": "prefix", "2": "partly", "final": "trained",
    }  # fmt: skip
    assert [states(found, "text")[layer] for layer in ("embeddings", "0", "1", "2")] == [
        "trained", "trained", "frozen", "trained",
    ]  # fmt: skip
    assert states(found, "fusion")["0"] == "partly"
    assert [row["adapters"] > 0 for row in found["rows"] if row["part"] == "fusion"] == [False, True, False, False]


def test_the_map_of_a_recipe_goes_stage_by_stage_with_its_learning_rates(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    result = cli("freeze-map", "--recipe", str(tmp_path / "recipe.yaml"), "--svg", str(tmp_path / "map.svg"), "--json")
    found = result.json()
    assert found["stages"] == ["the start", "epoch 2"]
    assert set(states(found, "text").values()) == {"prefix"}
    assert states(found, "text", 1)["0"] == "prefix"
    rates = {(row["part"], row["layer"]): row["cells"][1]["rates"] for row in found["rows"]}
    assert rates["text", "1"] == [0.5]
    assert rates["fusion", "0"] == [3.0]
    assert rates["task itm", "all"] == [5.0]
    drawn = ET.parse(tmp_path / "map.svg").getroot()
    words = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "text 1" in words
    assert "after epoch 2" in words


def test_the_table_says_how_many_parameters_train_at_each_stage(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    out = cli("freeze-map", "--recipe", str(tmp_path / "recipe.yaml")).out
    assert "frozen, no graph" in out
    assert out.count("parameters are trained") == 2
    assert "\nafter epoch 2: " in out


@pytest.mark.parametrize(
    ("budget", "unit", "told"),
    [
        ("{steps: 2}", "step", "begins with update 3, and the training has 2"),
        ("{samples: 8}", "step", "begins with update 3, and the training has 2"),
        ("{epochs: 2}", "epoch", "the stage after epoch 2 does not begin between"),
        ("{steps: 2}", "epoch", ""),  # which the data decide
    ],
)
def test_a_stage_that_a_run_would_refuse_is_not_drawn(
    budget: str, unit: str, told: str, cli: Cli, tmp_path: Path
) -> None:
    text = RECIPE.replace("{epochs: 9}", budget).replace("unit: epoch", f"unit: {unit}")
    (tmp_path / "recipe.yaml").write_text(text + "batch: {size: 4}\n")
    result = cli("freeze-map", "--recipe", str(tmp_path / "recipe.yaml"))
    assert result.code == (2 if told else 0)
    assert told in result.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "There is nothing to draw; give a spec such as 'vit-base + bert-base', or --recipe FILE."),
        ((SPEC.format("frozen text[:9]"),), "'tiny-bert' has 3 layers, so '[:9]' reaches beyond it"),
        ((SPEC.format("frozen fusion[:9]"),), "The fusion head has 2 layers; 'fusion[:9]' reaches beyond them."),
    ],
)
def test_what_cannot_be_drawn_is_one_line_and_exit_code_2(cli: Cli, arguments: tuple[str, ...], told: str) -> None:
    result = cli("freeze-map", *arguments)
    assert (result.code, result.out) == (2, "")
    assert told in result.err
