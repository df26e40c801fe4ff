"""Which content an image has, and what of samples is stored."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from renaissance.api import Item
from renaissance.data.readers.sources import FileImage
from renaissance.data.records import DataSet, Record
from renaissance.errors import SampleError
from renaissance.features.contents import Contents, image_digests
from renaissance.features.keys import content_digest
from renaissance.features.views import Reading, Sight, sight_digests, sights_loader, text_digest
from renaissance.progress import Silent
from renaissance.recipe.training import Augmentation
from renaissance.toolkit.images import ImageProcessor

PROCESSOR = ImageProcessor((16, 16), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Counted:
    """An image that tells how often it was read."""

    name: str
    times: list[int]

    def read(self) -> bytes:
        self.times.append(1)
        return b"bytes"


def records(folder: Path) -> list[Record]:
    for name in ("0.png", "1.png", "2.png"):
        Image.new("RGB", (20, 20), (int(name[0]), 0, 0)).save(folder / name)
    return [Record(str(i), FileImage(str(folder / f"{i}.png")), ("a",), f"captions.csv, row {i + 1}") for i in range(3)]


def digests(found: list[Record], folder: Path) -> list[str]:
    return image_digests([(record.image, record.row) for record in found], Contents(folder))


def told(sights: list[Sight], reading: Reading, folder: Path) -> list[str]:
    return sight_digests(sights, reading, Contents(folder / "store"))


def test_images_that_are_gone_are_those_that_were_last_seen(tmp_path: Path) -> None:
    found = records(tmp_path)
    first = digests(found, tmp_path / "store")
    Image.new("RGB", (20, 20), "green").save(tmp_path / "1.png")
    second = digests(found, tmp_path / "store")
    assert [a == b for a, b in zip(first, second, strict=True)] == [True, False, True]
    for record in found:
        Path(record.image.name).unlink()
    assert digests(found, tmp_path / "store") == second


def test_an_image_that_was_never_seen_is_told_with_its_row(tmp_path: Path) -> None:
    found = records(tmp_path)
    (tmp_path / "1.png").unlink()
    with pytest.raises(SampleError, match=r"captions\.csv, row 2: The image file .*1\.png' cannot be read"):
        digests(found, tmp_path / "store")


def test_what_was_seen_may_be_damaged_and_is_then_written_again(tmp_path: Path) -> None:
    found = records(tmp_path)
    first = digests(found, tmp_path / "store")
    (file,) = (tmp_path / "store" / "contents").iterdir()
    file.write_text("{")
    assert digests(found, tmp_path / "store") == first
    assert len(json.loads(file.read_text())["digests"]) == 3


def test_an_image_of_several_samples_is_read_once(tmp_path: Path) -> None:
    image = Counted("a.png", [])
    assert image_digests([(image, "row 1"), (image, "row 2")], Contents(tmp_path)) == [content_digest(b"bytes")] * 2
    assert len(image.times) == 1


def test_an_image_that_cannot_be_decoded_is_told_with_its_row(tmp_path: Path) -> None:
    found = records(tmp_path)
    (tmp_path / "1.png").write_bytes(b"no picture")
    reading = Reading()
    sights = reading.sights(DataSet(found, (), {}))
    with pytest.raises(SampleError, match=r"captions\.csv, row 2: .*1\.png: not an image"):
        sights_loader(sights, told(sights, reading, tmp_path), reading, PROCESSOR)([0, 1])


def test_an_image_that_is_replaced_before_it_is_stored_is_told_with_its_row(tmp_path: Path) -> None:
    found = records(tmp_path)
    reading = Reading()
    sights = reading.sights(DataSet(found, (), {}))
    load = sights_loader(sights, told(sights, reading, tmp_path), reading, PROCESSOR)
    assert load([0, 1]).pixels.shape == (2, 3, 16, 16)
    Image.new("RGB", (20, 20), "green").save(tmp_path / "1.png")
    with pytest.raises(SampleError, match=r"captions\.csv, row 2: .*1\.png' was changed while the store was built"):
        load([0, 1])


def test_what_another_run_saw_in_a_folder_meanwhile_is_remembered_too(tmp_path: Path) -> None:
    found = records(tmp_path)
    mine, other = Contents(tmp_path / "store"), Contents(tmp_path / "store")
    for contents, record in ((mine, found[0]), (other, found[1])):
        contents.digest(record.image, record.row)
    mine.save()
    other.save()
    for record in found[:2]:
        Path(record.image.name).unlink()
    assert len(set(digests(found[:2], tmp_path / "store"))) == 2


def test_each_image_is_seen_once_and_augmented_in_every_view_of_each_sample(tmp_path: Path) -> None:
    found = records(tmp_path)
    data = DataSet([*found, Record("3", found[0].image, ("b",), "row 4")], (), {"test": (found[1],)})
    assert len(Reading().sights(data)) == 3
    reading = Reading(seed=1, augmentation=Augmentation(flip=True, crop=(0.5, 1.0), views=2), plain=False)
    sights = reading.sights(data)
    assert len([sight for sight in sights if sight.key[2] is not None]) == 8
    assert [sight.key for sight in sights if sight.key[2] is None] == [(found[1].image.name, None, None)]
    first = sight_digests(sights, reading, Contents(tmp_path / "store"), Silent().bar(""))
    assert len(set(first)) == len(sights)
    others = Reading(seed=1, augmentation=Augmentation(flip=True, crop=(0.6, 1.0), views=2), plain=False)
    assert len(set(first) & set(told(others.sights(data), others, tmp_path))) == 1


def test_more_views_are_other_views_and_those_that_were(tmp_path: Path) -> None:
    data = DataSet(records(tmp_path), (), {})

    def seen(views: int) -> set[str]:
        reading = Reading(augmentation=Augmentation(flip=True, views=views), plain=False)
        return set(told(reading.sights(data), reading, tmp_path))

    assert seen(2) < seen(3)


def test_regions_of_an_item_are_cropped_and_never_augmented(tmp_path: Path) -> None:
    (record, *_) = records(tmp_path)
    item = Item("0", (record.image,), ("left", "right"), boxes=((0.0, 0.0, 5.0, 5.0), (5.0, 5.0, 9.0, 9.0)))
    reading = Reading(regions=True, augmentation=Augmentation(flip=True, views=4))
    sights = reading.sights(DataSet([item], (), {}))
    assert [sight.key[1] for sight in sights] == list(item.boxes)
    digests = told(sights, reading, tmp_path)
    assert len(set(digests)) == 2
    assert sights_loader(sights, digests, reading, PROCESSOR)([0, 1]).pixels.shape == (2, 3, 16, 16)


def test_a_pair_of_texts_is_one_text() -> None:
    item = Item("0", (), ("a premise", "a hypothesis"))
    assert Reading(paired=True).texts(DataSet([item], (), {})) == [("a premise", "a hypothesis")]
    assert Reading().texts(DataSet([item], (), {})) == [("a hypothesis",), ("a premise",)]
    assert text_digest(("a", "b")) != text_digest(("a b",))
    assert text_digest(("a",)) == content_digest("a")
    assert text_digest(("a", "b")) != text_digest((json.dumps(["a", "b"]),))
