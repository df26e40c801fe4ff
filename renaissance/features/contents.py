"""Which content an image has: by its bytes, and where these are gone, by what was last seen of them.

```
contents/<digest of a folder>.json    {"folder": ..., "digests": {name of an image: SHA-256}}
```
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from renaissance.durable import write_atomically
from renaissance.errors import SampleError
from renaissance.features.keys import content_digest
from renaissance.features.store import Progress

CONTENTS = "contents"


class Contents:
    """The content digests of images, which `folder` remembers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / CONTENTS
        self._known: dict[str, dict[str, str]] = {}
        self._new: dict[str, dict[str, str]] = {}

    def digest(self, image: Any, row: str) -> str:
        """Return the digest of an image's bytes, or where they cannot be read, of those that were last seen.

        Raises:
            SampleError: it cannot be read, and never was; the message names its row.
        """
        place, known = self._of(image)
        try:
            digest = content_digest(image.read())
        except SampleError as error:
            if image.name in known:
                return known[image.name]
            raise SampleError(f"{row}: {error}") from None
        if known.get(image.name) != digest:
            known[image.name] = self._new.setdefault(place, {})[image.name] = digest
        return digest

    def save(self) -> None:
        """Remember what was seen.

        Raises:
            OutputError: the folder cannot be written.
        """
        for place, new in sorted(self._new.items()):
            self.folder.mkdir(parents=True, exist_ok=True)
            digests = _read(self._file(place)) | new  # another run may have written down others meanwhile
            write_atomically(self._file(place), json.dumps({"folder": place, "digests": digests}) + "\n")
        self._new.clear()

    def _of(self, image: Any) -> tuple[str, dict[str, str]]:
        """Return the folder that an image, or the file around it, lies in, and the known digests of its images."""
        place = os.path.dirname(os.path.abspath(getattr(image, "file", image.name)))
        if place not in self._known:
            self._known[place] = _read(self._file(place))
        return place, self._known[place]

    def _file(self, place: str) -> Path:
        return self.folder / f"{hashlib.sha256(place.encode()).hexdigest()[:32]}.json"


def image_digests(
    images: Sequence[tuple[Any, str]], contents: Contents, progress: Progress = lambda done, total: None
) -> list[str]:
    """Return the content digest of each (image, row of its sample); equal names are read once.

    Raises:
        SampleError: an image cannot be read, and never was; the message names its row.
        OutputError: what was seen cannot be written down.
    """
    found: dict[str, str] = {}
    for done, (image, row) in enumerate(images, start=1):
        if image.name not in found:
            found[image.name] = contents.digest(image, row)
        progress(done, len(images))
    contents.save()
    return [found[image.name] for image, _ in images]


def _read(file: Path) -> dict[str, str]:
    """Return what was written down; a damaged file knows nothing, as it can be written again."""
    try:
        digests = json.loads(file.read_text(encoding="utf-8"))["digests"]
        return {str(name): str(digest) for name, digest in digests.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
