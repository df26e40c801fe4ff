"""Fixtures that several folders of tests share: tiny models, batches and data; one thread, seeded, offline."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

TINY_VISION = "tiny-vit(layers=2, width=32, heads=2, mlp_width=64, image_size=32, patch_size=8{dropout})"
TINY_TEXT = "tiny-bert(layers=2, width=32, heads=2, mlp_width=64{dropout})"
TINY_FUSION = "{fusion}(layers=2, width=32, heads=2, dropout={rate})"
CAPTIONS = (
    ("a red cup on a table", "a cup"),
    ("two blue cups", "two cups that are blue"),
    ("a green tree beside a small white house", "a tree"),
    ("a dog", "a brown dog runs"),
    ("a yellow square above a circle", "shapes"),
    ("one black cat sleeps", "a cat"),
    ("a train", "an old train in the rain"),
    ("a large triangle", "a triangle to the left of nothing"),
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Seed torch and keep it to one thread, where it is loaded: tests of what describes load none."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where generated data and stored features go in tests that run a recipe."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("RENAISSANCE_CACHE")
    os.environ["RENAISSANCE_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["RENAISSANCE_CACHE"]
    else:
        os.environ["RENAISSANCE_CACHE"] = before


@pytest.fixture(scope="session")
def tiny_spec() -> Callable[..., str]:
    """Return the line of a tiny two-tower model."""

    def spec(rules: str = "", *, fusion: str = "lxmert", dropout: float = 0.0) -> str:
        option = f", dropout={dropout}"
        head = "dual(width=32)" if fusion == "dual" else TINY_FUSION.format(fusion=fusion, rate=dropout)
        towers = f"{TINY_VISION.format(dropout=option)} + {TINY_TEXT.format(dropout=option)}"
        return ", ".join(part for part in (towers, "random both", rules, head) if part)

    return spec


@pytest.fixture(scope="session")
def tiny_model(tiny_spec: Callable[..., str]) -> Callable[..., Any]:
    """Build a tiny two-tower model with tasks, in train mode."""

    def build(
        tasks: Sequence[str] | Mapping[str, Mapping[str, Any]] = ("mlm", "itm", "itc"),
        rules: str = "",
        *,
        fusion: str = "lxmert",
        dropout: float = 0.0,
        registry: Any = None,
        seed: int = 0,
    ) -> Any:
        from renaissance.assemble import assemble
        from renaissance.resolve import resolve

        uses = tasks if isinstance(tasks, Mapping) else {name: {} for name in tasks}
        plan = resolve(tiny_spec(rules, fusion=fusion, dropout=dropout), uses, registry=registry)
        return assemble(plan, seed=seed).train()

    return build


@pytest.fixture(scope="session")
def tiny_batch() -> Callable[..., Any]:
    """Make a batch of random pictures with captions, one pair an image, as the collator makes them."""

    def batch(
        model: Any, count: int = 4, *, captions: Sequence[Sequence[str]] = CAPTIONS, seed: int = 0, first: int = 0
    ) -> Any:
        import torch

        from renaissance.api import Batch, VisionInput
        from renaissance.data.captions import caption_key

        chosen = captions[first : first + count]
        texts = list(dict.fromkeys(told[0] for told in chosen))
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.randint(0, 256, (first + count, 3, 32, 32), dtype=torch.uint8, generator=generator)[first:]
        keys = torch.zeros((count, max(map(len, captions))), dtype=torch.int64)
        for row, told in enumerate(chosen):
            keys[row, : len(told)] = torch.tensor([caption_key(caption) for caption in told])
        return Batch(
            images=VisionInput(pixels),
            texts=model.encoder.text.processor(texts),
            pairs=torch.tensor([[row, texts.index(told[0])] for row, told in enumerate(chosen)]),
            slots=torch.zeros(count, dtype=torch.int64),
            items=torch.arange(count),
            seeds=torch.arange(first, first + count) * 7919 + 104_729 * (seed + 1),
            caption_keys=keys,
            text_keys=torch.tensor([caption_key(text) for text in texts]),
            image_keys=torch.arange(first, first + count),
            view_keys=torch.arange(first, first + count),
        )

    return batch


@pytest.fixture
def tiny_recipe(tiny_spec: Callable[..., str], cache: Path) -> Callable[..., dict[str, Any]]:
    """Return the data of a recipe that runs in a second; keyword arguments replace its sections."""

    def recipe(**changes: Any) -> dict[str, Any]:
        return {
            "name": "tiny",
            "start": tiny_spec(),
            "tasks": {"mlm": {}, "itm": {}, "itc": {"options": {"width": 16}}},
            "data": {"kind": "world", "train": 24, "test": 6, "captions": 2, "image_size": 32},
            "batch": {"size": 4},
            "budget": {"steps": 4},
            "schedule": {"warmup_steps": 1},
            "optimiser": {"lr": 0.002},
            "evaluation": {"tasks": {"retrieval": {}}, "untrained": False},
            **changes,
        }

    return recipe
