from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renaissance.data.captions import caption_key, clean_caption, normalise
from renaissance.data.load import load_data
from renaissance.data.readers.rows import ReadRecords
from renaissance.data.readers.sources import ArrowImage, arrow_batches
from renaissance.data.readers.tabular import read_images
from renaissance.errors import DataError, RenaissanceError, SampleError
from renaissance.recipe.data import Columns, ImagesData

Write = Callable[..., Path]
Picture = Callable[..., bytes]

ROWS = [
    {"image": f"{number}.png", "caption": f"picture number {number}", "kind": "ab"[number % 2]} for number in range(6)
]


def read(path: Path, tmp_path: Path, *, skip: bool = False, **columns: Any) -> ReadRecords:
    return read_images(path, Columns(**columns), cache=tmp_path / "cache", on_bad_sample="skip" if skip else "error")


def told(found: ReadRecords) -> list[tuple[str, tuple[str, ...]]]:
    return [(record.id, record.captions) for record in found.records]


# --- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["captions.jsonl", "captions.csv", "captions.tsv"])
@pytest.mark.parametrize("give_file", [True, False])
def test_a_caption_file_beside_its_images_is_read(
    pictures: Path, write: Write, tmp_path: Path, name: str, give_file: bool
) -> None:
    file = write(pictures / name, ROWS)
    found = read(file if give_file else pictures, tmp_path)
    assert told(found) == [(f"{number}.png", (f"picture number {number}",)) for number in range(6)]
    assert found.records[1].fields == {"kind": "b"}
    assert found.records[1].row == f"{name}, row 2"
    assert found.records[1].image.read() == (pictures / "1.png").read_bytes()
    assert f"{name}: column of images: 'image' (guessed)" in found.facts


def test_parquet_with_paths_is_read(pictures: Path, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), pictures / "captions.parquet")
    assert told(read(pictures, tmp_path))[5] == ("5.png", ("picture number 5",))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("as_struct", [True, False])
def test_parquet_with_images_inside_is_read_lazily_from_a_copy(
    tmp_path: Path, picture: Picture, as_struct: bool
) -> None:
    data = [picture(colour) for colour in ("red", "blue", "pink")]
    cells = [{"bytes": part, "path": None} for part in data] if as_struct else data
    file = tmp_path / "train.parquet"
    pq.write_table(
        pa.table({"image": cells, "text": ["red", "blue", "pink"], "image_id": [7, 8, 9]}), file, row_group_size=2
    )
    found = read(file, tmp_path)
    assert told(found) == [("7", ("red",)), ("8", ("blue",)), ("9", ("pink",))]
    assert [record.image.read() for record in found.records] == data
    assert len({record.image.name for record in found.records}) == 3
    made = list((tmp_path / "cache").iterdir())
    read(file, tmp_path)
    assert list((tmp_path / "cache").iterdir()) == made


def test_a_semicolon_a_byte_order_mark_and_quotes_are_understood(pictures: Path, tmp_path: Path) -> None:
    (pictures / "captions.csv").write_text(
        '\ufeffimage;caption\n0.png;"one; two\nthree"\n\n1.png;four\n', encoding="utf-8"
    )
    assert told(read(pictures, tmp_path)) == [("0.png", ("one; two three",)), ("1.png", ("four",))]


def test_a_dataset_saved_to_disk_is_read_without_decoding(tmp_path: Path, picture: Picture) -> None:
    datasets = pytest.importorskip("datasets")
    data = [picture(colour) for colour in ("red", "blue", "pink", "green")]
    columns = {
        "image": [{"bytes": part, "path": None} for part in data],
        "caption": ["a", "b", "c", "d"],
        "label": [1, 2, 3, 4],
    }
    features = datasets.Features(
        image=datasets.Image(), caption=datasets.Value("string"), label=datasets.Value("int64")
    )
    table = datasets.Dataset.from_dict(columns, features=features)
    table.save_to_disk(str(tmp_path / "one"), num_shards=2)
    datasets.DatasetDict(train=table.select([0, 1]), test=table.select([2, 3])).save_to_disk(str(tmp_path / "two"))
    one, two = read(tmp_path / "one", tmp_path), read(tmp_path / "two", tmp_path)
    assert [record.image.read() for record in one.records] == data
    assert [record.image.read() for record in two.records] == data
    assert [record.captions for record in two.records] == [("a",), ("b",), ("c",), ("d",)]
    assert [record.fields for record in two.records][1:3] == [
        {"label": "2", "split": "train"},
        {"label": "3", "split": "test"},
    ]
    assert len({record.id for record in two.records}) == 4


def test_an_arrow_image_is_small_when_it_is_sent_to_another_process(tmp_path: Path, picture: Picture) -> None:
    large = picture("red", 512)
    pq.write_table(pa.table({"image": [large], "text": ["red"]}), tmp_path / "a.parquet")
    image = read(tmp_path / "a.parquet", tmp_path).records[0].image
    assert isinstance(image, ArrowImage)
    sent = pickle.dumps(image)
    assert len(sent) < 600
    arrow_batches.cache_clear()
    assert pickle.loads(sent).read() == large


def test_an_arrow_file_that_is_gone_is_an_error_that_names_the_image(tmp_path: Path, picture: Picture) -> None:
    pq.write_table(pa.table({"image": [picture("red")], "text": ["red"]}), tmp_path / "a.parquet")
    record = read(tmp_path / "a.parquet", tmp_path).records[0]
    shutil.rmtree(tmp_path / "cache")
    arrow_batches.cache_clear()
    with pytest.raises(SampleError, match=r"a\.parquet, row 1"):
        record.image.read()


# --- columns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image", ["file_name", "Image Path", "filepath", "img"])
@pytest.mark.parametrize("caption", ["text", "Sentence", "title", "description"])
def test_columns_with_usual_names_are_found(
    pictures: Path, write: Write, tmp_path: Path, image: str, caption: str
) -> None:
    write(pictures / "a.csv", [{"other": "x y z", image: "0.png", caption: "a cup"}])
    assert told(read(pictures, tmp_path)) == [("0.png", ("a cup",))]


def test_columns_with_other_names_are_found_by_content(pictures: Path, write: Write, tmp_path: Path) -> None:
    write(pictures / "a.csv", [{"was": f"{n}.png", "said": "a cup of tea", "code": str(n)} for n in range(3)])
    found = read(pictures, tmp_path)
    assert found.records[2].captions == ("a cup of tea",)
    assert found.records[2].fields == {"code": "2"}
    assert "a.csv: column of images: 'was' (guessed)" in found.facts


def test_columns_that_are_given_are_used_and_not_told_as_guesses(pictures: Path, write: Write, tmp_path: Path) -> None:
    write(pictures / "a.csv", [{"image": "no.png", "caption": "x", "key": "k7", "file": "2.png", "titre": "une tasse"}])
    found = read(pictures, tmp_path, image="file", caption="titre", id="key")
    assert told(found) == [("k7", ("une tasse",))]
    assert found.facts == ()


def test_a_usual_name_that_holds_no_text_is_passed_over(pictures: Path, write: Write, tmp_path: Path) -> None:
    write(pictures / "a.jsonl", [{"image": "0.png", "caption": {"en": "x"}, "title": "a cup", "id": None, "uid": 3}])
    assert told(read(pictures, tmp_path))[0][1] == ("a cup",)


def test_images_in_a_folder_below_are_found(pictures: Path, write: Write, tmp_path: Path) -> None:
    (pictures.parent / "empty").mkdir()
    write(pictures.parent / "results.csv", [{"image": "0.png", "caption": "a cup"}])
    found = read(pictures.parent, tmp_path)
    assert told(found) == [("0.png", ("a cup",))]
    assert "images are in the folder 'pictures'" in found.facts


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([{"image": "0.png", "caption": ["one", "two"]}], {}),
        ([{"image": "0.png", "caption": '["one", "two"]'}], {}),
        ([{"image": "0.png", "caption": "one"}, {"image": "./0.png", "caption": "two"}], {}),
        ([{"image": "0.png", "caption_0": "one", "caption_1": "two"}], {}),
        ([{"image": "0.png", "x": "one", "y": ["two", "ONE"]}], {"caption": ("x", "y")}),
    ],
)
def test_an_image_may_have_several_captions(
    pictures: Path, write: Write, tmp_path: Path, rows: Any, columns: Any
) -> None:
    write(pictures / "a.jsonl", rows)
    assert told(read(pictures, tmp_path, **columns)) == [("0.png", ("one", "two"))]


def test_scalars_become_fields_and_nothing_else_does(pictures: Path, write: Write, tmp_path: Path) -> None:
    row = {
        "image": "0.png",
        "caption": "x",
        "n": 3,
        "f": 0.5,
        "b": True,
        "none": None,
        "list": [1],
        "dict": {"a": 1},
        "s": "",
    }
    write(pictures / "a.jsonl", [row])
    assert read(pictures, tmp_path).records[0].fields == {"n": "3", "f": "0.5", "b": "true", "s": ""}


def test_rows_of_one_image_that_differ_are_told_and_the_first_counts(
    pictures: Path, write: Write, tmp_path: Path
) -> None:
    rows = [{"image": "0.png", "caption": str(n), "id": n, "part": part} for n, part in enumerate(("train", "test"))]
    write(pictures / "a.jsonl", rows)
    found = read(pictures, tmp_path)
    assert told(found) == [("0.png", ("0", "1"))]
    assert found.records[0].fields == {"part": "train"}
    assert any("rows of one image differ in 'part'" in fact for fact in found.facts)
    assert any("'id' is no id of the image" in fact for fact in found.facts)
    with pytest.raises(DataError, match=r"row 2: the id is '1', in a\.jsonl, row 1 of this image '0'"):
        read(pictures, tmp_path, id="id")


def test_encoded_images_are_one_if_id_and_bytes_agree(tmp_path: Path, picture: Picture) -> None:
    cells = [picture(colour) for colour in ("red", "red", "blue", "blue")]
    table = pa.table({"image": cells, "text": ["a", "b", "c", "d"], "id": ["1", "1", "1", "2"]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert told(read(tmp_path / "a.parquet", tmp_path)) == [("1", ("a", "b")), ("1", ("c",)), ("2", ("d",))]


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": "none.png", "caption": "x"}, "none.png"),
        ({"image": "", "caption": "x"}, "the image is missing"),
        ({"image": None, "caption": "x"}, "the image is missing"),
        ({"image": 7, "caption": "x"}, "neither a path nor an encoded image"),
        ({"image": "0\0.png", "caption": "x"}, "neither a path nor an encoded image"),
        ({"image": "1.png", "caption": ""}, "the caption is empty"),
        ({"image": "1.png", "caption": " \u200b\n"}, "the caption is empty"),
        ({"image": "1.png", "caption": None}, "the caption is missing"),
        ({"image": "1.png"}, "the caption is missing"),
        ({"image": "1.png", "caption": []}, "the caption is missing"),
        ({"image": "1.png", "caption": float("nan")}, "the caption is missing"),
        ({"image": "1.png", "caption": 3}, "the caption is not text"),
        ({"image": "1.png", "caption": "\ud800"}, "not valid Unicode"),
        ({"image": "1.png", "caption": "x" * 10**6}, "1,000,000 characters"),
        (["no", "object"], "not a JSON object"),
        ("{", "not a JSON object"),
    ],
)
def test_a_bad_row_is_named_or_skipped_and_counted(
    pictures: Path, write: Write, tmp_path: Path, row: Any, message: str
) -> None:
    write(pictures / "a.jsonl", [{"image": "0.png", "caption": "fine"}, row, {"image": "2.png", "caption": "fine"}])
    with pytest.raises(SampleError) as caught:
        read(pictures, tmp_path)
    assert str(caught.value).startswith("a.jsonl, row 2: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    found = read(pictures, tmp_path, skip=True)
    assert [record.id for record in found.records] == ["0.png", "2.png"]
    assert len(found.skipped) == 1
    assert found.skipped[0].startswith("a.jsonl, row 2: ")


def test_a_line_that_is_no_json_or_has_too_many_cells_is_named(pictures: Path, tmp_path: Path) -> None:
    (pictures / "a.jsonl").write_text('{"image": "0.png", "caption": "x"}\n{"image": \n')
    with pytest.raises(SampleError, match=r"a\.jsonl, row 2: not JSON"):
        read(pictures / "a.jsonl", tmp_path)
    (pictures / "b.csv").write_text("image,caption\n0.png,one, two\n")
    with pytest.raises(SampleError, match=r"b\.csv, row 1: 3 values for 2 columns"):
        read(pictures / "b.csv", tmp_path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": "pic"}, "a.csv has no column 'pic'. It has: 'image', 'caption', 'kind'."),
        ({"caption": ("caption", "text")}, "a.csv has no column 'text'"),
        ({"id": "key"}, "a.csv has no column 'key'"),
    ],
)
def test_a_column_that_is_not_there_is_an_error_that_names_those_that_are(
    pictures: Path, write: Write, tmp_path: Path, columns: Any, message: str
) -> None:
    write(pictures / "a.csv", ROWS)
    with pytest.raises(DataError) as caught:
        read(pictures, tmp_path, **columns)
    assert message in str(caught.value)


def test_columns_that_cannot_be_guessed_are_asked_for(pictures: Path, write: Write, tmp_path: Path) -> None:
    write(pictures / "a.csv", [{"image": "0.png", "one": "a red cup", "two": "a blue cup"}])
    with pytest.raises(
        DataError, match=r"captions cannot be guessed: it could be 'one', 'two'. Set data.columns.caption"
    ):
        read(pictures, tmp_path)
    write(pictures / "a.csv", [{"where": "nowhere", "one": "a red cup"}])
    with pytest.raises(DataError, match=r"column of images cannot be guessed. Set data.columns.image"):
        read(pictures, tmp_path)


def test_nothing_left_is_an_error_that_says_why(pictures: Path, write: Write, tmp_path: Path) -> None:
    write(pictures / "a.csv", [{"image": "gone.png", "caption": "x"}])
    with pytest.raises(
        DataError, match=r"no image with a caption is left; the first fault: a\.csv, row 1: .*gone\.png"
    ):
        read(pictures, tmp_path, skip=True)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.tsv"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00garbage", b"\n\n", b"PAR1", b"image,caption\n", b"\x00" * 50])
def test_a_damaged_caption_file_is_a_typed_error(pictures: Path, tmp_path: Path, name: str, content: bytes) -> None:
    (pictures / name).write_bytes(content)
    with pytest.raises((DataError, SampleError)) as caught:
        read(pictures, tmp_path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("inside", [True, False])
def test_a_parquet_file_that_is_damaged_further_on_is_a_typed_error(
    pictures: Path, tmp_path: Path, picture: Picture, inside: bool
) -> None:
    image: object = picture("red") if inside else "0.png"
    rows = pa.table({"image": [image] * 400, "text": [f"caption {number}" for number in range(400)]})
    pq.write_table(rows, pictures / "a.parquet", row_group_size=50, compression="gzip", use_dictionary=False)
    data = bytearray((pictures / "a.parquet").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = b"\x00" * 64
    (pictures / "a.parquet").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.parquet: not a Parquet file, or damaged"):
        read(pictures, tmp_path)
    assert not list((tmp_path / "cache").glob("*"))


def test_an_id_that_is_no_unicode_text_does_no_harm(pictures: Path, write: Write, tmp_path: Path) -> None:
    write(pictures / "a.jsonl", [{**row, "id": f"{row['image']}\ud800"} for row in ROWS])
    data = ImagesData.model_validate({"path": str(pictures), "hold_out": [{"name": "t", "by": "id", "share": 0.2}]})
    found = load_data(data, cache=tmp_path, on_bad_sample="error", validation=1)
    assert (len(found.train), len(found.validation), len(found.splits["t"])) == (4, 1, 1)
    assert "6 images with 6 captions" in found.facts


def test_what_is_no_data_is_refused_with_the_next_step(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no data at '/?n+"):
        read_images(Path("n" * 300), Columns(), cache=tmp_path, on_bad_sample="error")
    with pytest.raises(DataError, match="There is no data at"):
        read(tmp_path / "nowhere", tmp_path)
    with pytest.raises(DataError, match="holds no caption file"):
        read(pictures, tmp_path)
    with pytest.raises(DataError, match="is not a caption file"):
        read(pictures / "0.png", tmp_path)
    for name in ("a.csv", "b.csv"):
        (pictures / name).touch()
    with pytest.raises(DataError, match="several caption files"):
        read(pictures, tmp_path)
    (pictures / "repeated.csv").write_text("image,image\n")
    with pytest.raises(DataError, match="the column 'image' stands twice"):
        read(pictures / "repeated.csv", tmp_path)
    with pytest.raises(DataError, match="does not say where its data are"):
        load_data(ImagesData(), cache=tmp_path, on_bad_sample="error", validation=0)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        '{"_data_files": [{"filename": "../x"}]}',
        '{"_data_files": [{"filename": "x"}]}',
        '{"_data_files": 3}',
    ],
)
def test_a_damaged_datasets_folder_is_a_typed_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(DataError):
        read(tmp_path, tmp_path)


# --- captions ---------------------------------------------------------------------------------------------------------


@given(st.text())
def test_a_caption_is_cleaned_or_refused(text: str) -> None:
    try:
        cleaned = clean_caption(text)
    except ValueError:
        return
    cleaned.encode("utf-8")
    assert cleaned == cleaned.strip() != ""
    assert clean_caption(cleaned) == cleaned


CAPTIONS: dict[str, tuple[object, str]] = {
    "plain": ("a red cup", "a red cup"),
    "spaces around": ("  a red cup\n", "a red cup"),
    "empty": ("", "the caption is empty"),
    "spaces": ("   \t\n", "the caption is empty"),
    "None": (None, "the caption is missing"),
    "NaN": (float("nan"), "the caption is missing"),
    "number": (3, "the caption is not text"),
    "list": (["a"], "the caption is not text"),
    "bytes": (b"a", "the caption is not text"),
    "lone surrogate": ("a \ud800 cup", "the caption is not valid Unicode"),
    "NUL": ("a\0red\0cup", "a red cup"),
    "NUL alone": ("\0", "the caption is empty"),
    "control characters": ("a\x1b[31m red\x7f cup", "a [31m red  cup"),
    "combining marks": ("e" + "\u0301" * 300, "e" + "\u0301" * 300),
    "combining marks alone": ("\u0301" * 300, "the caption is empty"),
    "joined emoji": ("👩\u200d🚀", "👩\u200d🚀"),
    "joiners alone": ("\u200d\u200b\ufe0f", "the caption is empty"),
    "right to left": ("\u202eכוס אדומה\u202c", "\u202eכוס אדומה\u202c"),
    "marks of direction alone": ("\u202e\u202c\u200f", "the caption is empty"),
    "byte order mark": ("\ufeffa red cup", "\ufeffa red cup"),
    "byte order mark alone": ("\ufeff", "the caption is empty"),
    "html": ("<b>a red</b>&nbsp;cup", "<b>a red</b>&nbsp;cup"),
    "a megabyte": ("word " * 2**18, "the caption has 1,310,720 characters, more than 20,000"),
    "no space": ("a" * 100_000, "the caption has 100,000 characters, more than 20,000"),
    "as long as may be": ("a" * 20_000, "a" * 20_000),
}


@pytest.mark.parametrize("name", CAPTIONS)
def test_each_kind_of_caption_has_its_stated_outcome(name: str) -> None:
    value, expected = CAPTIONS[name]
    try:
        assert clean_caption(value) == expected
    except ValueError as error:
        assert str(error) == expected  # noqa: PT017


@given(st.text(alphabet="aA. \u00e9"), st.text(alphabet="aA. \u00e9"))
def test_keys_agree_exactly_where_captions_do(one: str, other: str) -> None:
    assert (caption_key(one) == caption_key(other)) == (normalise(one) == normalise(other))
    assert 0 < caption_key(one) < 2**63


def test_captions_are_the_same_without_regard_to_case_width_space_and_full_stop() -> None:
    assert normalise("A  Red\u00a0cup.") == normalise("a red ｃｕｐ") == "a red cup"
    assert normalise("keycap: #") != normalise("keycap: *")
    assert normalise(".") == "."


def test_every_error_here_is_one_of_ours_whatever_a_row_holds(pictures: Path, tmp_path: Path) -> None:
    values: list[Any] = [
        None,
        0,
        1.5,
        True,
        [],
        {},
        [None],
        [[]],
        "x",
        "0.png",
        ["0.png"],
        {"bytes": None},
        "\ud800",
        '["',
        '["a", 3]',
    ]
    for image in values:
        for caption in values:
            (pictures / "a.jsonl").write_text(json.dumps({"image": image, "caption": caption}) + "\n")
            try:
                read(pictures, tmp_path, image="image", caption="caption")
            except RenaissanceError as error:
                assert "\n" not in str(error)  # noqa: PT017
