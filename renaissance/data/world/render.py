"""Pictures of scenes: drawn at a multiple of the size, then averaged, so that edges are smooth."""

from __future__ import annotations

import math

from PIL import Image, ImageChops, ImageDraw

from renaissance.data.world.scene import Scene, Thing

Point = tuple[float, float]
Colour = tuple[int, int, int]
Corner = tuple[int, int]

COLOURS: dict[str, Colour] = {
    "red": (220, 20, 30),
    "green": (20, 150, 40),
    "blue": (25, 60, 225),
    "yellow": (250, 215, 0),
    "purple": (125, 20, 160),
    "orange": (255, 125, 0),
    "pink": (255, 120, 185),
    "turquoise": (0, 200, 200),
}
BACKGROUNDS: dict[str, Colour] = {
    "white": (255, 255, 255),
    "light grey": (190, 190, 190),
    "dark grey": (90, 90, 90),
    "black": (10, 10, 10),
}
FINER = 4


def render(scene: Scene, image_size: int) -> Image.Image:
    """Return an RGB picture of `image_size` pixels a side."""
    side = image_size * FINER
    picture = Image.new("RGB", (side, side), BACKGROUNDS[scene.background])
    for thing in scene.things:
        # drawn on a sheet as large as the thing, which is then put in its place
        reach = math.ceil(thing.radius * side) + 1
        left, top = round(thing.x * side) - reach, round(thing.y * side) - reach
        place = left, top, left + 2 * reach, top + 2 * reach
        mask = Image.new("L", (2 * reach, 2 * reach), 0)
        _fill(ImageDraw.Draw(mask), thing, side, (left, top))
        picture.paste(COLOURS[thing.colour], place, mask)
        if thing.texture != "plain":
            # a darker shade: white stripes would cut a thing to pieces on white
            shade = tuple(value // 2 for value in COLOURS[thing.colour])
            pattern = _texture(thing, side, (left, top), mask.size)
            picture.paste(shade, place, ImageChops.multiply(mask, pattern))
    return picture.reduce(FINER)


def outline(thing: Thing, image_size: int) -> list[Point]:
    """Return the corners of a thing's outline, in pixels of a picture of `image_size` a side; of a circle, 48."""
    corners = _OUTLINES.get(thing.shape) or _regular(48)
    return [(image_size * (thing.x + thing.radius * x), image_size * (thing.y + thing.radius * y)) for x, y in corners]


def box(thing: Thing, image_size: int) -> tuple[float, float, float, float]:
    """Return the box around a thing, [left, top, width, height] in pixels of a picture of `image_size` a side."""
    xs, ys = zip(*outline(thing, image_size), strict=True)
    left, top = round(min(xs), 2), round(min(ys), 2)
    return left, top, round(max(xs) - left, 2), round(max(ys) - top, 2)


def _fill(draw: ImageDraw.ImageDraw, thing: Thing, side: int, corner: Corner) -> None:
    """Draw a thing in white, on a sheet whose upper left corner is at `corner` of the picture."""
    if thing.shape == "circle":
        draw.circle((thing.x * side - corner[0], thing.y * side - corner[1]), thing.radius * side, fill=255)
        return
    draw.polygon([(x - corner[0], y - corner[1]) for x, y in outline(thing, side)], fill=255)


def _texture(thing: Thing, side: int, corner: Corner, size: tuple[int, int]) -> Image.Image:
    """Return where the pattern of a thing is, in white, on such a sheet: slanted stripes, or dots in a grid."""
    mask = Image.new("L", size, 0)
    draw = ImageDraw.Draw(mask)
    # the same pattern on every thing, in pixels of the picture: texture tells nothing of size
    step = side * 0.09
    left, top, reach = thing.x * side - corner[0], thing.y * side - corner[1], math.ceil(thing.radius * side / step) + 1
    for i in range(-2 * reach, 2 * reach + 1):
        if thing.texture == "striped":
            x = left + i * step
            draw.line(
                (x - reach * step, top - reach * step, x + reach * step, top + reach * step), 255, round(step * 0.3)
            )
            continue
        for j in range(-reach, reach + 1):
            centre = (left + (i + j % 2 / 2) * step, top + j * step)
            draw.circle(centre, step * 0.24, fill=255)
    return mask


def _regular(corners: int, *, inner: float = 1.0, turn: float = 0.0) -> list[Point]:
    """Return corners on the unit circle, every second one at `inner` of the radius; the first is at the top."""
    angles = [turn + 2 * math.pi * i / corners for i in range(corners)]
    radii = [inner if i % 2 else 1.0 for i in range(corners)]
    return [(r * math.sin(a), -r * math.cos(a)) for a, r in zip(angles, radii, strict=True)]


def _heart() -> list[Point]:
    turns = [2 * math.pi * i / 60 for i in range(60)]
    curve = [
        (16 * math.sin(t) ** 3, -13 * math.cos(t) + 5 * math.cos(2 * t) + 2 * math.cos(3 * t) + math.cos(4 * t))
        for t in turns
    ]
    return [(x / 17.5, (y - 2.5) / 17.5) for x, y in curve]


def _cross() -> list[Point]:
    arm, end = 0.3, 0.95
    corner = [(-arm, -end), (arm, -end), (arm, -arm), (end, -arm), (end, arm), (arm, arm)]
    return corner + [(-x, -y) for x, y in corner]


_OUTLINES: dict[str, list[Point]] = {
    "square": _regular(4, turn=math.pi / 4),
    "triangle": _regular(3),
    "star": _regular(10, inner=0.42),
    "heart": _heart(),
    "cross": _cross(),
    "diamond": [(0.0, -1.0), (0.62, 0.0), (0.0, 1.0), (-0.62, 0.0)],
}
