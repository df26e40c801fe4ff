"""Readers of a user's own data: a folder of images with captions, and webdataset shards."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from renaissance.data.prepare import prepare
from renaissance.errors import DataError, SampleError
from tests.data.readers.builders import encoded, read_all, shard

Write = Callable[..., Path]

# --- folders --------------------------------------------------------------------------------------------------------


def test_rows_of_one_image_become_one_item_wherever_they_stand(pictures: Path, write: Write) -> None:
    rows = [
        {"file": f"{number % 3}.png", "caption": f"caption {number}", "split": "test" if number % 3 == 2 else "train"}
        for number in range(6)
    ]
    write(pictures / "captions.csv", rows)
    items, _ = read_all("image-folder", pictures)
    assert [(item.split, item.id, item.texts) for item in items] == [
        ("train", "0.png", ("caption 0", "caption 3")),
        ("train", "1.png", ("caption 1", "caption 4")),
        ("test", "2.png", ("caption 2", "caption 5")),
    ]
    assert items[0].row == "captions.csv, row 1"
    assert items[0].images[0].read() == (pictures / "0.png").read_bytes()


def test_other_columns_become_fields(pictures: Path, write: Write) -> None:
    row = {"image": "0.png", "caption": ["a", "b"], "id": 7, "language": "de", "width": 8, "tags": ["x"]}
    write(pictures / "captions.jsonl", [row])
    (item,) = read_all("image-folder", pictures)[0]
    assert (item.id, item.texts, dict(item.fields)) == ("7", ("a", "b"), {"language": "de", "width": "8"})


def test_a_column_of_ids_that_counts_captions_is_no_id_of_images(pictures: Path, write: Write) -> None:
    write(pictures / "captions.csv", [{"image": "0.png", "caption": f"c {number}", "id": number} for number in (1, 2)])
    (item,) = read_all("image-folder", pictures)[0]
    assert item.id == "0.png"


def test_each_folder_with_captions_is_a_split(tmp_path: Path, write: Write) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.png").write_bytes(encoded(1, "PNG"))
        write(tmp_path / split / "metadata.csv", [{"file_name": "a.png", "text": f"of {split}"}])
    items, _ = read_all("image-folder", tmp_path)
    assert [(item.split, item.id, item.texts) for item in items] == [
        ("test", "test/a.png", ("of test",)),
        ("train", "train/a.png", ("of train",)),
    ]


def test_images_inside_of_parquet_are_taken_as_they_are(tmp_path: Path) -> None:
    cells = [{"bytes": encoded(number), "path": f"{number}.jpg"} for number in range(2)]
    pq.write_table(pa.table({"image": cells, "caption": ["one", "two"]}), tmp_path / "data.parquet")
    items, _ = read_all("image-folder", tmp_path)
    assert [(item.texts, item.images[0].read()) for item in items] == [(("one",), encoded(0)), (("two",), encoded(1))]


def test_images_inside_of_several_files_are_told_apart(tmp_path: Path) -> None:
    for number, split in enumerate(("test", "train")):
        (tmp_path / split).mkdir()
        cells = [{"bytes": encoded(number), "path": "0.jpg"}]
        pq.write_table(pa.table({"image": cells, "caption": ["one"]}), tmp_path / split / "data.parquet")
    items, _ = read_all("image-folder", tmp_path)
    assert [item.images[0].id for item in items] == ["test/data.parquet, row 1", "train/data.parquet, row 1"]
    assert [item.images[0].read() for item in items] == [encoded(0), encoded(1)]


def test_what_datasets_saved_is_read_with_its_splits(tmp_path: Path) -> None:
    def part(number: int) -> datasets.Dataset:
        cells = {"image": [encoded(number)], "caption": [f"caption {number}"]}
        return datasets.Dataset.from_dict(cells).cast_column("image", datasets.Image())

    datasets.DatasetDict({"train": part(0), "val": part(1)}).save_to_disk(str(tmp_path / "saved"))
    items, _ = read_all("image-folder", tmp_path / "saved")
    assert [(item.split, item.texts, item.images[0].read()) for item in items] == [
        ("train", ("caption 0",), encoded(0)),
        ("val", ("caption 1",), encoded(1)),
    ]


def test_what_was_prepared_earlier_is_no_split(tmp_path: Path, write: Write) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.png").write_bytes(encoded(1, "PNG"))
    write(tmp_path / "train" / "metadata.csv", [{"file_name": "a.png", "text": "a"}])
    prepare("image-folder", tmp_path, tmp_path / "prepared")
    assert [item.split for item in read_all("image-folder", tmp_path)[0]] == ["train"]


def test_a_row_without_image_or_caption_is_left_out(pictures: Path, write: Write) -> None:
    rows = [{"image": "0.png", "caption": "a"}, {"image": "", "caption": "b"}, {"image": "1.png", "caption": " "}]
    write(pictures / "captions.csv", rows)
    items, problems = read_all("image-folder", pictures, skip=True)
    assert [item.id for item in items] == ["0.png"]
    assert problems.skipped == ["captions.csv, row 2: it has no image", "captions.csv, row 3: the caption is empty"]


def test_a_folder_without_captions_is_an_error(pictures: Path) -> None:
    with pytest.raises(DataError, match="has a file of captions"):
        read_all("image-folder", pictures)


# --- shards ---------------------------------------------------------------------------------------------------------


def test_members_of_one_key_are_one_sample(tmp_path: Path) -> None:
    shard(
        tmp_path / "00000.tar",
        {
            "a/000.jpg": encoded(0),
            "a/000.json": json.dumps({"caption": "json says", "url": "http://x", "width": 8}).encode(),
            "a/000.txt": b"  text says\n",
            "001.jpg": encoded(1),
            "001.json": json.dumps({"captions": ["one", "two"]}).encode(),
        },
    )
    first, second = read_all("webdataset", tmp_path)[0]
    assert (first.split, first.id, first.texts) == ("train", "a/000", ("text says",))
    assert dict(first.fields) == {"url": "http://x", "width": "8"}
    assert first.images[0].read() == encoded(0)
    assert (second.id, second.texts, second.row) == ("001", ("one", "two"), "00000.tar, sample '001'")


@pytest.mark.parametrize(
    ("name", "split"), [("val-0.tar", "val"), ("test_00.tar", "test"), ("dev/0.tar", "dev"), ("validity.tar", "train")]
)
def test_the_split_of_a_shard_is_told_by_its_name(tmp_path: Path, name: str, split: str) -> None:
    shard(tmp_path / name, {"0.jpg": encoded(0), "0.txt": b"caption"})
    assert [item.split for item in read_all("webdataset", tmp_path)[0]] == [split]


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ({"0.txt": b"caption"}, "0.tar, sample '0': it has no image"),
        ({"0.jpg": b"image"}, "0.tar, sample '0': it has no caption"),
        ({"0.jpg": b"image", "0.json": b"[1]"}, "0.tar, sample '0': its .json holds no JSON object"),
        ({"0.jpg": b"image", "0.txt": b"caf\xe9"}, "0.tar, sample '0': the caption is not valid Unicode"),
        ({"../0.jpg": b"image"}, "0.tar, member '../0.jpg': it is no plain file inside of the archive"),
        ({"/0.jpg": b"image"}, "0.tar, member '/0.jpg': it is no plain file inside of the archive"),
    ],
)
def test_a_sample_that_cannot_be_used_is_an_error_or_left_out(
    tmp_path: Path, members: dict[str, bytes], fault: str
) -> None:
    shard(tmp_path / "0.tar", {**members, "ok.jpg": encoded(1), "ok.txt": b"fine"})
    items, problems = read_all("webdataset", tmp_path, skip=True)
    assert [item.id for item in items] == ["ok"]
    assert problems.skipped[0] == fault
    with pytest.raises(SampleError):
        read_all("webdataset", tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_never_followed(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        facts = tarfile.TarInfo("0.jpg")
        facts.type, facts.linkname = kind, "/etc/passwd"
        archive.addfile(facts)
    items, problems = read_all("webdataset", tmp_path, skip=True)
    assert (items, problems.count) == ([], 1)


def test_a_member_of_ten_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    facts = tarfile.TarInfo("0.jpg")
    facts.size = 10 * 2**30
    (tmp_path / "0.tar").write_bytes(facts.tobuf(tarfile.GNU_FORMAT))
    _, problems = read_all("webdataset", tmp_path, skip=True)
    assert problems.skipped[1] == "0.tar, member '0.jpg': it is too large (10,737,418,240 bytes)"


def test_members_of_other_kinds_are_passed_over(tmp_path: Path) -> None:
    shard(tmp_path / "0.tar", {"0.jpg": encoded(0), "0.txt": b"fine", "0.pkl": b"\x80\x04.", "0.pyd": b"MZ"})
    assert len(read_all("webdataset", tmp_path)[0]) == 1


@pytest.mark.parametrize("kept", [512 * 8, 512 * 12 + 300, 512 * 13 + 100, 512 * 10])
def test_a_truncated_shard_is_told_of_and_gives_its_whole_samples(tmp_path: Path, kept: int) -> None:
    members = [(f"{n}.{s}", d) for n in range(8) for s, d in (("jpg", encoded(n)), ("txt", b"caption"))]
    file = shard(tmp_path / "0.tar", members)
    file.write_bytes(file.read_bytes()[:kept])
    items, problems = read_all("webdataset", tmp_path, skip=True)
    assert 0 < len(items) < 8
    assert all(item.images[0].read() == encoded(int(item.id)) for item in items)
    assert problems.skipped == ["0.tar: the shard is truncated: the mark at its end is missing"]


def test_a_damaged_shard_is_told_of(tmp_path: Path) -> None:
    file = shard(tmp_path / "0.tar", {"0.jpg": encoded(0), "0.txt": b"caption", "1.jpg": encoded(1)})
    content = bytearray(file.read_bytes())
    content[512 * 5 : 512 * 5 + 512] = b"x" * 512
    file.write_bytes(content)
    items, problems = read_all("webdataset", tmp_path, skip=True)
    assert len(items) <= 1
    assert problems.skipped[-1].startswith("0.tar: the shard is damaged (")


def test_a_folder_without_shards_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has a shard \(\*\.tar\)"):
        read_all("webdataset", tmp_path)
