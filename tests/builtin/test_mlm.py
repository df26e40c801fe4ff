from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers
from torch import Tensor
from torch.nn import functional as F

from renaissance.api import Features, Joint, ModelFacts, Pairs, TokenizerFacts, WordPieces
from renaissance.builtin.mlm import IGNORED, MaskedLanguageModelling, mask_tokens
from renaissance.builtin.task_entries import MlmOptions
from renaissance.errors import SpecError
from renaissance.toolkit.teaching import Taught
from renaissance.toolkit.words import word_pieces
from renaissance.training.train_step import TrainStep

FACTS = TokenizerFacts(vocabulary=1000, pad_id=0, mask_id=4, special_ids=(0, 1, 2, 3, 4), max_tokens=64)
OPTIONS = MlmOptions()


def captions(count: int = 4000, length: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    """Return (ids, mask, seeds) of captions that begin with 2, end with 3 and are padded with 0."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 1000, (count, length), generator=generator)
    lengths = torch.randint(3, length + 1, (count, 1), generator=generator)
    places = torch.arange(length)
    ids[:, 0] = 2
    ids = torch.where(places == lengths - 1, 3, ids).masked_fill(places >= lengths, 0)
    return ids, places < lengths, torch.arange(count) * 7


def task(at_least_one: bool = False, width: int = 16) -> MaskedLanguageModelling:
    facts = ModelFacts(
        vision=8, text=8, joint=16, fused_text=width, shared_space=False, tokenizer=FACTS
    )  # fmt: skip
    return MaskedLanguageModelling(MlmOptions(at_least_one=at_least_one), model=facts)


def lost(built: MaskedLanguageModelling, tokens: Tensor, labels: Tensor) -> Any:
    features = Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))
    pairs = Pairs(
        features, features, torch.zeros(len(tokens), 2, dtype=torch.int64), frozenset({"text"}), targets=labels
    )
    nothing: Any = None
    return built.loss(nothing, Joint(text=features), pairs, nothing)


def test_fifteen_percent_of_the_tokens_are_chosen_80_10_10() -> None:
    ids, mask, seeds = captions()
    masked, labels = mask_tokens(ids, mask, seeds, FACTS, OPTIONS)
    chosen = labels != IGNORED
    words = mask & (ids > 4)
    assert abs(float(chosen.sum() / words.sum()) - 0.15) < 0.005
    became_mask = (masked[chosen] == 4).double().mean()
    stayed = (masked[chosen] == ids[chosen]).double().mean()
    assert abs(float(became_mask) - 0.8) < 0.02
    assert abs(float(stayed) - 0.1) < 0.02
    drawn = masked[chosen & (masked != ids) & (masked != 4)]
    assert abs(len(drawn) / int(chosen.sum()) - 0.1) < 0.02
    assert len(drawn.unique()) > 100


def test_special_and_padding_tokens_are_never_chosen_and_the_rest_is_unchanged() -> None:
    ids, mask, seeds = captions()
    masked, labels = mask_tokens(ids, mask, seeds, FACTS, MlmOptions(probability=1.0))
    chosen = labels != IGNORED
    assert torch.equal(chosen, mask & (ids > 4))
    assert torch.equal(masked[~chosen], ids[~chosen])
    assert torch.equal(labels[chosen], ids[chosen])


def test_what_is_no_part_of_the_text_is_never_chosen_whatever_stands_there() -> None:
    ids, mask, seeds = captions()
    filled = ids.masked_fill(~mask, 77)
    labels = mask_tokens(filled, mask, seeds, FACTS, MlmOptions(probability=1.0, at_least_one=True))[1]
    assert not bool((labels[~mask] != IGNORED).any())


def test_what_is_masked_is_a_function_of_the_seed_alone() -> None:
    ids, mask, seeds = captions(12)
    whole = mask_tokens(ids, mask, seeds, FACTS, OPTIONS)
    order = torch.randperm(12)
    shuffled = mask_tokens(ids[order], mask[order], seeds[order], FACTS, OPTIONS)
    wider = mask_tokens(F.pad(ids, (0, 5)), F.pad(mask, (0, 5)), seeds, FACTS, OPTIONS)
    other = mask_tokens(ids, mask, seeds + 1, FACTS, OPTIONS)
    for place in range(2):
        assert torch.equal(whole[place][order], shuffled[place])
        assert torch.equal(wider[place][:, :20], whole[place])
        assert not torch.equal(other[place], whole[place])


@given(seed=st.integers(0, 2**62), probability=st.floats(0.01, 0.3))
@settings(deadline=None, max_examples=50, derandomize=True)
def test_at_least_one_token_is_chosen_where_that_is_asked_and_one_can_be(seed: int, probability: float) -> None:
    ids, mask, seeds = captions(20, 5)
    found = mask_tokens(ids, mask, seeds + seed, FACTS, MlmOptions(probability=probability, at_least_one=True))[1]
    assert torch.equal((found != IGNORED).any(1), (mask & (ids > 4)).any(1))
    without = mask_tokens(ids, mask, seeds + seed, FACTS, MlmOptions(probability=probability))[1]
    assert bool(((without == IGNORED) | (without == found)).all())


def word_of(ids: Tensor, mask: Tensor) -> Tensor:
    """Return which word of its row each token is part of; the pieces are the odd ids."""
    continues = (ids % 2 == 1) & mask & (ids > 4)
    continues[:, 1:] &= ids[:, :-1] > 4  # nothing continues a special token
    return (~continues).cumsum(1)


def whole_words(options: MlmOptions, count: int = 4000) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (ids, mask, masked ids, labels) where each odd id continues the word of the id before it."""
    ids, mask, seeds = captions(count)
    pieces = torch.stack([torch.arange(1000) % 2 == 1, torch.zeros(1000, dtype=torch.bool)])
    return ids, mask, *mask_tokens(ids, mask, seeds, FACTS, options, pieces)


@pytest.mark.parametrize("at_least_one", [False, True])
def test_a_word_is_chosen_wholly_or_not_at_all(at_least_one: bool) -> None:
    ids, mask, _, labels = whole_words(MlmOptions(whole_word=True, at_least_one=at_least_one))
    chosen, words = labels != IGNORED, word_of(ids, mask)
    same_word = (words[:, 1:] == words[:, :-1]) & mask[:, 1:] & (ids[:, 1:] > 4)
    assert int(same_word.sum()) > 10_000
    assert torch.equal(chosen[:, 1:][same_word], chosen[:, :-1][same_word])
    assert not bool((chosen & ~(mask & (ids > 4))).any())
    if at_least_one:
        assert torch.equal(chosen.any(1), (mask & (ids > 4)).any(1))


def test_fifteen_percent_of_the_tokens_of_whole_words_are_chosen_80_10_10() -> None:
    ids, mask, masked, labels = whole_words(MlmOptions(whole_word=True), 12_000)
    chosen = labels != IGNORED
    assert abs(float(chosen.sum() / (mask & (ids > 4)).sum()) - 0.15) < 0.005
    assert abs(float((masked[chosen] == 4).double().mean()) - 0.8) < 0.02
    assert abs(float((masked[chosen] == ids[chosen]).double().mean()) - 0.1) < 0.02


def test_a_token_that_leaves_its_word_unfinished_is_chosen_with_the_next() -> None:
    ids = torch.tensor([[2, 10, 11, 20, 3]]).expand(500, 5)
    pieces = torch.zeros(2, 1000, dtype=torch.bool)
    pieces[1, [10, 3]] = True
    mask = torch.ones_like(ids, dtype=torch.bool)
    chosen = mask_tokens(ids, mask, torch.arange(500), FACTS, MlmOptions(whole_word=True), pieces)[1] != IGNORED
    assert torch.equal(chosen[:, 1], chosen[:, 2])
    assert not torch.equal(chosen[:, 2], chosen[:, 3])


def test_words_of_one_token_are_chosen_as_tokens_are() -> None:
    ids, mask, seeds = captions()
    pieces = torch.zeros(2, 1000, dtype=torch.bool)
    plain = mask_tokens(ids, mask, seeds, FACTS, MlmOptions(at_least_one=True))
    whole = mask_tokens(ids, mask, seeds, FACTS, MlmOptions(at_least_one=True, whole_word=True), pieces)
    assert all(torch.equal(one, other) for one, other in zip(plain, whole, strict=True))


def test_whole_words_of_a_tokenizer_that_marks_none_are_refused() -> None:
    model = ModelFacts(vision=8, text=8, joint=16, fused_text=16, shared_space=False, tokenizer=FACTS)
    with pytest.raises(SpecError, match=r"whole_word needs to know .* does not say; leave whole_word out"):
        MaskedLanguageModelling(MlmOptions(whole_word=True), model=model)


def test_a_model_masks_whole_words_of_its_tokenizer_and_saves_no_table(
    tiny_model: Callable[..., Any], tiny_batch: Any
) -> None:
    model = tiny_model({"mlm": {"whole_word": True, "probability": 0.5}})
    built, pieces = model.tasks["mlm"], model.encoder.text.processor.facts.pieces
    assert not [name for name in model.state_dict() if "pieces" in name]
    assert int(built.pieces.sum()) == len(pieces.continues) > 100
    batch = tiny_batch(model, 4, captions=[(f"a zyzzyva number {number} of quixotry", "x") for number in range(4)])
    chosen = built._masked(batch)[1] != IGNORED
    joined = built.pieces[0][batch.texts.token_ids[batch.pairs[:, 1]]][:, 1:]
    assert int(joined.sum()) > 4
    assert torch.equal(chosen[:, 1:][joined], chosen[:, :-1][joined])


def test_the_head_at_masked_positions_is_the_whole_head_there() -> None:
    built = task()
    tokens = torch.randn(3, 7, 16)
    labels = torch.full((3, 7), IGNORED)
    labels[0, 2], labels[2, 5], labels[2, 6] = 11, 12, 999
    result = lost(built, tokens, labels)
    logits = built.decoder(built.head(tokens))
    whole = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    torch.testing.assert_close(result.sum, whole)
    assert int(result.count) == 3


def test_no_masked_token_gives_no_loss_and_no_count_and_a_backward_pass() -> None:
    built = task()
    tokens = torch.randn(2, 3, 16, requires_grad=True)
    result = lost(built, tokens, torch.full((2, 3), IGNORED))
    assert (float(result.sum.detach()), int(result.count)) == (0.0, 0)
    result.sum.backward()
    assert tokens.grad is not None
    assert float(tokens.grad.abs().sum()) == 0
    assert built.decoder.weight.grad is not None


def test_a_head_that_knows_nothing_loses_the_logarithm_of_the_vocabulary() -> None:
    built = task()
    torch.nn.init.zeros_(built.decoder.weight)
    labels = torch.full((2, 3), IGNORED)
    labels[:, 1] = 17
    result = lost(built, torch.randn(2, 3, 16), labels)
    assert float(result.sum.detach() / result.count) == pytest.approx(math.log(1000), rel=1e-5)


def test_a_tokenizer_without_a_mask_token_is_refused() -> None:
    facts = TokenizerFacts(vocabulary=10, pad_id=0, mask_id=None, special_ids=(0,), max_tokens=8)
    model = ModelFacts(vision=8, text=8, joint=8, fused_text=8, shared_space=False, tokenizer=facts)
    with pytest.raises(SpecError, match="needs a tokenizer with a mask token"):
        MaskedLanguageModelling(OPTIONS, model=model)


def test_padding_to_a_longer_text_changes_no_loss(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model(("mlm",)).eval()
    step = TrainStep(model, {"mlm": 1.0})
    long = (*(("a cup", "x"), ("a dog", "y"), ("a tree", "z")), (" ".join(["a small red cup"] * 6), "w"))
    whole = model.tasks["mlm"]
    short_batch, long_batch = tiny_batch(model, 3, captions=long), tiny_batch(model, 4, captions=long)
    assert long_batch.texts.token_ids.shape[1] > short_batch.texts.token_ids.shape[1]
    _, labels = whole._masked(short_batch)
    _, wider = whole._masked(long_batch)
    assert torch.equal(wider[:3, : labels.shape[1]], labels)
    assert torch.isfinite(step(long_batch).loss)


# --- words of any tokenizer ---------------------------------------------------------------------------------------


def test_words_are_known_where_a_tokenizer_marks_them_when_it_normalises() -> None:
    made = Tokenizer(models.BPE({"<pad>": 0, "\u2581run": 1, "ning": 2}, []))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    made.add_special_tokens(["<pad>"])
    assert word_pieces(made) == WordPieces(continues=(2,))


def test_replacing_spaces_by_nothing_marks_no_words() -> None:
    made = Tokenizer(models.BPE({"<pad>": 0, "run": 1}, []))
    made.normalizer = normalizers.Replace(" ", "")
    assert word_pieces(made) is None


def test_the_words_of_a_text_are_chosen_whole_where_ids_do_not_tell_them() -> None:
    words = torch.tensor([[-1, 0, 0, 1, 2, 2, 2, -1]]).repeat(500, 1)
    ids = torch.tensor([[2, 10, 11, 12, 13, 10, 11, 3]]).repeat(500, 1)
    mask = torch.ones_like(ids, dtype=torch.bool)
    options = MlmOptions(whole_word=True, probability=0.5)
    chosen = mask_tokens(ids, mask, torch.arange(500), FACTS, options, None, words)[1] != IGNORED
    for word in range(3):
        of_it = chosen[:, words[0] == word]
        assert torch.equal(of_it.all(1), of_it.any(1))
        assert 0.3 < float(of_it.float().mean()) < 0.7


# --- distillation -------------------------------------------------------------------------------------------------


def taught_loss(built: Any, teacher: Any, tokens: Tensor, taught: Tensor, labels: Tensor) -> Any:
    features = Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))
    index = torch.zeros(len(tokens), 2, dtype=torch.int64)
    pairs = Pairs(features, features, index, frozenset({"text"}), targets=labels)
    shorter = Features(taught[:, :3], features.mask[:, :3])  # the teacher's text has no padding left
    nothing: Any = None
    lesson = Taught(nothing, teacher, Joint(text=shorter), 5, {})
    inputs: Any = type("Inputs", (), {"taught": {"mlm": lesson}})()
    return built.loss(inputs, Joint(text=features), pairs, nothing)


def test_the_taught_loss_is_that_of_a_plain_loop_in_float64_and_its_gradient_is_right() -> None:
    small = TokenizerFacts(vocabulary=7, pad_id=0, mask_id=4, special_ids=(0, 4), max_tokens=64)
    facts = ModelFacts(vision=8, text=8, joint=16, fused_text=4, shared_space=False, tokenizer=small)
    options = MlmOptions(distillation=0.4, distillation_ramp=10)
    built, teacher = (MaskedLanguageModelling(options, model=facts).double() for _ in range(2))
    for module in (built, teacher):
        torch.nn.init.normal_(module.decoder.weight)
    tokens = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)
    shown = torch.randn(2, 4, 4, dtype=torch.float64)
    labels = torch.tensor([[IGNORED, 3, IGNORED, IGNORED], [5, IGNORED, 6, IGNORED]])
    expected = 0.0
    for pair, place, label in ((0, 1, 3), (1, 0, 5), (1, 2, 6)):
        logits = built.decoder(built.head(tokens[pair, place])).tolist()
        soft = teacher.decoder(teacher.head(shown[pair, place])).tolist()
        whole, taught = math.fsum(map(math.exp, logits)), math.fsum(map(math.exp, soft))
        chances = [math.exp(logit) / whole for logit in logits]
        imitated = -math.fsum(math.exp(t) / taught * math.log(c) for t, c in zip(soft, chances, strict=True))
        expected += 0.8 * -math.log(chances[label]) + 0.2 * imitated  # half of the ramp
    found = taught_loss(built, teacher, tokens, shown, labels)
    assert float(found.sum.detach()) == pytest.approx(expected, rel=1e-10)
    assert int(found.count) == 3
    assert torch.autograd.gradcheck(lambda given: taught_loss(built, teacher, given, shown, labels).sum, (tokens,))
