"""What counts as a caption, and when two captions are the same.

| what the data hold | outcome |
|---|---|
| text | the same text without white space around it |
| an empty text; nothing but white space, marks and invisible characters; null; NaN | refused |
| more than 20,000 characters (a tokenizer takes seconds for a megabyte) | refused |
| half of a surrogate pair (no Unicode text) | refused |
| NUL and other control characters | a space each |

Two captions are the same if they agree without regard to case, width, white space and a full stop at the end.
"""

from __future__ import annotations

import re
import unicodedata

from renaissance.data.hashing import stable_hash

MAX_CHARACTERS = 20_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def clean_caption(value: object) -> str:
    """Return the caption as it will be tokenized.

    Raises:
        ValueError: it is no caption; the message says why, to be put behind the name of its row.
    """
    if not isinstance(value, str):
        raise ValueError(f"the caption is {'missing' if value is None or value != value else 'not text'}")
    if len(value) > MAX_CHARACTERS:
        raise ValueError(f"the caption has {len(value):,} characters, more than {MAX_CHARACTERS:,}")
    text = _CONTROL.sub(" ", value).strip()
    categories = {unicodedata.category(character) for character in set(text)}
    if "Cs" in categories:
        raise ValueError("the caption is not valid Unicode")
    if all(category[0] in "CZM" for category in categories):
        raise ValueError("the caption is empty")
    return text


def normalise(caption: str) -> str:
    """Return the form in which captions are compared."""
    text = " ".join(unicodedata.normalize("NFKC", caption).casefold().split())
    return text.removesuffix(".").rstrip() or text


def caption_key(caption: str) -> int:
    """Return a number from 1 to 2**63 - 1 that two captions share exactly if they are the same caption."""
    return stable_hash("caption", normalise(caption)) or 1
