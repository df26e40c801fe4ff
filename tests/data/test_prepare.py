"""From a published layout to prepared data: exact, flat in memory, whole or not at all, and no fault passed over."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest

from renaissance.data.layouts import Layout, Problems, RawImage, RawItem
from renaissance.data.prepare import check, prepare
from renaissance.data.prepared import Prepared
from renaissance.data.readers.published import LAYOUTS
from renaissance.errors import DataError, OutputError, SampleError
from tests.data.readers.builders import coco, encoded, flickr30k, shard, visual_genome

ITEMS: list[RawItem] = []


def given(root: Path, problems: Problems) -> Iterator[RawItem]:
    """A reader that gives the items of the test."""
    yield from ITEMS


MADE = Layout(name="made", summary="", read=f"{__name__}:given", page="nowhere.example", files=())


@pytest.fixture
def item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Add an item to those that the layout MADE gives, with a picture for each of its images."""
    # the module that pytest made of this file has a name that only it knows
    monkeypatch.setitem(sys.modules, __name__, sys.modules[given.__module__])
    ITEMS.clear()

    def add(
        id_: str = "a", *, split: str = "train", images: tuple[str, ...] = ("0.jpg",), text: str = "a", key: str = ""
    ) -> None:
        paths = [tmp_path / name for name in images]
        for number, path in enumerate(paths):
            if not path.exists() and "gone" not in path.name:
                path.write_bytes(encoded(number + len(ITEMS)))
        raw = tuple(RawImage(key or path.name, path) for path in paths)
        ITEMS.append(RawItem(split=split, id=id_, row=f"row {len(ITEMS)}", images=raw, texts=(text,)))

    yield add
    ITEMS.clear()


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


# --- what is written ------------------------------------------------------------------------------------------------


def test_every_item_and_image_comes_through_as_published(tmp_path: Path) -> None:
    file = coco(tmp_path / "coco", images=8)
    prepare("coco-captions", tmp_path / "coco", tmp_path / "out")
    prepared = Prepared(tmp_path / "out")
    found = {item.id: (split, item) for split in prepared.splits for item in prepared.items(split)}
    assert len(found) == 8
    for entry in file["images"]:
        split, item = found[str(entry["cocoid"])]
        assert split == entry["split"]
        assert item.texts == tuple(sentence["raw"] for sentence in entry["sentences"])
        assert item.images[0].read() == (tmp_path / "coco" / entry["filepath"] / entry["filename"]).read_bytes()


def test_the_manifest_says_what_it_was_made_of_and_how_much_of_the_corpus_that_is(tmp_path: Path) -> None:
    visual_genome(tmp_path / "vg")
    manifest = prepare("visual-genome", tmp_path / "vg", tmp_path / "out")
    assert manifest == json.loads((tmp_path / "out" / "manifest.json").read_text())
    files = ("image_data.json", "region_descriptions.json")
    content = {name: (tmp_path / "vg" / name).read_bytes() for name in files}
    assert manifest["sources"] == [
        {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in content.items()
    ]
    assert (manifest["layout"], manifest["reader"], manifest["on_bad_sample"]) == ("visual-genome", 1, "error")
    assert manifest["counts"] == {"train": {"items": 2, "images": 2, "texts": 6}}
    assert manifest["published"] == {"items": {"train": 108_077, "images": 108_077}, "texts": {"train": 5_408_689}}
    assert manifest["fraction"] == {"all": 0.000019, "train": 0.000019, "images": 0.000019}
    assert manifest["skipped"] == {"count": 0, "missing": 0, "rows": []}


def test_the_same_files_give_the_same_bytes_wherever_they_are(tmp_path: Path) -> None:
    coco(tmp_path / "coco", images=8)
    shutil.copytree(tmp_path / "coco", tmp_path / "elsewhere")
    prepare("coco-captions", tmp_path / "coco", tmp_path / "one")
    prepare("coco-captions", tmp_path / "elsewhere", tmp_path / "two")
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


def test_datasets_opens_what_was_written(tmp_path: Path) -> None:
    flickr30k(tmp_path / "flickr30k")
    prepare("flickr30k", tmp_path / "flickr30k", tmp_path / "out")
    files = str(next((tmp_path / "out").glob("images-*.parquet")))
    rows = datasets.Dataset.from_parquet(files, cache_dir=str(tmp_path / "cache"))
    assert [row["image"].size for row in rows] == [(8, 6)] * 3


def test_an_image_of_several_items_is_written_once_and_counted_in_each_split(tmp_path: Path, item) -> None:
    item("a", images=("0.jpg", "1.jpg"))
    item("b", images=("1.jpg",))
    item("a", split="test", images=("1.jpg",))
    manifest = prepare(MADE, tmp_path, tmp_path / "out")
    assert manifest["images"]["count"] == 2
    assert {split: count["images"] for split, count in manifest["counts"].items()} == {"test": 1, "train": 2}
    assert "fraction" not in manifest


def test_languages_are_counted_where_they_are_known(pictures: Path, tmp_path: Path, write) -> None:
    rows = [{"image": f"{n}.png", "caption": "a", "language": lang} for n, lang in enumerate(("de", "en", "de"))]
    write(pictures / "captions.csv", rows)
    assert prepare("image-folder", pictures, tmp_path / "out")["languages"] == {"de": 2, "en": 1}
    coco(tmp_path / "coco")
    (tmp_path / "coco" / "oracle.json").write_text('{"layout": "coco-captions", "language": "es", "answers": {}}')
    assert check("coco-captions", tmp_path / "coco")["languages"] == {"es": 4}


# --- what cannot be used --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faulty", "fault"),
    [
        ({"id_": "ok"}, "the id 'ok' stands twice in 'train'"),
        ({"images": ("0.jpg", "gone.jpg")}, "The image '{root}/gone.jpg' cannot be read (No such file or directory)"),
        ({"images": ("empty.jpg",)}, "The image '{root}/empty.jpg' is empty"),
        ({"images": ("page.jpg",)}, "The image '{root}/page.jpg' holds no picture of a known kind"),
        ({"images": ("2.jpg",), "key": "0.jpg"}, "the image id '0.jpg' is that of '{root}/0.jpg', and of "
         "'{root}/2.jpg' as well"),
        ({"text": "caf\udce9"}, "a text in it is not valid Unicode: the file is not UTF-8 there"),
        ({"split": "images"}, "'images' cannot be the name of a split (letters, digits, '_', '-' and '.')"),
        ({"split": "../x"}, "'../x' cannot be the name of a split (letters, digits, '_', '-' and '.')"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_used_is_an_error_or_left_out_and_counted(
    tmp_path: Path, item, faulty: dict[str, object], fault: str
) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    item("ok")
    item(**{"id_": "bad", **faulty})
    item("good", images=("3.jpg",))
    manifest = prepare(MADE, tmp_path, tmp_path / "out", on_bad_sample="skip", skip_budget=0.5)
    line = f"row 1: {fault.format(root=tmp_path)}"
    assert manifest["skipped"] == {"count": 1, "missing": int("No such file" in fault), "rows": [line]}
    assert [found.id for found in Prepared(tmp_path / "out").items("train")] == ["ok", "good"]
    assert manifest["images"]["count"] == 2
    with pytest.raises(SampleError) as caught:
        prepare(MADE, tmp_path, tmp_path / "again")
    assert str(caught.value) == f"{line}. Mend it, or leave such rows out with --on-bad-sample skip."
    assert not [path for path in tmp_path.iterdir() if "again" in path.name]


def test_a_truncated_picture_is_found_where_images_are_checked(tmp_path: Path) -> None:
    coco(tmp_path / "coco")
    broken = tmp_path / "coco" / "val2014" / "COCO_val2014_000000000002.jpg"
    broken.write_bytes(broken.read_bytes()[:-60])
    prepare("coco-captions", tmp_path / "coco", tmp_path / "unchecked")
    with pytest.raises(SampleError, match=r"dataset_coco\.json, image 3: .*000000000002\.jpg"):
        prepare("coco-captions", tmp_path / "coco", tmp_path / "out", check_images=True)
    assert check("coco-captions", tmp_path / "coco", check_images=True)["skipped"]["count"] == 1


def test_lines_of_rows_left_out_are_kept_up_to_a_thousand(tmp_path: Path, item) -> None:
    item("ok")
    for number in range(1200):
        item(f"bad{number}", images=("gone.jpg",))
    skipped = check(MADE, tmp_path)["skipped"]
    assert (skipped["count"], len(skipped["rows"])) == (1200, 1000)


@pytest.mark.parametrize("on_bad_sample", ["error", "skip"])
def test_a_missing_file_is_named_with_its_download_page(tmp_path: Path, on_bad_sample) -> None:
    coco(tmp_path / "coco")
    (tmp_path / "coco" / "dataset_coco.json").unlink()
    with pytest.raises(
        DataError, match=r"has no 'dataset_coco\.json'\. Download it \(cs\.stanford\.edu/people/karpathy"
    ):
        prepare("coco-captions", tmp_path / "coco", tmp_path / "out", on_bad_sample=on_bad_sample)
    assert not (tmp_path / "out").exists()


def test_half_a_corpus_is_an_error_or_prepared_with_its_fraction(tmp_path: Path) -> None:
    coco(tmp_path / "coco", images=8)
    shutil.rmtree(tmp_path / "coco" / "train2014")
    with pytest.raises(
        DataError, match=r"has no 'train2014/'.* A part of the images is enough with --on-bad-sample skip"
    ):
        prepare("coco-captions", tmp_path / "coco", tmp_path / "out")
    manifest = prepare("coco-captions", tmp_path / "coco", tmp_path / "out", on_bad_sample="skip")
    assert sorted(manifest["counts"]) == ["restval", "test", "val"]
    assert manifest["fraction"]["train"] == 0
    assert manifest["fraction"]["val"] == 2 / 5000
    assert (manifest["skipped"]["count"], manifest["skipped"]["missing"]) == (3, 3)
    assert manifest["skipped"]["rows"][0] == "train2014/: this folder of images is not there"


@pytest.mark.parametrize(("budget", "allowed"), [(0.001, 0), (0.299, 2), (0.3, 3)])
def test_more_bad_rows_than_the_budget_are_an_error_and_missing_images_are_none(
    tmp_path: Path, item, budget: float, allowed: int
) -> None:
    for number in range(7):
        item(f"good{number}", images=(f"{number}.jpg",))
    for number in range(3):
        item("good0")  # a second time
        item(f"absent{number}", images=("gone.jpg",))
    out = tmp_path / "out"
    if allowed == 3:
        assert prepare(MADE, tmp_path, out, on_bad_sample="skip", skip_budget=budget)["skipped"]["count"] == 6
        return
    with pytest.raises(DataError) as caught:
        prepare(MADE, tmp_path, out, on_bad_sample="skip", skip_budget=budget)
    assert str(caught.value) == (
        f"3 of 10 rows of made cannot be used, and --skip-budget {budget:g} allows {allowed}. One of them: row 7: the "
        "id 'good0' stands twice in 'train'. Mend or remove them, or raise --skip-budget."
    )
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_a_corpus_of_which_nothing_can_be_used_is_an_error(tmp_path: Path, item) -> None:
    item(images=("gone.jpg",))
    with pytest.raises(DataError, match=r"can be used as made\. The first fault: row 0: The image"):
        prepare(MADE, tmp_path, tmp_path / "out", on_bad_sample="skip")
    with pytest.raises(DataError, match="There is no folder"):
        prepare(MADE, tmp_path / "nowhere", tmp_path / "out")


def test_an_unknown_layout_is_an_error_that_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No layout is called 'coco-caption'\. Did you mean 'coco-captions'"):
        prepare("coco-caption", tmp_path, tmp_path / "out")


def test_what_is_there_is_never_written_over(tmp_path: Path) -> None:
    coco(tmp_path / "coco")
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        prepare("coco-captions", tmp_path / "coco", tmp_path / "out")


def test_an_interruption_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco(tmp_path / "coco", images=8)

    def interrupted(items: Iterator[RawItem], total: int, what: str) -> Iterator[RawItem]:
        yield next(items)
        raise KeyboardInterrupt

    class Impatient:
        track = staticmethod(interrupted)

    with pytest.raises(KeyboardInterrupt):
        prepare("coco-captions", tmp_path / "coco", tmp_path / "out", progress=Impatient())  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]


# --- check ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["coco-captions", "flickr30k", "visual-genome"])
def test_check_tells_what_prepare_would_write_and_writes_nothing(tmp_path: Path, layout: str) -> None:
    {"coco-captions": coco, "flickr30k": flickr30k, "visual-genome": visual_genome}[layout](tmp_path / "root")
    told = check(layout, tmp_path / "root")
    assert [path.name for path in tmp_path.iterdir()] == ["root"]
    manifest = prepare(layout, tmp_path / "root", tmp_path / "out")
    assert told == {key: manifest[key] for key in told}
    assert told["counts"]


def test_check_reads_on_after_a_fault(tmp_path: Path) -> None:
    coco(tmp_path / "coco", images=8)
    for number in (0, 4):
        (tmp_path / "coco" / "train2014" / f"COCO_train2014_{number:012d}.jpg").unlink()
    told = check("coco-captions", tmp_path / "coco")
    assert (told["skipped"]["count"], sorted(told["counts"])) == (2, ["restval", "test", "val"])


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_has_its_reader_and_names_what_is_missing(tmp_path: Path, layout: Layout) -> None:
    assert callable(layout.reader())
    with pytest.raises(DataError, match=re.escape(str(tmp_path))):
        check(layout, tmp_path)


# --- memory ---------------------------------------------------------------------------------------------------------


PEAK = """
import sys
from pathlib import Path
from renaissance.data.prepare import prepare
prepare(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")), "torch" in sys.modules)
"""


def peak(layout: str, root: Path) -> int:
    """Return the peak of the memory of a process that prepares a corpus, in kB."""
    command = [sys.executable, "-c", PEAK, layout, str(root), str(root.with_suffix(".out"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    kilobytes, torch = done.stdout.split()
    assert torch == "False"
    return int(kilobytes)


@pytest.mark.parametrize("layout", ["coco-captions", pytest.param("webdataset", marks=pytest.mark.slow)])
def test_ten_times_the_captions_take_no_more_memory(tmp_path: Path, layout: str) -> None:
    for captions in (2_000, 20_000):
        root = tmp_path / str(captions)
        if layout == "coco-captions":
            coco(root, images=captions // 5, words=60)
        else:
            text = b"word " * 60
            members = (((f"{n}.jpg", encoded(n)), (f"{n}.txt", text)) for n in range(captions))
            shard(root / "0.tar", [member for pair in members for member in pair])
    small, large = (peak(layout, tmp_path / str(captions)) for captions in (2_000, 20_000))
    # buffers of a megabyte or two fill up, then it stays: 174 MB of annotations take 3 MB more than these 27 MB, which
    # parsed at once would take 90 MB
    assert large - small < 32_000, f"{small:,} kB and {large:,} kB"
