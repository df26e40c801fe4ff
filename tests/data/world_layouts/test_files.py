from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from renaissance.data.readers.plain_pickle import read_plain_pickle
from renaissance.data.world.layouts import WRITERS

if TYPE_CHECKING:
    from tests.data.world_layouts.conftest import Written

SUGARCREPE = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
REFCOCO = ("instances.json", "detections.json", "train2014")
# the names of the publications, and nothing else but the oracle
PUBLISHED = {
    "coco-captions": {"dataset_coco.json", "train2014", "val2014"},
    "flickr30k": {"dataset_flickr30k.json", "flickr30k-images"},
    "visual-genome": {"region_descriptions.json", "image_data.json", "VG_100K", "VG_100K_2"},
    "conceptual-captions": {
        "Train_GCC-training.tsv", "Validation_GCC-1.1.0-Validation.tsv", "train_annot.json", "val_annot.json",
        "images_train", "images_val",
    },
    "sbu": {
        "SBU_captioned_photo_dataset_urls.txt", "SBU_captioned_photo_dataset_captions.txt", "annot.json",
        "images_train",
    },
    "vqav2": {
        *(
            f"v2_OpenEnded_mscoco_{subset}_questions.json"
            for subset in ("train2014", "val2014", "test-dev2015", "test2015")
        ),
        *(f"v2_mscoco_{subset}_annotations.json" for subset in ("train2014", "val2014")),
        "train2014", "val2014", "test2015",
    },
    "gqa": {*(f"{name}_balanced_questions.json" for name in ("train", "val", "testdev")), "images"},
    "nlvr2": {"train.json", "dev.json", "test1.json", "images"},
    "snli-ve": {*(f"snli_ve_{name}.jsonl" for name in ("train", "dev", "test")), "flickr30k-images"},
    "refcoco": {*REFCOCO, "refs(unc).p", "refs(unc).json"},
    "refcoco+": {*REFCOCO, "refs(unc).p", "refs(unc).json"},
    "refcocog": {*REFCOCO, "refs(umd).p", "refs(umd).json"},
    "winoground": {"examples.jsonl", "images"},
    "aro": {
        "visual_genome_relation.json", "visual_genome_attribution.json", "coco_karpathy_test.json",
        "flickr30k_test.json", "images", "val2014", "flickr30k-images",
    },
    "sugarcrepe": {*(f"{name}.json" for name in SUGARCREPE), "val2017"},
    "image-classification": {"train", "val", "test"},
}  # fmt: skip


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_writer_is_tested_here() -> None:
    assert set(PUBLISHED) == set(WRITERS)


@pytest.mark.parametrize("layout", PUBLISHED)
def test_a_layout_has_the_files_of_its_publication_in_each_language(world: Written, layout: str) -> None:
    languages = ("en",) if layout == "image-classification" else ("en", "de", "es")
    for language in languages:
        names = {path.name for path in world.folder(layout, language).iterdir()}
        assert names == PUBLISHED[layout] | {"oracle.json"}


def test_the_files_of_karpathy_have_their_keys(world: Written) -> None:
    for layout, dataset, own in (
        ("coco-captions", "coco", {"filepath", "cocoid"}),
        ("flickr30k", "flickr30k", set()),
    ):
        whole = load(world.folder(layout) / f"dataset_{dataset}.json")
        assert set(whole) == {"images", "dataset"}
        assert whole["dataset"] == dataset
        for imgid, image in enumerate(whole["images"]):
            assert set(image) == {"sentids", "imgid", "sentences", "split", "filename", *own}
            assert image["imgid"] == imgid
            assert [sentence["sentid"] for sentence in image["sentences"]] == image["sentids"]
            assert all(set(sentence) == {"tokens", "raw", "imgid", "sentid"} for sentence in image["sentences"])
        sentids = [sentid for image in whole["images"] for sentid in image["sentids"]]
        assert sentids == list(range(len(sentids)))


def test_coco_images_have_the_names_of_coco(world: Written) -> None:
    folder = world.folder("coco-captions")
    for image in load(folder / "dataset_coco.json")["images"]:
        assert image["filename"] == f"COCO_{image['filepath']}_{image['cocoid']:012d}.jpg"
        assert image["filepath"] == ("train2014" if image["split"] == "train" else "val2014")
        assert (folder / image["filepath"] / image["filename"]).is_file()


def test_vqav2_files_have_their_keys(world: Written) -> None:
    folder = world.folder("vqav2")
    for subset in ("train2014", "val2014"):
        questions = load(folder / f"v2_OpenEnded_mscoco_{subset}_questions.json")
        annotations = load(folder / f"v2_mscoco_{subset}_annotations.json")
        assert set(questions) == {"info", "task_type", "data_type", "license", "data_subtype", "questions"}
        assert set(annotations) == {"info", "license", "data_subtype", "annotations", "data_type"}
        assert questions["data_subtype"] == annotations["data_subtype"] == subset
        for question, annotation in zip(questions["questions"], annotations["annotations"], strict=True):
            assert set(question) == {"image_id", "question", "question_id"}
            assert set(annotation) == {
                "question_type", "multiple_choice_answer", "answers", "image_id", "answer_type", "question_id",
            }  # fmt: skip
            assert question["question_id"] == annotation["question_id"]
            assert [answer["answer_id"] for answer in annotation["answers"]] == list(range(1, 11))
            assert set(annotation["answers"][0]) == {"answer", "answer_confidence", "answer_id"}


def test_gqa_files_have_their_keys(world: Written) -> None:
    for name in ("train", "val", "testdev"):
        for entry in load(world.folder("gqa") / f"{name}_balanced_questions.json").values():
            assert set(entry) == {
                "semantic", "entailed", "equivalent", "question", "imageId", "isBalanced", "groups", "answer",
                "semanticStr", "annotations", "types", "fullAnswer",
            }  # fmt: skip
            assert set(entry["types"]) == {"detailed", "semantic", "structural"}
            assert set(entry["semantic"][0]) == {"operation", "dependencies", "argument"}


def test_nlvr2_lines_have_their_keys_and_training_ones_their_directory(world: Written) -> None:
    keys = {"validation", "sentence", "left_url", "right_url", "writer", "synset", "query", "identifier", "label"}
    folder = world.folder("nlvr2")
    for name in ("train", "dev", "test1"):
        for row in lines(folder / f"{name}.json"):
            own = {"directory"} if name == "train" else {"extra_validations"}
            assert set(row) == keys | own
            assert row["label"] in ("True", "False")
            place = f"images/train/{row['directory']}" if name == "train" else f"images/{name}"
            stem = row["identifier"].rpartition("-")[0]
            assert all((folder / place / f"{stem}-img{side}.png").is_file() for side in (0, 1))


def test_snli_ve_lines_have_their_keys(world: Written) -> None:
    for row in lines(world.folder("snli-ve") / "snli_ve_dev.jsonl"):
        assert set(row) == {
            "annotator_labels", "captionID", "gold_label", "pairID", "sentence1", "sentence1_binary_parse",
            "sentence1_parse", "sentence2", "sentence2_binary_parse", "sentence2_parse", "Flickr30K_ID",
        }  # fmt: skip
        assert row["pairID"].startswith(f"{row['Flickr30K_ID']}.jpg#")


@pytest.mark.parametrize(("layout", "maker"), [("refcoco", "unc"), ("refcoco+", "unc"), ("refcocog", "umd")])
def test_references_have_their_keys_and_the_pickle_is_plain(world: Written, layout: str, maker: str) -> None:
    folder = world.folder(layout)
    refs = read_plain_pickle(folder / f"refs({maker}).p")
    assert refs == load(folder / f"refs({maker}).json")
    assert (folder / f"refs({maker}).p").read_bytes() == pickle.dumps(json.loads(json.dumps(refs)), protocol=2)
    for ref in refs:
        assert set(ref) == {
            "sent_ids", "file_name", "ann_id", "ref_id", "image_id", "split", "sentences", "category_id",
        }  # fmt: skip
        assert all(set(sentence) == {"tokens", "raw", "sent_id", "sent"} for sentence in ref["sentences"])
    instances = load(folder / "instances.json")
    assert set(instances) == {"info", "images", "licenses", "annotations", "categories"}
    assert set(instances["annotations"][0]) == {
        "segmentation", "area", "iscrowd", "image_id", "bbox", "category_id", "id",
    }  # fmt: skip
    assert {ref["ann_id"] for ref in refs} <= {annotation["id"] for annotation in instances["annotations"]}


def test_boxes_and_outlines_lie_in_the_picture_around_what_is_drawn(world: Written) -> None:
    folder = world.folder("refcoco")
    instances = load(folder / "instances.json")
    names = {image["id"]: image["file_name"] for image in instances["images"]}
    for annotation in instances["annotations"]:
        left, top, width, height = annotation["bbox"]
        assert left >= 0
        assert top >= 0
        assert left + width <= 128
        assert top + height <= 128
        with Image.open(folder / "train2014" / names[annotation["image_id"]]) as image:
            background = image.getpixel((0, 0))
            strips = [
                image.crop((round(left) + 1, round(top) + 1, round(left + width) - 1, round(top + 2) + 1)),
                image.crop((round(left) + 1, round(top) + 1, round(left + 2) + 1, round(top + height) - 1)),
            ]
        assert isinstance(background, tuple)
        for strip in strips:
            # the thing, or one that it is on, touches the edges of its box
            assert any(_far(pixel, background) for pixel in strip.get_flattened_data())


def _far(one: Any, other: tuple[int, ...]) -> bool:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) > 60


def test_winoground_examples_have_their_keys(world: Written) -> None:
    folder = world.folder("winoground")
    for number, row in enumerate(lines(folder / "examples.jsonl")):
        assert set(row) == {
            "id", "image_0", "image_1", "caption_0", "caption_1", "tag", "secondary_tag", "num_main_preds",
            "collapsed_tag",
        }  # fmt: skip
        assert (row["id"], row["image_0"]) == (number, f"ex_{number}_img_0")
        assert (folder / "images" / f"{row['image_1']}.png").is_file()


def test_aro_and_sugarcrepe_entries_have_their_keys(world: Written) -> None:
    box = {"image_id", "image_path", "bbox_x", "bbox_y", "bbox_w", "bbox_h", "true_caption", "false_caption"}
    relation = load(world.folder("aro") / "visual_genome_relation.json")
    attribution = load(world.folder("aro") / "visual_genome_attribution.json")
    assert set(relation[0]) == box | {"relation_name", "subj_name", "obj_name"}
    assert set(attribution[0]) == box | {"attributes", "obj1_name", "obj2_name"}
    for name in ("coco_karpathy_test.json", "flickr30k_test.json"):
        assert all(set(entry) == {"image", "caption"} for entry in load(world.folder("aro") / name))
    for subset in SUGARCREPE:
        entries = load(world.folder("sugarcrepe") / f"{subset}.json")
        assert list(entries) == [str(i) for i in range(len(entries))]
        assert all(set(entry) == {"filename", "caption", "negative_caption"} for entry in entries.values())


def test_visual_genome_regions_have_their_keys(world: Written) -> None:
    folder = world.folder("visual-genome")
    for image in load(folder / "region_descriptions.json"):
        assert set(image) == {"id", "regions"}
        keys = {"region_id", "width", "height", "image_id", "phrase", "y", "x"}
        assert all(set(region) == keys for region in image["regions"])
    assert set(load(folder / "image_data.json")[0]) == {
        "width", "url", "height", "image_id", "coco_id", "flickr_id",
    }  # fmt: skip


@pytest.mark.parametrize("layout", ["coco-captions", "vqav2", "snli-ve", "nlvr2"])
def test_pictures_are_in_the_format_of_their_suffix_and_stored_once(world: Written, layout: str) -> None:
    for path in world.folder(layout).rglob("*.*g"):
        with Image.open(path) as image:
            assert image.format == {".jpg": "JPEG", ".png": "PNG"}[path.suffix]
            assert image.size == (128, 128)
        assert path.stat().st_nlink > 1
