"""Write a world in the published layouts: `OUT/<layout>/`, and `OUT/<layout>-<language>/` for each further language.

```
world.json     what was asked for, and the figures that are expected in each layout
scenes.jsonl   the scene graph of each picture, with its ids in the corpora
images/        each picture once, as JPEG and as PNG; the layouts link to them
```
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from renaissance.data.world.kinds import narrowed
from renaissance.data.world.layouts import WRITERS
from renaissance.data.world.layouts.site import IMAGES, SUFFIXES, Figures, dumped, save, stored
from renaissance.data.world.render import render
from renaissance.data.world.scene import ALL, Kinds
from renaissance.data.world.worlds import IMAGE_SIZE, Picture, World, draw_world
from renaissance.errors import OutputError, SpecError
from renaissance.spec import did_you_mean, shown

FORMAT = 1
WORLD = "world.json"
SCENES = "scenes.jsonl"
# pictures that are rendered together
BATCH = 50
T = TypeVar("T")
R = TypeVar("R")


def write_world(
    out: Path,
    size: int,
    seed: int,
    languages: Sequence[str] = ("en",),
    layouts: Sequence[str] | None = None,
    *,
    image_size: int = IMAGE_SIZE,
    processes: int = 1,
    kinds: Kinds = ALL,
    compositional: bool = False,
) -> dict[str, Any]:
    """Write a world of `size` scenes in some layouts, by default in all, and return what `world.json` says.

    kinds: of what the scenes are drawn, made by `choose_kinds`. compositional: the layouts of Karpathy and Fei-Fei
    (COCO, Flickr30k) have a split 'test_compositional' too, of pairs of shape and colour that no other split has.

    The same arguments give the same bytes, whatever the number of processes. The folder is written whole or not at all.

    Raises:
        SpecError: a language or layout is unknown, a size cannot be, or there are too few kinds.
        OutputError: `out` exists, or cannot be written.
    """
    chosen = _chosen(layouts)
    world = draw_world(size, seed, languages, image_size, kinds=kinds, compositional=compositional)
    try:
        if out.exists():
            raise OutputError(f"'{out}' exists already. Choose another folder, or remove it.")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as unfinished:
            whole = Path(unfinished) / "world"
            manifest = _fill(whole, world, chosen, processes)
            whole.rename(out)
    except OSError as error:
        raise OutputError(f"'{out}' cannot be written ({error.strerror or error}).") from None
    return manifest


def _chosen(layouts: Sequence[str] | None) -> tuple[str, ...]:
    for name in layouts or ():
        if name not in WRITERS:
            told = did_you_mean(name, WRITERS)
            raise SpecError(f"No world is written as '{shown(name)}'.{told} Known: {', '.join(sorted(WRITERS))}.")
    return tuple(name for name in WRITERS if layouts is None or name in layouts)


def _fill(root: Path, world: World, layouts: Sequence[str], processes: int) -> dict[str, Any]:
    (root / IMAGES).mkdir(parents=True)
    batches = [world.pictures[start : start + BATCH] for start in range(0, len(world.pictures), BATCH)]
    with _mapping(processes) as run:
        for _ in run(partial(_render, root / IMAGES, world.image_size), batches):
            pass
        figures: dict[str, Figures] = {}
        for of_layout in run(partial(_write, root, world), layouts):
            figures |= of_layout
    (root / SCENES).write_text("".join(_lines(world)), encoding="utf-8", newline="\n")
    fewer = narrowed(world.kinds)
    manifest = {
        "format": FORMAT,
        "size": len(world.pictures),
        "seed": world.seed,
        "languages": list(world.languages),
        "image_size": world.image_size,
        "scenes": {split: len(world.by_split[split]) for split in world.splits},
        **({"kinds": fewer} if fewer else {}),
        "layouts": sorted(layouts),
        "figures": dict(sorted(dumped(figures).items())),
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    (root / WORLD).write_text(text, encoding="utf-8", newline="\n")
    return manifest


def _render(folder: Path, image_size: int, pictures: Iterable[Picture]) -> None:
    for picture in pictures:
        image = render(picture.scene, image_size)
        for suffix in SUFFIXES:
            save(image, stored(folder, picture, suffix))


def _write(root: Path, world: World, layout: str) -> Mapping[str, Figures]:
    return WRITERS[layout](root, world)


def _lines(world: World) -> Iterator[str]:
    for picture in world.pictures:
        ids = {"coco_id": picture.coco_id, "genome_id": picture.genome_id, "flickr_id": picture.flickr_id}
        row = {"number": picture.number, "split": picture.split, **ids, **picture.scene.dump()}
        yield json.dumps(row, ensure_ascii=False) + "\n"


@contextmanager
def _mapping(processes: int) -> Iterator[Callable[[Callable[[T], R], Iterable[T]], Iterator[R]]]:
    """Give `map`: here, or in several processes, which end with the block."""
    if processes <= 1:
        yield map
        return
    # a forked process could hang on a lock that a thread of this one held
    pool: Executor = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    with pool:
        yield pool.map
