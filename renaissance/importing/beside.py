"""What stands beside the tensors of a checkpoint: its config, its preprocessing and its tokenizer, as files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from renaissance.errors import ModelFileError
from renaissance.importing.checkpoint import Checkpoint
from renaissance.spec import shown
from renaissance.toolkit.text import TOKENIZER_FILE

CONFIG_FILE, PREPROCESSOR_FILE = "config.json", "preprocessor_config.json"


def folder_of(checkpoint: Checkpoint) -> Path:
    """Return the folder that a checkpoint is, or lies in."""
    path = Path(checkpoint.source).absolute()
    return path if path.is_dir() else path.parent


def own_tokenizer(checkpoint: Checkpoint) -> str | None:
    """Return the folder of the checkpoint, if its tokenizer is there."""
    folder = folder_of(checkpoint)
    return str(folder) if (folder / TOKENIZER_FILE).is_file() else None


def read_json(path: Path) -> dict[str, Any]:
    """Return what a JSON file says, or nothing if there is none.

    Raises:
        ModelFileError: it is damaged, or no object.
    """
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} cannot be read ({shown(error)}). Get it again, or take it away.") from None
    if not isinstance(values, dict):
        raise ModelFileError(f"{path} holds no object of JSON. Get it again, or take it away.")
    return values


def read_config(checkpoint: Checkpoint, model_type: str, only: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Return the config.json beside the checkpoint, or nothing if there is none.

    only: what alone can be imported, by the name of the value: "hidden_act", or "text_config.hidden_act" of a section.

    Raises:
        ModelFileError: it cannot be read, is of another model, or says what cannot be imported.
    """
    path = folder_of(checkpoint) / CONFIG_FILE
    config = read_json(path)
    if config and config.get("model_type") != model_type:
        raise ModelFileError(
            f"{path} is of another model than '{model_type}'. Check the kind of the checkpoint, or take the file away."
        )
    for name, values in only.items():
        section, dot, key = name.rpartition(".")
        where = config.get(section) or {} if dot else config
        value = where.get(key, values[0]) if isinstance(where, dict) else where
        if value not in values:
            can = " or ".join(map(str, values))
            raise ModelFileError(f"{path}: {name} is '{shown(value)}', and only {can} can be imported.")
    return config


def check_sizes(checkpoint: Checkpoint, found: Mapping[str, int]) -> None:
    """Refuse a config.json beside the checkpoint that gives another size than its tensors have.

    found: sizes of the tensors, by the name of the value: "vocab_size", or "text_config.vocab_size" of a section. What
    the file does not say is the library's default, which says nothing of the tensors.

    Raises:
        ModelFileError: naming the value, and both sizes.
    """
    path = folder_of(checkpoint) / CONFIG_FILE
    config = read_json(path)
    for name, size in found.items():
        section, dot, key = name.rpartition(".")
        where = config.get(section) if dot else config
        declared = where.get(key) if isinstance(where, dict) else None
        if isinstance(declared, int) and declared != size:
            raise ModelFileError(
                f"{path} says that {name} is {declared}, and by the tensors it is {size}: they do not belong together. "
                "Get both from one place, or take the file away."
            )
