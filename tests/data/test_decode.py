from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from renaissance.data.augment import augment
from renaissance.data.decode import decode, open_image
from renaissance.data.jpeg import plain_size
from renaissance.data.pixels import decode_pixels
from renaissance.errors import SampleError
from renaissance.recipe.training import Augmentation
from renaissance.toolkit.images import ImageProcessor

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG by hand: Pillow writes neither 16-bit RGB nor a header that lies."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def grey(values: list[float], mode: str) -> Image.Image:
    kinds = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
    return Image.fromarray(np.array([values], dtype=kinds[mode]))


def oriented(orientation: int) -> bytes:
    """PHOTO as a camera would store it that was held otherwise."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that gives the stored picture
    stored = PHOTO if orientation == 1 else PHOTO.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(stored, exif=exif)


def flipped(data: bytes) -> bytes:
    middle = data.index(b"IDAT") + 12
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


def row(*pixels: tuple[int, int, int]) -> list[list[int]]:
    return [list(pixel) for pixel in pixels]


# name -> (bytes, the first row of the upright RGB picture); "photo": all of PHOTO, exactly
ACCEPTED: dict[str, tuple[bytes, Any]] = {
    "png": (encoded(PHOTO), "photo"),
    "bmp": (encoded(PHOTO, "BMP"), "photo"),
    "tiff": (encoded(PHOTO, "TIFF"), "photo"),
    "webp": (encoded(PHOTO, "WEBP", lossless=True), "photo"),
    **{f"orientation {number}": (oriented(number), "photo") for number in range(1, 9)},
    "grey": (encoded(Image.new("L", (2, 1), 77)), row((77, 77, 77), (77, 77, 77))),
    "1-bit": (encoded(Image.new("1", (2, 1), 1)), row((255, 255, 255), (255, 255, 255))),
    "palette": (encoded(Image.new("RGB", (1, 1), (10, 20, 30)).quantize(2)), row((10, 20, 30))),
    "palette with transparency": (
        encoded(Image.new("RGB", (1, 1), (10, 20, 30)).quantize(2), transparency=bytes([0])),
        row((255, 255, 255)),
    ),
    "half transparent": (encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 51))), row((204, 204, 204))),
    "transparent black": (encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 0))), row((255, 255, 255))),
    "grey with alpha": (encoded(Image.new("LA", (1, 1), (40, 0))), row((255, 255, 255))),
    "transparent colour": (
        encoded(Image.new("RGB", (1, 1), (10, 20, 30)), transparency=(10, 20, 30)),
        row((255, 255, 255)),
    ),
    "cmyk": (encoded(Image.new("CMYK", (1, 1), (0, 0, 0, 255)), "TIFF"), row((0, 0, 0))),
    "lab": (encoded(Image.new("LAB", (1, 1), (255, 128, 128)), "TIFF"), row((254, 255, 254))),
    "16-bit grey": (
        encoded(grey([0, 257, 32896, 65535], "I;16")),
        row((0, 0, 0), (1, 1, 1), (128, 128, 128), (255, 255, 255)),
    ),
    "16-bit grey tiff": (encoded(grey([0, 65535], "I;16"), "TIFF"), row((0, 0, 0), (255, 255, 255))),
    "16-bit grey with transparent value": (
        png(2, 1, 16, 0, b"\x00" + struct.pack(">HH", 257, 514), chunk(b"tRNS", struct.pack(">H", 257))),
        row((255, 255, 255), (2, 2, 2)),
    ),
    "16-bit rgb": (png(1, 1, 16, 2, b"\x00" + struct.pack(">HHH", 257, 514, 65535)), row((1, 2, 255))),
    "32-bit integers": (encoded(grey([0, 65535], "I"), "TIFF"), row((0, 0, 0), (255, 255, 255))),
    "floats to 1": (encoded(grey([0.0, 0.5, 1.0], "F"), "TIFF"), row((0, 0, 0), (128, 128, 128), (255, 255, 255))),
    "floats to 255": (encoded(grey([0.0, 254.6], "F"), "TIFF"), row((0, 0, 0), (255, 255, 255))),
    "animated gif": (
        encoded(Image.new("RGB", (1, 1), (255, 0, 0)), "GIF", save_all=True, append_images=[Image.new("RGB", (1, 1))]),
        row((255, 0, 0)),
    ),
    "animated webp": (
        encoded(
            Image.new("RGB", (1, 1), (255, 0, 0)),
            "WEBP",
            save_all=True,
            lossless=True,
            append_images=[Image.new("RGB", (1, 1))],
        ),
        row((255, 0, 0)),
    ),
    "one pixel": (encoded(Image.new("RGB", (1, 1), (1, 2, 3))), row((1, 2, 3))),
}
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "one byte": (b"\xff", "not an image"),
    "html": (b"<html><body>404 Not Found</body></html>", "not an image"),
    "eps": (EPS, "not an image"),
    "ico": (encoded(PHOTO, "ICO"), "not an image"),
    "half a png": (encoded(PHOTO)[: len(encoded(PHOTO)) // 2], "damaged"),
    "half a jpeg": (encoded(PHOTO, "JPEG")[: len(encoded(PHOTO, "JPEG")) * 3 // 4], "damaged"),
    "jpeg short of ten bytes": (encoded(PHOTO, "JPEG")[:-10], "damaged"),
    "png with a flipped bit": (flipped(encoded(PHOTO)), "damaged"),
    "header that lies": (png(50, 50, 8, 2, b"\x00" + bytes(3)), "damaged"),
    "1-bit bomb": (png(13_300, 13_300, 1, 0, b""), "megapixels|too large"),
    "rgb bomb": (png(13_300, 13_300, 8, 2, b""), "megapixels|too large"),
    "bomb under Pillow's limit": (png(9_000, 9_000, 8, 2, b""), "megapixels"),
    "integers past 16 bits": (encoded(grey([0, 70_000], "I"), "TIFF"), "no known white"),
    "negative floats": (encoded(grey([-1.0, 1.0], "F"), "TIFF"), "no known white"),
    "not a number": (encoded(grey([float("nan"), 1.0], "F"), "TIFF"), "no known white"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_each_accepted_kind_has_its_stated_pixels(name: str) -> None:
    data, expected = ACCEPTED[name]
    pixels = np.array(decode(data, name=name)).tolist()
    assert (pixels if expected == "photo" else pixels[0]) == (
        np.array(PHOTO).tolist() if expected == "photo" else expected
    )


@pytest.mark.parametrize("name", REFUSED)
def test_each_refusal_names_the_sample_the_fault_and_the_next_step(name: str) -> None:
    data, fault = REFUSED[name]
    with pytest.raises(SampleError, match=fault) as refused:
        decode(data, name=f"row 7 ({name})")
    assert str(refused.value).startswith(f"row 7 ({name})")
    assert (
        "--on-bad-sample skip" in str(refused.value)
        or "Save the picture" in str(refused.value)
        or "Scale" in str(refused.value)
    )


@pytest.mark.parametrize("size", [(1, 4000), (20_000, 1)])
def test_long_and_thin_pictures_are_accepted(size: tuple[int, int]) -> None:
    assert decode(encoded(Image.new("RGB", size)), name="thin").size == size


def test_jpeg_decodes_to_what_pillow_decodes() -> None:
    data = encoded(PHOTO, "JPEG")
    assert decode(data, name="jpeg").tobytes() == Image.open(io.BytesIO(data)).convert("RGB").tobytes()


JPEGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "full colour": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "restart markers": {"restart_marker_rows": 1},
}


def pixels_of(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


@pytest.mark.parametrize("name", ACCEPTED)
def test_pixels_are_those_of_the_picture(name: str) -> None:
    data, _ = ACCEPTED[name]
    assert torch.equal(decode_pixels(data, name=name), pixels_of(decode(data, name=name)))


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
def test_pixels_of_a_jpeg_are_those_of_pillow(options: dict[str, Any]) -> None:
    data = encoded(PHOTO.resize((67, 45)), "JPEG", **options)
    assert torch.equal(decode_pixels(data, name="jpeg"), pixels_of(decode(data, name="jpeg")))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_pixels_of_a_jpeg_of_other_colours_are_those_of_pillow(mode: str) -> None:
    data = encoded(PHOTO.convert(mode), "JPEG")
    assert torch.equal(decode_pixels(data, name="jpeg"), pixels_of(decode(data, name="jpeg")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_of_a_turned_jpeg_are_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(PHOTO, "JPEG", exif=exif)
    assert torch.equal(decode_pixels(data, name="jpeg"), pixels_of(decode(data, name="jpeg")))


def smooth(width: int, height: int) -> Image.Image:
    """A picture without edges, whose colours are no stronger than those of photographs."""
    paler = Image.blend(PHOTO.convert("L").convert("RGB"), PHOTO, 0.3)
    return paler.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_fast_decoding_gives_nearly_the_pixels_of_pillow_made_smaller(options: dict[str, Any], reduction: int) -> None:
    data = encoded(smooth(643, 461), "JPEG", **options)
    pixels = decode_pixels(data, name="jpeg", fast=lambda height, width: {(461, 643): reduction}[height, width])
    expected = decode(data, name="jpeg").reduce(reduction)
    assert pixels.shape == (3, *expected.size[::-1])
    assert float((pixels.double() - pixels_of(expected).double()).square().mean()) < 255**2 / 10**3.5  # 35 dB


@pytest.mark.parametrize("orientation", range(1, 9))
def test_fast_decoding_turns_a_picture_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(smooth(320, 240), "JPEG", exif=exif)
    exact, fast = (decode_pixels(data, name="jpeg", fast=reduce) for reduce in (None, lambda *_: 1))
    assert exact.shape == fast.shape
    assert float((exact.double() - fast.double()).square().mean()) < 255**2 / 10**4.0


@pytest.mark.parametrize("name", [name for name in ACCEPTED if not ACCEPTED[name][0].startswith(b"\xff\xd8")])
def test_fast_decoding_changes_nothing_but_jpeg_files(name: str) -> None:
    data, _ = ACCEPTED[name]
    assert torch.equal(decode_pixels(data, name=name, fast=lambda *_: 8), decode_pixels(data, name=name))


def test_fast_decoding_refuses_a_truncated_jpeg() -> None:
    data = encoded(smooth(320, 240), "JPEG")
    with pytest.raises(SampleError, match="row 1: the image is damaged"):
        decode_pixels(data[: len(data) // 2], name="row 1", fast=lambda *_: 2)


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
def test_the_header_of_a_plain_jpeg_tells_its_size(options: dict[str, Any]) -> None:
    assert plain_size(encoded(PHOTO.resize((67, 45)), "JPEG", comment=b"made by hand", **options)) == (67, 45)


def needing_a_look() -> dict[str, bytes]:
    plain, exif = encoded(PHOTO, "JPEG"), Image.Exif()
    exif[0x0112] = 1
    return {
        "EXIF": encoded(PHOTO, "JPEG", exif=exif),
        "a colour profile": encoded(PHOTO, "JPEG", icc_profile=b"profile"),
        "grey": encoded(PHOTO.convert("L"), "JPEG"),
        "CMYK": encoded(PHOTO.convert("CMYK"), "JPEG"),
        "no JPEG": encoded(PHOTO),
        "no scan": plain[: plain.index(b"\xff\xda")],
        "a segment cut off": plain[:30],
        "a second frame": plain.replace(frame_of(plain), frame_of(plain) * 2),
        "twelve bits": plain.replace(frame_of(plain), frame_of(plain).replace(b"\x08", b"\x0c", 1)),
        "no height": plain.replace(frame_of(plain), frame_of(plain).replace(b"\0\x0c", b"\0\0", 1)),
        "nothing": b"",
    }


def frame_of(data: bytes) -> bytes:
    place = data.index(b"\xff\xc0")
    return data[place : place + 2 + int.from_bytes(data[place + 2 : place + 4])]


@pytest.mark.parametrize("name", needing_a_look())
def test_the_header_of_any_other_file_asks_for_a_closer_look(name: str) -> None:
    assert plain_size(needing_a_look()[name]) is None


def test_a_damaged_header_is_read_or_refused_as_the_picture_is() -> None:
    draws = random.Random(0)
    whole = encoded(PHOTO, "JPEG")
    header = whole.index(b"\xff\xda") + 14
    for _ in range(300):
        data = damaged(whole[:header], draws) + whole[header:]
        try:
            expected = pixels_of(decode(data, name="jpeg"))
        except SampleError:
            with pytest.raises(SampleError):
                decode_pixels(data, name="jpeg")
        else:
            assert torch.equal(decode_pixels(data, name="jpeg"), expected)


@pytest.mark.parametrize("name", REFUSED)
def test_pixels_are_refused_in_the_words_of_the_picture(name: str) -> None:
    data, _ = REFUSED[name]
    with pytest.raises(SampleError) as picture:
        decode(data, name=name)
    with pytest.raises(SampleError) as pixels:
        decode_pixels(data, name=name)
    assert str(pixels.value) == str(picture.value)


def damaged(data: bytes, random: random.Random) -> bytes:
    """Bytes changed, lost or put in between, or the end cut off."""
    changed, place = bytearray(data), random.randrange(len(data))
    match random.randrange(4):
        case 0:
            changed[place] ^= 1 << random.randrange(8)
        case 1:
            del changed[place : place + random.randint(1, 20)]
        case 2:
            changed[place:place] = random.randbytes(random.randint(1, 20))
        case _:
            del changed[place:]
    return bytes(changed)


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
def test_a_damaged_jpeg_is_read_or_refused_as_the_picture_is(options: dict[str, Any]) -> None:
    draws = random.Random(0)
    whole = encoded(PHOTO.resize((67, 45)), "JPEG", **options)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(150):
        data = damaged(whole, draws)
        try:
            expected = pixels_of(decode(data, name="jpeg"))
        except SampleError:
            outcomes["refused"] += 1
            with pytest.raises(SampleError):
                decode_pixels(data, name="jpeg")
        else:
            outcomes["read"] += 1
            assert torch.equal(decode_pixels(data, name="jpeg"), expected)
    assert min(outcomes.values()) > 20


@pytest.mark.parametrize("orientation", range(1, 9))
def test_training_and_evaluation_see_the_same_upright_picture(orientation: int) -> None:
    processor = ImageProcessor((8, 8), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    image = decode(oriented(orientation), name="photo")
    upright = processor([PHOTO]).pixels
    assert torch.equal(processor([image]).pixels, upright)
    assert torch.equal(augment(image, processor, Augmentation(), 3), upright[0])


@pytest.mark.parametrize("opened", [lambda path: path, lambda path: path.read_bytes(), Image.open])
def test_paths_bytes_and_open_pictures_give_the_same(tmp_path: Path, opened: Callable[[Path], Any]) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(oriented(6))
    source = opened(path)
    assert open_image(source, name="photo").tobytes() == PHOTO.tobytes()
    if isinstance(source, Image.Image):
        source.close()


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match=r"row 3: .*gone\.png cannot be read"):
        open_image(tmp_path / "gone.png", name="row 3")


def test_filling_truncated_pictures_is_never_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(SampleError, match="LOAD_TRUNCATED_IMAGES"):
        decode(encoded(PHOTO), name="photo")


BOMBS_IN_A_CHILD = """
import resource, sys, time
from pathlib import Path
from renaissance.data.decode import decode
from renaissance.data.jpeg import plain_size
from renaissance.data.pixels import decode_pixels
from renaissance.errors import SampleError
from renaissance.recipe.training import Augmentation
for path in sorted(Path(sys.argv[1]).iterdir()):
    data = path.read_bytes()
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    refused = 0
    for decoder in (decode, decode_pixels):
        try:
            decoder(data, name=path.name)
        except SampleError:
            refused += 1
    seconds = time.process_time() - start
    print(path.name, refused, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, seconds)
"""


def bombs() -> dict[str, bytes]:
    """Small files of pictures that would take hundreds of megabytes."""
    black = bytes(60_000)
    frame = b",\x00\x00\x00\x00" + struct.pack("<HHB", 60_000, 60_000, 0)
    strip = lambda width, height: (  # noqa: E731
        struct.pack("<2sHIH", b"II", 42, 8, 7)
        + b"".join(
            struct.pack("<HHII", tag, 4, 1, value)
            for tag, value in ((256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 100), (279, 60_000))
        )
        + bytes(4)
    )
    return {
        "1-bit": png(13_300, 13_300, 1, 0, (b"\x00" + bytes(1663)) * 13_300),
        "rgb": png(13_300, 13_300, 8, 2, black * 100),
        "under the limit of Pillow": png(9_000, 9_000, 8, 2, black * 100),
        "gif": b"GIF89a" + struct.pack("<HHBBB", 60_000, 60_000, 0x80, 0, 0) + bytes(6) + frame + b"\x02\x02L\x01\x00;",
        "gif with a small screen": b"GIF89a"
        + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0)
        + bytes(6)
        + frame
        + b"\x02\x02L\x01\x00;",
        "ico": struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, 60_000, 22)
        + png(13_300, 13_300, 8, 2, black * 100),
        "bmp": b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 60_054, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)
        + black,
        "tiff": strip(60_000, 60_000) + black,
        "webp": b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\xfe\x3f\x00" * 2,
    }


def test_a_bomb_costs_neither_memory_nor_time(tmp_path: Path) -> None:
    for name, data in bombs().items():
        assert len(data) < 2**20, name
        (tmp_path / name).write_bytes(data)
    child = [sys.executable, "-c", BOMBS_IN_A_CHILD, str(tmp_path)]
    output = subprocess.run(child, capture_output=True, check=True, text=True, timeout=300).stdout
    rows = [line.rsplit(" ", 3) for line in output.splitlines()]
    assert {name: int(refused) for name, refused, _, _ in rows} == dict.fromkeys(bombs(), 2)
    assert max(float(megabytes) for _, _, megabytes, _ in rows) < 50
