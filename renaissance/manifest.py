"""The files of a saved model: which names they may have, what the manifest says of them, and what is refused in them.

Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import xxhash
from pydantic import Field, StringConstraints, ValidationError

from renaissance.api import Modality
from renaissance.durable import sha256_of, write_atomically
from renaissance.errors import ModelFileError
from renaissance.spec import Strict, explain, shown

CONFIG = "config.json"
MANIFEST = "manifest.json"
MANIFEST_FORMAT = 1
CARD = "README.md"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
PICKLED = "pytorch_model.bin"
SELFTEST = "selftest.safetensors"
RECIPE = "recipe.yaml"
SCORES = "scores.json"
LEDGER = "ledger.json"
# what whoever saves a model may put beside its own files
EXTRAS = frozenset({CARD, RECIPE, SCORES, LEDGER})
# what the Hub calls a repository: 'organisation/name'
REPO = re.compile(r"[A-Za-z0-9][\w.\-]{0,95}/[A-Za-z0-9_][\w.\-]{0,95}", re.ASCII)
TOWERS: tuple[Modality, ...] = ("vision", "text")
AGAIN = "Save or download the model again"

_TOP = EXTRAS | {CONFIG, MANIFEST, WEIGHTS, INDEX, SELFTEST}
_PROCESSOR_FILE = re.compile(r"(?:vision|text)/[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}\.(?:json|txt|model)")
_MAX_JSON_BYTES = 8 * 2**20

# keys by which configs have made loaders import code, in the library that reads them or in its ancestors
_CODE_KEYS = ("auto_map", "custom_code", "custom_pipelines", "trust_remote_code", "_attn_implementation")
# files of a tokenizer's words: large, and read by the tokenizer's own parser alone
_WORD_FILES = frozenset({"tokenizer.json", "vocab.json"})


class FileFacts(Strict):
    """What the manifest says of a file."""

    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    xxh3: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class Manifest(Strict):
    """manifest.json: every file of the model but itself."""

    format: Literal[1]
    files: dict[str, FileFacts]


def model_in(place: Path) -> Path:
    """Return the folder of the model that is in `place`: a model's folder, or a run's.

    Raises:
        ModelFileError: there is none.
    """
    found = next((folder for folder in (place, place / "model") if is_saved_model(folder)), None)
    if found is None:
        raise ModelFileError(f"{place} holds no saved model. Give the folder that model.save or a run wrote.")
    return found


def is_model_file(name: str) -> bool:
    """Return whether a saved model may hold a file of this name (with "/" between folders)."""
    return name in _TOP or SHARD.fullmatch(name) is not None or _PROCESSOR_FILE.fullmatch(name) is not None


def write_manifest(folder: Path) -> None:
    """Write `manifest.json` for the files of a model.

    Raises:
        ModelFileError: a file has a name that a saved model cannot hold.
    """
    files = {name: file_facts(folder / name).model_dump() for name in files_in(folder) if name != MANIFEST}
    odd = next((name for name in files if not is_model_file(name)), None)
    if odd is not None:
        raise ModelFileError(f"A part of the model wrote '{shown(odd)}', which a saved model cannot hold; report it.")
    write_json(folder / MANIFEST, {"format": MANIFEST_FORMAT, "files": files})


def relist(folder: Path, name: str) -> None:
    """Note the present size and digests of a file in the manifest of its model; the other files are not read.

    Raises:
        OutputError: it cannot be written.
    """
    files = {**read_manifest(folder).files, name: file_facts(folder / name)}
    facts = {name: files[name].model_dump() for name in sorted(files)}
    write_atomically(folder / MANIFEST, as_json({"format": MANIFEST_FORMAT, "files": facts}))


def files_in(folder: Path) -> list[str]:
    """Return the names of all files below a folder, with "/" between folders, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def file_facts(path: Path) -> FileFacts:
    """Return size, SHA-256 and xxh3 of a file, read once."""
    sha256, xxh3, size = hashlib.sha256(), xxhash.xxh3_128(), 0
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            sha256.update(chunk)
            xxh3.update(chunk)
            size += len(chunk)
    return FileFacts(size=size, sha256=sha256.hexdigest(), xxh3=xxh3.hexdigest())


def read_manifest(folder: Path) -> Manifest:
    """Return manifest.json; the names in it are those that a saved model may hold.

    Raises:
        ModelFileError: it is missing, damaged or of a newer format, names another file, or leaves one out that is
            loaded.
    """
    path = folder / MANIFEST
    raw = read_object(path)
    refuse_newer(raw, path, format=MANIFEST_FORMAT)
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        raise ModelFileError(f"{explain(error, Manifest.model_json_schema(), what=str(path))} {AGAIN}.") from None
    odd = next((name for name in manifest.files if not is_model_file(name) or name == MANIFEST), None)
    if odd is not None:
        raise ModelFileError(f"{path} names '{shown(odd)}', which is no file of a model. {AGAIN}.")
    loaded = [name for name in _names_there(folder) if name in (CONFIG, SELFTEST) or name.startswith("model")]
    processors = [f"{tower}/{path.name}" for tower in TOWERS for path in sorted((folder / tower).glob("*"))]
    unlisted = next((name for name in (*loaded, *processors) if name not in manifest.files), None)
    if unlisted is not None:
        raise ModelFileError(f"{folder} holds '{shown(unlisted)}', which its manifest does not list. {AGAIN}.")
    return manifest


def verify_files(folder: Path, manifest: Manifest, *, sha256: bool = False) -> None:
    """Compare the files with the manifest: sizes and xxh3, or SHA-256 where they come from elsewhere.

    The card is left out: people edit it on the Hub, and nothing is loaded from it.

    Raises:
        ModelFileError: naming the first file that is missing or differs.
    """
    damaged = next(damaged_files(folder, manifest, sha256=sha256), None)
    if damaged is not None:
        refuse_pickled(folder)
        raise ModelFileError(
            f"{folder / damaged} is missing, or not what the manifest says (size or digest). "
            f"{AGAIN}; a copy in a download cache must be deleted first."
        )


def refuse_pickled(folder: Path) -> None:
    """Refuse a model that has a pickle in place of its weights, by saying so.

    Raises:
        ModelFileError: it has.
    """
    names = _names_there(folder)
    if PICKLED in names and not any(name.endswith(".safetensors") and name != SELFTEST for name in names):
        raise ModelFileError(
            f"{folder} has its weights as {PICKLED} alone, a pickle, which can run code and is never opened. Ask for "
            f"{WEIGHTS}: model.save and 'renaissance publish' write no other."
        )


def damaged_files(folder: Path, manifest: Manifest, *, sha256: bool = False) -> Iterator[str]:
    """Yield the files that are missing or differ from the manifest; see `verify_files`."""
    for name, facts in manifest.files.items():
        if name != CARD and not _is_intact(folder / name, facts, sha256=sha256):
            yield name


def _is_intact(path: Path, facts: FileFacts, *, sha256: bool) -> bool:
    try:
        if not path.is_file() or path.stat().st_size != facts.size:
            return False
        if sha256:
            return sha256_of(path) == facts.sha256
        with path.open("rb") as file:
            digest = xxhash.xxh3_128()
            while chunk := file.read(2**20):
                digest.update(chunk)
            return digest.hexdigest() == facts.xxh3
    except OSError:
        return False


def _names_there(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def check_processor_files(folder: Path, manifest: Manifest) -> None:
    """Refuse processors' files that would run code, or that point out of their folder."""
    for tower in TOWERS:
        names = frozenset(name.partition("/")[2] for name in manifest.files if name.startswith(f"{tower}/"))
        for name in sorted(names - _WORD_FILES):
            if name.endswith(".json"):
                check_no_code(read_object(folder / tower / name), folder / tower / name, names)


def check_no_code(data: object, path: Path, files: frozenset[str]) -> None:
    """Refuse keys that make a loader import code, and "..._file" keys that name anything but `files`."""
    waiting = [data]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            for key, inner in value.items():
                names_file = key.endswith("_file") and isinstance(inner, str) and inner not in files
                if names_file or (key.startswith(_CODE_KEYS) and inner not in (None, False)):
                    raise ModelFileError(f"{path}: '{shown(key)}' is not allowed in a saved model. Do not use it.")
            waiting += value.values()


def is_saved_model(folder: Path) -> bool:
    """Return whether a folder looks like a model of ours; nothing in it is verified."""
    try:
        return read_object(folder / CONFIG).get("library") == "renaissance"
    except ModelFileError:
        return False


# --- JSON -----------------------------------------------------------------------------------------------------------


def as_json(data: Mapping[str, Any]) -> str:
    """Return a JSON object, as people read it."""
    return json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON object, as people read it."""
    path.write_text(as_json(data), encoding="utf-8")


def refuse_newer(raw: Mapping[str, Any], path: Path, **known: int) -> None:
    """Refuse the object in a file of which a number, such as its format, is greater than what is known.

    Raises:
        ModelFileError: naming the number.
    """
    for key, newest in known.items():
        if type(raw.get(key)) is int and raw[key] > newest:
            raise ModelFileError(
                f"{path} is of {key} {raw[key]}, and this renaissance knows up to {newest}. "
                "Try: pip install --upgrade renaissance-vl"
            )


def parse_object(raw: bytes, path: Path) -> dict[str, Any]:
    """Parse a JSON object, refusing keys that stand twice, NaN and infinities.

    Raises:
        ModelFileError: it is anything else.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        parsed = dict(items)
        if len(parsed) != len(items):
            raise ValueError("a key stands twice")
        return parsed

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is no number")

    try:
        parsed = json.loads(raw.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is no valid JSON ({shown(error)}). {AGAIN}.") from None
    if not isinstance(parsed, dict):
        raise ModelFileError(f"{path} is no JSON object. {AGAIN}.")
    return parsed


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of at most 8 MiB.

    Raises:
        ModelFileError: the file is missing, too large, or holds anything else.
    """
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ModelFileError(f"{path} is larger than {_MAX_JSON_BYTES >> 20} MiB. {AGAIN}.")
        return parse_object(path.read_bytes(), path)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror or error}). {AGAIN}.") from None
