"""The published layouts that `renaissance data prepare` reads. Imports no torch.

Where each published count was read is said with it; what no source was found for is said too.
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
        counted="the split file, as others sum it: 113,287 images with 566,747 texts in train and restval, "
        "25,010 texts in test; arXiv 2201.12086, section 5, rounds to 113k/5k/5k images",
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
        counted="the split file, as arXiv 2201.12086, section 5, rounds it: 29k/1k/1k images; the exact 1,014 was not "
        "found elsewhere",
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
        counted="arXiv 1602.07332 says 108K images; 108,077 and 5,408,689 as works that read version 1.2 count them",
    ),
    Layout(
        name="conceptual-captions",
        summary="Conceptual Captions (CC3M): a caption from the web for each image that could be downloaded.",
        read=f"{_READERS}.conceptual:read_conceptual",
        page="ai.google.com/research/ConceptualCaptions/download",
        files=(),
        optional=("*_annot.json", "train.json", "val.json", "Train_GCC-training.tsv", "Validation_GCC-*.tsv"),
        counts={"train": 3_318_333, "val": 15_840},
        counted="ai.google.com/research/ConceptualCaptions; the dataset card conceptual_captions of the Hub",
    ),
    Layout(
        name="sbu",
        summary="SBU Captions: a Flickr title for each photo that could be downloaded.",
        read=f"{_READERS}.conceptual:read_sbu",
        page="www.cs.rice.edu/~vo9/sbucaptions",
        files=(),
        optional=("annot.json", "train_annot.json", "train.json", "SBU_captioned_photo_dataset_*.txt"),
        counts={"train": 1_000_000},
        counted="its name and paper, which say a million; no other count was found",
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
