"""Image classification: each thing cut out of its picture, in a folder named after its shape, equally many of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from renaissance.data.world.layouts.site import IMAGES, Figure, Figures, Site, lots, save, stored
from renaissance.data.world.worlds import SPLITS, Picture, Split, World

# how far beyond the circle around a thing its picture reaches
AROUND = 1.15


def write_image_classification(root: Path, world: World) -> Mapping[str, Figures]:
    """Write `train/`, `val/` and `test/`, in the first language only: there are no texts."""
    site = Site(root, "image-classification", world.languages[0], world)
    figures: dict[str, Figure] = {}
    for split in SPLITS:
        chosen = _chosen(world, split)
        for label, things in chosen.items():
            for picture, index in things:
                name = f"{split}/{label}/{picture.number:06d}_{index}.jpg"
                with Image.open(stored(root / IMAGES, picture, ".png")) as whole:
                    save(whole.crop(_corners(picture, index, world.image_size)), site.place(name))
                site.knows(split, name, label)
        if split != "train":
            figures[split] = lots("accuracy", sum(map(len, chosen.values())), len(chosen))
    site.finish()
    return {site.name: figures}


def _chosen(world: World, split: Split) -> dict[str, list[tuple[Picture, int]]]:
    """Return the things of each shape, as many of each as there are of the rarest; none that is inside another."""
    found: dict[str, list[tuple[Picture, int]]] = {}
    for picture in world.by_split[split]:
        scene = picture.scene
        if len(scene.things) == 2 and scene.relation(0, 1) in ("inside", "around"):
            continue
        for index, thing in enumerate(scene.things):
            found.setdefault(thing.shape, []).append((picture, index))
    fewest = min(map(len, found.values()))
    return {label: found[label][:fewest] for label in sorted(found)}


def _corners(picture: Picture, index: int, size: int) -> tuple[int, int, int, int]:
    thing = picture.scene.things[index]
    reach = AROUND * thing.radius
    left, top = max(0, round(size * (thing.x - reach))), max(0, round(size * (thing.y - reach)))
    return left, top, min(size, round(size * (thing.x + reach))), min(size, round(size * (thing.y + reach)))
