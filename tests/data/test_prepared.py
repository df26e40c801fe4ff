"""Prepared data: what is written comes back, opens elsewhere, and is whole or not there."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from renaissance.api import Item
from renaissance.data import prepared
from renaissance.data.prepared import Prepared, Writer, is_prepared
from renaissance.errors import DataError, OutputError, SampleError

FACTS = {"layout": "test"}


def png(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (colour, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write(out: Path, images: int = 3) -> None:
    with Writer(out) as writer:
        for number in range(images):
            writer.image(f"image-{number}", png(number), f"{number}.png")
        writer.item("train", "a", images=["image-0", "image-2"], texts=["left is darker"], label="True")
        writer.item(
            "test",
            "b",
            images=["image-1"],
            texts=["what?", "who?"],
            answers=["x", "y"],
            boxes=[(0.0, 1.0, 2.5, 3.0)],
            target=0,
            fields={"type": "other"},
        )
        writer.finish(FACTS)


def test_items_come_back_as_they_were(tmp_path: Path) -> None:
    write(tmp_path / "out")
    found = Prepared(tmp_path / "out")
    (item,) = found.items("test")
    assert item == Item(
        id="b",
        images=item.images,
        texts=("what?", "who?"),
        row="out/test, item 0",
        answers=("x", "y"),
        boxes=((0.0, 1.0, 2.5, 3.0),),
        target=0,
        fields={"type": "other"},
    )
    assert [image.read() for image in item.images] == [png(1)]
    (item,) = found.items("train")
    assert [image.read() for image in item.images] == [png(0), png(2)]
    assert (item.label, item.target) == ("True", None)
    assert found.splits == ("test", "train")
    assert found.manifest["images"] == {"count": 3, "files": ["images-00000-of-00001.parquet"]}


def test_shards_and_row_groups_keep_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "GROUP_BYTES", 300)
    monkeypatch.setattr(prepared, "SHARD_BYTES", 1000)
    with Writer(tmp_path / "out") as writer:
        for number in range(40):
            writer.image(str(number), png(number), f"{number}.png")
            writer.item("train", str(number), images=[str(number)], texts=[f"number {number}"])
        manifest = writer.finish(FACTS)
    assert len(manifest["images"]["files"]) > 1
    items = list(Prepared(tmp_path / "out").items("train"))
    assert [item.id for item in items] == [str(number) for number in range(40)]
    assert [item.images[0].read() for item in items] == [png(number) for number in range(40)]


def test_a_relative_folder_is_that_of_the_present_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, place in enumerate((tmp_path / "one", tmp_path / "other")):
        place.mkdir()
        monkeypatch.chdir(place)
        with Writer(Path("out")) as writer:
            writer.image("0", png(number), "0.png")
            writer.item("train", "0", images=["0"], texts=["a thing"])
            writer.finish(FACTS)
        (item,) = Prepared(Path("out")).items("train")
        assert item.images[0].read() == png(number)


def test_an_image_is_read_after_a_change_of_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    (item,) = Prepared(Path("out")).items("test")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert item.images[0].read() == png(1)


def test_datasets_opens_images_and_items(tmp_path: Path) -> None:
    import datasets

    write(tmp_path / "out")
    images = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "out" / "images-*.parquet"), cache_dir=str(tmp_path / "c"), split="train"
    )
    assert images[1]["id"] == "image-1"
    assert images[1]["image"].getpixel((0, 0)) == (1, 0, 0)
    items = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "out" / "test-*.parquet"), cache_dir=str(tmp_path / "c"), split="train"
    )
    assert items[0]["texts"] == ["what?", "who?"]


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    def failing() -> None:
        with Writer(tmp_path / "out") as writer:
            writer.image("a", png(0), "a.png")
            raise SampleError("bad")

    with pytest.raises(SampleError, match="bad"):
        failing()
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "out")
    with pytest.raises(OutputError, match="exists already"):
        write(tmp_path / "out")
    assert is_prepared(tmp_path / "out")


def test_missing_splits_images_and_manifests_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no prepared data"):
        Prepared(tmp_path)
    write(tmp_path / "out")
    with pytest.raises(DataError, match="no split 'dev'; it has: test, train"):
        list(Prepared(tmp_path / "out").items("dev"))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    manifest["images"] = {"count": 0, "files": []}
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="no image 'image-1'"):
        list(Prepared(tmp_path / "out").items("test"))


# --- damage ---------------------------------------------------------------------------------------------------------

SHARDS = ("images-00000-of-00001.parquet", "test-00000-of-00001.parquet", "train-00000-of-00001.parquet")
DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "cut in half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "short of ten bytes": lambda file: file.write_bytes(file.read_bytes()[:-10]),
    "a page of HTML": lambda file: file.write_text("<html>404</html>" * 100),
}


@pytest.mark.parametrize("shard", SHARDS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_shard_that_is_not_whole_is_refused_at_opening_by_name(shard: str, damage: str, tmp_path: Path) -> None:
    write(tmp_path / "out")
    DAMAGES[damage](tmp_path / "out" / shard)
    with pytest.raises(DataError, match=rf"/{shard}' cannot be read .*\. Prepare the data again\."):
        Prepared(tmp_path / "out")


def test_the_shard_of_other_data_is_refused_at_opening(tmp_path: Path) -> None:
    write(tmp_path / "out")
    shutil.copyfile(tmp_path / "out" / SHARDS[0], tmp_path / "out" / SHARDS[1])
    with pytest.raises(DataError, match=r"The shards of 'test' in '.*' have 3 rows, and \d were written"):
        Prepared(tmp_path / "out")


def test_one_lost_of_a_thousand_shards_is_named_at_opening(tmp_path: Path) -> None:
    write(tmp_path / "out")
    names = [f"images-{number:05d}-of-01000.parquet" for number in range(1000)]
    for name in names:
        (tmp_path / "out" / name).hardlink_to(tmp_path / "out" / SHARDS[0])
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    manifest["images"] = {"count": 3 * len(names), "files": names}
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    assert Prepared(tmp_path / "out").splits == ("test", "train")
    (tmp_path / "out" / names[637]).unlink()
    with pytest.raises(DataError, match=names[637]):
        Prepared(tmp_path / "out")


def test_a_changed_byte_of_an_image_or_item_is_found_where_it_is_read(tmp_path: Path) -> None:
    write(tmp_path / "out")
    for shard in (SHARDS[0], SHARDS[1]):
        file = tmp_path / "out" / shard
        whole = file.read_bytes()
        column = pq.ParquetFile(file).metadata.row_group(0).column(1 if shard == SHARDS[0] else 2)
        changed = bytearray(whole)
        changed[column.dictionary_page_offset + column.total_compressed_size - 1] ^= 1
        file.write_bytes(changed)
        with pytest.raises((DataError, SampleError), match=r"Prepare the data again"):
            _ = [image.read() for item in Prepared(tmp_path / "out").items("test") for image in item.images]
        file.write_bytes(whole)
