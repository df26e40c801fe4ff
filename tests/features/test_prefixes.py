"""Towers that go on from their first blocks: the law of stored prefixes, on the tiny backbones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from renaissance.api import Features, Prefix, VisionInput
from renaissance.errors import SpecError
from renaissance.features.parts import stored_parts
from renaissance.toolkit.canonical import encode_canonical, prefix_canonical
from renaissance.toolkit.resuming import begun, blank_images, finished, frozen_blocks, goes_on

LINES = {
    "transformers": "tiny-vit(layers=3, width=32, heads=2, mlp_width=64, image_size=32, patch_size=8)",
    "timm, absolute positions": "timm:test_vit",
    "timm, rotations": "timm:eva02_tiny_patch14_224",
}
CAPTIONS = ["a red cup", "a much longer caption of a red cup and of two blue cups", "a dog", "a cat on a mat"]


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Any]) -> Any:
    return tiny_model(rules="frozen vision[:1], frozen text[:1]", dropout=0.1)


def pictures(count: int) -> VisionInput:
    generator = torch.Generator().manual_seed(3)
    return VisionInput(torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator))


@pytest.mark.parametrize("modality", ["vision", "text"])
@pytest.mark.parametrize("depth", [1, 2])
def test_going_on_from_first_blocks_is_the_whole_tower(model: Any, modality: str, depth: int) -> None:
    tower = getattr(model.eval().encoder, modality)
    inputs = pictures(3) if modality == "vision" else tower.processor(CAPTIONS)
    with torch.no_grad():
        prefix = prefix_canonical(tower, inputs, depth)
        on = finished(tower, begun(tower, inputs, prefix), depth)
        whole = tower(inputs)
    mask = whole.mask.unsqueeze(-1)
    torch.testing.assert_close(on.tokens * mask, whole.tokens * mask, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(on.pooled, whole.pooled, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("modality", ["vision", "text"])
def test_two_halves_in_canonical_shapes_are_the_whole_bit_for_bit(model: Any, modality: str) -> None:
    tower = getattr(model.eval().encoder, modality)
    inputs = pictures(11) if modality == "vision" else tower.processor(CAPTIONS)
    first = prefix_canonical(tower, inputs, 1)
    whole, halves = encode_canonical(tower, inputs), encode_canonical(tower, inputs, (), first)
    assert torch.equal(whole.tokens, halves.tokens)
    assert torch.equal(prefix_canonical(tower, inputs, 2).tokens, prefix_canonical(tower, inputs, 2, first).tokens)


def test_pixels_are_not_read_where_first_blocks_are_given(model: Any) -> None:
    encoder = model.eval().encoder
    images = pictures(3)
    prefix = prefix_canonical(encoder.vision, images, 1)
    assert torch.equal(encoder.encode_vision(None, prefix).tokens, encoder.encode_vision(images).tokens)
    blank = blank_images(encoder.vision, 1000)
    assert blank.pixels.untyped_storage().nbytes() == 3 * 32 * 32


def test_first_blocks_that_are_frozen_take_no_gradient_and_give_none(model: Any) -> None:
    encoder = model.train().encoder
    encoder.encode_vision(pictures(2)).tokens.sum().backward()
    held, free = encoder.vision.blocks
    assert all(parameter.grad is None for parameter in held.parameters())
    assert any(parameter.grad is not None for parameter in free.parameters())
    model.zero_grad(set_to_none=True)


def test_a_frozen_middle_is_no_prefix(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model(rules="frozen vision[:1]")
    assert frozen_blocks(model.encoder.vision) == 1
    for module in model.encoder.vision.embeddings:
        module.requires_grad_(True)
    assert frozen_blocks(model.encoder.vision) == 0
    assert model.encoder.prefix("vision") == 0


def test_a_tower_that_fills_up_its_context_goes_on_from_no_block() -> None:
    class Filled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(2, 2)])
            self.processor = lambda texts: pictures(1)

        def embed(self, inputs: Any) -> Any:
            return object()

    assert not goes_on(Filled())


@pytest.mark.parametrize("line", LINES.values(), ids=LINES.keys())
def test_images_of_each_kind_of_positions_go_on(line: str) -> None:
    from renaissance.assemble import assemble
    from renaissance.resolve import resolve

    spec = f"{line} + tiny-bert(layers=1, width=32, heads=2, mlp_width=64), random both, frozen vision[:1], "
    model = assemble(resolve(f"{spec}lxmert(layers=1, width=32, heads=2)", {"itm": {}}), seed=0).eval()
    tower = model.encoder.vision
    size = tower.processor.image_size
    images = VisionInput(torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8))
    with torch.no_grad():
        prefix = prefix_canonical(tower, images, 1)
        torch.testing.assert_close(
            finished(tower, begun(tower, images, prefix), 1).tokens, tower(images).tokens, atol=1e-5, rtol=1e-5
        )
    assert model.encoder.prefix("vision") == 1


# --- what can be stored -----------------------------------------------------------------------------------------------


def test_what_is_stored_is_what_is_frozen_from_the_input_on(tiny_model: Callable[..., Any]) -> None:
    assert {m: part.depth for m, part in stored_parts(tiny_model(rules="frozen both").encoder).items()} == {
        "vision": None,
        "text": None,
    }
    parts = stored_parts(tiny_model(rules="frozen vision[:1]").encoder)
    assert {modality: (part.depth, part.name) for modality, part in parts.items()} == {"vision": (1, "vision[:1]")}


def test_what_a_store_holds_may_be_less_than_what_is_frozen_now(tiny_model: Callable[..., Any]) -> None:
    encoder = tiny_model(rules="frozen vision").encoder
    part = stored_parts(encoder, depths={"vision": 1, "text": 0})["vision"]
    read = part.read_as(part.encode(pictures(3)))
    assert isinstance(read, Prefix)
    assert torch.equal(encoder.encode_vision(None, read).tokens, encoder.encode_vision(pictures(3)).tokens)


def test_layers_that_the_head_reads_are_stored_with_a_whole_tower_and_run_after_first_blocks(
    tiny_model: Callable[..., Any],
) -> None:
    encoder = tiny_model(rules="frozen vision", fusion="bridge").encoder
    part = stored_parts(encoder)["vision"]
    assert part.layers == encoder.needs.layers > 0
    read = part.read_as(part.encode(pictures(3)))
    direct = encoder.encode_vision(pictures(3))
    assert isinstance(read, Features)
    assert all(torch.equal(a, b) for a, b in zip(read.layers, direct.layers, strict=True))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("", "no tower is frozen, nor the embeddings with the first layers"),
        ("frozen text[1:]", "no tower is frozen, nor the embeddings with the first layers"),
        ("frozen text.embeddings", "no tower is frozen, nor the embeddings with the first layers"),
    ],
)
def test_a_store_of_nothing_is_refused_with_the_reason(
    tiny_model: Callable[..., Any], rules: str, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        stored_parts(tiny_model(rules=rules).encoder)
