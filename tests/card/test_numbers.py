"""Every number in a card is that of a file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from renaissance.card import figures
from renaissance.card.sources import Sources
from renaissance.card.writing import rendered
from tests.card.cases import named_table

NUMBER = re.compile(r"(?<![\w.])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")

WRITERS: tuple[Callable[[Any], str], ...] = (
    figures.percent,
    figures.count,
    figures.short,
    figures.memory,
    figures.seconds,
    figures.setting,
)


def test_each_score_in_the_table_is_that_of_scores_json(finished: Path) -> None:
    rows = json.loads((finished / "scores.json").read_text())["scores"]
    by_key = {(row["model"], row["split"], row["task"], row["name"]): row for row in rows}
    shown = named_table((finished / "README.md").read_text(), "value [95%]")
    assert len(shown) == sum(row["model"] == "trained" for row in rows) > 10
    for cells in shown:
        split, task, score = (cells[name].strip("*") for name in ("split", "task", "score"))
        row, untrained = by_key["trained", split, task, score], by_key["untrained", split, task, score]
        assert cells["value [95%]"] == f"{row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"
        assert (cells["n"], cells["chance"]) == (str(row["n"]), f"{row['chance']:.1f}")
        blind = [f"{row['blind'][name]:.1f}" for name in ("vision", "text", "twin")]
        assert [cells[name] for name in ("other images", "other texts", "blind twin")] == blind
        assert cells["untrained"] == f"{untrained['value']:.1f}"


def test_the_primary_score_alone_is_bold(finished: Path) -> None:
    rows = named_table((finished / "README.md").read_text(), "value [95%]")
    assert [row["score"] for row in rows if "**" in row["score"]] == ["**R@1**"]


def test_each_figure_of_the_ledger_is_that_of_ledger_json(finished: Path) -> None:
    ledger, text = json.loads((finished / "ledger.json").read_text()), (finished / "README.md").read_text()
    for row in named_table(text, "FLOPs"):
        assert row["forward"] == figures.short(ledger["flops"][row["FLOPs"]]["forward"])
        assert row["backward"] == figures.short(ledger["flops"][row["FLOPs"]]["backward"])
    for row in named_table(text, "saved"):
        assert row["FLOPs"] == figures.short(ledger["compared"][row["training"]])
    for row in named_table(text, "phase"):
        assert row["seconds"] == figures.seconds(ledger["wall_seconds"][row["phase"]])


def leaves(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], float]]:
    """Yield the path and the value of each number."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from leaves(value, (*path, key))
    if isinstance(data, int | float) and not isinstance(data, bool):
        yield path, data


def changed(data: Any, path: tuple[Any, ...], value: float) -> Any:
    copy = json.loads(json.dumps(data))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


def test_every_score_and_every_figure_of_the_ledger_moves_the_card(sources: Sources) -> None:
    before = rendered(sources, None, {})
    assert sources.scores is not None
    trained = [index for index, row in enumerate(sources.scores["scores"]) if row["model"] == "trained"]
    shown = ("value", "low", "high", "n", "chance", "vision", "text", "twin")
    for path, value in leaves(sources.scores):
        if path[0] == "scores" and path[1] in (trained[0], trained[-1]) and path[-1] in shown:
            other = replace(sources, scores=changed(sources.scores, path, 2 * value + 7))
            assert rendered(other, None, {}) != before, path
    sections = ("updates", "samples", "flops", "compared", "wall_seconds", "cpu_seconds", "peak_memory_bytes")
    for path, value in leaves(sources.ledger):
        if path[0] in sections and path[-1] != "training":
            other = replace(sources, ledger=changed(sources.ledger, path, 2 * value + 7))
            assert rendered(other, None, {}) != before, path


def test_a_number_outside_of_code_comes_from_a_file_or_stands_in_the_template(finished: Path, sources: Sources) -> None:
    known = {"95", "2", "3"}  # of "95%", and of names
    data = [json.loads((finished / name).read_text()) for name in ("scores.json", "ledger.json", "config.json")]
    data += [yaml.safe_load((finished / "recipe.yaml").read_text())]
    sizes = [module for _, module in sources.assembly.named_modules()]
    values = [value for source in data for _, value in leaves(source)]
    values += [sum(p.numel() for p in module.parameters()) for module in sizes]
    values += [sum(p.numel() for p in module.parameters() if p.requires_grad) for module in sizes]
    for value in values:
        for write in WRITERS:
            known.update(NUMBER.findall(write(value)))
    text = (finished / "README.md").read_text().partition("\n# ")[2].partition("## Citation")[0]
    prose = re.sub(r"```.*?```|`[^`\n]*`|R@\d+|^- machine.*$|\d[\d.]*%", "", text, flags=re.DOTALL | re.MULTILINE)
    freezing = prose.index("### What was frozen"), prose.index("## Scores")  # counts of stages have a test of their own
    prose = prose[: freezing[0]] + prose[freezing[1] :]
    unknown = [number for number in NUMBER.findall(prose) if number not in known]
    assert not unknown


def test_the_stages_say_what_was_frozen_and_how_much_was_trained(finished: Path, sources: Sources) -> None:
    rows = named_table((finished / "README.md").read_text(), "frozen parts")
    encoder = sources.assembly.encoder
    trainable = sum(p.numel() for p in sources.assembly.parameters() if p.requires_grad)
    last = sum(p.numel() for p in (*encoder.vision.blocks[-1].parameters(), *encoder.vision.final[0].parameters()))
    assert [row["from"] for row in rows] == ["the start", "update 2"]
    assert rows[0]["frozen parts"].startswith("vision, ")
    assert [row["trained parameters"] for row in rows] == [figures.short(trainable), figures.short(trainable + last)]


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (figures.percent, 58.3333, "58.3"),
        (figures.short, 27_123_456, "27.1M"),
        (figures.short, 999, "999"),
        (figures.short, 363_400_704, "363M"),
        (figures.short, 1_000, "1.00k"),
        (figures.memory, 909_152_256, "867 MiB"),
        (figures.memory, 12, "12 bytes"),
        (figures.seconds, 0.058, "0.06"),
        (figures.seconds, 1234.5, "1,234"),
        (figures.share, 0.25, "25%"),
        (figures.share, 0.0001, "0.01%"),
        (figures.setting, 0.002, "0.002"),
        (figures.count, 1234, "1,234"),
    ],
)
def test_a_number_is_written_in_one_way(write: Callable[[Any], str], value: float, text: str) -> None:
    assert write(value) == text
