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


@pytest.mark.usefixtures("backbones")
def test_the_transfer_report_lists_the_position_table_of_another_image_size_as_resized(tmp_path: Any) -> None:
    model = built('transformers:models/vit(image_size=48), one-tower(modality="vision")')
    model.save(tmp_path / "saved")
    table = "base.model.embeddings.position_embeddings"
    for kept in (model, renaissance.from_pretrained(tmp_path / "saved")):
        report = kept.transfer_report()
        sizes = {name: parameter.numel() for name, parameter in kept.encoder.named_parameters()}
        base = {name for name in sizes if name.startswith("base.")}
        assert report.resized == {table: (1 + 6 * 6) * 32}
        assert report.copied == {name: sizes[name] for name in base - {table}}
        assert report.new == {name: sizes[name] for name in sizes.keys() - base}
        assert f"resized: 1 tensors, 1,184 elements: {table}" in str(report)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
@pytest.mark.parametrize("pooling", ["first", "mean", "both"])
def test_padding_changes_no_pooled_vector(pooling: str, spec: str) -> None:
    model = built(spec.replace("one-tower(", f'one-tower(pooling="{pooling}", '))
    encoder: Any = model.encoder
    with torch.no_grad():
        plain, padded = fused(model), fused(model, padding=3)
        alone, alone_padded = (encoder.represent(encoder.encode_text(texts(n)), "text") for n in (0, 3))
    torch.testing.assert_close(plain.pooled, padded.pooled, atol=1e-6, rtol=0)
    torch.testing.assert_close(alone, alone_padded, atol=1e-6, rtol=0)


def test_mean_pooling_is_the_mean_of_all_real_tokens_of_both_streams() -> None:
    first, mean, both = (
        built(SPECS["text base, donor"].replace("one-tower(", f'one-tower(pooling="{pooling}", '))
        for pooling in ("first", "mean", "both")
    )
    with torch.no_grad():
        joint, mask = fused(mean), texts().mask
        rows = []
        for row in range(2):
            real = [joint.text.tokens[row, i] for i in range(mask.shape[1]) if mask[row, i]]
            rows.append(torch.stack([*joint.vision.tokens[row], *real]).sum(0) / (17 + len(real)))
        naive = torch.stack(rows)  # [2, D]
        starts = joint.text.tokens[:, 0]
        for model, expected in ((first, starts), (mean, naive), (both, torch.cat([starts, naive], 1))):
            pooler: Any = model.encoder.pooler
            torch.testing.assert_close(fused(model).pooled, torch.tanh(pooler(expected)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("class_token", "name"), [(True, "vit"), (False, "siglip-vision")])
def test_an_image_alone_is_pooled_first_by_its_class_token_or_without_one_by_the_mean(
    class_token: bool, name: str
) -> None:
    options = "image_size=32, patch_size=8, layers=2, width=32, heads=2, mlp_width=64"
    if name == "vit":
        line = f'transformers:vit({options}), one-tower(modality="vision"), random encoder'
    else:
        line = f'transformers:siglip_vision_model({options}), one-tower(modality="vision"), random encoder'
    encoder: Any = built(line).encoder
    assert encoder.vision.class_token == class_token
    with torch.no_grad():
        tokens = encoder.base(images()).tokens  # [2, N, D]
        expected = tokens[:, 0] if class_token else tokens.mean(1)
        torch.testing.assert_close(
            encoder.represent(encoder.encode_vision(images()), "vision"), expected, atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_each_modality_has_a_type_of_its_own(spec: str) -> None:
    encoder: Any = built(spec).encoder
    with torch.no_grad():
        plain = encoder.encode_vision(images()).tokens, encoder.encode_text(texts()).tokens
        encoder.types.weight.normal_()
        text, vision = encoder.types.weight
        torch.testing.assert_close(encoder.encode_vision(images()).tokens, plain[0] + vision)
        torch.testing.assert_close(encoder.encode_text(texts()).tokens, plain[1] + text)


TWO = f"{VIT} + {BERT}, two-tower, random both"


@pytest.mark.parametrize("spec", [*SPECS.values(), TWO], ids=[*SPECS.keys(), "two towers"])
def test_each_image_of_an_item_has_the_type_of_its_slot(spec: str) -> None:
    encoder: Any = built(spec).encoder
    encoder.set_slots(2)
    with torch.no_grad():
        vision, text = encoder.encode_vision(images()), encoder.encode_text(texts())
        plain = Features(vision.tokens.clone(), vision.mask)
        encoder.slots.weight.normal_()
        types = encoder.slots.weight.clone()
        slots = torch.tensor([1, 0])
        found = encoder.fuse(vision, text, EVERYTHING, slots).pooled
        unsaid = encoder.fuse(vision, text, EVERYTHING).pooled
        encoder.set_slots(1)
        for given, pooled in ((types[slots], found), (types[[0, 0]], unsaid)):
            moved = Features(plain.tokens + given.unsqueeze(1), plain.mask)
            torch.testing.assert_close(encoder.fuse(moved, text, EVERYTHING).pooled, pooled)
        assert (encoder.fuse(plain, text, EVERYTHING).pooled - unsaid).abs().max() > 1e-4


def test_new_patches_run_row_by_row_with_the_position_of_their_place() -> None:
    from renaissance.models.embeddings import NewPatches

    patches = NewPatches(width=4, image_size=24, patch_size=8).eval()
    torch.nn.init.normal_(patches.first)
    pixels = images().pixels[:1, :, :24, :24]
    with torch.no_grad():
        found = patches.embedded(VisionInput(pixels)).tokens[0]  # [10, 4]
        torch.testing.assert_close(found[0], patches.first[0, 0] + patches.table[0, 0])
        for row in range(3):
            for column in range(3):
                patch = pixels[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
                place = 1 + 3 * row + column
                expected = patches.patches(patches.processor.normalise(patch)).flatten() + patches.table[0, place]
                torch.testing.assert_close(found[place], expected, atol=1e-5, rtol=1e-5)


def test_without_the_padding_mask_a_text_tower_attends_to_all_and_the_fusion_to_real_tokens_alone() -> None:
    faulty: Any = built(f"{TWO}, as-published(no_padding_mask=true)").encoder
    plain: Any = built(TWO).encoder
    everywhere = TextInput(texts().token_ids, torch.ones_like(texts().mask))
    with torch.no_grad():
        found = faulty.encode_text(texts())
        assert torch.equal(found.tokens, plain.encode_text(everywhere).tokens)
        assert (found.tokens - plain.encode_text(texts()).tokens)[texts().mask].abs().max() > 1e-4
        assert torch.equal(found.mask, texts().mask)
        vision = faulty.encode_vision(images())
        expected = plain.fuse(vision, Features(found.tokens, texts().mask), EVERYTHING).pooled
        assert torch.equal(faulty.fuse(vision, found, EVERYTHING).pooled, expected)


@torch.no_grad()
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_in_half_precision_both_modalities_are_encoded_as_before(spec: str) -> None:
    model = built(spec)
    model.eval()
    expected = model.encoder.encode_vision(images()).tokens
    model.encoder.to(torch.bfloat16)
    found = model.encoder.encode_vision(images()).tokens
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).norm() < 0.1 * expected.norm()
    assert fused(model).pooled.isfinite().all()
