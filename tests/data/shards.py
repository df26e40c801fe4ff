"""Shards for the tests of streams: the same samples as tars, as Parquet in the layout of the Hub, and as `datasets`."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIZES = (7, 1, 9, 6)


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, 255 - number % 256, 7 * number % 256)).save(file, "PNG")
    return file.getvalue()


def caption(number: int) -> str:
    return f"square number {number}"


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def write_tars(folder: Path, sizes: Sequence[int] = SIZES, *, split: str = "train", first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    number = first
    for shard, size in enumerate(sizes):
        with tarfile.open(folder / f"{split}-{shard:05d}.tar", "w") as archive:
            for _ in range(size):
                add(archive, f"{number:04d}.png", png(number))
                add(archive, f"{number:04d}.txt", caption(number).encode())
                number += 1
    return folder


def write_parquet(
    folder: Path, sizes: Sequence[int] = SIZES, *, split: str = "train", first: int = 0, group: int = 4
) -> Path:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    number = first
    for shard, size in enumerate(sizes):
        numbers = range(number, number + size)
        table = pa.table(
            {
                "image": pa.array(
                    [{"bytes": png(n), "path": None} for n in numbers],
                    pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
                ),
                "caption": pa.array([caption(n) for n in numbers]),
            }
        )
        name = f"{split}-{shard:05d}-of-{len(sizes):05d}.parquet"
        pq.write_table(table, folder / "data" / name, row_group_size=group)
        number += size
    return folder


def write_datasets(folder: Path, sizes: Sequence[int] = SIZES, *, splits: Sequence[str] = ("train",)) -> Path:
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    made = {}
    for place, split in enumerate(splits):
        numbers = range(100 * place, 100 * place + sum(sizes))
        rows = {"image": [{"bytes": png(n), "path": None} for n in numbers], "caption": [caption(n) for n in numbers]}
        made[split] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(made).save_to_disk(folder, num_shards=dict.fromkeys(splits, len(sizes)))
    return folder
