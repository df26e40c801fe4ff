"""The page and the table that `make backbones` writes are those of the cases and of the libraries."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from renaissance.api import Modality
from renaissance.builtin.described import TABLE, Library, known_models, made_with
from tests.sweep.describing import VERSIONS, Described, Job, jobs, row_of
from tests.sweep.table import PAGE, all_cases, key_of, shipped

ROOT = Path(__file__).parents[2]
SAMPLE: tuple[Job, ...] = (
    ("timm", "vision", "vit_base_patch16_224"),
    ("timm", "vision", "resnet50"),
    ("timm", "vision", "swin_tiny_patch4_window7_224"),
    ("timm", "vision", "test_vit"),
    ("open-clip", "vision", "ViT-B-32"),
    ("open-clip", "text", "ViT-B-32"),
    ("open-clip", "text", "roberta-ViT-B-32"),
)
TOWERS: tuple[tuple[Library, Modality], ...] = (("timm", "vision"), ("open-clip", "vision"), ("open-clip", "text"))
same_versions = pytest.mark.skipif(
    any(made_with(library) != installed for library, installed in VERSIONS.items()),
    reason="the table was made with other versions of the libraries",
)


def comparable(row: Described | None) -> object:
    """Return a row without what is not measured on the model: its tags."""
    return row if row is None or isinstance(row, str) else row._replace(tags="")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> dict[Job, Described]:
    """Rows from a process of their own: what ran before changes how torch builds without values."""
    path = tmp_path_factory.mktemp("rows") / "rows"
    code = (
        "import pickle, sys; from pathlib import Path; from tests.sweep.describing import row_of; "
        f"Path(sys.argv[1]).write_bytes(pickle.dumps({{job: row_of(job) for job in {SAMPLE!r}}}))"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    rows: dict[Job, Described] = pickle.loads(path.read_bytes())
    return rows


@same_versions
@pytest.mark.timeout(900)
@pytest.mark.parametrize("job", SAMPLE, ids=[":".join(job) for job in SAMPLE])
def test_the_table_says_what_a_fresh_build_shows(job: Job, fresh: dict[Job, Described]) -> None:
    assert comparable(shipped(job)) == comparable(fresh[job])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@same_versions
def test_every_row_of_the_table_is_what_a_fresh_build_shows() -> None:
    different = [job for job in jobs() if shipped(job) != row_of(job)]
    assert different == []


@same_versions
def test_the_table_holds_every_model_of_the_libraries() -> None:
    held = {(library, modality, name) for library, modality in TOWERS for name in known_models(library, modality)}
    assert held == set(jobs())


def test_the_table_stays_small() -> None:
    assert TABLE.stat().st_size < 400_000


def test_the_page_has_a_row_for_each_case() -> None:
    lines = PAGE.read_text().splitlines()
    missing = [case.name for case in all_cases() if not any(line.startswith(key_of(case)) for line in lines)]
    assert missing == [], "run 'make backbones'"


def test_no_row_of_the_page_fails() -> None:
    assert "**fails**" not in PAGE.read_text()
