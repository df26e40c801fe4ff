from __future__ import annotations

from typing import Any

import pytest
import torch

import renaissance
from renaissance.api import Features, TextInput, VisionInput
from renaissance.pretrained import Model

VIT = "transformers:vit(image_size=32, patch_size=8, layers=2, width=32, heads=2, mlp_width=64)"
BERT = 'transformers:bert(layers=2, width=32, heads=2, mlp_width=64, max_tokens=32, tokenizer="renaissance")'
WIDE = 'transformers:bert(layers=2, width=48, heads=2, mlp_width=64, max_tokens=32, tokenizer="renaissance")'
NEW = "image_size=32, patch_size=8"
SPECS = {
    "vision base, new words": f'{VIT}, one-tower(modality="vision"), random encoder',
    "text base, new patches": f'{BERT}, one-tower(modality="text", {NEW}), random encoder',
    "vision base, donor": f'{VIT} + {WIDE}, one-tower(modality="vision"), random encoder, random text',
    "text base, donor": f'{BERT} + {VIT}, one-tower(modality="text"), random encoder, random vision',
}
EVERYTHING = frozenset({"vision", "text", "pooled"})


def built(spec: str, **arguments: Any) -> Model:
    return renaissance.build(spec, **arguments).eval()


def images(count: int = 2) -> VisionInput:
    return VisionInput(torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1)))


def texts(padding: int = 0) -> TextInput:
    ids = torch.tensor([[2, 50, 60, 70, 3], [2, 80, 3, 0, 0]])
    mask = ids != 0
    return TextInput(
        torch.nn.functional.pad(ids, (0, padding), value=0), torch.nn.functional.pad(mask, (0, padding), value=False)
    )


def fused(model: Model, padding: int = 0) -> Any:
    vision, text = model.encoder.encode_vision(images()), model.encoder.encode_text(texts(padding))
    return model.encoder.fuse(vision, text, EVERYTHING)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_padding_changes_nothing(spec: str) -> None:
    model = built(spec)
    with torch.no_grad():
        plain, padded = fused(model), fused(model, padding=3)
    torch.testing.assert_close(plain.pooled, padded.pooled, atol=1e-6, rtol=0)
    torch.testing.assert_close(plain.vision.tokens, padded.vision.tokens, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["vision base, new words", "vision base, donor"])
def test_on_images_alone_a_vision_based_tower_gives_what_its_base_gives(name: str) -> None:
    model = built(SPECS[name])
    encoder: Any = model.encoder
    with torch.no_grad():
        alone, _ = encoder._run(encoder.encode_vision(images()), None)
        assert torch.equal(alone.tokens, encoder.base(images()).tokens)


@pytest.mark.parametrize("name", ["text base, new patches", "text base, donor"])
def test_on_texts_alone_a_text_based_tower_gives_what_its_base_gives(name: str) -> None:
    model = built(SPECS[name])
    encoder: Any = model.encoder
    with torch.no_grad():
        _, alone = encoder._run(None, encoder.encode_text(texts()))
        assert torch.equal(alone.tokens, encoder.base(texts()).tokens)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_each_modality_changes_what_the_other_becomes(spec: str) -> None:
    model = built(spec)
    with torch.no_grad():
        before = fused(model)
        other = VisionInput(1 - images().pixels)
        after = model.encoder.fuse(
            model.encoder.encode_vision(other), model.encoder.encode_text(texts()), frozenset({"text"})
        )
    assert (before.text.tokens - after.text.tokens).abs().max() > 1e-4


@pytest.mark.parametrize("pooling", ["first", "mean", "both"])
def test_pooling_says_what_stands_for_a_pair(pooling: str) -> None:
    spec = SPECS["vision base, new words"].replace("one-tower(", f'one-tower(pooling="{pooling}", ')
    model = built(spec)
    with torch.no_grad():
        joint = fused(model)
    assert joint.pooled.shape == (2, 64 if pooling == "both" else 32)
    assert model.encoder.facts().joint == joint.pooled.shape[1]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_gradients_reach_every_parameter(spec: str) -> None:
    model = built(spec)
    joint = fused(model)
    assert isinstance(joint.vision, Features)
    (joint.pooled.sum() + joint.text.tokens.square().sum() + joint.vision.tokens.square().sum()).backward()
    assert [name for name, p in model.encoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_a_saved_one_tower_gives_the_same_when_it_is_loaded(spec: str, tmp_path: Any) -> None:
    model = built(spec, tasks=("mlm", "itm", "itc"))
    model.save(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(fused(renaissance.from_pretrained(tmp_path / "model")).pooled, fused(model).pooled)


def test_frozen_layers_of_the_encoder_hold_still_and_new_embeddings_train() -> None:
    model = built(SPECS["vision base, new words"] + ", frozen encoder[:1]")
    fused(model).pooled.sum().backward()
    encoder: Any = model.encoder
    assert all(p.grad is None for p in encoder.base.blocks[0].parameters())
    assert all(p.grad is not None for p in encoder.base.blocks[1].parameters())
    assert all(p.grad is not None for p in encoder.other.parameters())


def test_without_the_padding_mask_padding_changes_the_result() -> None:
    model = built(SPECS["text base, donor"] + ", as-published(no_padding_mask=true)")
    with torch.no_grad():
        plain, padded = fused(model), fused(model, padding=3)
    assert (plain.pooled - padded.pooled).abs().max() > 1e-5


def test_a_text_is_embedded_twice_and_frozen_towers_keep_dropout_only_where_these_faults_are_named() -> None:
    line = f"{VIT} + {BERT}, two-tower, random both, frozen text"
    plain, twice = built(line), built(f"{line}, as-published(ids_embedded_twice=true)")
    dropout = built(f"{line}, as-published(frozen_in_train_mode=true)").train()
    with torch.no_grad():
        right = plain.train().encoder.encode_text(texts()).tokens
        assert torch.equal(right, plain.encoder.encode_text(texts()).tokens)
        assert (right - twice.encoder.encode_text(texts()).tokens).abs().max() > 1e-3
        assert not torch.equal(dropout.encoder.encode_text(texts()).tokens, dropout.encoder.encode_text(texts()).tokens)


def test_only_inner_layers_are_kept_where_that_fault_is_named() -> None:
    line = SPECS["text base, donor"]
    kept, inner = built(line), built(f"{line}, as-published(inner_layers_only=true)")
    before, after = dict(kept.encoder.named_parameters()), dict(inner.encoder.named_parameters())
    changed = {name for name in before if name.startswith("base.") and not torch.equal(before[name], after[name])}
    assert changed
    assert not any(name.startswith("base.blocks") for name in changed)


@pytest.fixture
def backbones(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders with pretrained weights of a ViT, as the library saves them."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    folder = tmp_path / "models" / "vit"
    ViTModel(ViTConfig(image_size=32, patch_size=8, **sizes), add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("backbones")
def test_the_transfer_report_says_of_each_tensor_where_it_comes_from() -> None:
    model = built('transformers:models/vit, one-tower(modality="vision")')
    report = model.transfer_report()
    names = {name for name, _ in model.encoder.named_parameters()}
    assert {*report.copied, *report.resized, *report.new} == names
    assert set(report.copied) == {name for name in names if name.startswith("base.")}
    assert sum(report.copied.values()) == sum(p.numel() for p in model.encoder.base.parameters())
    assert "other.embedder.words.weight" in report.new
    assert str(report).startswith(f"copied: {len(report.copied)} tensors")
