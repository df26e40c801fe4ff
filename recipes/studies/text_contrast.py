"""Make the contrastive text tower of the study freezing-world: tiny-bert, trained on by contrast with pictures.

    make text-contrast TEXT_CONTRAST=text-contrast
    python recipes/studies/text_contrast.py --out FOLDER

It is the text tower of the model `renaissance/dual-encoder`, which ships with renaissance: tiny-bert as it comes from
masked language modelling, then 200 updates of ITC on scenes that no study shows (recipes/zoo/dual-encoder.yaml). The
folder then holds what `transformers:FOLDER` reads.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

import renaissance
from renaissance import builtin
from renaissance.toolkit.quiet import quiet

MODEL = "renaissance/dual-encoder"
TOKENIZER = Path(builtin.__file__).parent / "wordpiece" / "tokenizer.json"


def make(out: Path) -> None:
    """Write the tower and its tokenizer into `out`."""
    text: Any = renaissance.from_pretrained(MODEL).text
    special = {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")}
    with quiet():
        text.to_transformers().save_pretrained(out)
        PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER), **special).save_pretrained(out)


def main() -> None:
    """Make the tower that the command line asks for."""
    parser = argparse.ArgumentParser(description="Make the contrastive text tower of the study freezing-world.")
    parser.add_argument("--out", type=Path, default=Path("text-contrast"), help="the folder to write")
    make(parser.parse_args().out)


if __name__ == "__main__":
    main()
