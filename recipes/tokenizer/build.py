"""Build the WordPiece vocabulary that ships with renaissance: `python recipes/tokenizer/build.py`.

The corpus is there wherever Python is: the docstrings of its standard library, read without importing anything. A list
of everyday words (`words.txt`) is in the vocabulary whole, and so is each printable ASCII character, alone and as a
continuation, so that no ASCII text has an unknown token. The same Python gives the same bytes on each run.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import platform
import string
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import tokenizers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parents[1] / "renaissance" / "builtin" / "wordpiece"
WORDS = HERE / "words.txt"

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY = 4096
MAX_TOKENS = 512
MAX_WORD = 200
CHARACTERS = tuple(sorted(set(string.printable.lower()) - set(string.whitespace)))
CONTINUATIONS = tuple(f"##{character}" for character in CHARACTERS)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def main() -> None:
    """Write tokenizer.json, its facts and the manifest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the folder to write into")
    output = parser.parse_args().output
    words = WORDS.read_text(encoding="utf-8").split()
    corpus = list(docstrings(Path(sysconfig.get_path("stdlib"))))
    tokenizer = assembled(vocabulary(words, corpus))
    output.mkdir(parents=True, exist_ok=True)
    written = write(tokenizer, output)
    manifest = {
        "python": platform.python_version(),
        "tokenizers": tokenizers.__version__,
        "words": len(words),
        "documents": len(corpus),
        "inputs": {"words.txt": sha256(WORDS.read_bytes()), "docstrings": sha256("\0".join(corpus).encode())},
        "outputs": {path.name: sha256(path.read_bytes()) for path in written},
    }
    (output / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def docstrings(library: Path) -> Iterator[str]:
    """Yield the docstrings of the standard library's own modules, in the order of their paths."""
    for name in sorted(sys.stdlib_module_names):
        package = library / name
        single = package.with_suffix(".py")
        for path in sorted(package.rglob("*.py")) if package.is_dir() else [single] if single.is_file() else []:
            if {"test", "tests", "site-packages", "idlelib", "lib2to3"}.isdisjoint(path.relative_to(library).parts):
                yield from documented(path)


def documented(path: Path) -> Iterator[str]:
    """Yield the docstrings in one source file, in their order, in lower-case ASCII."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            yield text.lower().encode("ascii", "ignore").decode()


def vocabulary(words: list[str], corpus: list[str]) -> list[str]:
    """Return the tokens in the order of their ids: special, characters, the words, then trained pieces."""
    kept = list(dict.fromkeys([*SPECIAL, *CHARACTERS, *CONTINUATIONS, *words]))
    # the trainer numbers continuations in the order of a random hash unless it has met them before
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[*SPECIAL, *CHARACTERS, *CONTINUATIONS],
        initial_alphabet=list(CHARACTERS),
        limit_alphabet=len(CHARACTERS),
        show_progress=False,
    )
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    learner.train_from_iterator(corpus, trainer)
    pieces = sorted(learner.get_vocab().items(), key=lambda item: item[1])
    trained = [piece for piece, _ in pieces if piece not in set(kept)]
    return [*kept, *trained][:VOCABULARY]


def assembled(tokens: list[str]) -> Tokenizer:
    """Return the tokenizer: lower case, no accents, WordPiece, [CLS] and [SEP] around each text."""
    ids = {token: id_ for id_, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=MAX_WORD))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def write(tokenizer: Tokenizer, folder: Path) -> list[Path]:
    """Write the tokenizer and its facts as `renaissance.toolkit.text` reads them; return the paths."""
    from renaissance.toolkit.text import FACTS_FILE, TOKENIZER_FILE, WordTokenizer, infer_facts

    WordTokenizer(tokenizer, infer_facts(tokenizer, max_tokens=MAX_TOKENS)).save(folder)
    return [folder / TOKENIZER_FILE, folder / FACTS_FILE]


def sha256(data: bytes) -> str:
    """Return the digest as hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    main()
