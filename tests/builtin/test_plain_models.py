"""Towers taken out as plain models of their libraries: same weights, same outputs, saved and loaded by the library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch.nn.functional import pad
from torch.testing import assert_close
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.models.t5.modeling_t5 import T5Stack

from renaissance.builtin.timm_towers import row_major
from renaissance.builtin.transformers_options import LibraryTextOptions
from renaissance.builtin.transformers_text_families import FAMILIES
from renaissance.errors import CapabilityError
from tests.builtin.test_timm import FAMILIES as TIMM
from tests.builtin.test_timm import built, images
from tests.builtin.test_transformers_text import CAPTIONS, REAL, build, random_tower, save_with_tokenizer, small_config
from tests.builtin.test_transformers_vision import CASES, pictures, pretrained, save

# of each way in which a text tower is cut out of its model
TEXTS = [*sorted(FAMILIES), "albert", "t5", "bart"]
PADDED = ("siglip_text_model", "siglip2_text_model")


def randomised(module: Any) -> Any:
    """Zeros and ones that an initialisation leaves would hide what is not there."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return module.eval()


def text_tower(model_type: str) -> Any:
    pooling = "mean" if model_type in ("albert", "t5", "bart") else None
    overrides = {**REAL, "metaclip_2_text_model": {"eos_token_id": 3}}.get(model_type, {})
    return randomised(random_tower(model_type, overrides=overrides, pooling=pooling))


def deberta(folder: Path) -> Any:
    """One with a convolution, which fields say that a bare type does not have."""
    reference = AutoModel.from_config(small_config("deberta-v2"))
    options = LibraryTextOptions(model=save_with_tokenizer(randomised(reference), folder))
    return build(options, weights="pretrained", saved=None).eval()


@torch.no_grad()
@pytest.mark.parametrize("model_type", TEXTS)
def test_a_text_tower_is_a_plain_model_with_the_same_tokens(model_type: str, tmp_path: Path) -> None:
    tower = deberta(tmp_path) if model_type == "deberta-v2" else text_tower(model_type)
    plain: Any = tower.to_transformers().eval()
    assert isinstance(plain, PreTrainedModel)
    texts = tower.processor(CAPTIONS)
    given: dict[str, Any] = {"input_ids": texts.token_ids, "attention_mask": texts.mask.long()}
    if model_type in PADDED:
        missing = tower.processor.facts.max_tokens - texts.mask.shape[1]
        given = {"input_ids": pad(texts.token_ids, (0, missing), value=tower.processor.facts.pad_id)}
    expected = tower(texts).tokens[texts.mask]
    found = plain(**given).last_hidden_state[:, : texts.mask.shape[1]][texts.mask]
    assert_close(found, expected, rtol=0, atol=1e-6)
    if not isinstance(plain, T5Stack):  # the library saves and loads it beside its decoder alone
        plain.save_pretrained(tmp_path)
        again = type(plain).from_pretrained(tmp_path).eval()
        assert_close(again(**given).last_hidden_state, plain(**given).last_hidden_state, rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_a_vision_tower_is_the_plain_model_that_it_came_from(case: str, tmp_path: Path) -> None:
    model_type, config = CASES[case]
    reference = randomised(AutoModel.from_config(AutoConfig.for_model(model_type, **config)))
    tower = pretrained(save(reference, tmp_path)).eval()
    plain: Any = tower.to_transformers().eval()
    assert isinstance(plain, PreTrainedModel)
    pixels = tower.processor.normalise(pictures(2).pixels)
    given = {"pixel_values": pixels}
    if case == "mae":
        given["noise"] = torch.arange(16.0).expand(2, -1)
    assert_close(plain(**given).last_hidden_state, reference(**given).last_hidden_state, rtol=0, atol=1e-6)
    own, whole = dict(plain.state_dict()), dict(reference.state_dict())
    assert set(own) <= set(whole)
    assert all(
        torch.equal(tensor, whole[name])
        for name, tensor in own.items()
        if name.split(".")[-1] != "mask_token" and "pooler" not in name
    )


@torch.no_grad()
@pytest.mark.parametrize("family", TIMM)
def test_a_timm_tower_is_a_plain_model_of_timm_with_the_same_tokens(family: str) -> None:
    tower = built(family)
    plain: Any = tower.to_timm().eval()
    pixels = images(tower)
    tokens = row_major(plain, plain.forward_features(tower.processor.normalise(pixels.pixels)))
    if isinstance(getattr(plain, "norm", None), torch.nn.Identity) and hasattr(plain, "fc_norm"):
        tokens = plain.fc_norm(tokens)  # timm norms behind its pooling, the tower each token
    assert_close(tokens, tower(pixels).tokens, rtol=0, atol=1e-6)


def test_a_plain_model_has_weights_of_its_own() -> None:
    tower = text_tower("bert")
    plain = tower.to_transformers()
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in tower.state_dict().items())


def test_taking_a_model_out_draws_nothing_from_the_global_stream() -> None:
    tower, before = text_tower("bert"), torch.get_rng_state()
    tower.to_transformers()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_tower_that_was_cut_gives_a_model_of_its_length() -> None:
    plain: Any = text_tower("bert").to_transformers()
    assert plain.config.num_hidden_layers == len(plain.encoder.layer) == 3
    cut = built("vit", layers=1)
    assert len(cut.to_timm().blocks) == 1


@pytest.mark.parametrize("model_type", ["bert", "t5", "bart"])
def test_what_has_adapters_is_no_plain_model_until_they_are_merged(model_type: str) -> None:
    tower = text_tower(model_type)
    inject_adapter_in_model(LoraConfig(r=2, target_modules=r".*\.(query|q|q_proj)"), tower)
    with pytest.raises(CapabilityError, match=r"is no part of .* call model\.merge_adapters\(\) first"):
        tower.to_transformers()


@pytest.mark.parametrize("kind", ["transformers", "timm"])
def test_embeddings_alone_are_no_model(kind: str) -> None:
    tower = text_tower("bert") if kind == "transformers" else built("vit")
    tower.keep_embeddings()
    with pytest.raises(CapabilityError, match=r"Only the embeddings of .* were kept"):
        getattr(tower, f"to_{kind}")()
