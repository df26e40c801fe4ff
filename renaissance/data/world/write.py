"""Write generated scenes as a folder that the ordinary reader of images and captions reads.

`captions.jsonl` has `image`, `id`, `split` ("train" or "test") and `caption` (a list); `scenes.jsonl` the scene graphs.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from renaissance.data.hashing import stable_hash
from renaissance.data.world.render import render
from renaissance.data.world.scene import Scene, draw_scene
from renaissance.data.world.verbalise import captions
from renaissance.errors import OutputError
from renaissance.recipe.data import WorldData

# part of the key of a cached world: raise it with every change of what a seed gives
VERSION = 3
CAPTIONS = "captions.jsonl"
SCENES = "scenes.jsonl"


def prepare_world(data: WorldData, cache: Path) -> Path:
    """Return the folder of these scenes below `cache`; they are generated once, whoever else does so meanwhile.

    Raises:
        OutputError: the folder cannot be written.
    """
    key = stable_hash("world", VERSION, json.dumps(data.model_dump(), sort_keys=True))
    folder = cache / f"world-{key:016x}"
    if not folder.exists():
        _write(folder, data)
    return folder


def _write(folder: Path, data: WorldData) -> None:
    """Write beside the folder, then rename; that of a process that was faster stays."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as unfinished:
            whole = Path(unfinished) / "world"
            _fill(whole, data)
            try:
                whole.rename(folder)
            except OSError:
                if not (folder / CAPTIONS).is_file():
                    raise
    except OSError as error:
        raise OutputError(f"The scenes cannot be written to '{folder}': {error.strerror or error}.") from None


def _fill(folder: Path, data: WorldData) -> None:
    folder.mkdir()
    for split in ("train", "test"):
        (folder / split).mkdir()
    with (
        (folder / CAPTIONS).open("w", encoding="utf-8") as texts,
        (folder / SCENES).open("w", encoding="utf-8") as graphs,
    ):
        for name, split, scene, told in generate(data):
            image = f"{split}/{name}.png"
            render(scene, data.image_size).save(folder / image)
            texts.write(_line({"image": image, "id": name, "split": split, "caption": list(told)}))
            graphs.write(_line({"id": name, **scene.dump()}))


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def generate(data: WorldData) -> Iterator[tuple[str, str, Scene, tuple[str, ...]]]:
    """Yield (id, split, scene, captions), training scenes first; no held-out scene is also a training scene.

    The held-out scenes do not depend on how many training scenes there are, and have no caption in common.
    """
    test = _distinct_scenes(data)
    held = {scene.graph() for scene in test}
    for number in range(data.train):
        random = Random(stable_hash("train", data.seed, number))
        scene = draw_scene(random)
        while scene.graph() in held:
            scene = draw_scene(random)
        yield f"train-{number:06d}", "train", scene, captions(scene, data.captions, random)
    taken: set[str] = set()
    for number, scene in enumerate(test):
        random = Random(stable_hash("test captions", data.seed, number))
        yield f"test-{number:06d}", "test", scene, captions(scene, data.captions, random, taken)


def _distinct_scenes(data: WorldData) -> list[Scene]:
    random = Random(stable_hash("test", data.seed))
    scenes: dict[tuple[object, ...], Scene] = {}
    while len(scenes) < data.test:
        scene = draw_scene(random)
        scenes.setdefault(scene.graph(), scene)
    return list(scenes.values())
