"""Whether a card still says what the files beside it say, and nothing that should not be public."""

from __future__ import annotations

import re
from itertools import zip_longest
from pathlib import Path

from renaissance.card.keeping import YOURS, read_card
from renaissance.card.private import check_private, disclosures, recipe_disclosures
from renaissance.card.writing import card_of
from renaissance.errors import CardError
from renaissance.manifest import CARD, CONFIG, LEDGER, RECIPE, SCORES, model_in
from renaissance.registry import Registry

_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?")
# what else is published, and may say where something lay
_BESIDE = (CONFIG, SCORES, LEDGER)


def check_card(folder: str | Path, *, registry: Registry | None = None) -> None:
    """Refuse a card that is not what `card_of` makes of the files beside it, or that tells what should not be public.

    What stands below `<!-- yours -->` is a person's own: it may say anything but secrets and local paths. Nor may the
    files that are published with the card: recipe, scores, ledger and config.

    Raises:
        CardError: naming the file, the line and the fault; a secret is not repeated.
        ModelFileError: there is no saved model, or a file of it is damaged.
    """
    folder = model_in(Path(folder))
    text = read_card(folder)
    if text is None or YOURS not in text.splitlines():
        raise CardError(f"{folder} has no card yet. Write it: renaissance card {folder} --write.")
    check_private(text, CARD)
    check_beside(folder)
    _check_same(text, card_of(folder, registry=registry), folder)


def check_beside(folder: Path, *, way_out: str | None = None) -> None:
    """Refuse files beside the card that tell what should not be public; `way_out`: what to do then, in a sentence.

    Raises:
        CardError: naming the file, the line and the fault; a secret is not repeated.
    """
    shorten = f"Take it out; a path becomes its last name by: renaissance card {folder} --write --shorten-paths."
    for name in (RECIPE, *_BESIDE):
        if (folder / name).is_file():
            written = (folder / name).read_text(encoding="utf-8")
            found = recipe_disclosures(written) if name == RECIPE else disclosures(written)
            check_private(written, name, found, way_out=way_out or shorten)


def _check_same(text: str, wanted: str, folder: Path) -> None:
    """Compare a card with the one that is made anew, line by line.

    Raises:
        CardError: naming the first line that differs, and its first number that does.
    """
    again = f"Write the card again (renaissance card {folder} --write), with words of your own below '{YOURS}' alone."
    for number, (line, right) in enumerate(zip_longest(text.splitlines(), wanted.splitlines(), fillvalue=""), start=1):
        if line == right:
            continue
        if _NUMBER.sub("0", line) == _NUMBER.sub("0", right):
            said, known = next(pair for pair in zip(_numbers(line), _numbers(right), strict=True) if pair[0] != pair[1])
            raise CardError(f"{CARD}, line {number}, says '{said}' where the files beside it say '{known}'. {again}")
        raise CardError(f"{CARD}, line {number}, is not what the files beside it say. {again}")


def _numbers(line: str) -> list[str]:
    return _NUMBER.findall(line)
