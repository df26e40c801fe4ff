from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from renaissance.api import WordPieces
from renaissance.toolkit.text import FACTS_FILE, WordTokenizer, infer_facts
from renaissance.toolkit.words import unfinished_pieces, word_pieces

SPECIAL = ["<pad>", "<mask>"]


def tokenizer(model: models.Model, splitter: pre_tokenizers.PreTokenizer | None) -> Tokenizer:
    made = Tokenizer(model)
    if splitter is not None:
        made.pre_tokenizer = splitter
    made.add_special_tokens(SPECIAL)
    return made


def vocabulary(*words: str) -> dict[str, int]:
    return {word: id_ for id_, word in enumerate((*SPECIAL, *words))}


def unigram(*words: str) -> models.Unigram:
    return models.Unigram([(word, -1.0) for word in (*SPECIAL, *words)], unk_id=0)


WORDPIECE = tokenizer(
    models.WordPiece(vocabulary("run", "##ning", "#"), unk_token="<pad>"), pre_tokenizers.Whitespace()
)


@pytest.mark.parametrize(
    ("made", "pieces"),
    [
        (WORDPIECE, WordPieces(continues=(3,))),
        (tokenizer(unigram("▁run", "ning"), pre_tokenizers.Metaspace()), WordPieces(continues=(3,))),
        (
            tokenizer(
                models.BPE(vocabulary("Ġrun", "ning"), []),
                pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel()]),
            ),
            WordPieces(continues=(3,)),
        ),
        (
            tokenizer(
                models.BPE(vocabulary("run", "ning</w>"), [], end_of_word_suffix="</w>"), pre_tokenizers.Whitespace()
            ),
            WordPieces(unfinished=(2,)),
        ),
        (tokenizer(models.WordLevel(vocabulary("run")), pre_tokenizers.Whitespace()), WordPieces()),
        (tokenizer(models.BPE(vocabulary("run", "ning"), []), None), None),
    ],
    ids=["prefix", "metaspace", "byte level", "suffix", "words alone", "no marks"],
)
def test_pieces_are_told_by_the_marks_of_the_vocabulary(made: Tokenizer, pieces: WordPieces | None) -> None:
    assert word_pieces(made) == pieces


def test_a_word_of_clip_ends_with_its_suffix() -> None:
    assert unfinished_pieces({"run": 0, "ning</w>": 1, "a</w>": 2}) == WordPieces(unfinished=(0,))


def test_pieces_come_back_from_the_vocabulary_and_are_not_written(tmp_path: Path) -> None:
    made = WordTokenizer(WORDPIECE, infer_facts(WORDPIECE, max_tokens=8))
    assert made.facts.pieces == WordPieces(continues=(3,))
    made.save(tmp_path)
    assert "pieces" not in json.loads((tmp_path / FACTS_FILE).read_text())
    assert WordTokenizer.load(tmp_path).facts.pieces == made.with_max_tokens(4).facts.pieces == made.facts.pieces


# --- tokenizers that mark no words --------------------------------------------------------------------------------


def letters(*words: str, splitter: pre_tokenizers.PreTokenizer | None = None) -> WordTokenizer:
    """Return a tokenizer of these pieces and single letters, with nothing in them that says where a word starts."""
    made = tokenizer(unigram(*words, *"runig ."), splitter)
    made.post_processor = processors.TemplateProcessing(
        single="<mask> $A <mask>", pair="<mask> $A <mask> $B:1 <mask>:1", special_tokens=[("<mask>", 1)]
    )
    return WordTokenizer(made, infer_facts(made, max_tokens=32))


def words_of(made: WordTokenizer, *texts: list[str]) -> list[list[int]]:
    words = made(*texts).words
    assert words is not None
    return words.tolist()


def test_words_are_told_by_white_space_where_the_vocabulary_marks_none() -> None:
    made = letters("run", "ning", " run")
    assert made.facts.pieces == WordPieces(by_text=True)
    assert words_of(made, ["running run"]) == [[-1, 0, 0, 1, -1]]  # the space is in the token
    assert words_of(letters("run", "ning"), ["running run"]) == [[-1, 0, 0, 1, 2, -1]]  # it is one of its own


def test_words_are_told_by_the_splitting_of_the_tokenizer() -> None:
    made = letters("run", "ning", splitter=pre_tokenizers.Whitespace())
    assert words_of(made, ["running run.", "run"]) == [[-1, 0, 0, 1, 2, -1], [-1, 0, -1, -1, -1, -1]]


def test_the_words_of_two_texts_are_not_one() -> None:
    assert words_of(letters("run", "ning"), ["run"], ["ning"]) == [[-1, 0, -1, 1, -1]]


def test_words_survive_truncation_and_are_not_given_where_ids_tell_them() -> None:
    made = letters("run", "ning").with_max_tokens(4)
    assert words_of(made, ["runningrunning"]) == [[-1, 0, 0, -1]]
    assert WordTokenizer(WORDPIECE, infer_facts(WORDPIECE, max_tokens=8))(["run"]).words is None


def test_ids_are_the_same_with_and_without_words() -> None:
    made = letters("run", "ning", splitter=pre_tokenizers.Whitespace())
    plain = [encoding.ids for encoding in made._tokenizer.encode_batch_fast(["running run", "run"])]
    assert made(["running run", "run"]).token_ids.tolist() == plain
