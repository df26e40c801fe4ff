from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from renaissance.api import Features, TextInput, VisionInput
from renaissance.data.records import Record
from renaissance.features.keys import content_digest, kernel_facts, store_facts, store_key, tower_digest
from renaissance.features.samples import image_digests, store_captions, store_images
from renaissance.toolkit.images import ImageProcessor

CPU = torch.device("cpu")


def tower() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4))


def facts(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "tower": tower_digest(tower(), {"width": 4}),
        "dtype": torch.float32,
        "processor": {"mean": [0.5, 0.5, 0.5]},
        "samples": [content_digest("a"), content_digest("b")],
        "kernel": kernel_facts(CPU),
    }
    return store_facts(**{**given, **changes})


def digest_after(change: Any) -> str:
    module = tower()
    with torch.no_grad():
        change(module)
    return tower_digest(module, {"width": 4})


def test_equal_content_has_an_equal_key() -> None:
    assert store_key(facts()) == store_key(facts())


def test_the_order_of_samples_does_not_matter_and_repeats_neither() -> None:
    a, b = content_digest("a"), content_digest("b")
    assert store_key(facts(samples=[a, b])) == store_key(facts(samples=[b, a, b]))


@pytest.mark.parametrize(
    "changes",
    [
        {"tower": tower_digest(tower(), {"width": 5})},
        {"tower": digest_after(lambda module: module[0].weight[0, 0, 0, 0].add_(1e-6))},
        {"tower": digest_after(lambda module: module[1].running_var[0].add_(1))},
        {"tower": digest_after(lambda module: module.half())},
        {"dtype": torch.bfloat16},
        {"processor": {"mean": [0.5, 0.5, 0.4]}},
        {"samples": [content_digest("a")]},
        {"samples": [content_digest("a"), content_digest("B")]},
        {"kernel": {**kernel_facts(CPU), "torch": "0.1"}},
    ],
)
def test_the_key_follows_the_content(changes: dict[str, Any]) -> None:
    assert store_key(facts(**changes)) != store_key(facts())


def test_the_kernel_names_threads_capability_and_libraries() -> None:
    assert {"cpu", "threads", "torch", "transformers", "timm", "pillow"} <= set(kernel_facts(CPU))


def test_the_facts_are_json() -> None:
    assert json.loads(json.dumps(facts())) == facts()


@dataclass(frozen=True)
class File:
    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def read(self) -> bytes:
        return self.path.read_bytes()


class TinyVision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 4, 8, 8)
        self.processor = ImageProcessor((16, 16), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        self.calls = 0

    def forward(self, inputs: VisionInput, layers: Sequence[int] = ()) -> Features:
        self.calls += 1
        tokens = self.patches(self.processor.normalise(inputs.pixels)).flatten(2).transpose(1, 2)
        return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))


def records(folder: Path, colours: Sequence[str]) -> list[Record]:
    made = []
    for index, colour in enumerate(colours):
        path = folder / f"{index}.png"
        Image.new("RGB", (20, 20), colour).save(path)
        made.append(Record(str(index), File(path), (colour,), f"row {index}"))
    return made


def test_images_of_records_are_stored_and_found_by_their_bytes(tmp_path: Path) -> None:
    vision, some = TinyVision().eval(), records(tmp_path, ["red", "blue", "red"])
    store = store_images(tmp_path / "features", vision, some, config={})
    rows = [store.rows[digest] for digest in image_digests(some)]
    assert rows == [0, 1, 0]
    pictures = vision.processor([Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "red")])
    with torch.no_grad():
        torch.testing.assert_close(store.read(rows).tokens, vision(pictures).tokens)


def test_a_changed_image_means_another_store(tmp_path: Path) -> None:
    vision = TinyVision().eval()
    first = store_images(tmp_path / "features", vision, records(tmp_path, ["red"]), config={})
    calls = vision.calls
    assert store_images(tmp_path / "features", vision, records(tmp_path, ["red"]), config={}).key == first.key
    assert vision.calls == calls
    assert store_images(tmp_path / "features", vision, records(tmp_path, ["blue"]), config={}).key != first.key


class TinyText(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(300, 4)
        self.processor = Letters()

    def forward(self, inputs: TextInput, layers: Sequence[int] = ()) -> Features:
        return Features(self.words(inputs.token_ids), inputs.mask)


class Letters:
    class facts:  # noqa: N801  # stands for a TokenizerFacts
        pad_id, max_tokens = 0, 64

    def __call__(self, texts: Sequence[str]) -> TextInput:
        ids = nn.utils.rnn.pad_sequence([torch.tensor(list(text.encode())) for text in texts], batch_first=True)
        return TextInput(ids, ids > 0)

    def describe(self) -> dict[str, str]:
        return {"kind": "letters"}


def test_captions_are_found_by_their_content(tmp_path: Path) -> None:
    store = store_captions(tmp_path, TinyText().eval(), ["a red cup", "a cup"], config={})
    features = store.read([store.rows[content_digest("a cup")]])
    assert features.tokens.shape == (1, 5, 4)
