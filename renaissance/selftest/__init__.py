"""selftest.safetensors: a small input with what the saved model gives of it, so that a model proves itself at load.

Two pictures and three texts go through the model's own processors, its towers, their fusion and the heads that
`embed`, `match` and `predict` ask (see `probe`). What whole numbers come of it is the same everywhere, but for pixels
that were resized; what is computed with them may differ by what other kernels round.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, JsonValue, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from renaissance.api import Modality
from renaissance.assemble import Assembly
from renaissance.errors import ModelFileError
from renaissance.manifest import AGAIN, SELFTEST
from renaissance.selftest.probe import PIXELS, TASK, TEXTS, outputs, pictures, reason_of
from renaissance.spec import Strict, shown
from renaissance.tensor_headers import read_header

TOLERANCE = 1e-4  # of float32: other kernels move what twelve layers give by 1e-5 at most
LOOSEST = 1e-2  # that a file may ask for: what tolerates more proves nothing
LEVELS = 2  # of 255, by which pixels that another machine resized may differ
MAX_BYTES = 2**20
LIBRARIES = ("renaissance-vl", "torch", "transformers", "timm", "open-clip-torch", "tokenizers")
_KEY = "selftest"  # one key of metadata, as the format writes several in an order that changes
_PICTURES = "picture/"
LONG_TEXTS = "long texts"  # what a self-test leaves out that has the first text alone


class Notes(Strict):
    """What the file says beside its tensors. processors: what each says of itself; libraries: the versions in use.

    left_out: what this model cannot be asked, with the reason.
    """

    format: Literal[1]
    texts: Annotated[tuple[str, ...], Field(min_length=1)]
    tolerance: dict[str, Annotated[float, Field(ge=0, le=LOOSEST)]]
    processors: dict[Modality, JsonValue]
    libraries: dict[str, str]
    left_out: dict[str, str] = Field(default_factory=dict)


# --- writing and checking -------------------------------------------------------------------------------------------


def write_selftest(assembly: Assembly, folder: Path) -> None:
    """Write what a model on the CPU gives of the small input into the folder that it is saved in.

    A model that cannot take all texts, as its tokenizer cuts them later than its tower ends, is asked for the first
    alone; the file says so, and so does the card.

    Raises:
        ModelFileError: it cannot be run.
    """
    drawn, texts, left_out = pictures(), TEXTS, dict[str, str]()
    try:
        found = outputs(assembly, drawn, texts, left_out)
    except Exception as error:  # parts may be any plugin's
        texts, left_out = TEXTS[:1], {LONG_TEXTS: reason_of(error)}
        try:
            found = outputs(assembly, drawn, texts, left_out)
        except Exception as last:
            raise ModelFileError(
                f"The model cannot be run on two pictures and a text ({reason_of(last)}), so it was not saved. Report "
                "it to whoever offers its parts."
            ) from last
    notes = Notes(
        format=1,
        texts=texts,
        tolerance={"float32": TOLERANCE},
        processors=_processors(assembly),
        libraries=dict(_versions()),
        left_out=left_out,
    )
    noted = json.dumps(notes.model_dump(mode="json", exclude_defaults=True))
    given = {f"{_PICTURES}{index}": picture for index, picture in enumerate(drawn)}
    save_file({**given, **found}, folder / SELFTEST, metadata={_KEY: noted})


def unproven(folder: Path) -> Mapping[str, str]:
    """Return what the self-test of a saved model leaves out, with the reasons.

    Raises:
        ModelFileError: the self-test is damaged.
    """
    return _read(folder / SELFTEST)[0].left_out if (folder / SELFTEST).exists() else {}


def check_selftest(assembly: Assembly, folder: Path) -> None:
    """Compare what a model on the CPU gives with what is stored; models without a self-test pass.

    Raises:
        ModelFileError: it gives something else, or the self-test is damaged.
    """
    if not (folder / SELFTEST).exists():
        return
    notes, tensors = _read(folder / SELFTEST)
    fault = _fault(assembly, notes, tensors)
    if fault is not None:
        raise ModelFileError(
            f"{folder} failed its self-test: {fault}. {AGAIN}, or install the libraries that it was saved with "
            f"({_told(notes)}); verify=False loads it as it is."
        )


def _fault(assembly: Assembly, notes: Notes, tensors: Mapping[str, Tensor]) -> str | None:
    """Return the first difference between a model and its self-test, or None."""
    for tower, described in _processors(assembly).items():
        if described != notes.processors.get(tower):
            return f"the {tower} processor is another: {_difference(notes.processors.get(tower), described)}"
    given = [tensors[name] for name in sorted(tensors) if name.startswith(_PICTURES)]
    left_out = dict(notes.left_out)
    try:
        found = outputs(assembly, given, notes.texts, left_out)
    except Exception as error:  # a config that was changed: nearly anything can come of it
        return f"it cannot be run ({reason_of(error)})"
    unasked = next((name for name in left_out if name not in notes.left_out), None)
    if unasked is not None:
        return f"'{shown(unasked)}' cannot be run ({left_out[unasked]})"
    expected = {name: tensor for name, tensor in tensors.items() if not name.startswith(_PICTURES)}
    for name in sorted({*expected, *found}):
        if name not in found or name not in expected:
            return f"it gives {'no' if name in expected else 'a'} '{shown(name)}'"
        told = _compared(name, expected[name], found[name], notes.tolerance.get("float32", TOLERANCE))
        if told is not None:
            return f"'{shown(name)}' {told}"
    return None


def _compared(name: str, expected: Tensor, found: Tensor, tolerance: float) -> str | None:
    """Return in which way an output differs from what is expected, or None."""
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return f"has the shape {list(found.shape)}, and not {list(expected.shape)}"
    if not expected.is_floating_point():
        apart = int((expected.long() - found.long()).abs().max())
        allowed = LEVELS if name == PIXELS else 0
        return None if apart <= allowed else f"differs by {apart}, at most {allowed} is allowed"
    if not torch.equal(expected.isfinite(), found.isfinite()):
        return "is not finite in the same places"
    real = expected.isfinite()
    apart_by = (found - expected)[real].square().mean().sqrt()
    size = expected[real].square().mean().sqrt()
    # a logit is a difference of larger numbers, whose rounding its own size does not show
    size = size.clamp(min=1.0) if name.startswith(TASK) else size
    share = float(apart_by / size) if float(apart_by) else 0.0
    return None if share <= tolerance else f"differs by {share:.1e} of its size, at most {tolerance:.0e} is allowed"


def _processors(assembly: Assembly) -> dict[Modality, JsonValue]:
    """Return what the processors say of themselves, as JSON has it."""
    encoder: Any = assembly.encoder
    towers: tuple[tuple[Modality, Any], ...] = (("vision", encoder.vision), ("text", encoder.text))
    return {name: json.loads(json.dumps(dict(tower.processor.describe()), default=str)) for name, tower in towers}


def _difference(expected: JsonValue, found: JsonValue) -> str:
    """Return the first key by which two descriptions differ."""
    if not isinstance(expected, dict) or not isinstance(found, dict):
        return "its description differs"
    key = next(key for key in sorted({*expected, *found}) if expected.get(key) != found.get(key))
    return f"{shown(key)} is {shown(found.get(key))}, and not {shown(expected.get(key))}"


# --- the file -------------------------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[Notes, dict[str, Tensor]]:
    """Return the notes and the tensors of a self-test.

    Raises:
        ModelFileError: it is damaged.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ModelFileError(f"{path} is larger than {MAX_BYTES >> 20} MiB. {AGAIN}.")
    names, _ = read_header(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as opened:
            notes = Notes.model_validate_json((opened.metadata() or {}).get(_KEY, ""))
            tensors = {name: opened.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValidationError) as error:
        raise ModelFileError(f"{path} cannot be read ({shown(error)}). {AGAIN}.") from None
    given = [tensor for name, tensor in tensors.items() if name.startswith(_PICTURES)]
    if not given or not all(one.dtype == torch.uint8 and one.ndim == 3 and len(one) == 3 for one in given):
        raise ModelFileError(f"{path} holds no pictures. {AGAIN}.")
    return notes, tensors


def _versions() -> Iterator[tuple[str, str]]:
    for name in LIBRARIES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def _told(notes: Notes) -> str:
    return ", ".join(f"{shown(name)} {shown(found)}" for name, found in sorted(notes.libraries.items()))
