"""What can be imported, and `import_checkpoint`: from a checkpoint to a model's folder. Imports no torch by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field, JsonValue, ValidationError

from renaissance.api import Options
from renaissance.errors import SpecError
from renaissance.registry import Registry, default_registry
from renaissance.shorthand import format_spec
from renaissance.spec import did_you_mean, explain, shown

if TYPE_CHECKING:
    from renaissance.assemble import Assembly
    from renaissance.importing.checkpoint import Checkpoint

    Convert = Callable[[Checkpoint, Any, Registry], Assembly]


class DualEncoderOptions(Options):
    """What must be said of a dual encoder's checkpoint, as its tensors do not say it."""

    model: str = Field(
        description="The architecture, as open_clip calls it: 'ViT-B-32'. 'ViT-B-32@openai' takes activation, mean "
        "and standard deviation from those weights' description."
    )
    vision: dict[str, JsonValue] = Field(
        default_factory=dict, description="Options of the vision tower, where it differs: image_size, overrides."
    )
    text: dict[str, JsonValue] = Field(
        default_factory=dict, description="Options of the text tower, where it differs: overrides."
    )
    leave_out: tuple[str, ...] = Field(
        (), description="Tensors that the model shall do without, such as SigLIP's 'logit_bias'.", strict=False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Importer:
    """One layout of checkpoints: convert(checkpoint, options, registry) -> Assembly, named "package.module:callable".

    It takes each tensor of the checkpoint (`Checkpoint.take`) and fills each of the model (`Target`); whether it did
    both is checked by `import_checkpoint` and by `Target.done`.
    """

    summary: str
    convert: str
    options: type[Options]


IMPORTERS = {
    "open-clip": Importer(
        summary="A model of open_clip, or one trained with it.",
        convert="renaissance.importing.open_clip:convert",
        options=DualEncoderOptions,
    ),
    "clip": Importer(
        summary="A CLIPModel of Hugging Face transformers.",
        convert="renaissance.importing.clip:convert",
        options=DualEncoderOptions,
    ),
}


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import made: the model's folder, its spec, and how many tensors of the checkpoint went into it.

    left_out: the tensors that were left out because the options said so.
    """

    folder: Path
    spec: str
    tensors: int
    left_out: tuple[str, ...]


def import_checkpoint(
    kind: str,
    checkpoint: str | Path,
    out: str | Path,
    *,
    from_pickle: bool = False,
    registry: Registry | None = None,
    **options: Any,
) -> Imported:
    """Write the model that a checkpoint of another library holds to the folder `out`, wholly or not at all.

    `kind` is the checkpoint's layout, a key of `IMPORTERS`; `options` are those of its `options` class. `checkpoint`
    is a safetensors file, or a folder with one or with shards and their index; a pickled file is read only with
    `from_pickle`, and then nothing but tensors and plain data.

    Raises:
        SpecError: the kind or an option is unknown, or the architecture cannot be built.
        ModelFileError: the checkpoint cannot be read, or one of its tensors is missing, misshaped or left over.
        NonFiniteError: a weight is NaN or infinite.
        OutputError: `out` holds something else than a model, or cannot be written.
    """
    importer = chosen_importer(kind)
    checked = checked_options(kind, importer, options)
    from renaissance.container import save
    from renaissance.importing.checkpoint import Checkpoint

    opened = Checkpoint.open(Path(checkpoint).expanduser(), from_pickle=from_pickle)
    module, _, name = importer.convert.partition(":")
    convert = cast("Convert", getattr(import_module(module), name))
    assembly = convert(opened, checked, registry or default_registry())
    opened.done()
    folder = Path(out).expanduser()
    save(assembly.eval(), folder)
    return Imported(folder, format_spec(assembly.plan.spec), len(opened.taken), opened.left_out)


def chosen_importer(kind: str) -> Importer:
    """Return the importer of a layout.

    Raises:
        SpecError: there is none of that name.
    """
    importer = IMPORTERS.get(kind)
    if importer is None:
        raise SpecError(
            f"No checkpoint layout is called '{shown(kind)}'.{did_you_mean(kind, IMPORTERS)} "
            f"Known: {', '.join(IMPORTERS)}."
        )
    return importer


def checked_options(kind: str, importer: Importer, options: dict[str, Any]) -> Options:
    """Return the options of an import.

    Raises:
        SpecError: one is unknown, missing or wrong.
    """
    try:
        return importer.options.model_validate(options)
    except ValidationError as error:
        raise SpecError(explain(error, importer.options.model_json_schema(), what=f"import {kind}")) from None
