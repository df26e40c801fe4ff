from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

SHOWN = """
from renaissance.progress import Bars, closing
with closing(Bars()) as progress:
    for name in ("first", "second", "third"):
        for _ in progress.track(range(3), 3, name):
            progress.note("loss 1.5")
        progress.note("over")
        progress.say(f"{name} is done")
    outer = progress.bar("outer")
    outer(0, 2)
    list(progress.track(range(2), 2, "inner"))
    outer(2, 2)
"""


def on_a_terminal(code: str) -> list[str]:
    """Return the lines that a terminal shows after a script has written to it."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen([sys.executable, "-c", code], stderr=theirs, env=environment):
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 65536):
                written += part
        except OSError:  # how Linux says that the other end is closed
            pass
    os.close(ours)
    lines, row = [""], 0
    for word in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\n|[^\x1b\r\n]+", written.decode()):
        if word == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif up := re.fullmatch(r"\x1b\[(\d+)A", word):
            row -= int(up[1])
        elif word == "\x1b[2K":
            lines[row] = ""
        elif not word.startswith("\x1b"):
            lines[row] += word
    return [line for line in lines if line.strip()]


def test_each_bar_stays_on_the_terminal_once() -> None:
    lines = on_a_terminal(SHOWN)
    assert [re.split(r"\s{2,}", line)[0] for line in lines] == [
        "first", "first is done", "second", "second is done", "third", "third is done", "outer", "inner",
    ]  # fmt: skip
    assert all("3/3" in line for line in lines[0:6:2])
