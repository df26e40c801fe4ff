"""GLUE: nine tasks, each a folder of tab-separated files; the root is the folder of all of them, or of one.

The published `QQP/train.tsv` has a few rows that are broken by line ends in them: leave them out with
`--on-bad-sample skip`. The labels of the test sets are not published.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from renaissance.data.layouts import Problems, RawItem, require
from renaissance.data.readers.labelled import label_of, splits_there, text_of, usable
from renaissance.data.readers.published_labelled import GLUE_PAGE
from renaissance.data.readers.streams import text_lines
from renaissance.errors import DataError

FILES = {"train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv"}
MNLI_FILES = {
    "train": "train.tsv",
    "dev-matched": "dev_matched.tsv",
    "dev-mismatched": "dev_mismatched.tsv",
    "test-matched": "test_matched.tsv",
    "test-mismatched": "test_mismatched.tsv",
}
_BINARY = ("0", "1")
_INFERENCE = ("entailment", "not_entailment")
_HIGHEST = 5.0  # score of STS-B


@dataclass(frozen=True, slots=True)
class Task:
    """A task of GLUE: its folder, the columns of its texts and labels, and its labels, none where it has scores."""

    folder: str
    texts: tuple[str, ...]
    label: str
    labels: tuple[str, ...] = ()


TASKS = {
    "cola": Task("CoLA", ("sentence",), "label", _BINARY),
    "sst2": Task("SST-2", ("sentence",), "label", _BINARY),
    "mrpc": Task("MRPC", ("#1 String", "#2 String"), "Quality", _BINARY),
    "qqp": Task("QQP", ("question1", "question2"), "is_duplicate", _BINARY),
    "stsb": Task("STS-B", ("sentence1", "sentence2"), "score"),
    "mnli": Task("MNLI", ("sentence1", "sentence2"), "gold_label", ("entailment", "neutral", "contradiction")),
    "qnli": Task("QNLI", ("question", "sentence"), "label", _INFERENCE),
    "rte": Task("RTE", ("sentence1", "sentence2"), "label", _INFERENCE),
    "wnli": Task("WNLI", ("sentence1", "sentence2"), "label", _BINARY),
}
# the files of CoLA have no header, but for that of the test
_COLA_COLUMNS = ("source", "label", "star", "sentence")


def read(root: Path, problems: Problems) -> Iterator[RawItem]:
    """Yield an item for each row of the tasks and splits that were downloaded; the field `subset` names the task.

    Raises:
        DataError: there is none, or a file lacks a column.
        SampleError: a row cannot be used, and bad samples are errors.
    """
    alone = [name for name, task in TASKS.items() if task.folder.lower() == root.resolve().name.lower()]
    folders = dict.fromkeys(alone, root) or {
        name: root / task.folder for name, task in TASKS.items() if (root / task.folder).is_dir()
    }
    if not folders:
        require(root, TASKS["cola"].folder, page=GLUE_PAGE)
    for name, folder in folders.items():
        files = splits_there(folder, MNLI_FILES if name == "mnli" else FILES, page=GLUE_PAGE)
        for split, file in files.items():
            rows = _rows(file, headed=name != "cola" or split == "test")
            yield from usable(rows, _Maker(name, split, file), problems)


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of a file: its number from 0, as submissions count, and its cells."""

    number: int
    columns: tuple[str, ...]
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the items of a file."""

    subset: str
    split: str
    file: Path

    def __call__(self, name: str, row: _Row) -> RawItem:
        task, labelled = TASKS[self.subset], not self.split.startswith("test")
        wanted = (*task.texts, task.label) if labelled else task.texts
        missing = [column for column in wanted if column not in row.columns]
        if missing:
            raise DataError(f"'{self.file}' has no column '{missing[0]}'. Download it again ({GLUE_PAGE}).")
        if len(row.cells) != len(row.columns):
            raise ValueError(f"it has {len(row.cells)} columns, not {len(row.columns)}")
        cells = dict(zip(row.columns, row.cells, strict=True))
        return RawItem(
            split=self.split,
            id=f"{self.subset}-{self.split}-{row.number}",
            row=name,
            images=(),
            texts=tuple(text_of(cells, column) for column in task.texts),
            label=_label(cells[task.label], task) if labelled else None,
            fields={"subset": self.subset},
        )


def _label(value: str, task: Task) -> str:
    if task.labels:
        return label_of(value, task.labels)
    if not 0 <= float(value) <= _HIGHEST:
        raise ValueError(f"the score {value} is not from 0 to {_HIGHEST:g}")
    return value


def _rows(file: Path, *, headed: bool) -> Iterator[tuple[str, _Row]]:
    columns: tuple[str, ...] | None = None if headed else _COLA_COLUMNS
    count = 0
    for number, line in text_lines(file):
        cells = tuple(line.split("\t"))
        if columns is None:
            columns = cells
        elif line:
            yield f"{file.parent.name}/{file.name}, line {number}", _Row(count, columns, cells)
            count += 1
