"""What is counted, by hand and against the published definitions; the published layouts; and a run of the README."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from renaissance_plugin_naturalbench.__main__ import main
from renaissance_plugin_naturalbench.converting import convert_mmvp, convert_naturalbench
from renaissance_plugin_naturalbench.entries import ProbeOptions
from renaissance_plugin_naturalbench.probes import mmvp, naturalbench
from torch import Tensor

import renaissance
from renaissance.api import Item, ModelFacts, Score
from renaissance.cli import main as renaissance_cli
from renaissance.data.prepared import Prepared
from renaissance.errors import DataError, NonFiniteError, OutputError

FACTS = ModelFacts(vision=6, text=6, joint=6, fused_text=None, shared_space=False, tokenizer=None)
NAMES = ("Orientation and Direction", "Presence of Specific Features", "State and Condition", "Quantity and Count")
NAMES += ("Positional and Relational Context", "Color and Appearance", "Structural Characteristics", "Texts")
NAMES += ("Viewpoint and Perspective",)


@dataclass(frozen=True)
class Known:
    """A scorer whose scores [images, texts] of each item are known."""

    items: Sequence[Item]
    told: Sequence[Tensor]

    def matches(self, *, regions: bool = False, by: str | None = None) -> list[Tensor]:
        return list(self.told)


def scores(probe: Any, items: Sequence[Item], told: Sequence[Tensor]) -> dict[str, Score]:
    found: Sequence[Score] = probe(ProbeOptions(), model=FACTS).score(Known(items, told))
    return {score.name: score for score in found}


def values(found: Mapping[str, Score]) -> dict[str, float]:
    return {name: score.value for name, score in found.items()}


@dataclass(frozen=True)
class Named:
    """An image that is only a name."""

    name: str


def item(number: int, texts: int, **more: Any) -> Item:
    images = (Named(f"{number}-0"), Named(f"{number}-1"))
    return Item(f"q-{number}", images, tuple(f"{number}-{n}" for n in range(texts)), f"test, line {number}", **more)


# --- MMVP -----------------------------------------------------------------------------------------------------------


def pattern_item(number: int, pattern: str = "Texts") -> Item:
    return item(number, 2, fields={"pattern": pattern})


def test_mmvp_asks_each_statement_for_its_image_and_counts_pairs() -> None:
    told = [
        torch.tensor([[1.0, 0.0], [0.0, 1.0]]),  # both found
        torch.tensor([[1.0, 5.0], [0.0, 6.0]]),  # both found, though image 0 likes statement 1 better
        torch.tensor([[1.0, 2.0], [0.0, 1.0]]),  # statement 1 goes to image 0
        torch.tensor([[1.0, 0.0], [1.0, 1.0]]),  # statement 0 likes both alike
    ]
    (score,) = scores(mmvp, [pattern_item(n) for n in range(4)], told).values()
    assert (score.name, score.value, score.chance, score.ties, score.n) == ("Texts", 50.0, 25.0, 25.0, 4)
    rows = mmvp(ProbeOptions(), model=FACTS).submission(Known([pattern_item(n) for n in range(4)], told))
    assert [(row["pred1"], row["pred2"]) for row in rows] == [
        ("img1", "img2"),
        ("img1", "img2"),
        ("img1", "img1"),
        ("tie", "img2"),
    ]


def test_the_average_of_mmvp_is_over_its_nine_patterns_whatever_their_sizes() -> None:
    items = [pattern_item(n, NAMES[max(0, n - 3)]) for n in range(12)]
    told = [torch.eye(2) if n < 4 else torch.eye(2).flip(0) for n in range(12)]
    found = values(scores(mmvp, items, told))
    assert found["average"] == pytest.approx(100 / 9)
    assert len(found) == 10
    assert "average" not in scores(mmvp, items[:-1], told[:-1])


def test_a_statement_that_is_read_without_its_image_finds_none() -> None:
    told = [torch.randn(2).repeat(2, 1) for _ in range(50)]
    assert values(scores(mmvp, [pattern_item(n) for n in range(50)], told)) == {"Texts": 0.0}


def test_random_scores_give_what_is_said_to_be_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    items = [pattern_item(n) for n in range(4000)]
    (score,) = scores(mmvp, items, list(torch.randn(4000, 2, 2, generator=generator))).values()
    assert score.value == pytest.approx(score.chance, abs=2.5)
    answers = ("yes", "no", "no", "yes")
    asked = [item(n, 4, answers=answers) for n in range(4000)]
    for score in scores(naturalbench, asked, list(torch.randn(4000, 2, 4, generator=generator))).values():
        assert score.value == pytest.approx(score.chance, abs=2.5)


# --- NaturalBench -----------------------------------------------------------------------------------------------------


def published(said: Mapping[str, int]) -> dict[str, float]:
    """Return the four measures of one sample as they are published: 1 is yes or A, 0 is no or B, -1 is neither."""
    by_question = [
        said["q0_i0"] == 1 and said["q0_i1"] == 0,
        said["q1_i1"] == 1 and said["q1_i0"] == 0,
    ]
    by_image = [said["q0_i0"] == 1 and said["q1_i0"] == 0, said["q1_i1"] == 1 and said["q0_i1"] == 0]
    each = [said["q0_i0"] == 1, said["q0_i1"] == 0, said["q1_i0"] == 0, said["q1_i1"] == 1]
    group = all(by_question) and all(by_image)
    return {"Q-Acc": 50 * sum(by_question), "I-Acc": 50 * sum(by_image), "G-Acc": 100 * group, "Acc": 25 * sum(each)}


def test_all_81_ways_to_answer_a_sample_score_as_published() -> None:
    asked = item(0, 4, answers=("Yes", "No", "No", "Yes"))
    for q0_i0, q1_i0, q0_i1, q1_i1 in itertools.product((1, 0, -1), repeat=4):
        texts = {1: [1.0, 0.0], 0: [0.0, 1.0], -1: [0.5, 0.5]}
        told = torch.tensor([[*texts[q0_i0], *texts[q1_i0]], [*texts[q0_i1], *texts[q1_i1]]])
        said = {"q0_i0": q0_i0, "q0_i1": q0_i1, "q1_i0": q1_i0, "q1_i1": q1_i1}
        assert values(scores(naturalbench, [asked], [told])) == published(said)
        (row,) = naturalbench(ProbeOptions(), model=FACTS).submission(Known([asked], [told]))
        assert row == {"id": "q-0", **said}


def test_answers_that_are_the_same_for_both_images_score_no_question_and_no_group() -> None:
    asked = [item(n, 4, answers=("A", "B", "B", "A")) for n in range(50)]
    blind = [torch.randn(4).repeat(2, 1) for _ in range(50)]
    found = scores(naturalbench, asked, blind)
    assert (found["Q-Acc"].value, found["G-Acc"].value, found["Acc"].value) == (0.0, 0.0, 50.0)
    same = scores(naturalbench, asked, [torch.zeros(2, 4)] * 50)
    assert values(same) == dict.fromkeys(same, 0.0)
    assert {score.ties for score in same.values()} == {100.0}


def test_other_items_and_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="line 0: 'q-0' has 2 images and 3 texts, and 'mmvp' reads 2 and 2"):
        scores(mmvp, [item(0, 3)], [torch.zeros(2, 3)])
    with pytest.raises(DataError, match="has no field 'pattern'"):
        scores(mmvp, [item(0, 2)], [torch.zeros(2, 2)])
    for answers in (("yes", "no", "no"), ("yes", "no", "maybe", "no")):
        with pytest.raises(DataError, match="reads four of yes, no, A and B"):
            scores(naturalbench, [item(0, 4, answers=answers)], [torch.zeros(2, 4)])
    with pytest.raises(NonFiniteError):
        scores(mmvp, [pattern_item(0)], [torch.full((2, 2), float("nan"))])


# --- the published layouts --------------------------------------------------------------------------------------------


def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 24), (number * 37 % 256, number * 91 % 256, 80)).save(buffer, "JPEG")
    return buffer.getvalue()


def write_mmvp(root: Path) -> Path:
    """Write two pairs of each pattern as MMVP-VLM is published."""
    root.mkdir()
    with (root / "Questions.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["Question ID", "Type", "Statement"])
        for number in range(1, 37):
            pattern = NAMES[(number - 1) // 4]
            folder = root / "MLLM_VLM Images" / pattern
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.jpg").write_bytes(jpeg(number))
            table.writerow([number, pattern, f"thing number {number}, on a table"])
    return root


def sample(number: int) -> dict[str, Any]:
    """Return a row of NaturalBench; every other one is a choice between A and B."""
    choice = number % 2 == 1
    first, second = ("A", "B") if choice else ("Yes", "No")
    options = " Option: A: red; B: blue;" if choice else ""
    row: dict[str, Any] = {"Index": number, "Question_Type": "multiple_choice" if choice else "yes_no"}
    for place in (0, 1):
        row[f"Image_{place}"] = {"bytes": jpeg(2 * number + place), "path": f"{number}_{place}.jpg"}
        row[f"Question_{place}"] = f"Is it number {place}?{options}"
        row[f"Image_{place}_Question_0"] = first if place == 0 else second
        row[f"Image_{place}_Question_1"] = second if place == 0 else first
    return row | {"Source": "made up"}


def write_naturalbench(root: Path) -> Path:
    (root / "data").mkdir(parents=True)
    for shard, numbers in enumerate((range(4), range(4, 6))):
        rows = [sample(number) for number in numbers]
        pq.write_table(pa.Table.from_pylist(rows), root / "data" / f"train-0000{shard}-of-00002.parquet")
    return root


def prepared(kind: str, published_root: Path, tmp_path: Path) -> Path:
    items, out = tmp_path / f"{kind}-items", tmp_path / "prepared" / kind
    assert main([kind, str(published_root), str(items)]) == 0
    assert renaissance_cli(["data", "prepare", "items", str(items), str(out)]) == 0
    return out


def test_an_oracle_has_100_and_a_collapsed_model_0_on_converted_mmvp(tmp_path: Path) -> None:
    out = prepared("mmvp", write_mmvp(tmp_path / "published"), tmp_path)
    items = list(Prepared(out).items("test"))
    assert items[0].texts == ("a photo of thing number 1, on a table", "a photo of thing number 2, on a table")
    assert [image.name for image in items[1].images] == ["mmvp/3.jpg", "mmvp/4.jpg"]
    found = values(scores(mmvp, items, [torch.eye(2)] * len(items)))
    assert set(found) == {*NAMES, "average"}
    assert set(found.values()) == {100.0}
    assert set(values(scores(mmvp, items, [torch.ones(2, 2)] * len(items))).values()) == {0.0}


def test_an_oracle_has_100_and_a_collapsed_model_0_on_converted_naturalbench(tmp_path: Path) -> None:
    out = prepared("naturalbench", write_naturalbench(tmp_path / "published"), tmp_path)
    items = list(Prepared(out).items("test"))
    assert len(items) == 6
    assert items[0].texts == tuple(
        f"Is it number {question}? {answer}" for question in (0, 1) for answer in ("yes", "no")
    )
    assert items[1].texts[:2] == ("Is it number 0? red", "Is it number 0? blue")
    assert items[1].answers == ("A", "B", "B", "A")
    told = [torch.tensor([[1.0, 0, 0, 1], [0, 1, 1, 0]])] * 6  # image 0: first, second; image 1: second, first
    assert set(values(scores(naturalbench, items, told)).values()) == {100.0}
    assert set(values(scores(naturalbench, items, [torch.ones(2, 4)] * 6)).values()) == {0.0}


def test_files_that_are_not_as_published_are_told_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = write_mmvp(tmp_path / "published"), tmp_path / "out"
    (root / "MLLM_VLM Images" / NAMES[0] / "2.jpg").unlink()
    assert main(["mmvp", str(root), str(out)]) == DataError.exit_code
    assert "2.jpg'. Get it from https://huggingface.co/datasets/MMVP/MMVP_VLM." in capsys.readouterr().err
    (root / "Questions.csv").write_text("Question ID,Type,Statement\n1,Texts,a\n")
    with pytest.raises(DataError, match="holds no pairs"):
        convert_mmvp(root, out)
    with pytest.raises(DataError, match=r"has no \*\.parquet"):
        convert_naturalbench(root, out)
    pq.write_table(pa.Table.from_pylist([{"Index": 1}]), root / "a.parquet")
    with pytest.raises(DataError, match=r"a.parquet, row 1: it is not as published"):
        convert_naturalbench(root, out)
    (root / "a.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="cannot be read"):
        convert_naturalbench(root, out)
    assert [path.name for path in tmp_path.iterdir()] == ["published"]
    with pytest.raises(OutputError, match="exists already"):
        convert_mmvp(write_mmvp(tmp_path / "again"), root)


def test_the_recipe_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RENAISSANCE_CACHE", str(tmp_path / "cache"))
    prepared("mmvp", write_mmvp(tmp_path / "one"), tmp_path)
    prepared("naturalbench", write_naturalbench(tmp_path / "other"), tmp_path)
    (recipe,) = re.findall(r"```yaml\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.S)
    (tmp_path / "recipe.yaml").write_text(recipe)
    run = renaissance.run(tmp_path / "recipe.yaml", out=tmp_path / "run")
    measured = {(row["task"], row["name"]) for row in run.scores["scores"]}
    assert measured >= {("mmvp", "average"), ("naturalbench", "Q-Acc"), ("naturalbench", "G-Acc")}
