from __future__ import annotations

import json
import pickle
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from renaissance.api import TextProcessor
from renaissance.errors import ModelFileError, SampleError, SpecError
from renaissance.toolkit.text import FACTS_FILE, TOKENIZER_FILE, WordTokenizer, infer_facts

WORDS = ["<pad>", "<mask>", "<unk>", "a", "red", "blue", "cup", "on", "the", "table"]


def plain_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: id_ for id_, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<pad>", "<mask>", "<unk>"])
    return tokenizer


@pytest.fixture
def processor() -> WordTokenizer:
    tokenizer = plain_tokenizer()
    return WordTokenizer(tokenizer, infer_facts(tokenizer, max_tokens=6))


def test_it_is_a_text_processor(processor: WordTokenizer) -> None:
    assert isinstance(processor, TextProcessor)


def test_texts_are_padded_on_the_right_to_the_longest_of_them(processor: WordTokenizer) -> None:
    texts = processor(["a red cup", "a cup on the table"])
    assert texts.token_ids.tolist() == [[3, 4, 6, 0, 0], [3, 6, 7, 8, 9]]
    assert texts.mask.tolist() == [[True, True, True, False, False], [True] * 5]
    assert (texts.token_ids.dtype, texts.mask.dtype) == (torch.int64, torch.bool)


def test_texts_are_truncated_to_max_tokens(processor: WordTokenizer) -> None:
    assert processor(["a red cup on the table a blue cup"]).token_ids.tolist() == [[3, 4, 6, 7, 8, 9]]


def test_lengths_count_the_real_tokens(processor: WordTokenizer) -> None:
    assert processor.lengths(["a cup", "a red cup", "a " * 20, ""]) == [2, 3, 6, 0]


def test_facts_are_read_from_the_special_tokens(processor: WordTokenizer) -> None:
    facts = processor.facts
    assert (facts.vocabulary, facts.pad_id, facts.mask_id, facts.special_ids) == (10, 0, 1, (0, 1, 2))


def test_a_saved_tokenizer_comes_back_the_same(processor: WordTokenizer, tmp_path: Path) -> None:
    processor.save(tmp_path)
    restored = WordTokenizer.load(tmp_path)
    assert restored.describe() == processor.describe() == json.loads(json.dumps(processor.describe()))
    assert torch.equal(restored(["a blue table"]).token_ids, processor(["a blue table"]).token_ids)


def test_the_digest_does_not_depend_on_the_truncation(processor: WordTokenizer) -> None:
    assert processor.with_max_tokens(3).describe()["sha256"] == processor.describe()["sha256"]
    assert processor.with_max_tokens(3)(["a red cup on"]).token_ids.shape == (1, 3)


def test_a_given_tokenizer_is_left_as_it_was() -> None:
    tokenizer = plain_tokenizer()
    before = tokenizer.to_str()
    WordTokenizer(tokenizer, infer_facts(tokenizer, max_tokens=6))
    assert tokenizer.to_str() == before


def test_it_travels_to_worker_processes(processor: WordTokenizer) -> None:
    assert pickle.loads(pickle.dumps(processor)).describe() == processor.describe()


@pytest.mark.parametrize("text", [None, float("nan"), 7, b"bytes"])
def test_what_is_no_text_is_named(processor: WordTokenizer, text: object) -> None:
    with pytest.raises(SampleError, match=r"Text 1 is .*, not a string"):
        processor(["a cup", text])  # type: ignore[list-item]  # the wrong type is the test


def test_broken_unicode_is_named(processor: WordTokenizer) -> None:
    with pytest.raises(SampleError, match=r"Text 0 holds broken Unicode .a lone surrogate at character 2"):
        processor(["a \ud800 cup"])


@pytest.mark.parametrize("texts", [[], "a red cup"])
def test_a_list_of_texts_is_asked_for(processor: WordTokenizer, texts: list[str]) -> None:
    with pytest.raises(SampleError, match="Expected a list of texts"):
        processor(texts)


@pytest.mark.parametrize("text", ["cup " * 250_000, "x" * 1_000_000, " " * 1_000_000 + "a cup", "\u0301" * 1_000_000])
def test_a_megabyte_of_text_takes_a_moment(processor: WordTokenizer, text: str) -> None:
    taken = []
    for _ in range(3):  # the best of three: other work on the machine slows one
        start = time.process_time()
        processor([text])
        taken.append(time.process_time() - start)
    assert min(taken) < 0.1


def test_the_words_after_a_megabyte_of_spaces_are_seen(processor: WordTokenizer) -> None:
    assert processor([" " * 1_000_000 + "a cup"]).token_ids.tolist() == [[3, 6]]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=4))
def test_any_text_gives_ids_or_a_sample_error(texts: list[str]) -> None:
    tokenizer = plain_tokenizer()
    processor = WordTokenizer(tokenizer, infer_facts(tokenizer, max_tokens=6))
    try:
        result = processor(texts)
    except SampleError:
        return
    assert result.token_ids.shape == result.mask.shape
    assert result.token_ids.shape[0] == len(texts)
    assert (result.token_ids[~result.mask] == 0).all()


def test_a_tokenizer_without_padding_is_refused() -> None:
    with pytest.raises(SpecError, match="has no padding token"):
        infer_facts(Tokenizer(models.WordLevel({"a": 0}, unk_token="a")), max_tokens=6)


def test_no_room_for_text_is_refused(processor: WordTokenizer) -> None:
    with pytest.raises(SpecError, match="max_tokens=0 leaves no room"):
        processor.with_max_tokens(0)


@pytest.mark.parametrize("name", [TOKENIZER_FILE, FACTS_FILE])
@pytest.mark.parametrize("damage", ["{", "[]", None])
def test_a_damaged_file_is_named(processor: WordTokenizer, tmp_path: Path, name: str, damage: str | None) -> None:
    processor.save(tmp_path)
    (tmp_path / name).unlink()
    if damage is not None:
        (tmp_path / name).write_text(damage)
    with pytest.raises(ModelFileError, match=f"{name} cannot be read"):
        WordTokenizer.load(tmp_path)


def test_another_tokenizer_than_the_saved_one_is_refused(processor: WordTokenizer, tmp_path: Path) -> None:
    processor.save(tmp_path)
    path = tmp_path / TOKENIZER_FILE
    path.write_text(path.read_text().replace('"cup"', '"mug"'))
    with pytest.raises(ModelFileError, match=r"is not the tokenizer that tokenizer_facts\.json describes"):
        WordTokenizer.load(tmp_path)
