from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from renaissance.api import Features, SavedBackbone, TextInput
from renaissance.builtin.transformers_entries import BACKBONES
from renaissance.builtin.transformers_options import LibraryTextOptions
from renaissance.builtin.transformers_text import build as typed_build
from renaissance.builtin.transformers_text_families import FAMILIES
from renaissance.builtin.transformers_text_positions import HALVED, NO_BASES
from renaissance.errors import SpecError

build: Any = typed_build  # a tower is an nn.Module too, and options come from any entry

SEES_PADDING = {"siglip_text_model", "siglip2_text_model"}
BASES = sorted(set(FAMILIES) - set(NO_BASES))
SIZES: dict[str, Any] = {"layers": 3, "width": 32, "heads": 2, "mlp_width": 64, "max_tokens": 24}
CAPTIONS = ["a red cup", "two dogs run in a big park near the old stone bridge", "snow"]
LIBRARY = next(entry for entry in BACKBONES if entry.library and entry.modality == "text")


def random_tower(model_type: str, **options: Any) -> Any:
    torch.manual_seed(0)
    given = {"tokenizer": "renaissance", "dropout": 0.1, **SIZES, **options}
    return build(LibraryTextOptions(model=model_type, **given), weights="random", saved=None)


def perturbed(model_type: str) -> Any:
    """Return a tower whose parameters are no zeros and ones, in evaluation mode."""
    tower = random_tower(model_type).eval()
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return tower


@pytest.fixture(params=BASES)
def tower(request: pytest.FixtureRequest) -> Any:
    return perturbed(request.param)


@pytest.fixture
def texts(tower: Any) -> TextInput:
    result: TextInput = tower.processor(CAPTIONS)
    return result


def others(count: int = 5, *, real: bool = True) -> Features:
    generator = torch.Generator().manual_seed(1)
    mask = torch.full((3, count), real)
    return Features(torch.randn(3, count, 32, generator=generator), mask)


def run(tower: Any, own: Features | None, other: Features | None) -> torch.Tensor:
    state = tower.join(own, other)
    for index in range(len(tower.blocks)):
        state = tower.step(index, state)
    tokens: torch.Tensor = tower.finish(state).tokens
    return tokens


@torch.no_grad()
def test_own_tokens_alone_are_the_whole_model(tower: Any, texts: TextInput) -> None:
    assert torch.equal(run(tower, tower.embedded(texts), None), tower(texts).tokens)
    alone = tower.processor(CAPTIONS[1:2])
    assert torch.equal(run(tower, tower.embedded(alone), None), tower(alone).tokens)


@torch.no_grad()
def test_masked_others_change_nothing(tower: Any, texts: TextInput) -> None:
    length = texts.mask.shape[1]
    joint = run(tower, tower.embedded(texts), others(real=False))[:, :length]
    assert_close(joint[texts.mask], tower(texts).tokens[texts.mask], rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_real_other_changes_every_own_token(tower: Any, texts: TextInput) -> None:
    own, other = tower.embedded(texts), others()
    changed = run(tower, own, replace(other, mask=other.mask & (torch.arange(5) == 2)))[:, : texts.mask.shape[1]]
    differences = (changed - tower(texts).tokens).abs().amax(-1)
    assert (differences[texts.mask] > 1e-5).all()


@torch.no_grad()
def test_padding_of_own_text_changes_nothing_in_the_joint(tower: Any, texts: TextInput) -> None:
    length, other = texts.mask.shape[1], others()
    plain = run(tower, tower.embedded(texts), other)
    longer = TextInput(
        torch.nn.functional.pad(texts.token_ids, (0, 5), value=tower.processor.facts.pad_id),
        torch.nn.functional.pad(texts.mask, (0, 5)),
    )
    padded = run(tower, tower.embedded(longer), other)
    assert_close(padded[:, :length][texts.mask], plain[:, :length][texts.mask], rtol=1e-4, atol=1e-5)
    assert_close(padded[:, length + 5 :], plain[:, length:], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_padding_other_is_seen_by_none(tower: Any, texts: TextInput) -> None:
    other = others()
    other.mask[:, 3:] = False
    own = tower.embedded(texts)
    plain, length = run(tower, own, other), texts.mask.shape[1]
    other.tokens[:, 3:] = 9.0
    again = run(tower, own, other)
    assert_close(again[:, :length][texts.mask], plain[:, :length][texts.mask], rtol=0, atol=1e-6)
    assert_close(again[:, length : length + 3], plain[:, length : length + 3], rtol=0, atol=1e-6)


@torch.no_grad()
def test_the_order_of_others_means_nothing(tower: Any, texts: TextInput) -> None:
    own, other, length = tower.embedded(texts), others(), texts.mask.shape[1]
    forwards = run(tower, own, other)
    backwards = run(tower, own, Features(other.tokens.flip(1), other.mask))
    assert_close(backwards[:, :length][texts.mask], forwards[:, :length][texts.mask], rtol=1e-4, atol=1e-5)
    assert_close(backwards[:, length:].flip(1), forwards[:, length:], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_others_alone_can_be_run(tower: Any) -> None:
    other = others()
    other.mask[0, 3:] = False
    tokens = run(tower, None, other)
    assert tokens.shape == (3, 5, 32)
    short = run(tower, None, Features(other.tokens[:, :3], other.mask[:, :3]))
    assert_close(tokens[0, :3], short[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_joint_sequence_may_be_longer_than_any_text(tower: Any, texts: TextInput) -> None:
    tokens = run(tower, tower.embedded(texts), others(60))
    assert tokens.shape == (3, texts.mask.shape[1] + 60, 32)
    assert tokens.isfinite().all()


def test_gradients_flow_to_both_streams(tower: Any, texts: TextInput) -> None:
    own, other = tower.embedded(texts), others()
    other.tokens.requires_grad_()
    run(tower.train(), own, other)[:, 0].square().sum().backward()  # type: ignore[no-untyped-call]  # torch's own
    assert other.tokens.grad is not None
    assert (other.tokens.grad.abs().amax(-1) > 0).all()
    assert all(parameter.grad is not None for block in tower.blocks for parameter in block.parameters())
    assert tower.model.get_input_embeddings().weight.grad.abs().sum() > 0


@torch.no_grad()
def test_rows_of_own_tokens_can_be_joined_in_any_pairs(tower: Any, texts: TextInput) -> None:
    own, other, rows = tower.embedded(texts), others(), torch.tensor([2, 0])
    every = run(tower, own, other)[rows]
    some = run(tower, Features(own.tokens[rows], own.mask[rows]), Features(other.tokens[rows], other.mask[rows]))
    real = torch.cat([own.mask[rows], other.mask[rows]], dim=1)
    assert_close(some[real], every[real], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_own_tokens_keep_their_window_beside_others() -> None:
    tower = perturbed("modernbert")
    tower.model.config.sliding_window = 1
    texts = tower.processor(CAPTIONS[1:2])
    own = tower.embedded(texts)
    other = others(2)
    state = tower.join(own, Features(other.tokens[:1], other.mask[:1]))
    kinds = tower.model.config.layer_types
    local = state.calls[kinds.index("sliding_attention")].kwargs["attention_mask"][0, 0]
    length = texts.mask.shape[1]
    distance = (torch.arange(length)[:, None] - torch.arange(length)).abs()
    assert torch.equal(local[:length, :length], distance <= 1)
    assert local[length:].all()
    assert local[:, length:].all()


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("deberta-v2", "its attention scores every two tokens"),
        ("clip_text_model", "its tokens attend only to those"),
        ("siglip_text_model", "it reads each text with the padding"),
    ],
)
def test_a_type_that_cannot_take_others_says_why(model_type: str, reason: str) -> None:
    said = LIBRARY.describe(LibraryTextOptions(model=model_type))
    assert said.base is False
    assert said.refused.startswith(reason)
    assert not hasattr(random_tower(model_type), "join")


@torch.no_grad()
@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_kept_embeddings_are_all_that_is_left(model_type: str) -> None:
    tower = random_tower(model_type, width=64).eval()
    texts = replace(tower.processor(CAPTIONS), segment_ids=None)
    before = tower.embedded(texts).tokens
    assert torch.equal(before, tower.embed(texts).hidden[:, : before.shape[1]])
    words = tower.model.get_input_embeddings()(texts.token_ids)
    from_words = tower.embedded(replace(texts, embeddings=words)).tokens
    tower.keep_embeddings()
    assert torch.equal(tower.embedded(texts).tokens, before)
    assert torch.equal(tower.embedded(replace(texts, embeddings=words)).tokens, from_words)
    left = {id(parameter) for module in tower.embeddings for parameter in module.parameters()}
    assert left == {id(parameter) for parameter in tower.parameters()}
    assert len(tower.blocks) == len(tower.final) == 0


@torch.no_grad()
def test_kept_embeddings_come_back_from_what_was_saved(tmp_path: Path) -> None:
    tower = random_tower("electra").eval()
    tower.keep_embeddings()
    tower.resize(30)
    config = json.loads(json.dumps(tower.save(tmp_path)))
    again = build(LibraryTextOptions(model="gone"), weights="none", saved=SavedBackbone(config=config, folder=tmp_path))
    again.load_state_dict(tower.state_dict(), strict=True, assign=True)
    texts = tower.processor(["a " * 60])
    assert texts.mask.shape == (1, 30)
    assert torch.equal(again.eval().embedded(texts).tokens, tower.embedded(texts).tokens)


def test_every_kept_parameter_is_used() -> None:
    for model_type in FAMILIES:
        tower = random_tower(model_type)
        tower.keep_embeddings()
        tower.embedded(tower.processor(CAPTIONS)).tokens.square().sum().backward()
        assert [name for name, parameter in tower.named_parameters() if parameter.grad is None] == []


@torch.no_grad()
@pytest.mark.parametrize("model_type", sorted(HALVED))
def test_two_halves_are_the_block(model_type: str) -> None:
    tower = perturbed(model_type)
    texts = tower.processor(CAPTIONS)
    state = tower.embed(texts)
    block = tower.text_blocks()[0]
    halves = block.feed(block.attend(state.hidden, texts.mask))
    assert torch.equal(halves, tower.step(0, state).hidden)


@torch.no_grad()
@pytest.mark.parametrize("model_type", sorted(HALVED))
def test_a_half_takes_a_mask_of_pairs(model_type: str) -> None:
    tower = perturbed(model_type)
    texts = tower.processor(CAPTIONS)
    hidden, length = tower.embed(texts).hidden, texts.mask.shape[1]
    block = tower.text_blocks()[1]
    pairs = texts.mask[:, None, :].expand(-1, length, -1)
    assert_close(block.attend(hidden, pairs), block.attend(hidden, texts.mask), rtol=0, atol=1e-6)
    causal = pairs & torch.ones(length, length).tril().bool()
    before = block.attend(hidden, causal)
    hidden[:, 3:] = 0.0
    assert_close(block.attend(hidden, causal)[:, :3], before[:, :3], rtol=0, atol=1e-6)


def test_halves_hold_the_very_parameters_of_the_blocks() -> None:
    tower = random_tower("bert")
    halves = {id(parameter) for block in tower.text_blocks() for parameter in block.parameters()}
    assert halves == {id(parameter) for block in tower.blocks for parameter in block.parameters()}


@pytest.mark.parametrize("model_type", sorted(set(FAMILIES) - HALVED))
def test_blocks_of_other_types_are_not_halved(model_type: str) -> None:
    with pytest.raises(SpecError, match=f"cannot run the blocks of the model type '{model_type}'.*: bert, "):
        random_tower(model_type).text_blocks()


@torch.no_grad()
@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_a_longer_tower_gives_short_texts_as_before(model_type: str, tmp_path: Path) -> None:
    tower = random_tower(model_type).eval()
    texts = tower.processor(CAPTIONS)
    before, parameters = tower(texts).tokens, dict(tower.named_parameters())
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    names = tower.resize(40)
    assert set(names) == {name for name, parameter in tower.named_parameters() if parameter.shape != shapes[name]}
    assert len(names) == (model_type != "modernbert")
    if model_type not in SEES_PADDING:  # there is more of the padding that it sees
        assert torch.equal(tower(texts).tokens, before)
    long = tower.processor(["a " * 60])
    assert long.token_ids.shape == (1, 40)
    config = json.loads(json.dumps(tower.save(tmp_path)))
    again = build(LibraryTextOptions(model="gone"), weights="none", saved=SavedBackbone(config=config, folder=tmp_path))
    again.load_state_dict(tower.state_dict(), strict=True, assign=True)
    assert torch.equal(again.eval()(long).tokens, tower(long).tokens)
    assert again.processor.facts.max_tokens == 40


@torch.no_grad()
@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_shorter_texts_change_the_processor_alone(model_type: str) -> None:
    tower = random_tower(model_type)
    parameters = {name: id(parameter) for name, parameter in tower.named_parameters()}
    config = tower.config
    assert tower.resize(8) == ()
    assert {name: id(parameter) for name, parameter in tower.named_parameters()} == parameters
    assert tower.config == config
    assert tower.processor(["a " * 60]).token_ids.shape == (1, 8)
    assert tower.resize(24) == ()


def test_new_rows_of_positions_follow_torchs_seed() -> None:
    first, second, third = (random_tower("roberta") for _ in range(3))
    tables = []
    for seed, tower in ((1, first), (1, second), (2, third)):
        torch.manual_seed(seed)
        assert tower.resize(1000) == ("model.embeddings.position_embeddings.weight",)
        tables.append(tower.model.embeddings.position_embeddings.weight)
    old = random_tower("roberta").model.embeddings.position_embeddings.weight
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])
    assert torch.equal(tables[0][: len(old)], old)
    assert 0.019 < tables[0][len(old) :].std() < 0.021


def test_a_size_without_room_for_text_is_refused() -> None:
    tower = random_tower("bert")
    with pytest.raises(SpecError, match="max_tokens=2 leaves no room"):
        tower.resize(2)
    assert tower.processor.facts.max_tokens == 24


def test_a_type_whose_parts_are_not_known_can_only_be_shortened() -> None:
    tower = random_tower("albert")
    assert tower.resize(12) == ()
    assert tower.processor(["a " * 60]).token_ids.shape == (1, 12)
    with pytest.raises(SpecError, match="takes up to 24 tokens, not 25"):
        tower.resize(25)


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_a_bare_type_says_its_positions_and_whether_it_is_a_base(model_type: str) -> None:
    said = LIBRARY.describe(LibraryTextOptions(model=model_type, tokenizer="renaissance", **SIZES))
    assert said.positions == random_tower(model_type).positions
    assert said.base is (model_type in BASES)
    assert bool(said.refused) is not said.base


@pytest.mark.parametrize(
    "entry", [e for e in BACKBONES if e.modality == "text" and not e.library], ids=lambda e: e.name
)
def test_every_short_name_is_a_base(entry: Any) -> None:
    said = entry.describe(entry.options())
    assert (said.positions, said.base, said.refused) == ("absolute", True, "")
