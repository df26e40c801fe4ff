"""What importers of two-tower models share: towers of Hugging Face transformers, numbers, and the checkpoint's folder.

Our towers keep a model's blocks in `blocks` and all else of it in `model`; in a checkpoint the blocks stand in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from renaissance.api import Modality
from renaissance.assemble import Assembly
from renaissance.builtin.transformers_loading import Source, load_config, load_preprocessing, load_tokenizer
from renaissance.builtin.transformers_sizes import config_from, config_values
from renaissance.errors import ModelFileError
from renaissance.importing.checkpoint import Checkpoint, Target

CONFIG = "config.json"
# channels of a head in all published models that do not say it
HEAD_WIDTH = 64
# fields that our towers set themselves
ENDS = ("vision_use_head", "use_mask_token")
# fields that a tokenizer would set, where nothing else does
SHARED_WITH_TOKENIZER = {"vocab_size", "pad_token_id", "max_position_embeddings"}
# tables whose row numbers older versions of transformers saved beside them
POSITION_TABLES = ("embeddings.position_embeddings.weight", "embeddings.position_embedding.weight")
POSITION_IDS = "embeddings.position_ids"


class Layout(NamedTuple):
    """Where a model type keeps its blocks in a checkpoint, and what it calls the parts of one: ours -> theirs."""

    blocks: str
    renamed: Mapping[str, str]


# ViT as it has always been saved; the library renames its parts while it loads them
SAVED_VIT = {
    "attention.q_proj.": "attention.attention.query.",
    "attention.k_proj.": "attention.attention.key.",
    "attention.v_proj.": "attention.attention.value.",
    "attention.o_proj.": "attention.output.dense.",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
}
TEXT_LAYOUTS = (Layout("encoder.layer.", {}), Layout("encoder.layers.", {}))
VISION_LAYOUTS = (Layout("encoder.layer.", SAVED_VIT), Layout("encoder.layers.", {}), Layout("layers.", {}))


def fill_tower(
    checkpoint: Checkpoint, target: Target, ours: str, theirs: str, layouts: tuple[Layout, ...] = TEXT_LAYOUTS
) -> None:
    """Fill the tower whose names start with `ours` from the tensors whose names start with `theirs`.

    Raises:
        ModelFileError: the checkpoint lacks a tensor of it, or has one of another shape.
    """
    names = checkpoint.names
    layout = next((one for one in layouts if any(name.startswith(theirs + one.blocks) for name in names)), layouts[0])
    for name in target.under(ours):
        target.copy(checkpoint, theirs + _their_name(name, layout), ours + name)
    _take_position_ids(checkpoint, theirs)


def _their_name(ours: str, layout: Layout) -> str:
    owner, _, rest = ours.partition(".")
    if owner != "blocks":
        return rest
    index, _, part = rest.partition(".")
    for new, saved in layout.renamed.items():
        if part.startswith(new):
            part = saved + part.removeprefix(new)
            break
    return f"{layout.blocks}{index}.{part}"


def _take_position_ids(checkpoint: Checkpoint, theirs: str) -> None:
    if theirs + POSITION_IDS not in checkpoint:
        return
    rows = next(len(checkpoint.taken[theirs + name]) for name in POSITION_TABLES if theirs + name in checkpoint.taken)
    checkpoint.take_equal(theirs + POSITION_IDS, torch.arange(rows).unsqueeze(0))


def default_heads(width: int) -> int:
    """Return the heads of the published models of a width, for checkpoints that do not say them."""
    return max(1, width // HEAD_WIDTH)


def fill_number(checkpoint: Checkpoint, target: Target, theirs: str, ours: str) -> None:
    """Fill a single number of ours []; some libraries store theirs as [1].

    Raises:
        ModelFileError: the checkpoint lacks it, or it is no single number.
    """
    tensor = checkpoint.take(theirs)
    if tensor.numel() != 1 or not tensor.is_floating_point():
        raise ModelFileError(
            f"{checkpoint.source}: the tensor '{checkpoint.called(theirs)}' has the shape {list(tensor.shape)}, and "
            "the model needs a single number. Check that it is of this kind."
        )
    target.fill(ours, tensor.reshape(()))


class Description:
    """What stands beside the tensors of a model of transformers: its config, its tokenizer and its preprocessing."""

    def __init__(self, checkpoint: Checkpoint, folder: str | None) -> None:
        """Read the config in `folder`, or else in the checkpoint's own.

        Raises:
            ModelFileError: there is none.
            HubError: it cannot be read.
        """
        path = Path(checkpoint.source if folder is None else folder).expanduser()
        self.folder = path if path.is_dir() else path.parent
        if not (self.folder / CONFIG).is_file():
            raise ModelFileError(
                f"{self.folder} has no {CONFIG}, and the tensors do not say heads, activation and preprocessing. Put "
                "the model's config, tokenizer and preprocessing beside them, or say where they are with "
                "--set folder=..."
            )
        self.config: Any = load_config(self._source("text"))

    def vision(self, *, pooler: bool) -> dict[str, Any]:
        """Return the vision tower's part of a spec.

        Raises:
            ModelFileError: the config has no part for it.
        """
        return _tower(self._part("vision_config"), ENDS, pooler)

    def text(self, *, pooler: bool) -> dict[str, Any]:
        """Return the text tower's part of a spec; it names the folder as that of its tokenizer.

        Raises:
            ModelFileError: the config has no part for it.
        """
        tower = _tower(self._part("text_config"), (), pooler)
        return {**tower, "options": {**tower["options"], "tokenizer": str(self.folder)}}

    def prepare(self, assembly: Assembly) -> None:
        """Give both towers what prepares their inputs, as the files beside the checkpoint say.

        Raises:
            HubError: these are missing, or ask for something that is not supported.
            ModelFileError: images are prepared in another size than the tower takes.
        """
        vision, text = assembly.encoder.vision, assembly.encoder.text
        images = load_preprocessing(self._source("vision"))
        if images.image_size != vision.processor.image_size:
            raise ModelFileError(
                f"{self.folder}: images are prepared in the size {images.image_size}, and the model takes "
                f"{vision.processor.image_size}. Mend preprocessor_config.json."
            )
        vision.processor = images
        facts = text.processor.facts
        text.processor = load_tokenizer(self._source("text"), self._part("text_config").vocab_size, facts.max_tokens)

    def _part(self, name: str) -> Any:
        part = getattr(self.config, name, None)
        if part is None:
            raise ModelFileError(
                f"{self.folder / CONFIG} is of a {self.config.model_type!r}, and has no {name}. Check the kind of the "
                "checkpoint."
            )
        return part

    def _source(self, modality: Modality) -> Source:
        return Source(str(self.folder), modality, str(self.folder), None, None)


def _tower(config: Any, chosen: tuple[str, ...], pooler: bool) -> dict[str, Any]:
    """Return a tower by its model type, with the fields of its config that differ from the type's defaults."""
    usual = config_values(config_from({"model_type": config.model_type}))
    values = config_values(config)
    differ = {name for name in usual if values.get(name) != usual[name]} | (SHARED_WITH_TOKENIZER & set(usual))
    overrides = {name: values[name] for name in sorted(differ - {*chosen, "model_type"}) if name in values}
    return {"name": f"transformers:{config.model_type}", "options": {"overrides": overrides, "pooler": pooler}}
