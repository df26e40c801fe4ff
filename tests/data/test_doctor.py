"""The doctor finds each planted fault, and nothing in data that have none."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from renaissance.api import Unknown
from renaissance.data.doctor import Report, examine, overlap, seen
from renaissance.data.doctor.looks import MAX_BITS, near
from renaissance.data.prepared import Writer
from renaissance.data.world.write import prepare_world
from renaissance.errors import DataError, SpecError
from renaissance.recipe.data import WorldData

pytest.importorskip("imagehash", reason="needs: pip install 'renaissance-vl[doctor]'")

Images = Mapping[str, bytes]
Items = Mapping[str, Sequence[Mapping[str, Any]]]


def picture(number: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """Return a picture unlike that of any other number."""
    draw = np.random.default_rng(number)
    image = Image.new("RGB", size, tuple(draw.integers(150, 256, 3).tolist()))
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = int(draw.integers(0, size[0] - 30)), int(draw.integers(0, size[1] - 24))
        pen.ellipse((x, y, x + 28, y + 22), fill=tuple(draw.integers(0, 256, 3).tolist()))
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb(side: int) -> bytes:
    """Return a PNG of a few bytes whose header says side x side pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def items(*images: str, texts: Sequence[str] = ("a cup", "a red cup")) -> list[dict[str, Any]]:
    return [{"id": f"item-{image}", "images": [image], "texts": list(texts)} for image in images]


def write(out: Path, images: Images, splits: Items, layout: str = "test") -> str:
    with Writer(out) as writer:
        for image_id, data in images.items():
            writer.image(image_id, data, f"{image_id}.png")
        for split, rows in splits.items():
            for row in rows:
                given = dict(row)
                writer.item(split, given.pop("id"), **given)
        writer.finish({"layout": layout})
    return str(out)


def clean(count: int, *, start: int = 0, prefix: str = "") -> dict[str, bytes]:
    return {f"{prefix}{number}": encoded(picture(number)) for number in range(start, start + count)}


def kinds(report: Report) -> dict[str, int]:
    return {finding.kind: finding.count for finding in report.findings}


@pytest.fixture
def examined(tmp_path: Path) -> Callable[..., Report]:
    """Examine two splits of clean pictures, with further images and items in the split `test`."""

    def run(images: Images, rows: Sequence[Mapping[str, Any]], **options: Any) -> Report:
        splits = {"train": items("0", "1", "2"), "test": [*items("3", "4"), *rows]}
        return examine([write(tmp_path / "data", {**clean(5), **images}, splits)], **options)

    return run


# --- clean data -------------------------------------------------------------------------------------------------------


def test_clean_data_have_nothing(examined: Callable[..., Report]) -> None:
    report = examined({}, [])
    assert report.findings == report.overlaps == report.seen == ()
    assert (report.faults, report.leaks) == (0, ())
    assert report.data == {"data": {"layout": "test", "splits": {"test": 2, "train": 3}, "images": 5}}


def test_there_is_no_false_alarm_in_the_clean_world(tmp_path: Path) -> None:
    folder = prepare_world(WorldData(train=150, test=50), tmp_path)
    report = examine([str(folder)])
    assert [finding for finding in report.findings if finding.level == "fault"] == []
    assert report.overlaps == ()
    assert sum(report.data[folder.name]["splits"].values()) >= 100


# --- planted faults ---------------------------------------------------------------------------------------------------

GOOD = encoded(picture(77))
JPEG = encoded(picture(77), "JPEG")
BROKEN = [
    pytest.param(b"no picture", "damaged image", id="no picture"),
    pytest.param(b"", "damaged image", id="empty"),
    pytest.param(JPEG[: len(JPEG) // 2], "damaged image", id="truncated JPEG"),
    pytest.param(GOOD[: len(GOOD) // 2], "damaged image", id="truncated PNG"),
    pytest.param(bomb(7000), "image of too many pixels", id="more pixels than are accepted"),
    pytest.param(bomb(30_000), "image of too many pixels", id="bomb"),
]


@pytest.mark.parametrize(("data", "kind"), BROKEN)
def test_images_that_cannot_be_decoded_are_faults(data: bytes, kind: str, examined: Callable[..., Report]) -> None:
    report = examined({"bad": data}, items("bad"))
    assert kinds(report) == {kind: 1}
    assert report.faults == 1
    assert "bad" in report.findings[0].examples[0]


@pytest.mark.parametrize("mode", ["CMYK", "P", "RGBA", "1", "I;16"])
def test_odd_modes_are_noted_and_are_no_faults(mode: str, examined: Callable[..., Report]) -> None:
    odd = Image.fromarray(np.arange(0, 60_000, 10, dtype=np.uint16).reshape(60, 100)) if mode == "I;16" else None
    image = odd or picture(78).convert(mode)
    report = examined({"odd": encoded(image, "TIFF" if mode == "CMYK" else "PNG")}, items("odd"))
    assert kinds(report) == {f"image mode {mode}": 1}
    assert report.faults == 0


ROWS = [
    pytest.param({"id": "a", "images": ["3"], "texts": ["  "]}, "text that cannot be used", id="empty"),
    pytest.param({"id": "a", "images": ["3"], "texts": ["x" * 20_001]}, "text that cannot be used", id="too long"),
    pytest.param({"id": "a", "images": [], "texts": []}, "item without image and text", id="nothing"),
    pytest.param({"id": "a", "images": ["9"], "texts": ["x"]}, "image that is not there", id="missing image"),
    pytest.param({"id": "item-3", "images": ["3"], "texts": ["x"]}, "item id twice", id="id twice"),
    pytest.param(
        {"id": "a", "images": ["3"], "texts": ["x"], "target": 1}, "target that is no candidate", id="no candidate"
    ),
]


@pytest.mark.parametrize(("row", "kind"), ROWS)
def test_items_that_cannot_be_used_are_faults(
    row: Mapping[str, Any], kind: str, examined: Callable[..., Report]
) -> None:
    report = examined({}, [row])
    assert kinds(report) == {kind: 1}
    assert report.faults == 1
    assert report.findings[0].where == "data/test"


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ((0, 0, 96, 64), False),
        ((0, 0, 96.6, 64.9), False),
        ((0, 0, 98, 10), True),
        ((-2, 0, 10, 10), True),
        ((5, 60, 10, 10), True),
        ((5, 5, 0, 10), True),
        ((5, 5, float("nan"), 10), True),
    ],
)
def test_boxes_lie_in_their_image(
    box: tuple[float, float, float, float], fault: bool, examined: Callable[..., Report]
) -> None:
    report = examined({}, [{"id": "a", "images": ["3"], "texts": ["the cup"], "boxes": [box], "target": 0}])
    assert kinds(report) == ({"box outside the image": 1} if fault else {})


def test_boxes_are_those_of_the_upright_picture(examined: Callable[..., Report]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    turned = {"turned": encoded(picture(79), "JPEG", exif=exif, quality=95)}
    row = {"id": "a", "images": ["turned"], "texts": ["x"], "boxes": [(0.0, 0.0, 64.0, 96.0)]}
    assert kinds(examined(turned, [row])) == {}


def test_labels_and_answers_come_from_the_vocabulary(examined: Callable[..., Report]) -> None:
    rows = [
        {"id": "a", "images": ["3"], "texts": ["?"], "label": "yes", "answers": ["no", "what"]},
        {"id": "b", "images": ["3"], "texts": ["?"], "label": "maybe"},
        {"id": "c", "images": ["3"], "texts": ["?"], "answers": ["perhaps", "no"]},
        {"id": "d", "images": ["3"], "texts": ["?"], "answers": ["perhaps"]},
    ]
    report = examined({}, rows, vocabulary={"yes", "no"})
    assert kinds(report) == {"label outside the vocabulary": 1, "answers outside the vocabulary": 1}


def test_long_and_repeated_texts_are_noted(examined: Callable[..., Report]) -> None:
    rows = [
        {"id": "a", "images": ["3"], "texts": ["word " * 101]},
        {"id": "b", "images": ["3"], "texts": ["a cup", "a cup "]},
    ]
    report = examined({}, rows)
    assert kinds(report) == {"text of more than 100 words": 1, "text twice in an item": 1}
    assert report.faults == 0


def test_images_that_nobody_uses_are_noted(examined: Callable[..., Report]) -> None:
    assert kinds(examined({"spare": GOOD}, [])) == {"image that no item uses": 1}


def test_shards_that_do_not_fit_the_manifest_are_a_fault(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", clean(2), {"test": items("0", "1")})
    manifest = json.loads((tmp_path / "data/manifest.json").read_text())
    manifest["splits"]["test"]["count"] = 3
    (tmp_path / "data/manifest.json").write_text(json.dumps(manifest))
    assert kinds(examine([folder])) == {"manifest does not fit": 1}


def test_an_image_id_twice_is_a_fault(tmp_path: Path) -> None:
    with Writer(tmp_path / "data") as writer:
        for number in (1, 2):
            writer.image("same", encoded(picture(number)), "same.png")
        writer.item("test", "a", images=["same"], texts=["x"])
        writer.finish({"layout": "test"})
    assert kinds(examine([str(tmp_path / "data")])) == {"image id twice": 1}


# --- duplicates and overlaps ------------------------------------------------------------------------------------------

COPIES = [
    pytest.param(lambda: encoded(picture(3)), "bytes", id="the same bytes"),
    pytest.param(lambda: encoded(picture(3), "JPEG", quality=60), "look", id="saved as JPEG"),
    pytest.param(lambda: encoded(picture(3).resize((72, 48))), "look", id="smaller"),
    pytest.param(lambda: encoded(picture(3).resize((192, 128)), "WEBP", quality=70), "look", id="larger WebP"),
]


@pytest.mark.parametrize(("copy", "sign"), COPIES)
def test_a_copy_of_a_training_image_in_the_test_is_a_leak(copy: Callable[[], bytes], sign: str, tmp_path: Path) -> None:
    images = {**clean(10), "copy": copy()}
    splits = {"train": items(*"012345"), "test": items("6", "7", "8", "9", "copy")}
    report = examine([write(tmp_path / "data", images, splits)])
    (found,) = report.overlaps
    assert (found.name, found.level, found.images, found.total) == ("data/train:data/test", "leak", 1, 5)
    assert found.by == {"id": 0, "bytes": 0, "look": 0, sign: 1}
    assert found.examples == ("3 = copy",)
    assert report.leaks == ("data/train:data/test",)
    assert kinds(report) == {f"same {sign} under two ids": 1}
    assert report.faults == 0


def test_one_image_in_two_splits_is_a_leak_by_id(tmp_path: Path) -> None:
    report = examine([write(tmp_path / "data", clean(4), {"train": items("0", "1"), "test": items("1", "2", "3")})])
    assert [(found.images, found.by["id"]) for found in report.overlaps] == [(1, 1)]


def test_pictures_that_differ_in_colour_or_in_a_detail_are_no_copies(tmp_path: Path) -> None:
    detail = picture(3)
    ImageDraw.Draw(detail).rectangle((40, 20, 52, 32), fill="black")
    swapped = Image.merge("RGB", tuple(reversed(picture(3).split())))
    images = {**clean(6), "detail": encoded(detail), "swapped": encoded(swapped)}
    splits = {"train": items(*"012345"), "test": items("detail", "swapped")}
    report = examine([write(tmp_path / "data", images, splits)])
    assert report.overlaps == ()


def test_all_hashes_within_the_limit_are_found() -> None:
    draw = np.random.default_rng(0)
    those = draw.integers(0, 2**63, 200, dtype=np.uint64)
    flips = [draw.choice(64, number, replace=False) for number in draw.integers(0, 12, 200)]
    these = np.array(
        [value ^ np.uint64(sum(1 << int(bit) for bit in bits)) for value, bits in zip(those, flips, strict=True)]
    )
    expected = {index for index, bits in enumerate(flips) if len(bits) <= MAX_BITS}
    assert {i for i, j in near(these, those) if i == j} == expected
    assert {i for i, j in near(these, those)} == expected


def test_train_and_evaluation_data_are_compared_across_folders(tmp_path: Path) -> None:
    train = write(tmp_path / "web", clean(4), {"train": items(*"0123"), "val": items("0")})
    test = write(tmp_path / "eval", {"x": encoded(picture(2))} | clean(2, start=20), {"test": items("x", "20", "21")})
    report = examine([f"{train}:train"], [test])
    assert {found.name for found in report.overlaps} == {"web/train:web/val", "web/train:eval/test"}


def test_equal_ids_of_unrelated_folders_say_nothing(tmp_path: Path) -> None:
    train = write(tmp_path / "one", clean(3), {"train": items(*"012")})
    test = write(tmp_path / "two", {str(i): encoded(picture(50 + i)) for i in range(3)}, {"test": items(*"012")})
    assert examine([train], [test]).overlaps == ()


@pytest.mark.parametrize("image_id", ["coco:391895", "COCO_train2014_000000391895.jpg", "coco:000000391895"])
def test_ids_of_one_corpus_are_compared_between_its_layouts(image_id: str, tmp_path: Path) -> None:
    train = write(tmp_path / "coco", {"coco:391895": GOOD}, {"train": items("coco:391895")}, "coco-captions")
    test = write(tmp_path / "ref", {image_id: encoded(picture(5))}, {"testA": items(image_id)}, "refcoco")
    (found,) = examine([train], [test]).overlaps
    assert (found.by["id"], found.level) == (1, "standard overlap")
    assert "train2014" in found.reason


def test_the_coco_ids_that_visual_genome_tells_are_compared(tmp_path: Path) -> None:
    rows = [{"id": "a", "images": ["visual-genome:1"], "texts": ["x"], "fields": {"coco_id": "7"}}]
    train = write(tmp_path / "vg", {"visual-genome:1": GOOD}, {"train": rows}, "visual-genome")
    test = write(tmp_path / "coco", {"coco:7": encoded(picture(5))}, {"test": items("coco:7")}, "coco-captions")
    (found,) = examine([train], [test]).overlaps
    assert (found.level, found.by["id"]) == ("standard overlap", 1)


LEVELS = [
    (("visual-genome", "train"), ("coco-captions", "test"), "standard overlap"),
    (("visual-genome", "train"), ("refcoco", "testA"), "standard overlap"),
    (("visual-genome", "train"), ("aro", "test"), "standard overlap"),
    (("visual-genome", "train"), ("gqa", "testdev"), "standard overlap"),
    (("coco-captions", "train"), ("refcocog", "val"), "standard overlap"),
    (("coco-captions", "restval"), ("vqav2", "val"), "standard overlap"),
    (("coco-captions", "train"), ("vqav2", "val"), "leak"),
    (("coco-captions", "train"), ("sugarcrepe", "test"), "standard overlap"),
    (("flickr30k", "train"), ("snli-ve", "test"), "standard overlap"),
    (("snli-ve", "train"), ("flickr30k", "test"), "leak"),
    (("coco-captions", "train"), ("coco-captions", "test"), "leak"),
    (("refcoco", "train"), ("refcoco", "testA"), "leak"),
    (("image-folder", "train"), ("flickr30k", "test"), "leak"),
]


@pytest.mark.parametrize(("trained", "tested", "level"), LEVELS)
def test_what_the_field_shares_is_labelled_and_all_else_is_a_leak(
    trained: tuple[str, str], tested: tuple[str, str], level: str
) -> None:
    assert overlap.level(trained, tested)[0] == level


def test_a_leak_is_waived_by_name_alone(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", clean(2), {"train": items("0"), "test": items("0", "1")})
    report = examine([folder], waived=["data/train:data/test"])
    assert (report.leaks, report.overlaps[0].waived) == ((), True)
    with pytest.raises(SpecError, match=r"no overlap called 'data/test' to waive\. Found: data/train:data/test\."):
        examine([folder], waived=["data/test"])


# --- backbones --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trained_on", "layout", "level"),
    [
        ("Flickr30k captions (test included)", "flickr30k", "leak"),
        ("Flickr30k captions (test included)", "snli-ve", "leak"),
        ("COCO captions", "coco-captions", "standard overlap"),
        ("COCO captions", "flickr30k", None),
        ("SNLI", "snli-ve", "leak"),
        ("MultiNLI", "glue", "leak"),
        ("Quora question pairs", "glue", "leak"),
        ("ImageNet-1k", "coco-captions", None),
    ],
)
def test_what_a_backbone_has_seen_counts(trained_on: str, layout: str, level: str | None) -> None:
    assert seen.level(trained_on, layout) == level


def test_backbones_are_compared_with_what_is_tested_on(tmp_path: Path) -> None:
    test = write(tmp_path / "flickr", clean(2), {"train": items("0"), "test": items("1")}, "flickr30k")
    backbones = {"minilm": ("Reddit", "Flickr30k captions (test included)"), "other": Unknown("checked at build")}
    report = examine([test], backbones=backbones)
    assert [(found.name, found.level) for found in report.seen] == [("minilm:flickr/test", "leak")]
    assert report.leaks == ("minilm:flickr/test",)
    assert report.unknown == ("other",)


# --- what is examined -------------------------------------------------------------------------------------------------


def test_an_image_folder_is_examined_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rows = ["file,caption,split", "gone.png,a cup,train"]
    for number in range(4):
        (folder / f"{number}.png").write_bytes(b"broken" if number == 3 else encoded(picture(number)))
        rows.append(f"{number}.png,a cup,{'test' if number > 1 else 'train'}")
    (folder / "copy.png").write_bytes(encoded(picture(0)))
    rows.append("copy.png,a cup,test")
    (folder / "captions.csv").write_text("\n".join(rows))
    report = examine([str(folder)])
    assert kinds(report) == {"row that cannot be used": 1, "damaged image": 1, "same bytes under two ids": 1}
    assert report.leaks == ("pictures/train:pictures/test",)


def test_splits_are_chosen_and_unknown_ones_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", clean(2), {"dev": items("0"), "test": items("0", "1")})
    assert examine([folder]).overlaps == ()
    assert examine([f"{folder}:dev"]).leaks == ("data/dev:data/test",)
    with pytest.raises(DataError, match="has no split 'nope'; it has: dev, test"):
        examine([f"{folder}:nope"])


def test_two_data_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    given = [write(tmp_path / name / "data", clean(1), {"test": items("0")}) for name in "ab"]
    with pytest.raises(DataError, match="Two data sets are called 'data'"):
        examine(given)


def test_the_report_is_plain_data(examined: Callable[..., Report]) -> None:
    report = examined({"bad": b""}, items("bad"))
    data = json.loads(json.dumps(report.as_json()))
    assert (data["faults"], data["leaks"]) == (1, [])
    assert data["findings"][0]["kind"] == "damaged image"
