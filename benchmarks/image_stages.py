"""Where the time goes between an encoded photograph and a batch: stage by stage, beside PIL + torchvision.

python benchmarks/image_stages.py [--rounds N] [--batch N] [--photos FOLDER] [--size full|tiny]

The sides and sizes of `benchmarks/images.py`, evaluation, bicubic. Each stage runs on what the one before it gave, in
turns with all others. "Coefficients alone": the least that a decoder does who reads the whole file, measured by
decoding to an eighth of each side; every side pays it. Bounds: PIL + torchvision in whole, by our decoding alone, and
by the coefficients alone: what resizing, copies and all else for nothing would come to.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import simplejpeg
import torch
from images import MEAN, SIZES, STD, Renaissance, Size, chain, gathered, pil_batch
from paired import Timings, table, take_turns
from PIL import Image
from torchvision import transforms

from renaissance.data.pixels import decode_pixels

EIGHTH = {"min_height": 1, "min_width": 1, "min_factor": 8}
HEADER = ("photographs", "stage", "PIL + torchvision", "renaissance")
# stage: (name of its timing for PIL + torchvision, and for renaissance)
STAGES: Mapping[str, tuple[str, str]] = {
    "coefficients alone": ("coefficients", "coefficients"),
    "decode": ("PIL decode", "our decode"),
    "resize, crop": ("PIL resize", "our resize"),
    "to tensor": ("PIL tensor", ""),
    "normalise": ("PIL normalise", ""),
    "collate": ("PIL collate", "our collate"),
    "in one go": ("PIL in one go", "our in one go"),
    "normalise, on the model's device": ("", "our normalise"),
}


def actions(files: Sequence[bytes], size: Size) -> dict[str, Callable[[], object]]:
    """Return what each stage does with all files, by name."""
    ours = Renaissance.of(size, "bicubic", training=False)
    resize = transforms.Compose(
        [
            transforms.Resize(size.resized, transforms.InterpolationMode("bicubic")),
            transforms.CenterCrop(size.cropped),
        ]
    )
    to_tensor, normalise = transforms.ToTensor(), transforms.Normalize(MEAN, STD)
    transform = chain(size, "bicubic", training=False)
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in files]
    resized = [resize(picture) for picture in pictures]
    tensors = [to_tensor(picture) for picture in resized]
    normalised = [normalise(tensor) for tensor in tensors]
    decoded = [decode_pixels(data, name="photograph") for data in files]
    fitted = [ours.processor([pixels]).pixels[0] for pixels in decoded]
    batch = torch.stack(fitted)
    return {
        "coefficients": lambda: [simplejpeg.decode_jpeg(data, "RGB", **EIGHTH) for data in files],
        "PIL decode": lambda: [Image.open(io.BytesIO(data)).convert("RGB") for data in files],
        "PIL resize": lambda: [resize(picture) for picture in pictures],
        "PIL tensor": lambda: [to_tensor(picture) for picture in resized],
        "PIL normalise": lambda: [normalise(tensor) for tensor in tensors],
        "PIL collate": lambda: torch.stack(normalised),
        "PIL in one go": lambda: pil_batch(files, transform),
        "our decode": lambda: [decode_pixels(data, name="photograph") for data in files],
        "our resize": lambda: [ours.processor([pixels]).pixels[0] for pixels in decoded],
        "our collate": lambda: torch.stack(fitted),
        "our in one go": lambda: ours.pixels(files),
        "our normalise": lambda: ours.processor.normalise(batch),
    }


def rows(name: str, timings: Timings, number: int) -> list[list[str]]:
    """Return the rows of photographs of a name: milliseconds of the CPU an image, then the bounds."""

    def cell(timing: str) -> str:
        return f"{1000 * timings.spread(timing).median / number:.2f}" if timing else ""

    times = [[name, stage, cell(theirs), cell(ours)] for stage, (theirs, ours) in STAGES.items()]
    bounds = {
        "ratio, in one go": "our in one go",
        "bound by our decoding": "our decode",
        "bound by the coefficients": "coefficients",
    }
    return times + [[name, bound, "", str(timings.ratio("PIL in one go", to))] for bound, to in bounds.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="rounds of the timing")
    parser.add_argument("--batch", type=int, default=12, help="photographs of each kind")
    parser.add_argument("--photos", type=Path, help="a folder of .jpg files; default: generated ones")
    parser.add_argument("--size", choices=SIZES, default="full")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"one thread, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}; milliseconds of the CPU an image\n"
    )
    found: list[list[str]] = []
    for name, files in gathered(given.photos, SIZES[given.size], given.batch).items():
        found += rows(name, take_turns(actions(files, SIZES[given.size]), given.rounds), len(files))
    print(table(HEADER, found))


if __name__ == "__main__":
    main()
