"""Image classification and GLUE: labels from folders, bytes and tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from renaissance.data.prepared import Prepared
from renaissance.errors import DataError, SampleError
from tests.data.readers_labelled.corpora import ids, only, picture, skipped, write_images

Prepare = Callable[..., Prepared]


# --- folders of classes ----------------------------------------------------------------------------------------------


def test_folders_are_labels_in_the_order_of_their_names(root: Path, prepared: Prepare) -> None:
    write_images(root, "train/dog/b.png", "train/dog/a.JPEG", "train/cat/a.png", "val/dog/c.webp", "test/cat/d.bmp")
    data = prepared("image-classification", root)
    assert [(item.id, item.label) for item in data.items("train")] == [
        ("train/cat/a.png", "cat"),
        ("train/dog/a.JPEG", "dog"),
        ("train/dog/b.png", "dog"),
    ]
    item = only(data, "val")
    assert (item.label, item.texts) == ("dog", ())
    assert item.images[0].read() == (root / "val/dog/c.webp").read_bytes()
    assert data.splits == ("test", "train", "val")


def test_hidden_files_are_passed_over(root: Path, prepared: Prepare) -> None:
    write_images(root, "train/dog/a.png")
    (root / "train/dog/.DS_Store").write_bytes(b"x")
    (root / "train/.cache").mkdir()
    assert ids(prepared("image-classification", root), "train") == ["train/dog/a.png"]


def test_classes_that_train_lacks_and_what_is_no_image_are_told_of(root: Path, prepared: Prepare) -> None:
    write_images(root, "train/dog/a.png", "val/cow/b.png", "val/dog/c.png", "train/dog/more/d.png")
    (root / "train/dog/notes.txt").write_text("hello")
    (root / "train/empty").mkdir()
    assert skipped(prepared("image-classification", root, "skip")) == [
        "train/dog/more: it is a folder; the folder of a class holds images only",
        f"train/dog/notes.txt: The image '{root / 'train/dog/notes.txt'}' holds no picture of a known kind",
        "train/empty: the class has no image",
        "val/cow: the label 'cow' is none of the classes of 'train'",
    ]
    with pytest.raises(SampleError, match=r"train/dog/more"):
        prepared("image-classification", root)


def test_without_splits_the_first_is_named(root: Path, prepared: Prepare) -> None:
    write_images(root, "images/dog/a.png")
    with pytest.raises(DataError, match=r"has no 'train'"):
        prepared("image-classification", root)


# --- CIFAR-10 --------------------------------------------------------------------------------------------------------

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def write_cifar(root: Path, labels: tuple[int, ...] = (6, 9), name: str = "data_batch_1.bin") -> np.ndarray:
    """Write a batch in CIFAR-10's binary form; return its pixels [N, 32, 32, 3]."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (len(labels), 32, 32, 3), np.uint8)
    records = [bytes([label]) + image.transpose(2, 0, 1).tobytes() for label, image in zip(labels, pixels, strict=True)]
    (root / name).write_bytes(b"".join(records))
    (root / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n")
    return pixels


def test_records_become_pictures_without_loss(root: Path, prepared: Prepare) -> None:
    pixels = write_cifar(root)
    write_cifar(root, (0,), "test_batch.bin")
    data = prepared("cifar-10", root)
    items = list(data.items("train"))
    assert [item.label for item in items] == ["frog", "truck"]
    for item, expected in zip(items, pixels, strict=True):
        assert np.array_equal(np.asarray(picture(item)), expected)
    assert ids(data, "test") == ["test_batch-00000"]
    assert data.manifest["fraction"]["train"] == 2 / 50_000


def test_a_label_without_a_class_is_told_of(root: Path, prepared: Prepare) -> None:
    write_cifar(root, (6, 10))
    with pytest.raises(SampleError, match=r"data_batch_1.bin, record 1: the label 10 is none of 0 to 9"):
        prepared("cifar-10", root)


def test_a_truncated_batch_is_refused_with_the_page(root: Path, prepared: Prepare) -> None:
    write_cifar(root)
    file = root / "data_batch_1.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"truncated in record 1. Download it again .*cifar.html"):
        prepared("cifar-10", root, "skip")


def test_names_of_classes_must_be_ten(root: Path, prepared: Prepare) -> None:
    write_cifar(root)
    (root / "batches.meta.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match=r"names 2 classes, not 10"):
        prepared("cifar-10", root)


def test_missing_batches_are_named_with_the_page(root: Path, prepared: Prepare) -> None:
    with pytest.raises(DataError, match=r"'batches.meta.txt', '\*_batch\*.bin'.*cifar.html"):
        prepared("cifar-10", root)


# --- GLUE ------------------------------------------------------------------------------------------------------------

_MNLI = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
)
_STSB = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
TABLES = {
    "CoLA/train.tsv": "gj04\t1\t\tOur friends won't buy this.\ngj04\t0\t*\tThey drank \"the pub\n",
    "CoLA/test.tsv": "index\tsentence\n0\tBill whistled past the house.\n",
    "SST-2/dev.tsv": "sentence\tlabel\r\n\nit 's a charming journey . \t1\n\n",
    "MRPC/train.tsv": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tHe said so .\tSo he said .\n",
    "QQP/dev.tsv": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n9\t1\t2\tWhy?\tHow so?\t0\n",
    "STS-B/dev.tsv": f"{_STSB}\tscore\n0\tnews\tf\t2015\t1\tnone\tnone\tA man eats.\tA man is eating.\t4.750\n",
    "MNLI/dev_matched.tsv": f"{_MNLI}\tsentence1\tsentence2\tlabel1\tgold_label\n"
    "0\t1\t1e\tslate\t(\t(\t(\t(\tThe rights.\tNice.\tneutral\tneutral\n",
    "MNLI/test_mismatched.tsv": f"{_MNLI}\tsentence1\tsentence2\n0\t1\t1e\tslate\t(\t(\t(\t(\tOne.\tTwo.\n",
    "QNLI/train.tsv": "index\tquestion\tsentence\tlabel\n0\tWhen?\tIn 1990.\tentailment\n",
    "RTE/dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tnot_entailment\n",
    "WNLI/test.tsv": "index\tsentence1\tsentence2\n0\tIt fell.\tThe cup fell.\n",
}


def write_glue(root: Path, *names: str) -> None:
    for name in names or TABLES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(TABLES[name], encoding="utf-8", newline="")


def test_the_nine_tasks_have_their_texts_and_labels(root: Path, prepared: Prepare) -> None:
    write_glue(root)
    data = prepared("glue", root)
    found = {item.id: (item.texts, item.label) for split in data.splits for item in data.items(split)}
    assert found == {
        "cola-train-0": (("Our friends won't buy this.",), "1"),
        "cola-train-1": (('They drank "the pub',), "0"),
        "cola-test-0": (("Bill whistled past the house.",), None),
        "sst2-dev-0": (("it 's a charming journey .",), "1"),
        "mrpc-train-0": (("He said so .", "So he said ."), "1"),
        "qqp-dev-0": (("Why?", "How so?"), "0"),
        "stsb-dev-0": (("A man eats.", "A man is eating."), "4.750"),
        "mnli-dev-matched-0": (("The rights.", "Nice."), "neutral"),
        "mnli-test-mismatched-0": (("One.", "Two."), None),
        "qnli-train-0": (("When?", "In 1990."), "entailment"),
        "rte-dev-0": (("A.", "B."), "not_entailment"),
        "wnli-test-0": (("It fell.", "The cup fell."), None),
    }
    assert data.splits == ("dev", "dev-matched", "test", "test-mismatched", "train")
    assert data.manifest["images"]["count"] == 0


def test_one_task_can_be_prepared_alone(root: Path, prepared: Prepare) -> None:
    write_glue(root)
    data = prepared("glue", root / "SST-2")
    assert data.splits == ("dev",)
    assert only(data, "dev").fields == {"subset": "sst2"}


@pytest.mark.parametrize(
    ("name", "row", "fault"),
    [
        ("CoLA/train.tsv", b"gj04\t2\t\tA sentence.\n", "line 3: the label '2' is none of 0, 1"),
        ("RTE/dev.tsv", b"1\tA.\tB.\tneutral\n", "line 3: the label 'neutral' is none of entailment, not_entailment"),
        ("QQP/dev.tsv", b"7\t1\t2\tbroken\n", "line 3: it has 4 columns, not 6"),
        ("SST-2/dev.tsv", b"caf\xe9\t1\n", "line 5: 'sentence': the text is not valid Unicode"),
        ("SST-2/dev.tsv", b" \t1\n", "line 5: 'sentence': the text is empty"),
        ("STS-B/dev.tsv", b"1\tn\tf\t1\t1\tn\tn\tA.\tB.\t5.5\n", "line 3: the score 5.5 is not from 0 to 5"),
        ("STS-B/dev.tsv", b"1\tn\tf\t1\t1\tn\tn\tA.\tB.\tnan\n", "line 3: the score nan is not from 0 to 5"),
        ("STS-B/dev.tsv", b"1\tn\tf\t1\t1\tn\tn\tA.\tB.\tx\n", "line 3: could not convert string to float: 'x'"),
    ],
)
def test_a_row_that_cannot_be_used_is_told_of(root: Path, prepared: Prepare, name: str, row: bytes, fault: str) -> None:
    write_glue(root, name)
    file = root / name
    file.write_bytes(file.read_bytes() + row)
    with pytest.raises(SampleError) as error:
        prepared("glue", root)
    assert str(error.value).startswith(f"{name}, {fault}")
    assert len(skipped(prepared("glue", root, "skip"))) == 1


def test_a_file_without_its_column_is_refused(root: Path, prepared: Prepare) -> None:
    write_glue(root, "RTE/dev.tsv")
    (root / "RTE" / "train.tsv").write_text(TABLES["WNLI/test.tsv"])
    with pytest.raises(DataError, match=r"train.tsv' has no column 'label'. Download it again .gluebenchmark.com"):
        prepared("glue", root)


def test_missing_tasks_and_files_are_named_with_the_page(root: Path, prepared: Prepare) -> None:
    (root / "readme.txt").write_text("empty")
    with pytest.raises(DataError, match=r"has no 'CoLA'.*gluebenchmark.com/tasks"):
        prepared("glue", root)
    (root / "MNLI").mkdir()
    with pytest.raises(DataError, match=r"MNLI' has no 'train.tsv'"):
        prepared("glue", root)
