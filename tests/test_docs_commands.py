"""Commands and options that a page names are those of the command line, in blocks that do not run too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from renaissance.cli.app import app

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "plugins").glob("*.md")),
    *sorted((ROOT / "plugins").glob("*/README.md")),
]
FENCE = re.compile(r"^```(?:bash|sh)\n(.*?)^```", re.M | re.S)
INLINE = re.compile(r"`([^`\n]+)`")
NAMED = re.compile(r"^(?:\$ |.*-m )?renaissance +(?P<line>[a-z].*)", re.M)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_each_command_that_a_page_names_is_there_with_its_options(page: Path) -> None:
    for line in _lines(page.read_text()):
        assert _fault(line) is None, f"renaissance {line}"


@pytest.mark.parametrize("line", ["rum demo", "run demo --epochs 2", "data prepare coco --fast", "zoo publish --every"])
def test_what_is_not_there_is_found(line: str) -> None:
    assert _fault(line) is not None


def _lines(text: str) -> Iterator[str]:
    """Yield what follows the name of the program in blocks and between backticks, without comments."""
    for code in (*FENCE.findall(text), *INLINE.findall(FENCE.sub("", text))):
        for match in NAMED.finditer(code.replace("\\\n", " ")):
            yield match["line"].partition("  #")[0].strip()


def test_commands_are_found_in_blocks_and_in_text() -> None:
    page = "Say `renaissance list`, and not renaissance lists.\n```bash\ntorchrun -m renaissance run x  # long\n```\n"
    assert sorted(_lines(page)) == ["list", "run x"]


def _fault(line: str) -> str | None:
    """Return the first word that is no command, or no option of its command."""
    command: Any = get_command(app)
    words = line.split()
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return words[0]
        command = command.commands[words.pop(0)]
    known = {"--help", "--debug", *(name for parameter in command.params for name in parameter.opts)}
    options = (word.partition("=")[0] for word in words if re.match(r"--[a-z]", word))
    return next((option for option in options if option not in known), None)
