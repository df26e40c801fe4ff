"""A report is made of result files alone: all of them, the same each time, and nothing of them as markup."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from renaissance.errors import OutputError, StudyError
from renaissance.report import Written, write, write_collection
from renaissance.report.rendering import plain
from tests.report import cases

SECTIONS = (
    "Question and scope", "Verdicts", "Effects", "Scores", "Compute", "Compute to reach a target",
    "Learning curves", "Arms, and what is frozen",
    "Where scores vary", "What the models look at", "Retrieval, right and wrong", "What each run cost",
    "How to reproduce each number", "Notes",
)  # fmt: skip


def titles(markdown: Path) -> list[str]:
    return re.findall(r"^## (.+)$", markdown.read_text(encoding="utf-8"), re.M)


def test_each_section_stands_in_both_and_in_the_contents(written: Written) -> None:
    html = written.html.read_text(encoding="utf-8")
    assert titles(written.markdown) == list(SECTIONS)
    assert re.findall(r"<h2 id=\"title-[^>]*>([^<]+)</h2>", html) == list(SECTIONS)
    assert re.findall(r'<li><a href="#[\w-]+">([^<]+)</a></li>', html) == list(SECTIONS)


def test_the_same_results_give_the_same_bytes(written: Written, tmp_path: Path) -> None:
    again = write(cases.explained(tmp_path / "elsewhere"))
    first, second = ([*found.figures, found.html, found.markdown] for found in (written, again))
    assert [path.name for path in first] == [path.name for path in second]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_the_page_names_no_address_and_stays_small(written: Written) -> None:
    html = written.html.read_text(encoding="utf-8")
    named = set(re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s)>#]+)""", html))
    assert {name for name in named if not name.startswith("data:")} == set()
    # of SVG itself, which nobody asks for
    assert set(re.findall(r"https?://[^\"\s]+", html)) == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert len(html.encode()) < 1_500_000


def test_markdown_shows_each_file_that_was_written_with_words_for_it(written: Written) -> None:
    shown = re.findall(r"!\[(.*?)\]\((figures/[^)]+)\)", written.markdown.read_text(encoding="utf-8"))
    assert all(len(alt) > 10 for alt, _ in shown)
    assert {written.markdown.parent / path for _, path in shown} == set(written.figures)
    assert all(path.is_file() for path in written.figures)


def test_drawings_have_words_are_transparent_and_carry_no_date(written: Written) -> None:
    drawings = [path for path in written.figures if path.suffix == ".svg"]
    assert len(drawings) == 5
    for path in drawings:
        root = ET.parse(path).getroot()
        assert root.get("role") == "img"
        assert len(root.get("aria-label") or "") > 40
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"#010[0-3][0-9a-f]{2}|var\(|dc:date|metadata", text)
        assert 'id="patch_1"' not in text  # names of two figures in one page would clash


@pytest.mark.parametrize("says", ["supported", "refuted", "undecided", "void", "not tested here"])
def test_a_verdict_is_told_in_words(written: Written, says: str) -> None:
    for path in (written.html, written.markdown):
        assert says in path.read_text(encoding="utf-8")


def test_the_primary_hypothesis_comes_first_and_the_others_are_said_to_be_exploratory(written: Written) -> None:
    told = re.findall(r"</span></span>|<span>([\w-]+) · ([\w, ]+)</span>", written.html.read_text(encoding="utf-8"))
    found = [pair for pair in told if pair[0]]
    assert found[0] == ("vision-no-loss", "primary, confirmatory")
    assert {weight for _, weight in found[1:]} == {"exploratory"}


def test_numbers_are_those_of_the_results(written: Written) -> None:
    markdown = written.markdown.read_text(encoding="utf-8")
    told = markdown[markdown.index("#### ✓ supported: Freezing the vision tower loses less") :].split("####")[1]
    for line in ("effect: +0.60", r"95% interval: \[−0.30, 1.50\]", "p, Holm: 0.002", "seeds: 6", "p: \\< 0.001"):
        assert f"- {line}\n" in told
    assert "- margin: −2.90 (20% of the gain of none over no-vlp)\n" in told
    assert "| vision | pretrain | 256k | 244T | 39% | 284T | 29% | 252T | 37% | 400T |" in markdown
    assert "| both | 12 of 12 blocks | 12 of 12 blocks |" in markdown
    assert "NonFiniteError: the loss of itm became NaN at update 812" in markdown
    assert "`renaissance run runs/pretrain-010c41f/recipe.yaml`" in markdown
    assert "| vision | logit (itm) | 61% |" in markdown


def test_what_a_section_is_about_but_has_not_is_left_out(tmp_path: Path) -> None:
    facts = cases.facts()
    for key in ("scores", "compute", "reach", "variance", "curves", "cases", "explanations", "runs", "notes", "claims"):
        facts[key] = []
    facts["machine"] = None
    for hypothesis in facts["hypotheses"]:
        hypothesis |= {"n": 0, "differences": [], "verdict": "undecided"}
        hypothesis |= dict.fromkeys(("estimate", "bootstrap", "p", "p_holm", "margin", "equivalence"))
    left = write(cases.study_in(tmp_path, facts))
    kept = ["Question and scope", "Verdicts", "Arms, and what is frozen", "How to reproduce each number"]
    assert titles(left.markdown) == kept
    assert [path.name for path in left.figures] == ["trained.svg"]


def test_an_unfinished_study_says_so(tmp_path: Path) -> None:
    facts = cases.small()
    facts["study"]["complete"] = False
    facts["runs"][0]["state"] = "waiting"
    html = write(cases.study_in(tmp_path, facts)).html.read_text(encoding="utf-8")
    assert "<strong>Not complete.</strong> 34 of 36 runs are done." in html


def test_figures_of_a_report_before_are_gone(tmp_path: Path) -> None:
    facts = cases.small()
    before = set(write(cases.study_in(tmp_path, facts)).figures)
    facts |= {"arms": [{**arm, "parameters": None} for arm in facts["arms"]], "cases": []}
    after = set(write(cases.study_in(tmp_path, facts)).figures)
    assert after < before
    assert set((tmp_path / "figures").rglob("*.*")) == after


def test_results_are_text_and_never_markup(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script> ![x](y) | `z` $a_1$ 'q\""
    facts = _everywhere(cases.small(), bad)
    for name in ("name", "scope", "question", "about", "preset", "version", "command"):
        facts["study"][name] = bad
    written = write(cases.study_in(tmp_path, facts))
    html, markdown = (path.read_text(encoding="utf-8") for path in (written.html, written.markdown))
    assert html.count("<script") == 1
    assert "&lt;script&gt;alert(1)" in html
    prose = re.sub(r"(`+) .*? \1(?!`)|```bash\n.*?```", "", markdown, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)<script|(?<!\\)!\[x\]|(?<!\\)`z", prose)
    shown = set(re.findall(r"^ *!\[.*?\]\((figures/[^)]+)\)$", markdown, re.M))
    assert shown == {str(path.relative_to(tmp_path)) for path in written.figures}
    for path in written.figures:
        if path.suffix == ".svg":
            ET.parse(path)


def _everywhere(facts: dict[str, Any], text: str) -> dict[str, Any]:
    """Put a text wherever a file may hold words."""
    for arm in facts["arms"]:
        arm |= {"about": text, "spec": text, "varies": [text], "frozen": {text: text}, "levels": {text: text}}
    for hypothesis in facts["hypotheses"]:
        hypothesis |= {"says": text, "reason": text, "sentence": text}
    for run in facts["runs"]:
        run |= {"command": text, "error": {"type": text, "message": text}}
    for case in facts["cases"]:
        case |= {"query": text, "top": [{"text": text}, text, 7]}
    for claim in facts["claims"]:
        claim |= {"claim": text, "reason": text, "by": [text]}
    for stage in facts["stages"]:
        stage |= {"data": text}
    return {**facts, "notes": [text], "machine": {text: text}}


# --- pictures ---------------------------------------------------------------------------------------------------------


def _picture(side: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((side, side), 90).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


def _with_images(folder: Path, images: list[str]) -> Written:
    facts = cases.small()
    facts["cases"] = [{**facts["cases"][0], "image": image} for image in images]
    return write(cases.study_in(folder, facts))


def test_pictures_are_read_from_the_folder_of_the_study_and_made_small(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "big.png").write_bytes(_picture(500))
    (tmp_path / "figures" / "other.jpg").write_bytes(_picture(100, "JPEG"))
    found = _with_images(tmp_path, ["big.png", "other.jpg"])
    sizes = []
    for path in sorted(path for path in found.figures if path.suffix != ".svg"):
        with Image.open(path) as image:
            sizes.append(image.size)
    assert sizes == [(192, 192), (100, 100)]


@pytest.mark.parametrize("image", ["../secret.png", "missing.png", "data:image/svg+xml;base64,AAAA", "text.png"])
def test_what_is_no_picture_of_the_study_is_left_out_and_said(tmp_path: Path, image: str) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(_picture(20))
    (folder / "text.png").write_text("no picture")
    found = _with_images(folder, [image])
    assert all(path.suffix == ".svg" for path in found.figures)
    said = "Pictures that are missing, or for which the page has no room: 1."
    assert said in found.markdown.read_text(encoding="utf-8")


def test_a_page_stays_small_however_many_pictures_there_are(tmp_path: Path) -> None:
    images = [f"data:image/png;base64,{base64.b64encode(_picture(192)).decode()}" for _ in range(40)]
    found = _with_images(tmp_path, images)
    assert "24 are shown: the first of each arm" in found.markdown.read_text(encoding="utf-8")
    assert found.html.stat().st_size < 1_500_000


def test_layers_of_an_arm_stand_beside_those_of_the_arm_that_it_was_compared_with(written: Written) -> None:
    markdown = written.markdown.read_text(encoding="utf-8")
    other = " and ".join(cases.facts()["runs"][0]["arms"])
    for caption, rows in (
        (f"How far the weights of each layer lie from those of '{other}'", "| vision.0 | 12% |\n| fusion.final | – |"),
        (f"of each layer to the same one of '{other}'", "| vision.0 | 0.75 |\n| text.0 | 0.99 |"),
        ("Right answers of linear probes", "| vision.0 | colour | 14.1 | 62.5 |\n| vision.0 | shape | 10.9 | 31.2 |"),
        ("How far the weights of each layer moved from what they began as", "| vision.0 | 3.0% |"),
        ("of each layer to what it began as", "| vision.0 | 0.94 |"),
        ("What linear probes read more (or less) since the beginning", "| vision.0 | colour | -12.5 |"),
    ):
        table = markdown[markdown.index(plain(caption)) :]
        assert rows in table[: table.index("\n\n", table.index("| ---"))]


def test_an_answer_says_why_and_an_interval_that_a_share_decides_by_p(written: Written) -> None:
    html, markdown = (path.read_text(encoding="utf-8") for path in (written.html, written.markdown))
    primary = next(found for found in cases.facts()["hypotheses"] if found["primary"])
    head = markdown[: markdown.index("## ")]
    assert plain(primary["sentence"]) in head
    assert plain(primary["reason"]) in head
    assert primary["margin"]["share"] is not None
    assert "it is p that decides" in html


def test_what_a_target_takes_stands_with_how_many_reach_it_and_in_pairs(written: Written) -> None:
    for text in (path.read_text(encoding="utf-8") for path in (written.html, written.markdown)):
        assert "Target: validation · itm · accuracy of 70.0 or more in pretrain, measured every 200 updates." in text
    markdown = written.markdown.read_text(encoding="utf-8")
    section = markdown[markdown.index("## Compute to reach a target") : markdown.index("## Learning curves")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| ")]
    against = ["against none", "interval"]
    assert rows[0] == ["arm", "reached by", "FLOPs", *against, "samples", against[0], "pairs"]
    assert rows[2] == ["none", "5 of 6 runs", "240T", "–", "–", "92.0k", "–", "–"]
    assert rows[3] == ["vision", "5 of 6 runs", "146T", "0.61", "\\[0.56, 0.66\\]", "92.0k", "1.00", "5"]


def test_results_of_before_there_were_ratios_are_told_too(tmp_path: Path) -> None:
    facts = {**cases.small(), "reach": cases.facts()["reach"]}
    for row in facts["reach"]:
        del row["ratio"], row["every"]
    assert "Compute to reach a target" in titles(write(cases.study_in(tmp_path, facts)).markdown)


def test_an_explanation_that_is_gone_is_said(written: Written) -> None:
    markdown = written.markdown.read_text(encoding="utf-8")
    assert "- both: explanations/both has no explanation.json that can be read" in markdown
    assert "- rollout: this tower gives no attention" in markdown


# --- bad input --------------------------------------------------------------------------------------------------------


def _broken(change: str) -> Any:
    facts = cases.facts()
    match change:
        case "no list":
            return ["made", "by", "hand"]
        case "newer":
            facts["format"] = 2
        case "no format":
            del facts["format"]
        case "missing":
            del facts["study"]["scope"]
        case "type":
            facts["hypotheses"][1]["p"] = "small"
        case "verdict":
            facts["hypotheses"][0]["verdict"] = "proven"
        case "arm":
            facts["scores"][0]["arm"] = "another"
        case "primary":
            facts["study"]["primary"] = "another"
        case "nan":
            facts["scores"][0]["mean"] = float("nan")
    return facts


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("no list", "holds no section of keys"),
        ("newer", "'format' is 2, and this version reads 1. Update renaissance-vl."),
        ("no format", "'format' is None, and it must be 1"),
        ("missing", "'study.scope': field required"),
        ("type", "'hypotheses.1.p': "),
        ("verdict", "'hypotheses.0.verdict': "),
        ("arm", "'scores' names the arm 'another', which 'arms' does not have"),
        ("primary", "'study.primary' is 'another', which 'hypotheses' does not have"),
        ("nan", "holds what no JSON has"),
    ],
)
def test_results_that_no_analysis_wrote_are_refused_by_the_key(tmp_path: Path, change: str, says: str) -> None:
    with pytest.raises(StudyError, match=re.escape(says)):
        write(cases.study_in(tmp_path, _broken(change)))
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_what_begins_like_a_list_is_no_list() -> None:
    assert [plain(text) for text in ("1. one", "- a", "+0.6", "12.5")] == ["1\\. one", "\\- a", "+0.6", "12.5"]


@pytest.mark.parametrize(("content", "says"), [(None, "has no results.json"), ("{", "cannot be read")])
def test_results_that_cannot_be_read_are_refused(tmp_path: Path, content: str | None, says: str) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(StudyError, match=f"{says}.*renaissance study report"):
        write(tmp_path)


def test_a_report_that_cannot_be_written_leaves_the_one_before(written: Written, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written.html.parent, tmp_path / "study"))
    before = (folder / "report.html").read_bytes()
    shutil.rmtree(folder / "figures")
    (folder / "figures").write_text("in the way")
    with pytest.raises(OutputError, match="figures cannot be written"):
        write(folder)
    assert (folder / "report.html").read_bytes() == before


def test_without_the_extra_the_error_has_the_line_for_pip(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from renaissance.errors import MissingPackageError\n"
        "from renaissance.report import write\n"
        "try: write('.')\n"
        "except MissingPackageError as error: print(error, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    said = "The figures of reports need the package matplotlib. Try: pip install 'renaissance-vl[study]' False\n"
    assert done.stdout == said, done.stderr


# --- collections ------------------------------------------------------------------------------------------------------


def test_a_collection_tells_its_claims_and_the_verdicts_of_each_study(tmp_path: Path) -> None:
    facts = cases.small()
    write(cases.study_in(tmp_path / "one-tower", facts))
    found = write_collection({"freezing": facts, "one-tower": facts}, facts["claims"], tmp_path)
    assert titles(found.markdown) == ["Claims", "freezing", "one-tower"]
    markdown = found.markdown.read_text(encoding="utf-8")
    assert "2 claims: 1 supported and 1 not tested here." in markdown
    assert "| 1 | ✓ supported | Freezing saves compute at little to no cost downstream. |" in markdown
    assert re.findall(r"\((.*report.html)\)", markdown) == ["one-tower/report.html"]
    assert [path.name for path in found.figures] == ["effects-freezing.svg", "effects-one-tower.svg"]
    assert markdown.startswith("# freezing and one-tower\n")
    assert "A verdict holds for the worlds and the towers of its studies alone." in markdown


def test_a_collection_is_called_by_its_name(tmp_path: Path) -> None:
    facts = cases.small()
    found = write_collection({"freezing": facts}, facts["claims"], tmp_path, name="paper-1", about="What it claims")
    markdown = found.markdown.read_text(encoding="utf-8")
    assert markdown.startswith("# paper-1\n\nWhat it claims. 2 claims: 1 supported and 1 not tested here.\n")
    assert "<title>paper-1" in found.html.read_text(encoding="utf-8")


def test_a_collection_of_what_is_no_result_is_refused_by_name_and_key(tmp_path: Path) -> None:
    facts = cases.small()
    with pytest.raises(StudyError, match="the results of 'other': 'format' is 2"):
        write_collection({"other": {**facts, "format": 2}}, [], tmp_path)
    with pytest.raises(StudyError, match=r"claims: '0\.verdict'"):
        write_collection({"freezing": facts}, [{**facts["claims"][0], "verdict": "true"}], tmp_path)


def test_the_cases_of_these_tests_are_as_json_has_them() -> None:
    assert json.loads(json.dumps(cases.facts())) == cases.facts()
