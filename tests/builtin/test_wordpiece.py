from __future__ import annotations

import hashlib
import json
import platform
import string
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers

from renaissance.builtin.transformers_options import SHIPPED_VOCABULARY
from renaissance.builtin.transformers_text import WORDPIECE
from renaissance.toolkit.text import WordTokenizer

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "tokenizer"

SENTENCES = (
    "A small red circle is left of the large blue square.",
    "Two dogs run across a snowy park near the old stone bridge.",
    "Is there a cup on the table? Yes, there is one.",
    "The woman's yellow umbrella isn't open; it's folded!",
    "A striped cat sleeps on a couch beside 3 green pillows.",
    "An airplane flies above the clouds at sunset.",
    "Children play football in the garden while it rains.",
    "A slice of pizza with mushrooms, olives and cheese (half eaten).",
    "He rides a bicycle along the river at 7:30 in the morning.",
    "Traffic lights hang over the busy street corner.",
    "A giraffe & two zebras stand by the water.",
    "The clock on the tower shows ten minutes past four.",
    "Someone wearing a purple jacket carries a heavy suitcase.",
    "Boats are parked in the harbor next to the lighthouse.",
    "A chef cuts carrots with a very sharp knife.",
    "Vases filled with tulips, roses and daisies @ the market #5.",
    "There are no people in this black-and-white photograph.",
    "The tiny triangle touches the biggest hexagon's upper edge.",
    "QWERTY keyboards {cost} $19.99 [or ~15% less] ^_^ | a\\b <c> `d`",
    "Zyzzyva xylophonists jauntily quaffed phlegmatic brews.",
)


@pytest.fixture(scope="module")
def wordpiece() -> WordTokenizer:
    return WordTokenizer.load(WORDPIECE)


def test_special_tokens_have_the_first_ids(wordpiece: WordTokenizer) -> None:
    facts = wordpiece.facts
    assert (facts.vocabulary, facts.pad_id, facts.mask_id) == (SHIPPED_VOCABULARY, 0, 4)
    assert facts.special_ids == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("sentence", SENTENCES)
def test_no_ascii_text_has_an_unknown_token(wordpiece: WordTokenizer, sentence: str) -> None:
    assert 1 not in wordpiece([sentence]).token_ids


def test_each_printable_character_is_known_alone_and_inside_a_word(wordpiece: WordTokenizer) -> None:
    printable = sorted(set(string.printable) - set(string.whitespace))
    assert 1 not in wordpiece([*printable, *(f"q{character}z" for character in printable)]).token_ids


def test_each_word_of_the_list_is_one_token(wordpiece: WordTokenizer) -> None:
    words = (RECIPE / "words.txt").read_text().split()
    assert len(set(words)) >= 600
    assert set(wordpiece.lengths(words)) == {3}  # [CLS], the word, [SEP]


def test_case_and_accents_change_nothing(wordpiece: WordTokenizer) -> None:
    plain, fancy = wordpiece(["a red cafe", "A RED CAFÉ"]).token_ids
    assert plain.equal(fancy)


def test_the_manifest_describes_the_files() -> None:
    manifest = json.loads((WORDPIECE / "manifest.json").read_text())
    words = (RECIPE / "words.txt").read_bytes()
    assert manifest["inputs"]["words.txt"] == hashlib.sha256(words).hexdigest()
    for name, digest in manifest["outputs"].items():
        assert hashlib.sha256((WORDPIECE / name).read_bytes()).hexdigest() == digest


@pytest.mark.slow
def test_the_recipe_gives_the_same_bytes_again(tmp_path: Path) -> None:
    manifest = json.loads((WORDPIECE / "manifest.json").read_text())
    if (platform.python_version(), tokenizers.__version__) != (manifest["python"], manifest["tokenizers"]):
        pytest.skip("the corpus is the standard library of another Python")
    subprocess.run([sys.executable, RECIPE / "build.py", "--output", tmp_path], check=True, cwd=ROOT)
    for name in ("tokenizer.json", "tokenizer_facts.json", "manifest.json"):
        assert (tmp_path / name).read_bytes() == (WORDPIECE / name).read_bytes()
