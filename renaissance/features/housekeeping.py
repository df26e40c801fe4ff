"""Look after the stores in a folder: what they hold, whether they are whole, and which of them may go."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renaissance.errors import FeatureStoreError, OutputError, SpecError
from renaissance.features.layout import read_layout
from renaissance.features.locks import alone, last_use
from renaissance.features.shard import Shard, shard_files
from renaissance.features.store import Progress

KEY_DIGITS = 64


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """A store, as its files say it. part: what of the tower it holds; fault: why it cannot be opened, or ""."""

    key: str
    folder: Path
    tower: str
    part: str
    kept: str
    samples: int
    shards: int
    file_bytes: int
    last_used: float
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Removal:
    """A store that goes, or that would: why, and whether it stays after all because it is in use."""

    store: StoreFacts
    reason: str
    in_use: bool = False


def stores_in(folder: Path) -> list[StoreFacts]:
    """Return the stores in a folder, those that were used last first."""
    found = folder.iterdir() if folder.is_dir() else ()
    stores = [store_facts_of(place) for place in found if _is_store(place)]
    return sorted(stores, key=lambda store: (-store.last_used, store.key))


def store_facts_of(folder: Path) -> StoreFacts:
    """Return what a store holds, by the headers of its shards."""
    paths = shard_files(folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    about: dict[str, Any] = {}
    samples, fault = 0, ""
    for path in paths:
        try:
            layout, _ = read_layout(path)
        except FeatureStoreError as error:
            fault = fault or str(error)
            continue
        about, samples = dict(layout.about), samples + layout.samples
    depth, modality = about.get("depth"), about.get("modality", "")
    return StoreFacts(
        key=folder.name,
        folder=folder,
        tower=str(about.get("name", "")),
        part=f"{modality} tower" if depth is None else f"{modality}[:{depth}]",
        kept=str(about.get("kept", "")).removeprefix("torch."),
        samples=samples,
        shards=len(paths),
        file_bytes=size,
        last_used=last_use(folder),
        fault=fault,
    )


def digests_in(folder: Path) -> set[str]:
    """Return the content digests of what a store holds, as far as its shards can be opened; `verify` tells the rest."""
    found: set[str] = set()
    for path in shard_files(folder):
        with suppress(FeatureStoreError):
            found |= {row.tobytes().hex() for row in Shard.open(path, folder.name).digests}
    return found


def verify_stores(stores: Sequence[StoreFacts], progress: Progress = lambda done, total: None) -> list[str]:
    """Read the shards of stores and compare them with their checksums; return a line for each that is damaged."""
    shards = [(store, path) for store in stores for path in shard_files(store.folder)]
    faults: list[str] = []
    for done, (store, path) in enumerate(shards, start=1):
        try:
            Shard.open(path, store.key).verify()
        except FeatureStoreError as error:
            faults.append(str(error))
        progress(done, len(shards))
    return faults


def collect(
    folder: Path,
    *,
    older_than: float | None = None,
    keep_bytes: float | None = None,
    keep: Collection[str] = (),
    dry_run: bool = False,
    now: Callable[[], float] = time.time,
) -> list[Removal]:
    """Delete stores that were not used for `older_than` seconds, then the longest unused until `keep_bytes` are left.

    keep: keys of stores that stay. A store that some process reads or builds stays too.

    Raises:
        SpecError: there is no rule by which to choose.
        OutputError: a store cannot be deleted.
    """
    if older_than is None and keep_bytes is None:
        raise SpecError("gc deletes by age or by size: give --older-than DAYS, --keep-gb GB, or both.")
    stores = stores_in(folder)
    left = sum(store.file_bytes for store in stores)
    found: list[Removal] = []
    for store in reversed(stores):
        days = (now() - store.last_used) / 86_400
        old = older_than is not None and now() - store.last_used > older_than
        large = keep_bytes is not None and left > keep_bytes
        if store.key in keep or not (old or large):
            continue
        reason = f"not used for {days:.1f} days" if old else f"more than {(keep_bytes or 0) / 1e9:g} GB are kept"
        found.append(Removal(store, reason, in_use=not _removed(store, dry_run=dry_run)))
        left -= 0 if found[-1].in_use else store.file_bytes
    return found


def _removed(store: StoreFacts, *, dry_run: bool) -> bool:
    """Delete a store unless some process uses it; return whether it is gone, or would be."""
    try:
        with alone(store.folder) as nobody:
            if nobody and not dry_run:
                # renamed first: whoever opens the store from now on finds none, and not half of one
                gone = store.folder.with_name(f".{uuid.uuid4().hex}.deleted")
                store.folder.rename(gone)
                shutil.rmtree(gone)
            return nobody
    except OSError as error:
        raise OutputError(f"{store.folder} cannot be deleted ({error.strerror or error}). Delete it by hand.") from None


def _is_store(place: Path) -> bool:
    return place.is_dir() and len(place.name) == KEY_DIGITS and not place.name.strip("0123456789abcdef")
