from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

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
        (tokenizer(models.WordLevel(vocabulary("run")), pre_tokenizers.Whitespace()), None),
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
