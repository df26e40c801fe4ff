"""The smoke presets of the studies that ship: one runs here, all of them in `make test-slow`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from renaissance.data.emoji import check_packages, write_emoji
from renaissance.errors import MissingPackageError
from renaissance.studies.design import Study
from renaissance.studies.library import load, names
from renaissance.studies.session import StudyRun, study

PICTURES = Path(__file__).parents[3] / "shared" / "data" / "pictures"
IN_CI = "freezing-world"
SMOKED = [name for name in names() if isinstance(found := load(name).content, Study) and "smoke" in found.presets]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == IN_CI else pytest.mark.slow) for name in SMOKED]
)
def test_a_study_runs_from_its_name_to_its_report_and_gives_no_verdict(name: str, tmp_path: Path) -> None:
    content = load(name).content
    assert isinstance(content, Study)
    done = study(name, preset="smoke", out=tmp_path / "out", data=_data(content, tmp_path), jobs=1)
    assert isinstance(done, StudyRun)
    assert done.outcome.complete
    assert {one["verdict"] for one in done.results["hypotheses"]} == {"undecided"}
    assert not any(one["confirmatory"] for one in done.results["hypotheses"])
    assert json.loads((done.folder / "results.json").read_text()) == done.results
    assert "<html" in done.report.read_text()[:200]


def _data(content: Study, place: Path) -> Path | None:
    """Return the data that a study is to be given; None: it names all that it reads."""
    sections: list[Any] = [recipe.get("data") for recipe in content.stages.values()]
    kinds = {section["kind"] for section in sections if isinstance(section, dict) and "path" not in section}
    if "images" in kinds and not PICTURES.is_dir():
        pytest.skip(f"{PICTURES} is not here")
    if "prepared" in kinds:
        try:
            check_packages()
        except MissingPackageError as error:
            pytest.skip(str(error))
        spoken = {split.partition("-")[2] for section in sections for split in section["splits"]} - {""}
        write_emoji(place / "emoji", sorted(spoken), image_size=96, limit=600)
        return place / "emoji"
    return PICTURES if "images" in kinds else None
