"""Each fusion head between two towers, built from a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from renaissance.api import Features, Output, TextInput, VisionInput
from renaissance.assemble import assemble
from renaissance.container import load, save
from renaissance.errors import SpecError
from renaissance.resolve import resolve

LAYERS = "layers=2, heads=2, dropout=0.0"
HEADS = (
    "concat(width=32)",
    f"merged-attention({LAYERS}, width=32)",
    f"bridge({LAYERS}, width=32)",
    f"text-cross-attention({LAYERS}, width=16)",
    f'text-cross-attention({LAYERS}, text_blocks="shared")',
    f'text-cross-attention({LAYERS}, text_blocks="inherited")',
    f"q-former({LAYERS}, queries=4)",
    f'q-former({LAYERS}, queries=4, text_blocks="shared")',
    f'q-former({LAYERS}, queries=4, text_blocks="inherited")',
)
each_head = pytest.mark.parametrize("head", HEADS)
READ: frozenset[Output] = frozenset({"pooled", "text"})


@pytest.fixture(scope="session")
def built(tiny_spec: Callable[..., str]) -> Callable[[str], Any]:
    def build(head: str) -> Any:
        towers = tiny_spec().rsplit(", lxmert(", 1)[0]
        return assemble(resolve(f"{towers}, {head}", {"itm": {}, "mlm": {}})).eval()

    return build


def encode(encoder: Any, texts: TextInput) -> tuple[Features, Features]:
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return encoder.encode_vision(VisionInput(pixels)), encoder.encode_text(texts)


def words(encoder: Any) -> TextInput:
    return encoder.text.processor(["a dog", "a black cat on a mat"])  # type: ignore[no-any-return]  # a tower's processor


@each_head
def test_padding_of_the_text_changes_nothing_from_end_to_end(head: str, built: Callable[[str], Any]) -> None:
    encoder = built(head).encoder
    texts = words(encoder)
    wide = TextInput(F.pad(texts.token_ids, (0, 5)), F.pad(texts.mask, (0, 5)))
    plain, padded = (encoder.fuse(*encode(encoder, text), READ) for text in (texts, wide))
    torch.testing.assert_close(padded.pooled, plain.pooled, rtol=1e-5, atol=1e-5)
    found = padded.text.tokens[:, : texts.mask.shape[1]][texts.mask]
    torch.testing.assert_close(found, plain.text.tokens[texts.mask], rtol=1e-5, atol=1e-5)


@each_head
def test_a_gradient_reaches_every_parameter_of_the_head_and_the_towers_blocks(
    head: str, built: Callable[[str], Any]
) -> None:
    encoder = built(head).encoder
    joint = encoder.fuse(*encode(encoder, words(encoder)), READ)
    (joint.pooled.sum() + joint.text.tokens.square().sum()).backward()
    modules = [encoder.fusion, *encoder.vision.blocks, *encoder.text.blocks]
    assert [name for module in modules for name, p in module.named_parameters() if p.grad is None] == []


@each_head
def test_a_saved_model_gives_the_same_fusion(head: str, built: Callable[[str], Any], tmp_path: Path) -> None:
    model = built(head)
    save(model, tmp_path / "model")
    again: Any = load(tmp_path / "model").eval()
    found, expected = (m.encoder.fuse(*encode(m.encoder, words(m.encoder)), READ) for m in (again, model))
    assert torch.equal(found.pooled, expected.pooled)
    assert torch.equal(found.text.tokens, expected.text.tokens)


@pytest.mark.parametrize("name", ["text-cross-attention", "q-former"])
def test_shared_blocks_are_the_text_towers_after_loading_too(
    name: str, built: Callable[[str], Any], tmp_path: Path
) -> None:
    save(built(f'{name}({LAYERS}, text_blocks="shared")'), tmp_path / "model")
    encoder: Any = load(tmp_path / "model").encoder
    tower = {id(p) for p in encoder.text.parameters()}
    blocks = [p for block in encoder.fusion.blocks for p in block.parameters()]
    assert blocks
    assert {id(p) for p in blocks} <= tower
    assert not [key for key in encoder.fusion.state_dict() if key.startswith("blocks")]


def test_more_bridge_layers_than_a_tower_has_are_refused_with_the_most_there_can_be(
    tiny_spec: Callable[..., str],
) -> None:
    line = tiny_spec().replace("lxmert(layers=2", "bridge(layers=3")
    with pytest.raises(SpecError, match=r"reads the last 3 layers .* has 2"):
        resolve(line, ("itm",))
