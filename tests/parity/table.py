"""Print what the parity tests compared, and write it to docs/parity.md: `make parity`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "parity.md"
PLACES = (
    "tests/parity",
    "plugins/renaissance-plugin-naflex/tests/test_naflex.py",
    "plugins/renaissance-plugin-resampler/tests/test_resampler.py",
)
HEADER = """# Parity with reference implementations

Every model family is compared with the class of an installed library that computes the same: random weights are
copied tensor by tensor, or imported from a checkpoint in that library's layout, and both run in fp32 with padding in
the batch. A difference above 1e-5 fails the test. Where no library has the reference, the test builds it of installed
classes, and the first column says of which. `make parity` runs the tests (`tests/parity`, and those
of the plugins `naflex` and `resampler`), and writes and prints this table.

torch {torch}

| reference | version | compared | largest difference |
|---|---|---|---|
"""


def notes_of_a_run(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Run the parity tests; return a row for each comparison. Exits where a test fails."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"RENAISSANCE_PARITY_NOTES": folder, "OMP_NUM_THREADS": "1"}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "2",
            "-p",
            "no:cacheprovider",
            *arguments,
            *PLACES,
        ]
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        if done.returncode:
            sys.exit(done.returncode)
        return [json.loads(line) for path in Path(folder).iterdir() for line in path.read_text().splitlines()]


def table(notes: Iterable[dict[str, Any]]) -> str:
    """Return the page: one row for each reference, with what was compared and the largest difference of all."""
    ordered = sorted(notes, key=lambda note: (note["reference"].lower(), note["version"]))
    rows = []
    for (reference, version), group in groupby(ordered, key=lambda note: (note["reference"], note["version"])):
        found = list(group)
        compared = ", ".join(sorted({note["compared"] for note in found}))
        rows.append(f"| {reference} | {version} | {compared} | {max(note['difference'] for note in found):.1e} |")
    return HEADER.format(torch=ordered[0]["torch"]) + "\n".join(rows) + "\n"


if __name__ == "__main__":
    page = table(notes_of_a_run(sys.argv[1:]))
    PAGE.write_text(page, encoding="utf-8")
    print(page)
