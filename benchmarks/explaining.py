"""What explanations find of the models that ship, on drawn scenes that none of them has seen.

`make explain` writes the table in docs/explaining.md; a model takes some minutes on one core.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from renaissance.explaining import explain
from renaissance.progress import Bars, closing

PAGE = Path(__file__).parent.parent / "docs" / "explaining.md"
TABLE = re.compile(r"(?<=<!-- explained -->\n).*?(?=<!-- /explained -->)", re.S)
MODELS = ("two-tower-unfrozen", "two-tower-frozen-vit", "one-tower-vision-base", "one-tower-text-base")
SAMPLES = 48
COLUMNS = ("model", "explained", "image's share", "map", "hits", "chance", "hits less chance", "other things")


def rows(name: str, facts: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of a model, one a map."""
    shares = facts["shares"]
    share = f"{_interval(100 * shares['image_share'], [100 * end for end in shares['image_share_interval']])}"
    found: list[tuple[str, ...]] = []
    for kind in ("attribution", "rollout"):
        row = facts["pointing"][kind]
        above = _interval(row["above_chance"], row["above_chance_interval"])
        figures = (f"{row['hits']:.1f}", f"{row['chance']:.1f}", above, f"{row['other_things']:.1f}")
        found.append((name, facts["output"]["task"], share, kind, *figures))
    return found


def _interval(value: float, ends: list[float]) -> str:
    return f"{value:.1f} ({ends[0]:.1f} to {ends[1]:.1f})"


def table() -> str:
    """Return the table of all models."""
    lines: list[tuple[str, ...]] = [COLUMNS, ("---",) * len(COLUMNS)]
    with tempfile.TemporaryDirectory() as folder, closing(Bars()) as progress:
        for name in MODELS:
            done = explain(f"renaissance/{name}", Path(folder) / name, data="world", samples=SAMPLES, progress=progress)
            lines += rows(name, done.facts)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/explaining.md")
    write = parser.parse_args().write
    found = table()
    print(found)
    if write:
        PAGE.write_text(TABLE.sub(lambda _: found, PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
