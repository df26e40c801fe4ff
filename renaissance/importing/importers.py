"""What can be imported, and `import_checkpoint`: from a checkpoint to a model's folder. Imports no torch by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

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
        (), description="Tensors that the model shall do without, such as 'logit_bias'.", strict=False
    )


class BridgeTowerOptions(Options):
    """What the tensors of a BridgeTower do not say, where the config.json beside them does not either."""

    heads: int | None = Field(
        None, ge=1, description="Attention heads of the text tower and the fusion; null: config.json's, or 12."
    )
    tokenizer: str | None = Field(
        None, description="A folder with its tokenizer.json; null: the checkpoint's folder, or else RoBERTa's own."
    )
    leave_out: tuple[str, ...] = Field(
        (), description="Tensors that the model shall do without, such as those that nothing reads.", strict=False
    )


class ViltOptions(Options):
    """What can be said of a ViLT's checkpoint; what is null is told by its tensors and the config.json beside them."""

    heads: int | None = Field(
        None, ge=1, description="Attention heads of a block; null: as in config.json, or without one 12."
    )
    image_size: int | None = Field(
        None,
        ge=1,
        description="Side of the square images in pixels; null: that of the table of positions. Another one "
        "interpolates the table, as ViLT does.",
    )
    tokenizer: str | None = Field(
        None,
        description="'renaissance': the WordPiece that ships with renaissance; or a folder that holds a "
        "tokenizer.json. null: the checkpoint's own, or that of BERT-base from the Hub.",
    )
    labels: tuple[str, ...] | None = Field(
        None,
        description="What the outputs of a classifier stand for; null: as in config.json, or without one their "
        "numbers (NLVR2: false, true).",
        strict=False,
    )
    leave_out: tuple[str, ...] = Field((), description="Tensors that the model shall do without.", strict=False)


class FusedTextOptions(Options):
    """What must be said of a checkpoint of ALBEF's kind, as its tensors do not say it."""

    tokenizer: str | None = Field(
        None, description="A folder with the text tower's tokenizer.json; null: the folder of the checkpoint."
    )
    vision_heads: int | None = Field(
        None, ge=1, description="Heads of a vision block; null: as config.json says, else one for each 64 channels."
    )
    text_heads: int | None = Field(
        None, ge=1, description="Heads of a text block; null: as config.json says, else one for each 64 channels."
    )
    leave_out: tuple[str, ...] = Field((), description="Tensors that the model shall do without.", strict=False)


class DescribedOptions(Options):
    """What may be said of a checkpoint of transformers that has its config, tokenizer and preprocessing beside it."""

    folder: str | None = Field(
        None, description="The folder with config, tokenizer and preprocessing; null: the checkpoint's own."
    )
    leave_out: tuple[str, ...] = Field((), description="Tensors that the model shall do without.", strict=False)


class MeterOptions(Options):
    """What must be said of a METER's checkpoint, as its tensors do not say it; null heads: one for each 64 channels."""

    vision: str = Field(
        "ViT-B-16-quickgelu", description="CLIP's architecture, as open_clip calls it; sizes are those of the tensors."
    )
    text: Literal["roberta-base", "bert-base"] = Field("roberta-base", description="The text tower's kind.")
    tokenizer: str | None = Field(
        None, description="A folder that holds its tokenizer.json; null: the text tower's own, from the Hub."
    )
    vision_heads: int | None = Field(None, ge=1, description="Heads of a vision block.")
    text_heads: int | None = Field(None, ge=1, description="Heads of a text block.")
    fusion_heads: int | None = Field(None, ge=1, description="Heads of a co-attention layer.")
    leave_out: tuple[str, ...] = Field(
        (), description="Tensors that the model shall do without, such as 'rank_output.weight'.", strict=False
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
    "siglip": Importer(
        summary="A SiglipModel of Hugging Face transformers.",
        convert="renaissance.importing.siglip:convert",
        options=DescribedOptions,
    ),
    "vision-text-dual": Importer(
        summary="A VisionTextDualEncoderModel of Hugging Face transformers.",
        convert="renaissance.importing.vision_text:convert",
        options=DescribedOptions,
    ),
    "meter": Importer(
        summary="A METER with CLIP's vision transformer, as its authors' code saves it; its MLM and ITM heads as well.",
        convert="renaissance.importing.meter:convert",
        options=MeterOptions,
    ),
    "blip-itm": Importer(
        summary="A BlipForImageTextRetrieval of Hugging Face transformers.",
        convert="renaissance.importing.blip:convert",
        options=FusedTextOptions,
    ),
    "albef": Importer(
        summary="An ALBEF, pre-trained or fine-tuned for retrieval, as its authors' code saves it.",
        convert="renaissance.importing.albef:convert",
        options=FusedTextOptions,
    ),
    "vilt": Importer(
        summary="A ViltModel of Hugging Face transformers, alone or with a head: MLM, retrieval, VQA, NLVR2.",
        convert="renaissance.importing.vilt:convert",
        options=ViltOptions,
    ),
    "bridgetower": Importer(
        summary="A BridgeTower of Hugging Face transformers, with the heads that it has: MLM, ITM, contrastive.",
        convert="renaissance.importing.bridgetower:convert",
        options=BridgeTowerOptions,
    ),
}


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import made: the model's folder, its spec, and how many tensors of the checkpoint went into it.

    left_out: the tensors that were left out because the options said so, or because this kind of model needs them in
    training only.
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
