"""What a card that is made anew keeps of the one before: its repository, what a person said, and their own words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub.repocard import REGEX_YAML_BLOCK

from renaissance.card.metadata import SAID
from renaissance.errors import CardError, SpecError
from renaissance.manifest import CARD, REPO, FileFacts, file_facts
from renaissance.plain_yaml import parse_yaml

YOURS = "<!-- yours -->"
_MARK = re.compile(rf"^{re.escape(YOURS)}[ \t]*$", re.M)
_TITLE = re.compile(r"^# (\S+)$", re.M)


@dataclass(frozen=True, slots=True)
class Kept:
    """The repository in the title of a card, the keys of its metadata that only a person can say, and what follows."""

    repo: str | None = None
    said: Mapping[str, Any] = field(default_factory=dict)
    yours: str = "\n"


def kept_of(folder: Path) -> Kept:
    """Return what is to be kept of the card in a folder: nothing of one that is not made by `card_of`.

    Raises:
        CardError: its metadata cannot be read.
    """
    text = read_card(folder)
    mark = None if text is None else _MARK.search(text)
    if text is None or mark is None:
        return Kept()
    title = _TITLE.search(text)
    said = {key: value for key, value in _metadata(text).items() if key in SAID}
    repo = title[1] if title is not None and REPO.fullmatch(title[1]) else None
    return Kept(repo, said, text[mark.end() :])


def read_card(folder: Path) -> str | None:
    """Return the text of the card in a folder, None where there is none.

    Raises:
        CardError: it cannot be read.
    """
    path = folder / CARD
    try:
        return path.read_text(encoding="utf-8") if path.exists() else None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise CardError(f"{path} cannot be read: {reason}. Remove it, and write the card again.") from None


def check_replaceable(folder: Path, saved: FileFacts | None) -> None:
    """Refuse to replace a card that someone wrote by hand, all of it; `saved` is what the manifest knows of it.

    Raises:
        CardError: there is such a card.
    """
    text = read_card(folder)
    if text is not None and not _MARK.search(text) and (saved is None or file_facts(folder / CARD) != saved):
        raise CardError(
            f"{folder / CARD} was written by hand, and would be lost. Put the line '{YOURS}' above what is to stay, or "
            "remove the file."
        )


def _metadata(text: str) -> dict[str, Any]:
    block = REGEX_YAML_BLOCK.search(text)
    try:
        metadata = parse_yaml((block[2] if block else "").encode(), what=CARD)
    except SpecError as error:
        raise CardError(f"The metadata of the card cannot be read. {error} Mend or remove that line.") from None
    if block is None or not isinstance(metadata, dict):
        raise CardError(f"{CARD} has no metadata between '---' and '---' at its head. Write the card again.")
    return metadata
