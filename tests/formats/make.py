"""Write what today's renaissance saves, one small thing of each format: `python -m tests.formats.make`.

The folder is named by the version, and is never written again: later versions must read it as it is. A change of a
format comes with a new version, and with a new folder beside the old ones.

    world/          of `data world`: what was asked for, and the scenes
    prepared/       of `data prepare`: the captions and pictures of that world
    words/          the tokenizer of the run's text tower
    features/       the run's store: what its frozen text tower gives
    run/            a run that is done: recipe, scores, ledger, model
    killed/         the same run, as a kill after its second update leaves it
    answers.json    what the model says of the pictures and texts of a split
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors

import renaissance
from renaissance.data.prepare import prepare
from renaissance.data.prepared import Prepared
from renaissance.data.world.build import write_world
from renaissance.training.folder import set_state

HERE = Path(__file__).parent
LAYOUT = "coco-captions"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
RECIPE: Mapping[str, Any] = {
    "name": "formats",
    "start": "tiny-vit(layers=1, width=8, heads=2, mlp_width=16, image_size=16, patch_size=8) + "
    'tiny-bert(layers=1, width=4, heads=2, mlp_width=8, max_tokens=32, tokenizer="words"), random both, frozen text, '
    "lxmert(layers=1, width=8, heads=2)",
    "tasks": {"itm": {}, "itc": {"options": {"width": 8}}},
    "data": {"kind": "prepared", "path": "prepared", "splits": ["val"]},
    "batch": {"size": 4},
    "budget": {"steps": 4},
    "optimiser": {"lr": 0.0001},
    "schedule": {"warmup_steps": 1},
    "ema": {"decay": 0.9},
    "store": {"folder": "features"},
    "checkpoint_every": 2,
    "evaluation": {"primary": "val/itm/accuracy", "untrained": False},
}


def main() -> None:
    """Write the folder of this version."""
    version = re.sub(r"\.dev\d+$", "", renaissance.__version__)
    target = HERE / version
    if target.exists():
        sys.exit(f"{target} is there, and later versions must read it as it is. Raise the version, or remove it.")
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        write()
        shutil.copytree(scratch, target)
    print(f"written  {target}: {sum(path.stat().st_size for path in target.rglob('*') if path.is_file()):,} bytes")


def write() -> None:
    """Write one of each into the present folder: paths in recipes are relative to it."""
    world = Path("world")
    write_world(world, 40, 0, layouts=(LAYOUT,), image_size=16)
    prepare(LAYOUT, world / LAYOUT, Path("prepared"))
    write_words(Path("words"))
    run = renaissance.run(RECIPE, out="run")
    as_killed(run.folder, Path("killed"))
    Path("answers.json").write_text(json.dumps(answers(run.folder), indent=1) + "\n")
    for name in (LAYOUT, "images"):
        shutil.rmtree(world / name)  # a corpus as it is published, and pictures: no formats of ours
    for lock in (path for path in Path().rglob(".*") if path.is_file()):
        lock.unlink()


def write_words(folder: Path) -> None:
    """Write a tokenizer of whole words, those of the captions; the one that ships is too large to be kept here."""
    split = pre_tokenizers.BertPreTokenizer()
    data = Prepared(Path("prepared"))
    texts = [text for name in data.splits for item in data.items(name) for text in item.texts]
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)})
    numbers = {token: number for number, token in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = split
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, numbers[token]) for token in ("[CLS]", "[SEP]")],
    )
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))


def as_killed(run: Path, killed: Path) -> None:
    """Take from a copy of a run what it wrote after its second update; checkpoints stay in that copy alone."""
    shutil.copytree(run, killed)
    shutil.rmtree(killed / "model")
    shutil.rmtree(killed / "checkpoints" / "step-00000004")
    for name in ("scores.json", "ledger.json"):
        (killed / name).unlink()
    set_state(killed, "running")
    shutil.rmtree(run / "checkpoints")


def answers(run: Path) -> dict[str, Any]:
    """Return what the model of a run says of the items of a split."""
    model = renaissance.from_pretrained(run)
    items = list(Prepared(Path("prepared")).items("val"))
    asked = {"images": [item.images[0].read() for item in items], "texts": [item.texts[0] for item in items]}
    vectors = model.embed(**asked)
    return {
        "images": vectors.images.tolist(),
        "texts": vectors.texts.tolist(),
        "match": model.match(**asked).tolist(),
    }


if __name__ == "__main__":
    main()
