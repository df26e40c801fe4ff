"""`python -m renaissance_plugin_naturalbench mmvp|naturalbench ROOT OUT`: from the published files to items."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from renaissance.errors import RenaissanceError
from renaissance_plugin_naturalbench.converting import convert_mmvp, convert_naturalbench

CONVERTERS = {"mmvp": convert_mmvp, "naturalbench": convert_naturalbench}


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m renaissance_plugin_naturalbench", description=__doc__)
    parser.add_argument("benchmark", choices=list(CONVERTERS))
    parser.add_argument("root", type=Path, help="the folder with the published files")
    parser.add_argument("out", type=Path, help="a new folder for the items")
    given = parser.parse_args(arguments)
    try:
        count = CONVERTERS[given.benchmark](given.root, given.out)
    except RenaissanceError as error:
        print(f"renaissance: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{given.out}: {count} items. Next: renaissance data prepare items {given.out} PREPARED")
    return 0


if __name__ == "__main__":
    sys.exit(main())
