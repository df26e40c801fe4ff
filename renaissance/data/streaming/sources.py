"""From the source of a stream to its shards: a dataset of the Hub, a folder in its layout, saved `datasets`, tars."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renaissance.data.prepared import is_prepared
from renaissance.data.readers.hf import is_datasets_folder
from renaissance.data.streaming.arrow import arrow_shards
from renaissance.data.streaming.hub_files import HUB, network_faults
from renaissance.data.streaming.parquet import parquet_shards
from renaissance.data.streaming.shards import Shard
from renaissance.data.streaming.tars import hub_tar_shards, tar_shard
from renaissance.errors import DataError, HubError, SampleError
from renaissance.recipe.data import StreamData
from renaissance.recipe.values import OnBadSample
from renaissance.spec import shown

PREFIX = "hf:"
_SPLIT = re.compile(r"(train|val|valid|validation|dev|test)(?=[-_.])")


@dataclass(frozen=True, slots=True)
class Found:
    """The shards of a split, what was guessed, and a line for each part of them that is left out."""

    shards: tuple[Shard, ...]
    facts: tuple[str, ...]
    skipped: tuple[str, ...] = ()


def find_shards(data: StreamData, split: str, *, cache: Path, on_bad_sample: OnBadSample) -> Found:
    """Return the shards of a split of a stream. cache: a folder for indices of tar files and sizes of shards.

    Raises:
        DataError: there is nothing at the source, not this split, or nothing that can be streamed.
        SampleError: a part of a tar file cannot be used, and `on_bad_sample` is "error".
        HubError: the Hub does not answer.
    """
    if data.source is None:
        raise DataError("The recipe does not say what to stream. Set data.source, or try: --data FOLDER.")
    if data.source.startswith(PREFIX):
        return _described(data.source.removeprefix(PREFIX), data, split, cache, on_bad_sample)
    path = Path(data.source).expanduser()
    tars = _tars(path, split)
    if tars is not None:
        return _of_tars(tars, path, split, cache, on_bad_sample)
    if is_prepared(path):
        raise DataError(f"'{path}' is prepared data, which need no stream. Set data.kind to 'prepared', with its path.")
    if is_datasets_folder(path):
        shards, facts = arrow_shards(path, split, data.columns)
        return Found(tuple(shards), facts)
    return _described(str(path), data, split, cache, on_bad_sample)


# --- webdataset -------------------------------------------------------------------------------------------------------


def _tars(path: Path, split: str) -> list[Path] | None:
    """Return the tar files of a split, in the order of their names; None where the path leads to none at all."""
    if "*" in path.name and path.parent.is_dir():
        found = sorted(path.parent.glob(path.name))
        return [file for file in found if file.suffix == ".tar"] if found else None
    if path.is_file() and path.suffix == ".tar":
        return [path]
    if not path.is_dir():
        if path.exists():
            raise DataError(f"'{shown(path, 200)}' cannot be streamed: give a folder of shards, or a .tar file.")
        raise DataError(f"There is nothing to stream at '{shown(path, 200)}'. Give a folder of shards, or hf:org/name.")
    every = sorted([*path.glob("*.tar"), *path.glob("*/*.tar")])
    return [file for file in every if _split_of(file, path) == split] if every else None


def _split_of(file: Path, root: Path) -> str:
    """Return the split of a shard: the folder below the root, else what its name begins with, else train."""
    where = file.relative_to(root)
    named = _SPLIT.match(file.name)
    return where.parts[0] if len(where.parts) > 1 else named.group() if named else "train"


def _of_tars(files: Sequence[Path], root: Path, split: str, cache: Path, on_bad_sample: OnBadSample) -> Found:
    if not files:
        raise DataError(f"'{root}' has no shard of the split '{split}'. Name a folder or the shards after it.")
    folder = root if root.is_dir() else root.parent
    return _found((tar_shard(file, file.relative_to(folder).as_posix(), cache) for file in files), on_bad_sample)


def _found(indexed: Iterable[tuple[Shard, tuple[str, ...]]], on_bad_sample: OnBadSample) -> Found:
    """Return the shards that have a sample; what cannot be used of any is an error, or told."""
    shards: list[Shard] = []
    skipped: list[str] = []
    for shard, faults in indexed:
        if faults and on_bad_sample == "error":
            raise SampleError(f"{faults[0]}. Mend it, or leave such parts out with --on-bad-sample skip.")
        skipped += faults
        if shard.count:
            shards.append(shard)
    return Found(tuple(shards), (), tuple(skipped))


# --- what `datasets` describes ----------------------------------------------------------------------------------------


def _described(name: str, data: StreamData, split: str, cache: Path, on_bad_sample: OnBadSample) -> Found:
    """Return the shards of a repository, or of a folder in its layout; `datasets` says which files a split has."""
    files = _data_files(name, data)
    if split not in files:
        raise DataError(f"'{name}' has no split '{split}'. Set data.split to one of: {', '.join(files) or 'none'}.")
    urls = files[split]
    kinds = {url.rpartition(".")[2].lower() for url in urls}
    if kinds == {"parquet"}:
        shards, facts = parquet_shards(name, urls, data.columns, cache=cache, on_bad_sample=on_bad_sample)
        return Found(tuple(shards), facts)
    if kinds == {"tar"}:
        if urls[0].startswith(HUB):
            return _found(hub_tar_shards(urls, cache), on_bad_sample)
        return _of_tars([Path(url) for url in urls], Path(name), split, cache, on_bad_sample)
    raise DataError(
        f"'{name}' is made of .{', .'.join(sorted(kinds))} files, which cannot be read from the middle. Choose a "
        "revision with Parquet (refs/convert/parquet, which the Hub makes), or download it and use kind: images."
    )


def _data_files(name: str, data: StreamData) -> Mapping[str, list[str]]:
    """Return the addresses of the files of each split, with the commit that they are of."""
    import datasets

    try:
        builder: Any = datasets.load_dataset_builder(name, data.config, revision=data.revision)
    except (datasets.exceptions.DatasetNotFoundError, FileNotFoundError, ValueError) as error:
        raise DataError(f"'{shown(name, 200)}' is no dataset that can be streamed ({_line(error)}).") from None
    except network_faults() as error:
        raise HubError(f"The dataset '{shown(name, 200)}' cannot be looked up ({_line(error)}).") from None
    return {str(split): [str(url) for url in urls] for split, urls in (builder.config.data_files or {}).items()}


def _line(error: Exception) -> str:
    return shown(" ".join(str(error).split()), 300)
