"""From encoded photographs to a batch for the model: renaissance, beside PIL + torchvision and beside `datasets`.

python benchmarks/images.py [--rounds N] [--batch N] [--photos FOLDER] [--size full|tiny]

In one process and on one thread, in turns. All sides decode JPEG bytes from memory, resize the shorter side to 256,
crop the middle 224 (or a random part of 50 to 100% of the area, for training) and make one batch. The others' batch is
float32 and normalised; that of renaissance is uint8, which the model normalises where it runs: the column "normalised"
adds that on this CPU. "fast": with `decoding: fast`. Decibels: PSNR of the pixels, before normalisation, to those of
PIL + torchvision. Below the table: retrieval by a model that ships, with the pixels of each.

Letters in shapes: V images, H and W height and width.
"""

from __future__ import annotations

import argparse
import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple, get_args

import datasets
import numpy as np
import PIL
import simplejpeg
import torch
import torchvision
from paired import Timings, table, take_turns
from PIL import Image
from torch import Tensor
from torchvision import transforms

import renaissance
from renaissance.api import VisionInput
from renaissance.data.augment import augment
from renaissance.data.cache import cache_folder
from renaissance.data.load import load_data
from renaissance.data.pixels import decode_pixels, reduction_of
from renaissance.recipe.data import WorldData
from renaissance.recipe.training import Augmentation
from renaissance.toolkit.images import REDUCTIONS, ROOM, Decoding, ImageProcessor
from renaissance.toolkit.metrics import ranks

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CROP = (0.5, 1.0)
SCENES, RANK = 1000, 10
HEADER = ("photographs", "for", "resize", "kB", "renaissance", "normalised", "fast", "PIL + torchvision", "datasets")
HEADER += ("ratio", "ratio, normalised", "ratio, fast", "ratio to datasets", "dB", "dB, fast")
ROOMS = ("pixels left a side, for each that is wanted", "decoded", "dB, median (least)")
SIDES = (224, 256, 336, 384)
Interpolation = Literal["bilinear", "bicubic"]


class Kind(NamedTuple):
    """Generated photographs of one size, saved as JPEG of one quality."""

    width: int
    height: int
    quality: int


@dataclass(frozen=True, slots=True)
class Size:
    """What is measured: kinds of photographs, and (resized, cropped) pixels a side."""

    kinds: tuple[Kind, ...]
    resized: int
    cropped: int


COCO, LARGE = (640, 480), (1280, 960)
SIZES: Mapping[str, Size] = {
    "full": Size((Kind(*COCO, 75), Kind(*COCO, 85), Kind(*COCO, 95), Kind(*LARGE, 85)), 256, 224),
    "tiny": Size((Kind(80, 60, 85),), 36, 32),
}


def photographs(kind: Kind, number: int) -> list[bytes]:
    """Return JPEG files of noise whose strength falls with its frequency as in photographs, colours less than light."""
    return [_photograph(kind, seed) for seed in range(number)]


def _photograph(kind: Kind, seed: int) -> bytes:
    draws = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(kind.height)[:, None], np.fft.rfftfreq(kind.width)[None, :]
    frequency = np.maximum(np.hypot(rows, columns), 1 / max(kind.width, kind.height))
    noise = draws.standard_normal((3, kind.height, kind.width))
    # steeper than the 1 / f of photographs, whose edges lie together: so their JPEG files are as large as photographs'
    planes = np.fft.irfft2(np.fft.rfft2(noise) / frequency**1.45, s=(kind.height, kind.width))
    planes /= planes.std(axis=(1, 2), keepdims=True)
    light, colours = planes[0] * 55 + 120, planes[1:] * 18 + 128
    pixels = np.clip(np.stack([light, *colours], axis=-1), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels, "YCbCr").convert("RGB").save(buffer, "JPEG", quality=kind.quality)
    return buffer.getvalue()


# --- the three sides --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Renaissance:
    """What the collators of renaissance do with images."""

    processor: ImageProcessor
    augmentation: Augmentation | None

    @classmethod
    def of(
        cls, size: Size, interpolation: Interpolation, *, training: bool, decoding: Decoding = "exact"
    ) -> Renaissance:
        """Return the preprocessing of these sizes."""
        crop = size.cropped / size.resized
        sides = (size.cropped, size.cropped)
        processor = ImageProcessor(sides, crop=crop, interpolation=interpolation, mean=MEAN, std=STD, decoding=decoding)
        return cls(processor, Augmentation(crop=CROP, flip=True) if training else None)

    def pixels(self, files: Sequence[bytes]) -> Tensor:
        """Return uint8 pixels [V, 3, H, W]."""
        return torch.stack([self._of(data, seed) for seed, data in enumerate(files)])

    def normalised(self, files: Sequence[bytes]) -> Tensor:
        """Return float32 pixels [V, 3, H, W]."""
        return self.processor.normalise(self.pixels(files))

    def _of(self, data: bytes, seed: int) -> Tensor:
        share = None if self.augmentation is None else self.augmentation.least_share
        decoded = decode_pixels(data, name="photograph", fast=reduction_of(self.processor, share=share))
        if self.augmentation is None:
            return self.processor([decoded]).pixels[0]
        return augment(decoded, self.processor, self.augmentation, seed)


def chain(size: Size, interpolation: Interpolation, *, training: bool) -> Callable[[Image.Image], Tensor]:
    """Return the transforms of torchvision from an RGB picture to float32 pixels [3, H, W]."""
    mode = transforms.InterpolationMode(interpolation)
    geometry: list[Any] = [transforms.Resize(size.resized, mode), transforms.CenterCrop(size.cropped)]
    if training:
        geometry = [transforms.RandomResizedCrop(size.cropped, scale=CROP, interpolation=mode)]
        geometry += [transforms.RandomHorizontalFlip()]
    composed: Callable[[Image.Image], Tensor] = transforms.Compose(
        [*geometry, transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )
    return composed


def pil_batch(files: Sequence[bytes], transform: Callable[[Image.Image], Tensor]) -> Tensor:
    """Return float32 pixels [V, 3, H, W] as PIL + torchvision make them."""
    return torch.stack([transform(Image.open(io.BytesIO(data)).convert("RGB")) for data in files])


def datasets_batches(files: Sequence[bytes], transform: Callable[[Image.Image], Tensor]) -> Callable[[], Tensor]:
    """Return what makes float32 pixels [V, 3, H, W] with `datasets`, its decoding as it is by default."""
    columns = {"image": [{"bytes": data, "path": None} for data in files]}
    features = datasets.Features({"image": datasets.Image()})

    def transformed(rows: dict[str, list[Image.Image]]) -> dict[str, list[Tensor]]:
        return {"pixels": [transform(image.convert("RGB")) for image in rows["image"]]}

    table_of_images = datasets.Dataset.from_dict(columns, features=features).with_transform(transformed)
    return lambda: torch.stack(table_of_images[: len(files)]["pixels"])


# --- the table --------------------------------------------------------------------------------------------------------


def decibels(files: Sequence[bytes], ours: Renaissance, transform: Callable[[Image.Image], Tensor]) -> list[float]:
    """Return for each photograph the PSNR of our pixels to those of PIL + torchvision."""
    return likeness(files, ours.pixels(files), transform)


def likeness(files: Sequence[bytes], pixels: Tensor, transform: Callable[[Image.Image], Tensor]) -> list[float]:
    """Return for each photograph the PSNR of uint8 pixels [V, 3, H, W] to those of PIL + torchvision."""
    scale, offset = torch.tensor(STD).view(3, 1, 1), torch.tensor(MEAN).view(3, 1, 1)
    theirs = ((pil_batch(files, transform) * scale + offset) * 255).round()
    errors = (pixels.double() - theirs).square().mean(dim=(1, 2, 3))
    return [10 * math.log10(255**2 / max(float(error), 1e-3)) for error in errors]


def row(files: Sequence[bytes], size: Size, interpolation: Interpolation, rounds: int, *, training: bool) -> list[str]:
    """Time the three sides on these files; return the cells after the name of the photographs."""
    ours = Renaissance.of(size, interpolation, training=training)
    fast = Renaissance.of(size, interpolation, training=training, decoding="fast")
    transform = chain(size, interpolation, training=training)
    timings = take_turns(
        {
            "renaissance": lambda: ours.pixels(files),
            "normalised": lambda: ours.normalised(files),
            "fast": lambda: fast.pixels(files),
            "PIL + torchvision": lambda: pil_batch(files, transform),
            "datasets": datasets_batches(files, transform),
        },
        rounds,
    )
    kilobytes = f"{sum(map(len, files)) / len(files) / 1000:.0f}"
    near = [] if training else [decibels(files, side, transform) for side in (ours, fast)]
    return [
        "training" if training else "evaluation",
        interpolation,
        kilobytes,
        *(f"{len(files) / timings.spread(name).median:.0f}" for name in timings.seconds),
        *_ratios(timings),
        *([f"{median(found):.1f} ({min(found):.1f})" for found in near] or ["", ""]),
    ]


def _ratios(timings: Timings) -> list[str]:
    return [
        str(timings.ratio("PIL + torchvision", "renaissance")),
        str(timings.ratio("PIL + torchvision", "normalised")),
        str(timings.ratio("PIL + torchvision", "fast")),
        str(timings.ratio("datasets", "renaissance")),
    ]


def rows(photos: Mapping[str, Sequence[bytes]], size: Size, rounds: int) -> list[list[str]]:
    """Return the rows of the table for photographs by name."""
    settings: Sequence[tuple[Interpolation, bool]] = (("bicubic", False), ("bilinear", False), ("bicubic", True))
    return [
        [name, *row(files, size, interpolation, rounds, training=training)]
        for name, files in photos.items()
        for interpolation, training in settings
    ]


def rooms(files: Sequence[bytes], *sides: int) -> list[tuple[str, ...]]:
    """Return the likeness of files that are decoded to a half, a quarter or an eighth, by how many pixels that leaves.

    sides: how many pixels are wanted at the shorter side. The likeness is that to PIL + torchvision, in dB.
    """
    found: dict[str, list[float]] = {f"1.0 to {ROOM}": [], f"{ROOM} and more": []}
    for data, side, interpolation in product(files, sides, get_args(Interpolation)):
        size = Size((), side, side)
        processor = Renaissance.of(size, interpolation, training=False).processor
        shorter = min(Image.open(io.BytesIO(data)).size)
        for reduction in (one for one in REDUCTIONS if shorter // one >= side):
            seen = processor([decode_pixels(data, name="photograph", fast=lambda *_, by=reduction: by)]).pixels
            name = f"{ROOM} and more" if shorter / reduction >= ROOM * side else f"1.0 to {ROOM}"
            found[name] += likeness([data], seen, chain(size, interpolation, training=False))
    return [(name, f"{len(own)}", f"{median(own):.1f} ({min(own):.1f})") for name, own in found.items() if own]


def retrieval(scenes: int) -> str:
    """Return recall by a bundled model on drawn scenes, saved as JPEG, with our pixels and with PIL + torchvision's.

    The scenes are so large that fast decoding makes them smaller.
    """
    model: Any = renaissance.from_pretrained("renaissance/dual-encoder")
    processor: ImageProcessor = model.assembly.encoder.vision.processor
    world = WorldData(train=1, test=scenes, captions=1, image_size=512)
    held: Any = load_data(world, cache=cache_folder(), on_bad_sample="error", validation=0).splits["test"]
    files = [_jpeg(record.image.read()) for record in held]
    (side, _), mode = processor.image_size, transforms.InterpolationMode(processor.interpolation)
    geometry = transforms.Compose([transforms.Resize(round(side / processor.crop), mode), transforms.CenterCrop(side)])
    fast = replace(processor, decoding="fast")
    assert fast.reduction(world.image_size, world.image_size) > 1
    pictures: dict[str, Sequence[Any]] = {
        "renaissance": files,
        "fast": [_picture(fast([decode_pixels(data, name="scene", fast=reduction_of(fast))])) for data in files],
        "PIL + torchvision": [geometry(Image.open(io.BytesIO(data))) for data in files],
    }
    told = []
    for name, images in pictures.items():
        found = model.embed(images=images, texts=[record.captions[0] for record in held])
        likeness, own = found.images @ found.texts.T, torch.eye(len(files), dtype=torch.bool)
        hits = torch.cat([ranks(scores, own)[0] for scores in (likeness, likeness.T)]) <= RANK
        told.append(f"{name} {100 * hits.double().mean():.2f}")
    return f"R@{RANK}, mean of both directions, {len(files):,} drawn scenes of 512 pixels to {side}: {', '.join(told)}"


def _picture(inputs: VisionInput) -> Image.Image:
    """Return the only one of some images; as large as a model's images, it is neither resized nor cropped again."""
    return Image.fromarray(inputs.pixels[0].permute(1, 2, 0).numpy())


def _jpeg(data: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def gathered(folder: Path | None, size: Size, batch: int) -> dict[str, Sequence[bytes]]:
    """Return the JPEG files of a folder, at most a batch, or generated ones, by name."""
    if folder is None:
        return {f"{kind.width} x {kind.height}, q{kind.quality}": photographs(kind, batch) for kind in size.kinds}
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[:batch]
    if not files:
        raise SystemExit(f"{folder} holds no .jpg files. Name another folder, or leave --photos out.")
    return {folder.name: [path.read_bytes() for path in files]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of the timing")
    parser.add_argument("--batch", type=int, default=24, help="photographs of each kind")
    parser.add_argument("--photos", type=Path, help="a folder of .jpg files; default: generated ones")
    parser.add_argument("--size", choices=SIZES, default="full")
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    size = SIZES[given.size]
    print(f"Pillow {PIL.__version__}, torchvision {torchvision.__version__}, datasets {datasets.__version__},", end=" ")
    print(
        f"simplejpeg {simplejpeg.__version__}, torch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()}),"
    )
    print(f"one thread, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}, batch {given.batch}, {size}")
    print("samples a CPU second; ratios of CPU seconds, median (least to greatest); dB: median (least)\n")
    print(table(HEADER, rows(gathered(given.photos, size, given.batch), size, given.rounds)))
    if given.photos is not None:
        photos = [data for files in gathered(given.photos, size, given.batch).values() for data in files]
        print(f"\nfast decoding to a half, a quarter or an eighth\n{table(ROOMS, rooms(photos, *SIDES))}")
    print(f"\n{retrieval(SCENES)}")


if __name__ == "__main__":
    main()
