from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from renaissance.features.keys import content_digest, kernel_facts, store_facts, store_key, tower_digest
from renaissance.features.parts import Stored, stored_parts
from tests.features.towers import TinyText

CPU = torch.device("cpu")


def tower() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4))


def facts(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "tower": tower_digest(tower(), {"width": 4}),
        "name": "Tower",
        "modality": "vision",
        "depth": None,
        "layers": 0,
        "dtype": torch.float32,
        "kept": torch.float32,
        "processor": {"mean": [0.5, 0.5, 0.5]},
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


@pytest.mark.parametrize(
    "changes",
    [
        {"tower": tower_digest(tower(), {"width": 5})},
        {"tower": digest_after(lambda module: module[0].weight[0, 0, 0, 0].add_(1e-6))},
        {"tower": digest_after(lambda module: module[1].running_var[0].add_(1))},
        {"tower": digest_after(lambda module: module.half())},
        {"depth": 6},
        {"layers": 2},
        {"dtype": torch.bfloat16},
        {"kept": torch.float16},
        {"processor": {"mean": [0.5, 0.5, 0.4]}},
        {"kernel": {**kernel_facts(CPU), "torch": "0.1"}},
    ],
)
def test_the_key_follows_the_content(changes: dict[str, Any]) -> None:
    assert store_key(facts(**changes)) != store_key(facts())


def test_the_kernel_names_threads_capability_and_all_that_computes_or_decodes() -> None:
    assert {"cpu", "threads", "torch", "torchvision", "timm", "pillow", "simplejpeg"} <= set(kernel_facts(CPU))


@pytest.fixture
def kernels() -> Iterator[None]:
    """Let what a test allows kernels to do be as before afterwards."""
    attention, bits = torch.backends.cuda.flash_sdp_enabled(), torch.get_float32_matmul_precision()
    yield
    torch.backends.cuda.enable_flash_sdp(attention)
    torch.set_float32_matmul_precision(bits)


@pytest.mark.parametrize(
    "choose",
    [lambda: torch.backends.cuda.enable_flash_sdp(False), lambda: torch.set_float32_matmul_precision("medium")],
    ids=["attention", "precision"],
)
@pytest.mark.usefixtures("kernels")
def test_the_key_follows_the_kernels_that_a_program_allows(choose: Callable[[], None]) -> None:
    before = store_key(facts())
    choose()
    assert store_key(facts()) != before


def test_the_key_follows_the_scale_of_adapters() -> None:
    def digest(alpha: int) -> str:
        torch.manual_seed(0)
        adapted = inject_adapter_in_model(LoraConfig(r=2, lora_alpha=alpha, target_modules=["0"]), tower())
        return tower_digest(adapted, {"width": 4})

    assert digest(4) == digest(4) != digest(8)


def test_the_facts_are_json() -> None:
    assert json.loads(json.dumps(facts())) == facts()


# --- of what is stored of a model -------------------------------------------------------------------------------------


def changed_weight(part: Stored) -> None:
    with torch.no_grad():
        next(iter(part.tower.parameters())).view(-1)[0] += 1e-6


def changed_config(part: Stored) -> None:
    real = part.tower.save
    part.tower.save = lambda folder: {**real(folder), "width": 7}


def changed_preprocessing(part: Stored) -> None:
    real = part.tower.processor.describe
    part.tower.processor.describe = lambda: {**real(), "kind": "capitals"}


@pytest.mark.parametrize("change", [changed_weight, changed_config, changed_preprocessing])
def test_a_change_of_weights_config_or_preprocessing_is_another_store(change: Callable[[Stored], None]) -> None:
    before, part = Stored("text", TinyText().eval()).key(), Stored("text", TinyText().eval())
    assert part.key() == before
    change(part)
    assert part.key() != before


def test_the_key_of_first_blocks_does_not_follow_what_comes_after_them(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model(rules="frozen text[:1]").eval()
    part = stored_parts(model.encoder)["text"]
    before = part.key()
    with torch.no_grad():
        next(iter(model.encoder.text.blocks[1].parameters())).add_(1)
    assert part.key() == before
    with torch.no_grad():
        next(iter(model.encoder.text.blocks[0].parameters())).add_(1)
    assert part.key() != before


def test_a_tower_is_saved_for_its_config_and_leaves_nothing(tmp_path: Path) -> None:
    assert Stored("text", TinyText()).facts()["name"] == "TinyText"
    assert content_digest("a") != content_digest("b")
