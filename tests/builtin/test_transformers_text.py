from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import (
    AutoConfig,
    AutoModel,
    BertForMaskedLM,
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)

from renaissance.api import SavedBackbone, TextInput
from renaissance.builtin.transformers_entries import BACKBONES
from renaissance.builtin.transformers_options import LibraryTextOptions
from renaissance.builtin.transformers_text import WORDPIECE
from renaissance.builtin.transformers_text import build as typed_build
from renaissance.builtin.transformers_text_families import FAMILIES
from renaissance.errors import HubError, SpecError, UnknownComponentError

build: Any = typed_build  # a tower is an nn.Module too, and options come from any entry

SIZES: dict[str, Any] = {"layers": 3, "width": 32, "heads": 2, "mlp_width": 64, "max_tokens": 24}
CAPTIONS = ["a red cup", "two dogs run in a big park near the old stone bridge", "snow"]
SHORT_NAMES = {entry.name: entry for entry in BACKBONES if entry.modality == "text" and not entry.library}

# what real models of a type set beside the sizes, where the defaults of the library leave it out
REAL: dict[str, dict[str, Any]] = {
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_biased_input": False,
        "conv_kernel_size": 3,
    },
    "modernbert": {"local_attention": 4},
    "electra": {"embedding_size": 16},
    "clip_text_model": {"eos_token_id": 3},
}


def random_tower(model_type: str, **options: Any) -> Any:
    torch.manual_seed(0)
    given = {"tokenizer": "renaissance", "dropout": 0.1, **SIZES, **options}
    return build(LibraryTextOptions(model=model_type, **given), weights="random", saved=None)


def small_config(model_type: str) -> Any:
    names = {"num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 2, "vocab_size": 4096, "pad_token_id": 0}
    names |= {"hidden_dim" if model_type == "distilbert" else "intermediate_size": 64, "max_position_embeddings": 40}
    others = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"))
    return AutoConfig.for_model(model_type, **{**names, **others, **REAL.get(model_type, {})})


def save_with_tokenizer(model: Any, folder: Path) -> str:
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_file=str(WORDPIECE / "tokenizer.json"), pad_token="[PAD]", mask_token="[MASK]", unk_token="[UNK]"
    ).save_pretrained(folder)
    return str(folder)


# SigLIP's sees the padding, and is in none of the library's tables, as others are not: the sweep builds those, and
# SigLIP has tests of its own
PLAIN = sorted(set(FAMILIES) - {"siglip_text_model", "siglip2_text_model", "metaclip_2_text_model"})


@pytest.fixture(scope="module", params=PLAIN)
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    """A plain model of each family, and the folder that it is saved in."""
    torch.manual_seed(0)
    model = AutoModel.from_config(small_config(request.param)).eval()
    with torch.no_grad():  # zeros and ones that an initialisation leaves would hide what is not loaded
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model, save_with_tokenizer(model, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def tower(reference: tuple[Any, str]) -> Any:
    return build(LibraryTextOptions(model=reference[1]), weights="pretrained", saved=None).eval()


@pytest.fixture
def texts(tower: Any) -> TextInput:
    result: TextInput = tower.processor(CAPTIONS)
    return result


@torch.no_grad()
def test_tokens_equal_those_of_the_plain_model(reference: tuple[Any, str], tower: Any, texts: TextInput) -> None:
    plain = reference[0](input_ids=texts.token_ids, attention_mask=texts.mask.long()).last_hidden_state
    assert_close(tower(texts).tokens[texts.mask], plain[texts.mask], rtol=0, atol=1e-6)


@torch.no_grad()
def test_declared_width_and_depth_are_the_real_ones(tower: Any, texts: TextInput) -> None:
    features = tower(texts)
    assert (tower.width, len(tower.blocks)) == (32, 3)
    assert features.tokens.shape == (*texts.mask.shape, 32)
    assert features.pooled.shape == (3, 32)


@torch.no_grad()
def test_padding_changes_nothing(tower: Any, texts: TextInput) -> None:
    padded = TextInput(
        torch.nn.functional.pad(texts.token_ids, (0, 5), value=tower.processor.facts.pad_id),
        torch.nn.functional.pad(texts.mask, (0, 5)),
    )
    plain, longer = tower(texts), tower(padded)
    length = texts.mask.shape[1]
    assert_close(longer.tokens[:, :length][texts.mask], plain.tokens[texts.mask], rtol=1e-4, atol=1e-5)
    assert_close(longer.pooled, plain.pooled, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_text_does_not_see_its_batch(tower: Any, texts: TextInput) -> None:
    together = tower(texts)
    for index, caption in enumerate(CAPTIONS):
        alone = tower(tower.processor([caption]))
        assert_close(together.tokens[index][texts.mask[index]], alone.tokens[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_evaluation_is_deterministic(tower: Any, texts: TextInput) -> None:
    assert torch.equal(tower(texts).tokens, tower(texts).tokens)


@pytest.mark.parametrize("pooling", ["first", "last", "mean"])
def test_gradients_reach_every_parameter(reference: tuple[Any, str], pooling: Any) -> None:
    tower = build(LibraryTextOptions(model=reference[1], pooling=pooling), weights="pretrained", saved=None)
    features = tower(tower.processor(CAPTIONS))
    (features.tokens.square().sum() + features.pooled.sum()).backward()
    assert [name for name, parameter in tower.named_parameters() if parameter.grad is None] == []


@torch.no_grad()
def test_folding_the_steps_is_the_whole(tower: Any, texts: TextInput) -> None:
    state = tower.embed(texts)
    outputs = []
    for index in range(len(tower.blocks)):
        state = tower.step(index, state)
        outputs.append(state.hidden)
    whole = tower(texts, layers=(0, -1))
    assert torch.equal(tower.finish(state).tokens, whole.tokens)
    assert torch.equal(torch.stack(whole.layers), torch.stack([outputs[0], outputs[-1]]))


def test_embeddings_blocks_and_final_are_all_parameters_once(tower: Any) -> None:
    parts = [p for part in (*tower.embeddings, *tower.blocks, *tower.final) for p in part.parameters()]
    assert sorted(map(id, parts)) == sorted(map(id, tower.parameters()))


@torch.no_grad()
def test_a_saved_tower_comes_back_bit_for_bit(
    tower: Any, texts: TextInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads(json.dumps(tower.save(tmp_path)))
    monkeypatch.setattr(socket, "socket", refuse_network)
    restored = build(
        LibraryTextOptions(model="gone"), weights="none", saved=SavedBackbone(config=config, folder=tmp_path)
    )
    assert all(parameter.is_meta for parameter in restored.parameters())
    restored.load_state_dict(tower.state_dict(), strict=True, assign=True)
    assert not any(buffer.is_meta for buffer in restored.buffers())
    again = restored.eval()(restored.processor(CAPTIONS))
    assert torch.equal(again.tokens, tower(texts).tokens)
    assert torch.equal(again.pooled, tower(texts).pooled)
    assert (restored.config, restored.revision) == (tower.config, tower.revision)
    assert restored.processor.describe() == tower.processor.describe()


@torch.no_grad()
def test_word_embeddings_in_place_of_ids_change_nothing(tower: Any, texts: TextInput) -> None:
    words = tower.model.get_input_embeddings()(texts.token_ids)
    given = tower(replace(texts, embeddings=words))
    assert_close(given.tokens[texts.mask], tower(texts).tokens[texts.mask], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_first_layers_of_pretrained_weights_can_be_kept(
    reference: tuple[Any, str], tower: Any, texts: TextInput
) -> None:
    cut = build(LibraryTextOptions(model=reference[1], layers=2), weights="pretrained", saved=None)
    assert len(cut.blocks) == 2
    kept = cut.eval()(texts, layers=(1,)).layers[0]
    assert torch.equal(kept, tower(texts, layers=(1,)).layers[0])


def refuse_network(*_: Any, **__: Any) -> Any:
    raise AssertionError("a socket was opened")


@pytest.mark.parametrize("model_type", [*sorted(FAMILIES), "albert"])
def test_random_weights_follow_the_options_without_the_network(
    model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", refuse_network)
    tower = random_tower(model_type).eval()
    features = tower(tower.processor(["a " * 50, "a cup"]))
    assert features.tokens.shape == (2, 24, 32)
    assert tower.processor.facts.vocabulary == tower.model.get_input_embeddings().num_embeddings == 4096
    assert features.tokens.isfinite().all()


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_random_weights_are_a_function_of_the_seed(model_type: str) -> None:
    first, second = random_tower(model_type).state_dict(), random_tower(model_type).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", sorted(SHORT_NAMES))
def test_a_short_name_describes_what_it_builds(name: str) -> None:
    entry = SHORT_NAMES[name]
    options = entry.options(**entry.tiny)
    said = entry.describe(options)
    tower = build(options, weights="random", saved=None)
    assert (said.width, said.depth, said.class_token) == (tower.width, len(tower.blocks), tower.class_token)
    facts = tower.processor.facts
    assert (said.max_tokens, said.vocabulary, said.layered) == (facts.max_tokens, facts.vocabulary, True)


@torch.no_grad()
def test_segments_reach_a_model_that_has_them() -> None:
    tower = random_tower("bert").eval()
    texts = tower.processor(CAPTIONS)
    segments = torch.zeros_like(texts.token_ids)
    assert torch.equal(tower(replace(texts, segment_ids=segments)).tokens, tower(texts).tokens)
    assert not torch.equal(tower(replace(texts, segment_ids=segments + 1)).tokens, tower(texts).tokens)


@torch.no_grad()
def test_segments_are_dropped_where_a_model_has_none() -> None:
    tower = random_tower("distilbert").eval()
    texts = tower.processor(CAPTIONS)
    segments = torch.ones_like(texts.token_ids)
    assert torch.equal(tower(replace(texts, segment_ids=segments)).tokens, tower(texts).tokens)


@torch.no_grad()
def test_mean_pooling_is_the_mean_of_the_real_tokens() -> None:
    tower = random_tower("bert", pooling="mean").eval()
    texts = tower.processor(CAPTIONS)
    features = tower(texts)
    expected = torch.stack([features.tokens[row][texts.mask[row]].mean(0) for row in range(3)])
    assert_close(features.pooled, expected)
    assert tower.class_token is False


@torch.no_grad()
def test_last_pooling_is_the_last_real_token() -> None:
    tower = random_tower("bert", pooling="last").eval()
    texts = tower.processor(CAPTIONS)
    features = tower(texts)
    expected = torch.stack([features.tokens[row][texts.mask[row]][-1] for row in range(3)])
    assert torch.equal(features.pooled, expected)
    assert tower.class_token is False


@torch.no_grad()
def test_the_text_half_of_a_clip_is_that_of_the_plain_model(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    vision = {**sizes, "image_size": 32, "patch_size": 16}
    config = CLIPConfig(text_config=small_config("clip_text_model").to_dict(), vision_config=vision)
    plain = CLIPModel(config).eval()
    tower = build(LibraryTextOptions(model=save_with_tokenizer(plain, tmp_path)), weights="pretrained", saved=None)
    texts = tower.processor(CAPTIONS)
    assert not texts.mask.all()
    expected = plain.text_model(input_ids=texts.token_ids, attention_mask=texts.mask.long())
    features = tower.eval()(texts)
    assert_close(features.tokens[texts.mask], expected.last_hidden_state[texts.mask], rtol=0, atol=1e-6)
    assert_close(features.pooled, expected.pooler_output, rtol=0, atol=1e-6)


@torch.no_grad()
def test_clip_reads_texts_from_first_to_last() -> None:
    tower = random_tower("clip_text_model").eval()
    texts = tower.processor(CAPTIONS)
    changed = texts.token_ids.clone()
    changed[:, 3:] = 7
    before, after = tower(texts).tokens, tower(replace(texts, token_ids=changed)).tokens
    assert torch.equal(after[:, :3], before[:, :3])
    assert not torch.equal(after[:, 3], before[:, 3])


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    """A plain SigLIP, and the folder that it is saved in."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    text = {**small_config("siglip_text_model").to_dict(), "projection_size": 32}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config={**sizes, "image_size": 32, "patch_size": 16}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval(), save_with_tokenizer(model, tmp_path_factory.mktemp("siglip"))


@torch.no_grad()
def test_the_text_half_of_a_siglip_is_that_of_the_plain_model(siglip: tuple[Any, str], tmp_path: Path) -> None:
    tower = build(LibraryTextOptions(model=siglip[1]), weights="pretrained", saved=None).eval()
    texts = tower.processor(CAPTIONS)
    length, pad_id = texts.mask.shape[1], tower.processor.facts.pad_id
    full = torch.nn.functional.pad(texts.token_ids, (0, 40 - length), value=pad_id)  # as it was trained
    expected = siglip[0].text_model(input_ids=full)
    features = tower(texts, layers=(0,))
    assert_close(features.tokens, expected.last_hidden_state[:, :length], rtol=0, atol=1e-5)
    assert_close(features.pooled, expected.pooler_output, rtol=0, atol=1e-5)
    assert features.layers[0].shape == features.tokens.shape
    words = tower.model.get_input_embeddings()(texts.token_ids)
    assert torch.equal(tower(replace(texts, embeddings=words)).pooled, features.pooled)
    config = json.loads(json.dumps(tower.save(tmp_path)))
    again = build(LibraryTextOptions(model="gone"), weights="none", saved=SavedBackbone(config=config, folder=tmp_path))
    again.load_state_dict(tower.state_dict(), strict=True, assign=True)
    assert torch.equal(again.eval()(texts).pooled, features.pooled)


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["first", "last", "mean"])
def test_how_far_a_siglip_text_is_padded_changes_nothing(siglip: tuple[Any, str], pooling: Any) -> None:
    tower = build(LibraryTextOptions(model=siglip[1], pooling=pooling), weights="pretrained", saved=None).eval()
    together = tower(texts := tower.processor(CAPTIONS))
    for row, caption in enumerate(CAPTIONS):
        alone = tower(tower.processor([caption]))
        assert_close(together.pooled[row], alone.pooled[0], rtol=1e-4, atol=1e-5)
        assert_close(together.tokens[row][texts.mask[row]], alone.tokens[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["first", "last", "mean"])
def test_gradients_reach_every_parameter_of_a_siglip(siglip: tuple[Any, str], pooling: Any) -> None:
    tower = build(LibraryTextOptions(model=siglip[1], pooling=pooling), weights="pretrained", saved=None)
    tower(tower.processor(CAPTIONS)).pooled.sum().backward()
    assert [name for name, parameter in tower.named_parameters() if parameter.grad is None] == []
    parts = [p for part in (*tower.embeddings, *tower.blocks, *tower.final) for p in part.parameters()]
    assert sorted(map(id, parts)) == sorted(map(id, tower.parameters()))


def test_special_tokens_of_a_models_own_tokenizer_are_all_known(tmp_path: Path) -> None:
    folder = save_with_tokenizer(AutoModel.from_config(small_config("bert")), tmp_path)
    tower = build(LibraryTextOptions(model=folder), weights="pretrained", saved=None)
    facts = tower.processor.facts
    assert (facts.vocabulary, facts.pad_id, facts.mask_id, facts.max_tokens) == (4096, 0, 4, 40)
    assert facts.special_ids == (0, 1, 2, 3, 4)


def test_a_cached_model_needs_no_hub_and_says_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "models--org--name"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    save_with_tokenizer(AutoModel.from_config(small_config("bert")), cached / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for revision in (None, "main", commit):
        tower = build(LibraryTextOptions(model="org/name", revision=revision), weights="pretrained", saved=None)
        assert tower.revision == tower.config["revision"] == commit


def test_loading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = save_with_tokenizer(BertForMaskedLM(small_config("bert")), tmp_path)
    capfd.readouterr()
    build(LibraryTextOptions(model=folder), weights="pretrained", saved=None)
    random_tower("camembert")
    assert capfd.readouterr() == ("", "")


def test_the_heads_of_a_saved_model_are_left_out(tmp_path: Path) -> None:
    folder = save_with_tokenizer(BertForMaskedLM(small_config("bert")), tmp_path)
    tower = build(LibraryTextOptions(model=folder), weights="pretrained", saved=None)
    assert not [name for name, _ in tower.named_parameters() if "cls." in name or "pooler" in name]


def test_weights_that_lack_a_tensor_are_refused(tmp_path: Path) -> None:
    config = small_config("bert")
    folder = save_with_tokenizer(AutoModel.from_config(config), tmp_path)
    config.num_hidden_layers = 4
    config.save_pretrained(tmp_path)
    with pytest.raises(HubError, match="lack 16 tensors"):
        build(LibraryTextOptions(model=folder), weights="pretrained", saved=None)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = save_with_tokenizer(model := AutoModel.from_config(small_config("bert")), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(HubError, match=r"are a pickle alone \(pytorch_model\.bin\).*never opened.*say 'random text'"):
        build(LibraryTextOptions(model=folder), weights="pretrained", saved=None)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    config = small_config("bert")
    config.vocab_size = 30522
    folder = save_with_tokenizer(AutoModel.from_config(config), tmp_path)
    with pytest.raises(HubError, match="has 4096 entries, the model 30522"):
        build(LibraryTextOptions(model=folder), weights="pretrained", saved=None)


def test_an_unreachable_hub_is_one_error_that_says_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    entry = SHORT_NAMES["bert-base"]
    with pytest.raises(
        HubError, match=r"^bert-base: the config of 'google-bert/bert-base-uncased'.*Connect to the Hub"
    ):
        build(entry.options(), weights="pretrained", saved=None)
    with pytest.raises(HubError, match=r'bert-base\(tokenizer="renaissance"\)'):
        build(entry.options(), weights="random", saved=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 64}, "the pretrained weights have width=32, not 64. Leave width out, or say 'random text'"),
        ({"layers": 4}, "the pretrained weights have layers=3, not 4. Use layers=3 or less"),
        ({"max_tokens": 99}, "the pretrained weights have max_tokens=40, not 99"),
        ({"tokenizer": "renaissance"}, "needs random weights"),
    ],
)
def test_options_that_pretrained_weights_do_not_have_are_refused(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = save_with_tokenizer(AutoModel.from_config(small_config("bert")), tmp_path)
    with pytest.raises(SpecError, match=message):
        build(LibraryTextOptions(model=folder, **options), weights="pretrained", saved=None)


@pytest.mark.parametrize("model_type", ["vit", "whisper", "blip", "canine"])
def test_what_is_no_text_encoder_is_refused(model_type: str) -> None:
    with pytest.raises(UnknownComponentError, match="is no text encoder"):
        random_tower(model_type)


def test_tiny_bert_has_pretrained_weights_of_its_default_sizes_alone() -> None:
    entry = SHORT_NAMES["tiny-bert"]
    with pytest.raises(SpecError, match=r"default sizes alone .or fewer layers.\..* say 'random text'"):
        build(entry.options(max_tokens=32), weights="pretrained", saved=None)


def test_a_bare_type_asks_for_a_tokenizer() -> None:
    with pytest.raises(SpecError, match=r'transformers:bert\(tokenizer="renaissance"\)'):
        build(LibraryTextOptions(model="bert"), weights="random", saved=None)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bert-base", {"heads": 7}, "heads=7 does not divide width=768. Use width=770 or heads=6"),
        ("bert-base", {"layers": 13}, "bert-base has 12 blocks, not 13. Use layers=12 or fewer"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_the_nearest_that_do(
    name: str, options: dict[str, Any], message: str
) -> None:
    entry = SHORT_NAMES[name]
    with pytest.raises(SpecError, match=message):
        entry.describe(entry.options(**options))


def test_a_text_longer_than_the_model_is_refused() -> None:
    tower = random_tower("bert")
    ids = torch.ones(1, 25, dtype=torch.int64)
    with pytest.raises(SpecError, match="25 tokens, but max_tokens is 24"):
        tower(TextInput(ids, ids.bool()))


def test_layers_that_are_not_there_are_refused() -> None:
    tower = random_tower("bert")
    texts = tower.processor(CAPTIONS)
    with pytest.raises(SpecError, match=r"Layer 3 was asked for, but there are 3\. Use -3 to 2"):
        tower(texts, layers=(3,))
    with pytest.raises(SpecError, match="does not list its blocks"):
        random_tower("albert")(texts, layers=(0,))


def test_a_folder_with_a_tokenizer_can_be_given() -> None:
    tower = random_tower("roberta", tokenizer=str(WORDPIECE))
    assert tower.processor.facts == random_tower("roberta").processor.facts
