"""COCO and Flickr30k captions in the files of Karpathy and Fei-Fei; Conceptual Captions and SBU as lists of images."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from renaissance.data.world.layouts.site import Figure, Figures, Site, lots, sites
from renaissance.data.world.telling import Told, tell_split
from renaissance.data.world.worlds import Picture, Split, World

CAPTIONS = 5
URL = "http://world.invalid/{corpus}/{name}"
Pages = list[tuple[Picture, tuple[Told, ...]]]


def write_coco(root: Path, world: World) -> Mapping[str, Figures]:
    """Write `dataset_coco.json` with `train2014/` and `val2014/`."""
    return _write_karpathy(root, world, "coco-captions", "coco", _coco_entry)


def write_flickr30k(root: Path, world: World) -> Mapping[str, Figures]:
    """Write `dataset_flickr30k.json` with `flickr30k-images/`."""
    return _write_karpathy(root, world, "flickr30k", "flickr30k", _flickr_entry)


def coco_file(picture: Picture) -> str:
    """Return the path of a picture in COCO."""
    folder = "train2014" if picture.coco_split == "train" else "val2014"
    return f"{folder}/COCO_{folder}_{picture.coco_id:012d}.jpg"


def flickr_file(picture: Picture) -> str:
    """Return the path of a picture in Flickr30k."""
    return f"flickr30k-images/{picture.flickr_id}.jpg"


def _coco_entry(picture: Picture) -> tuple[str, dict[str, Any]]:
    folder, _, name = coco_file(picture).partition("/")
    entry = {"filepath": folder, "filename": name, "split": picture.coco_split, "cocoid": picture.coco_id}
    return str(picture.coco_id), entry


def _flickr_entry(picture: Picture) -> tuple[str, dict[str, Any]]:
    return picture.flickr_id, {"filename": f"{picture.flickr_id}.jpg", "split": picture.split}


def _write_karpathy(
    root: Path, world: World, layout: str, dataset: str, entry: Callable[[Picture], tuple[str, dict[str, Any]]]
) -> Mapping[str, Figures]:
    pages: Pages = [page for split in world.splits for page in tell_split(world, dataset, split, CAPTIONS)]
    figures: dict[str, Figures] = {}
    for language, site in sites(root, layout, world):
        images = []
        for imgid, (picture, told) in enumerate(pages):
            key, known = entry(picture)
            texts = [each.texts[language] for each in told]
            images.append({**known, "imgid": imgid, **_sentences(texts, imgid)})
            site.image(coco_file(picture) if dataset == "coco" else flickr_file(picture), picture)
            site.knows(str(known["split"]), key, texts)
        site.json(f"dataset_{dataset}.json", {"images": images, "dataset": dataset})
        figures[site.name] = {split: _retrieval(world, split, CAPTIONS) for split in world.splits if split != "train"}
    return figures


def _sentences(texts: list[str], imgid: int) -> dict[str, Any]:
    ids = [imgid * CAPTIONS + i for i in range(len(texts))]
    sentences = [
        {
            "tokens": text.lower().replace(",", "").replace(":", "").split(),
            "raw": text,
            "imgid": imgid,
            "sentid": sentid,
        }
        for text, sentid in zip(texts, ids, strict=True)
    ]
    return {"sentids": ids, "sentences": sentences}


def _retrieval(world: World, split: Split, captions: int) -> Figure:
    pictures = len(world.by_split[split])
    return lots("image retrieval recall@1", pictures * captions, pictures)


# --- lists of images -------------------------------------------------------------------------------------------------


def write_conceptual(root: Path, world: World) -> Mapping[str, Figures]:
    """Write the two lists of URLs, the images of those that could be downloaded (all), and lists of these."""
    splits: tuple[Split, ...] = ("train", "val")
    pages = {split: tell_split(world, "gcc", split, 1) for split in splits}
    tables = {"train": "Train_GCC-training.tsv", "val": "Validation_GCC-1.1.0-Validation.tsv"}
    figures: dict[str, Figures] = {}
    for language, site in sites(root, "conceptual-captions", world):
        for split in splits:
            rows = list(_listed(site, pages[split], language, split, "gcc"))
            site.text_lines(tables[split], (f"{caption}\t{url}" for _, caption, url in rows))
            site.json(f"{split}_annot.json", [[path, caption] for path, caption, _ in rows])
        figures[site.name] = {"val": _retrieval(world, "val", 1)}
    return figures


def write_sbu(root: Path, world: World) -> Mapping[str, Figures]:
    """Write the published lists of URLs and captions, the images, and a list of these."""
    pages = tell_split(world, "sbu", "train", 1)
    for language, site in sites(root, "sbu", world):
        rows = list(_listed(site, pages, language, "train", "sbu"))
        site.text_lines("SBU_captioned_photo_dataset_urls.txt", (url for _, _, url in rows))
        site.text_lines("SBU_captioned_photo_dataset_captions.txt", (caption for _, caption, _ in rows))
        site.json("annot.json", [[path, caption] for path, caption, _ in rows])
    return {}


def _listed(site: Site, pages: Pages, language: str, split: Split, corpus: str) -> Iterator[tuple[str, str, str]]:
    """Put the pictures in their folder, as the usual downloaders name them; yield path, caption and URL of each."""
    for row, (picture, (told,)) in enumerate(pages):
        url = URL.format(corpus=corpus, name=f"{split}/{picture.number:09d}.jpg")
        name = f"{row}_{zlib.crc32(url.encode())}.jpg" if corpus == "gcc" else f"{picture.number:09d}.jpg"
        path = f"images_{split}/{name}"
        site.image(path, picture)
        caption = told.texts[language]
        site.knows(split, f"{split}-{row}", [caption])
        yield path, caption, url
