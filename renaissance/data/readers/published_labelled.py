"""The published layouts of labelled corpora, and where they are downloaded. Imports no torch.

Where each published count was read is said with it. RefCOCO's are of sentences, as items are. GLUE has none here, as
any of its nine tasks may be prepared alone; nor has SugarCrepe, whose total is not settled here.
"""

from __future__ import annotations

from renaissance.data.layouts import Layout

_READERS = "renaissance.data.readers"

VQAV2_PAGE = "visualqa.org/download.html"
GQA_PAGE = "cs.stanford.edu/people/dorarad/gqa/download.html"
NLVR2_PAGE = "lil.nlp.cornell.edu/nlvr; github.com/lil-lab/nlvr says how to get the images"
SNLI_VE_PAGE = "github.com/necla-ml/SNLI-VE; shannon.cs.illinois.edu/DenotationGraph for the images"
REFCOCO_PAGE = "github.com/lichengunc/refer; cocodataset.org for the images"
WINOGROUND_PAGE = "huggingface.co/datasets/facebook/winoground"
ARO_PAGE = "github.com/mertyg/vision-language-models-are-bows"
SUGARCREPE_PAGE = "github.com/RAIVNLab/sugar-crepe; cocodataset.org for the images"
IMAGE_CLASSIFICATION_PAGE = "your own data: a folder of images for each class, below train/, val/ and test/"
ITEMS_PAGE = "your own data: a file of JSON lines for each split, and the images that they name"
CIFAR10_PAGE = "www.cs.toronto.edu/~kriz/cifar.html, binary version"
GLUE_PAGE = "gluebenchmark.com/tasks"

SUGARCREPE_SUBSETS = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
ORDER_FILES = ("coco_karpathy_test.json", "flickr30k_test.json")

_REFCOCO_FILES = ("instances.json", "refs(*).*")
_REFCOCO_OPTIONAL = ("detections.json", "train2014/")

LABELLED = (
    Layout(
        name="vqav2",
        summary="VQAv2: questions on COCO images with ten answers each.",
        read=f"{_READERS}.vqav2:read",
        page=VQAV2_PAGE,
        files=("v2_OpenEnded_mscoco_*_questions.json",),
        optional=("v2_mscoco_*_annotations.json", "train2014/", "val2014/", "test2015/"),
        counts={"train": 443_757, "val": 214_354, "test-dev": 107_394, "test": 447_793, "images": 204_721},
        counted="visualqa.org/download.html; test-dev and the number of images were not found there",
    ),
    Layout(
        name="gqa",
        summary="GQA, balanced: questions on Visual Genome images, made from their scene graphs.",
        read=f"{_READERS}.gqa:read",
        page=GQA_PAGE,
        files=("*_balanced_questions.json", "images/"),
        counts={"train": 943_000, "val": 132_062, "testdev": 12_578, "test": 95_336},
        counted="train, val and testdev as works that read version 1.2 count them; test was not found elsewhere",
    ),
    Layout(
        name="nlvr2",
        summary="NLVR2: is a sentence true of two photos?",
        read=f"{_READERS}.nlvr2:read",
        page=NLVR2_PAGE,
        files=("*.json",),
        optional=("images/", "dev/", "test1/"),
        counts={"train": 86_373, "dev": 6_982, "test1": 6_967},
        counted="with the 6,970 of the hidden test set they sum to the 107,292 of lil.nlp.cornell.edu/nlvr",
    ),
    Layout(
        name="snli-ve",
        summary="SNLI-VE: does a Flickr30k photo entail a hypothesis, contradict it, or neither?",
        read=f"{_READERS}.snli_ve:read",
        page=SNLI_VE_PAGE,
        files=("snli_ve_*.jsonl", "flickr30k-images/"),
        counts={"train": 529_527, "dev": 17_858, "test": 17_901, "images": 31_783},
        counted="github.com/necla-ml/SNLI-VE, README.md",
    ),
    Layout(
        name="refcoco",
        summary="RefCOCO: expressions that refer to one thing in a COCO image, given in a game.",
        read=f"{_READERS}.refcoco:read",
        page=REFCOCO_PAGE,
        files=_REFCOCO_FILES,
        optional=_REFCOCO_OPTIONAL,
        counts={"train": 120_624, "val": 10_834, "testA": 5_657, "testB": 5_095, "images": 19_994},
        counted="as works that read the archives count sentences, in the splits of UNC; papers say 142,210 "
        "in 19,994 images",
    ),
    Layout(
        name="refcoco+",
        summary="RefCOCO+: as RefCOCO, without words for places.",
        read=f"{_READERS}.refcoco:read_plus",
        page=REFCOCO_PAGE,
        files=_REFCOCO_FILES,
        optional=_REFCOCO_OPTIONAL,
        counts={"train": 120_191, "val": 10_758, "testA": 5_726, "testB": 4_889, "images": 19_992},
        counted="as works that read the archives count sentences, in the splits of UNC; papers say 141,564 "
        "in 19,992 images",
    ),
    Layout(
        name="refcocog",
        summary="RefCOCOg: as RefCOCO, with longer expressions, given without a game.",
        read=f"{_READERS}.refcoco:read_g",
        page=REFCOCO_PAGE,
        files=_REFCOCO_FILES,
        optional=_REFCOCO_OPTIONAL,
        counts={"train": 80_512, "val": 4_896, "test": 9_602, "images": 25_799},
        counted="as works that read the archives count sentences, in the splits of UMD; no other "
        "count of images was found",
    ),
    Layout(
        name="winoground",
        summary="Winoground: two images and two captions with the same words in another order.",
        read=f"{_READERS}.winoground:read",
        page=WINOGROUND_PAGE,
        files=("examples.jsonl", "images/"),
        counts={"test": 400, "images": 800},
        counted="arXiv 2204.03162: 400 items of two images",
    ),
    Layout(
        name="aro",
        summary="ARO: relations, attributes and the order of words, each caption against changed ones.",
        read=f"{_READERS}.aro:read",
        page=ARO_PAGE,
        files=("*.json",),
        optional=("images/", "val2014/", "flickr30k-images/"),
        counts={"test": 82_695},
        counted="the sum of its parts: 23,937 relations, 28,748 attributes, 25,010 and 5,000 orders of words",
        version=2,
    ),
    Layout(
        name="sugarcrepe",
        summary="SugarCrepe: each caption against one with a single thing added, replaced or swapped.",
        read=f"{_READERS}.sugarcrepe:read",
        page=SUGARCREPE_PAGE,
        files=(*(f"{subset}.json" for subset in SUGARCREPE_SUBSETS), "val2017/"),
    ),
    Layout(
        name="image-classification",
        summary="Images in one folder a class, below train/, val/ and test/.",
        read=f"{_READERS}.image_classification:read",
        page=IMAGE_CLASSIFICATION_PAGE,
        files=("*/*",),
    ),
    Layout(
        name="cifar-10",
        summary="CIFAR-10, binary version: small images of ten classes.",
        read=f"{_READERS}.cifar10:read",
        page=CIFAR10_PAGE,
        files=("batches.meta.txt", "*_batch*.bin"),
        counts={"train": 50_000, "test": 10_000, "images": 60_000},
        counted="www.cs.toronto.edu/~kriz/cifar.html",
    ),
    Layout(
        name="glue",
        summary="GLUE: nine tasks on sentences and pairs of them; the folder of all, or of one.",
        read=f"{_READERS}.glue:read",
        page=GLUE_PAGE,
        files=("*",),
        optional=("*.tsv", "*/*.tsv"),
    ),
    Layout(
        name="items",
        summary="Items of your own: JSON lines with images, texts, and a label, a target or a number.",
        read=f"{_READERS}.own_items:read",
        page=ITEMS_PAGE,
        files=("*.jsonl",),
    ),
)
