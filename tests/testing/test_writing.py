from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from renaissance.errors import OutputError, SpecError
from renaissance.registry import Kind, Plugin, Registry
from renaissance.testing.conforming import cases_of, offered
from renaissance.testing.writing import TEMPLATES_OF, rendered, write_plugin

ROOT = Path(__file__).parent.parent.parent
EMPTY = Registry()
MOST_LINES = 60


def files(folder: Path) -> dict[str, str]:
    hidden = ("__pycache__", ".egg-info", "_cache")
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = {str(path.relative_to(folder)): path for path in found}
    return {name: path.read_text() for name, path in names.items() if not any(part in name for part in hidden)}


def test_the_plugin_example_is_what_new_plugin_writes(tmp_path: Path) -> None:
    written = write_plugin("example", "fusion-head", tmp_path, registry=EMPTY)
    assert files(ROOT / "plugins" / "renaissance-plugin-example") == files(written)


def test_the_tutorial_shows_what_new_plugin_writes() -> None:
    page = (ROOT / "plugins" / "README.md").read_text()
    texts = rendered("patches", "backbone")
    for name, text in texts.items():
        if name == "pyproject.toml":
            assert f"```toml\n{text}```" in page
        if name.startswith("renaissance_plugin_patches") and name.endswith(".py"):
            assert f"```python file={name}\n{text}```" in page


def test_a_backbone_is_two_source_files_of_sixty_lines() -> None:
    sources = [text for name, text in rendered("xyz", "backbone").items() if re.match(r"renaissance_.*\.py$", name)]
    assert len(sources) == 2
    assert sum(bool(line.strip()) for text in sources for line in text.splitlines()) <= MOST_LINES


@pytest.mark.parametrize("kind", TEMPLATES_OF)
def test_what_is_written_conforms(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"try-{kind}"
    monkeypatch.syspath_prepend(write_plugin(name, kind, tmp_path, registry=EMPTY))
    cases = list(cases_of(*offered(f"renaissance_plugin_{name.replace('-', '_')}")))
    findings = [case.finding() for case in cases]
    assert len(findings) > 10
    assert [found for found in findings if found.outcome == "failed"] == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Xyz", "cannot be the name of a plugin"),
        ("1st", "cannot be the name of a plugin"),
        ("my_plugin", "cannot be the name of a plugin"),
        ("a--b", "cannot be the name of a plugin"),
        ("../x", "cannot be the name of a plugin"),
        ("x" * 41, "at most 40"),
        ("", "cannot be the name of a plugin"),
        ("renaissance", "reserved"),
        ("timm", "reserved"),
        ("taken", r"installed already \(taken-distribution\)"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_and_nothing_written(name: str, told: str, tmp_path: Path) -> None:
    registry = Registry([Plugin("taken", "taken", "taken-distribution", "1")])
    with pytest.raises(SpecError, match=told):
        write_plugin(name, "task", tmp_path, registry=registry)
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_the_distribution_stands_for_that_of_the_plugin(tmp_path: Path) -> None:
    folder = write_plugin("renaissance-plugin-xyz", "task", tmp_path, registry=EMPTY)
    assert folder == tmp_path / "renaissance-plugin-xyz"
    assert os.stat(folder).st_mode & 0o777 == 0o755


def test_a_folder_that_exists_is_left_as_it_is(tmp_path: Path) -> None:
    kept = tmp_path / "renaissance-plugin-xyz" / "kept.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    with pytest.raises(OutputError, match="exists; choose another name"):
        write_plugin("xyz", "backbone", tmp_path, registry=EMPTY)
    assert [path.name for path in tmp_path.rglob("*")] == ["renaissance-plugin-xyz", "kept.txt"]


def test_a_folder_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="cannot be written"):
        write_plugin("xyz", "backbone", tmp_path / "file", registry=EMPTY)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
