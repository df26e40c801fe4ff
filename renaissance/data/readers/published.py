"""The published layouts that `renaissance data prepare` reads. Imports no torch.

Where the published counts come from: COCO and Flickr30k from the split files of Karpathy and Fei-Fei; Visual Genome
from its page; Conceptual Captions and SBU from theirs (rows of URLs, of which fewer can be downloaded).
"""

from __future__ import annotations

from collections.abc import Mapping

from renaissance.data.layouts import Layout
from renaissance.data.readers.published_labelled import LABELLED

_READERS = "renaissance.data.readers"
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".arrow")

_CAPTIONS = (
    Layout(
        name="coco-captions",
        summary="COCO 2014 with five captions an image, in the splits of Karpathy and Fei-Fei.",
        read=f"{_READERS}.coco:read",
        page="cs.stanford.edu/people/karpathy/deepimagesent for dataset_coco.json; cocodataset.org for the images",
        files=("dataset_coco.json", "train2014/", "val2014/"),
        counts={"train": 82_783, "restval": 30_504, "val": 5_000, "test": 5_000, "images": 123_287},
        texts={"train": 414_113, "restval": 152_634, "val": 25_010, "test": 25_010},
    ),
    Layout(
        name="flickr30k",
        summary="Flickr30k with five captions an image, in the splits of Karpathy and Fei-Fei.",
        read=f"{_READERS}.flickr30k:read",
        page="cs.stanford.edu/people/karpathy/deepimagesent for dataset_flickr30k.json; "
        "shannon.cs.illinois.edu/DenotationGraph for the images",
        files=("dataset_flickr30k.json", "flickr30k-images/"),
        counts={"train": 29_000, "val": 1_014, "test": 1_000, "images": 31_014},
        texts={"train": 145_000, "val": 5_070, "test": 5_000},
    ),
    Layout(
        name="visual-genome",
        summary="Visual Genome: each image with the descriptions of its regions, and their boxes.",
        read=f"{_READERS}.visual_genome:read",
        page="homes.cs.washington.edu/~ranjay/visualgenome",
        files=("region_descriptions.json", "VG_100K/", "VG_100K_2/"),
        optional=("image_data.json",),
        counts={"train": 108_077, "images": 108_077},
        texts={"train": 5_408_689},
    ),
    Layout(
        name="conceptual-captions",
        summary="Conceptual Captions (CC3M): a caption from the web for each image that could be downloaded.",
        read=f"{_READERS}.conceptual:read_conceptual",
        page="ai.google.com/research/ConceptualCaptions/download",
        files=(),
        optional=("*_annot.json", "train.json", "val.json", "Train_GCC-training.tsv", "Validation_GCC-*.tsv"),
        counts={"train": 3_318_333, "val": 15_840},
    ),
    Layout(
        name="sbu",
        summary="SBU Captions: a Flickr title for each photo that could be downloaded.",
        read=f"{_READERS}.conceptual:read_sbu",
        page="www.cs.rice.edu/~vo9/sbucaptions",
        files=(),
        optional=("annot.json", "train_annot.json", "train.json", "SBU_captioned_photo_dataset_*.txt"),
        counts={"train": 1_000_000},
    ),
    Layout(
        name="image-folder",
        summary="Any folder of images with a CSV, TSV, JSONL or Parquet file of captions; one such folder a split; or "
        "what `datasets` saved.",
        read=f"{_READERS}.image_folder:read",
        page="your own data: docs/data.md says which columns are known",
        files=(),
        optional=tuple(f"{place}*{suffix}" for place in ("", "*/") for suffix in _TABLES),
    ),
    Layout(
        name="webdataset",
        summary="Tar shards of key.jpg with key.txt or key.json, as img2dataset writes them; or one folder a split.",
        read=f"{_READERS}.webdataset:read",
        page="your own data: img2dataset writes such shards",
        files=(),
        optional=("*.tar", "*/*.tar"),
    ),
)  # fmt: skip

LAYOUTS: Mapping[str, Layout] = {layout.name: layout for layout in (*_CAPTIONS, *LABELLED)}


def rows() -> list[tuple[str, str, str]]:
    """Return name, published counts and summary of each layout."""
    return [(layout.name, published_counts(layout), layout.summary) for layout in LAYOUTS.values()]


def published_counts(layout: Layout) -> str:
    """Return the published number of items of each split, and of their texts in brackets."""
    counts = []
    for split, count in layout.counts.items():
        texts = f" ({layout.texts[split]:,})" if split in layout.texts else ""
        counts.append(f"{split} {count:,}{texts}")
    return ", ".join(counts)
