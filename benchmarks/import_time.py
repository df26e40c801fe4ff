"""How long `import renaissance` and the first commands take in a new process, beside `import torch`.

python benchmarks/import_time.py [--pairs N]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from paired import Timings, table, take_turns

TORCH = "import torch"
COMMAND = "import sys; from renaissance.cli import main; sys.exit(main())"

# The code that a new Python runs, its arguments, and the greatest ratio to `import torch` that we aim at.
STARTS: Mapping[str, tuple[str, tuple[str, ...], float | None]] = {
    "python alone": ("pass", (), None),
    TORCH: (TORCH, (), None),
    "import renaissance": ("import renaissance", (), 0.1),
    "renaissance --help": (COMMAND, ("--help",), 0.2),
    "renaissance list": (COMMAND, ("list",), 0.2),
}

# What informs must load none of these.
HEAVY = ("torch", "torchvision", "transformers", "timm", "open_clip", "datasets", "accelerate")

PROBE = """
import atexit, sys
atexit.register(lambda: print("\\nloaded:", *(m for m in {heavy!r} if m in sys.modules), flush=True))
{code}
"""


def main() -> None:
    """Print the table of medians and ratios, and which heavy libraries each start loads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7, help="rounds in which every start is timed once")
    timings = measure(parser.parse_args().pairs, list(STARTS))
    rows = [_row(name, timings) for name in STARTS]
    header = ("start", "CPU seconds (least to greatest)", "of `import torch`", "aim", "heavy libraries loaded")
    print(table(header, rows))


def measure(pairs: int, names: Sequence[str]) -> Timings:
    """Time these starts in turns; the round before the first writes the bytecode that an installation has."""
    actions: dict[str, Callable[[], object]] = {name: partial(start, *STARTS[name][:2]) for name in names}
    return take_turns(actions, pairs)


def start(code: str, arguments: Sequence[str] = ()) -> str:
    """Run code in a new Python; return what it printed.

    Raises:
        RuntimeError: it failed.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def heavy_libraries(code: str, arguments: Sequence[str] = ()) -> tuple[str, ...]:
    """Return which of the heavy libraries a start has loaded when it ends."""
    last = start(PROBE.format(heavy=HEAVY, code=code), arguments).splitlines()[-1]
    return tuple(last.removeprefix("loaded:").split())


def _row(name: str, timings: Timings) -> tuple[str, ...]:
    code, arguments, aim = STARTS[name]
    loaded = ", ".join(heavy_libraries(code, arguments)) or "none"
    ratio = str(timings.ratio(name, TORCH))
    return f"`{name}`", str(timings.spread(name)), ratio, "" if aim is None else f"at most {aim}", loaded


if __name__ == "__main__":
    main()
