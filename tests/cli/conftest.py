"""The command line in this process, with what it printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from renaissance.cli import main
from renaissance.registry import default_registry


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return standard output as JSON."""
        return json.loads(self.out)


Cli = Callable[..., Result]
AddPlugin = Callable[[str, str], None]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run the command line."""

    def run(*arguments: str) -> Result:
        code = main(arguments)
        printed = capsys.readouterr()
        return Result(code, printed.out, printed.err)

    return run


@pytest.fixture
def add_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AddPlugin]:
    """Install a plugin of one module for the time of a test."""

    def add(name: str, source: str) -> None:
        site = tmp_path / f"site-{name}"
        info = site / f"renaissance_plugin_{name}-1.2.dist-info"
        info.mkdir(parents=True)
        (site / f"renaissance_plugin_{name}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: renaissance-plugin-{name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[renaissance.v1]\n{name} = renaissance_plugin_{name}\n")
        sys.modules.pop(f"renaissance_plugin_{name}", None)  # that of another test
        monkeypatch.syspath_prepend(site)
        default_registry.cache_clear()

    yield add
    default_registry.cache_clear()
