"""What the zoo learns from: two generated worlds, and things cut out of the scenes of one, by what they look like.

The towers learn from the training scenes of one world, the models from those of another, and all that is evaluated are
test scenes: what a scene is made of decides its split, in every world, so none of them was seen by a tower.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from renaissance.data.prepare import prepare
from renaissance.data.world.build import write_world
from renaissance.data.world.render import render
from renaissance.data.world.worlds import Picture, World, draw_world

CAPTIONS, CLASSES = "coco-captions", "image-classification"
TOWERS_SEED, MODELS_SEED = 101, 102
SCENES, THINGS_SCENES = 3000, 40_000
IMAGE_SIZE = 64
# things are drawn larger than they are seen, so that a window of a picture has edges as sharp as the picture
DRAWN = 2 * IMAGE_SIZE


def write_data(folder: Path) -> None:
    """Write `towers/` and `models/`: prepared captions of two worlds, and things with their names."""
    write_captions(folder, "towers", TOWERS_SEED)
    write_captions(folder, "models", MODELS_SEED)
    if not (folder / "towers" / "things").is_dir():
        write_things(folder / "world-things", draw_world(THINGS_SCENES, TOWERS_SEED, ["en"]))
        prepare(CLASSES, folder / "world-things", folder / "towers" / "things")


def write_captions(folder: Path, name: str, seed: int) -> None:
    """Write `NAME/coco-captions`: the captions of a world, prepared, unless they are there."""
    if not (folder / name / CAPTIONS).is_dir():
        write_world(folder / f"world-{name}", SCENES, seed, layouts=[CAPTIONS], image_size=IMAGE_SIZE)
        prepare(CAPTIONS, folder / f"world-{name}" / CAPTIONS, folder / name / CAPTIONS)


def write_things(out: Path, world: World) -> None:
    """Write windows of scenes with one thing as folders of images, each named after colour and shape: 'red star'."""
    for split in ("train", "val"):
        for picture in world.by_split[split]:
            if len(picture.scene.things) == 1:
                (thing,) = picture.scene.things
                place = out / split / f"{thing.colour} {thing.shape}" / f"{picture.number:06d}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                window(picture, world).save(place)


def window(picture: Picture, world: World) -> Image.Image:
    """Return a square part of a picture that holds its one thing, which is at least half as wide as that part."""
    random = world.random("window", picture.number)
    (thing,) = picture.scene.things
    side = min(1.0, random.uniform(2.3, 4.6) * thing.radius)
    left, top = (
        random.uniform(max(0.0, centre + thing.radius - side), min(1.0 - side, centre - thing.radius))
        for centre in (thing.x, thing.y)
    )
    box = (left * DRAWN, top * DRAWN, (left + side) * DRAWN, (top + side) * DRAWN)
    return render(picture.scene, DRAWN).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS, box=box)


if __name__ == "__main__":
    write_data(Path("zoo"))
