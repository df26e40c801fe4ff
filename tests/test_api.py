"""What plugins import: one package, all of whose names are said, and which loads nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import renaissance.api as api

FOLDER = Path(str(api.__file__)).parent


def defined(file: Path) -> set[str]:
    """Return the public names that a module defines at its top level."""
    names: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def test_every_name_of_the_package_is_offered_and_none_is_offered_twice() -> None:
    found = set[str]().union(*(defined(file) for file in FOLDER.glob("*.py")))
    assert set(api.__all__) == found
    assert len(set(api.__all__)) == len(api.__all__)
    assert all(hasattr(api, name) for name in api.__all__)


def test_a_plugin_that_describes_itself_loads_nothing_heavy() -> None:
    code = "import sys, renaissance.api; print(sorted({'torch', 'transformers', 'timm', 'PIL'} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert told.stdout.strip() == "[]"


def test_nothing_but_the_package_itself_imports_from_its_modules() -> None:
    root = FOLDER.parent
    inside = [
        file for file in root.rglob("*.py") if file.parent != FOLDER and "from renaissance.api." in file.read_text()
    ]
    assert not inside
