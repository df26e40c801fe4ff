from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoConfig, SwitchTransformersEncoderModel, T5EncoderModel

from renaissance.api import SavedBackbone, TextInput
from renaissance.builtin.transformers_options import LibraryTextOptions
from renaissance.builtin.transformers_text import build as typed_build
from renaissance.builtin.transformers_text_whole import by_length
from renaissance.errors import SpecError

build: Any = typed_build  # a tower is an nn.Module too
SIZES: dict[str, Any] = {"layers": 2, "width": 32, "heads": 2, "mlp_width": 64, "max_tokens": 24}
CAPTIONS = ["a red cup", "two dogs run in a big park near the old stone bridge", "snow"]


def random_tower(model_type: str, **options: Any) -> Any:
    torch.manual_seed(0)
    given = {"tokenizer": "renaissance", **SIZES, **options}
    given = {name: value for name, value in given.items() if value is not None}
    tower = build(LibraryTextOptions(model=model_type, **given), weights="random", saved=None).eval()
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return tower


@torch.no_grad()
@pytest.mark.parametrize(
    ("model_type", "changes"), [("fnet", {"heads": None}), ("convbert", {}), ("nystromformer", {})]
)
def test_what_reaches_into_its_padding_gets_none(model_type: str, changes: dict[str, Any]) -> None:
    tower = random_tower(model_type, **changes)
    together = tower.processor(CAPTIONS)
    features = tower(together)
    assert tower.config["by_length"] is True
    for index, caption in enumerate(CAPTIONS):
        alone = tower.processor([caption])
        plain = tower.model(input_ids=alone.token_ids, attention_mask=alone.mask.long()).last_hidden_state[0]
        assert_close(features.tokens[index][together.mask[index]], plain, rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("model_type", ["albert", "rembert", "bart"])
def test_what_masks_its_padding_is_run_once(model_type: str) -> None:
    assert random_tower(model_type).config["by_length"] is False


def test_texts_run_by_length_come_back_in_their_order() -> None:
    mask = torch.arange(5) < torch.tensor([3, 5, 1, 3])[:, None]
    seen: list[int] = []

    def run(inputs: TextInput) -> torch.Tensor:
        assert bool(inputs.mask.all())
        seen.append(inputs.mask.shape[1])
        return inputs.token_ids.unsqueeze(-1).float()

    ids = torch.arange(20).reshape(4, 5)
    assert torch.equal(by_length(run, TextInput(ids, mask)).squeeze(-1), torch.where(mask, ids, 0).float())
    assert seen == [1, 3, 5]


@torch.no_grad()
def test_the_encoder_of_an_encoder_decoder_is_that_of_the_library() -> None:
    tower = random_tower("t5", overrides={"d_kv": 16})
    sizes = {"num_layers": 2, "d_model": 32, "num_heads": 2, "d_ff": 64, "d_kv": 16, "vocab_size": 4096}
    reference = T5EncoderModel(AutoConfig.for_model("t5", **sizes)).eval()
    state = {f"encoder.{name}": tensor for name, tensor in tower.model.state_dict().items()}
    reference.load_state_dict({**state, "shared.weight": tower.model.embed_tokens.weight})
    texts = tower.processor(CAPTIONS)
    plain = reference(input_ids=texts.token_ids, attention_mask=texts.mask.long()).last_hidden_state
    assert_close(tower(texts).tokens[texts.mask], plain[texts.mask], rtol=0, atol=1e-6)
    assert not any("decoder" in name for name, _ in tower.named_parameters())


def test_parts_on_which_no_token_depends_are_dropped_and_stay_away(tmp_path: Path) -> None:
    tower = random_tower("luke", overrides={"entity_vocab_size": 16, "entity_emb_size": 16})
    assert "entity_embeddings" in tower.config["unused"]
    saved = SavedBackbone(json.loads(json.dumps(tower.save(tmp_path))), tmp_path)
    again = build(LibraryTextOptions(model="gone"), weights="none", saved=saved)
    assert again.state_dict().keys() == tower.state_dict().keys()


@pytest.mark.parametrize(
    ("model_type", "options", "message"),
    [
        ("mra", {}, "its first token does not see the last one"),
        ("llama", {}, "its first token does not see the last one"),
        ("albert", {"overrides": {"num_hidden_group": 1}}, "Did you mean 'num_hidden_groups'"),
        ("xlm", {}, "no size called 'mlp_width'"),
        ("fnet", {}, "no size called 'heads'"),
        ("reformer", {"mlp_width": None}, "cannot be built with these sizes"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason(
    model_type: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        random_tower(model_type, **options)


def test_pretrained_weights_fit_no_overrides(tmp_path: Path) -> None:
    options = LibraryTextOptions(model=str(tmp_path), overrides={"hidden_act": "relu"})
    with pytest.raises(SpecError, match="pretrained weights fit no overrides"):
        build(options, weights="pretrained", saved=None)


@torch.no_grad()
@pytest.mark.parametrize("model_type", ["mpnet", "deberta-v2"])
def test_kept_embeddings_with_a_table_say_so(model_type: str) -> None:
    tower = random_tower(model_type)
    assert tower.positions == "relative"
    tower.keep_embeddings()
    assert tower.positions == "absolute"


def test_kept_embeddings_without_a_table_say_so() -> None:
    tower = random_tower("modernbert")
    tower.keep_embeddings()
    assert tower.positions == "rope"


@torch.no_grad()
def test_experts_to_which_no_token_of_the_first_text_was_routed_stay() -> None:
    """Of a sparse model in every other layer; a text of seven tokens reaches seven of sixteen experts at most."""
    torch.manual_seed(0)
    overrides: dict[str, Any] = {"d_kv": 16, "num_experts": 16, "num_sparse_encoder_layers": 1}
    options = LibraryTextOptions(model="switch_transformers", tokenizer="renaissance", overrides=overrides, **SIZES)
    tower = build(options, weights="random", saved=None).eval()
    experts = [module for module in tower.modules() if type(module).__name__ == "SwitchTransformersExperts"]
    assert experts
    assert all(len(list(expert.parameters())) == 2 for of in experts for expert in of.children())
    reference = SwitchTransformersEncoderModel(tower.model.config).eval()
    state = {f"encoder.{name}": tensor for name, tensor in tower.model.state_dict().items()}
    reference.load_state_dict({**state, "shared.weight": tower.model.embed_tokens.weight})
    texts = tower.processor(CAPTIONS)
    plain = reference(input_ids=texts.token_ids, attention_mask=texts.mask.long()).last_hidden_state
    assert_close(tower(texts).tokens[texts.mask], plain[texts.mask], rtol=0, atol=1e-6)


def test_a_model_whose_class_does_not_say_its_width_is_refused() -> None:
    with pytest.raises(SpecError, match="FSMTEncoder of transformers does not say its width"):
        random_tower("fsmt")
