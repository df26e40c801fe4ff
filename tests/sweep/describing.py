"""Rows of the table of descriptions, each measured on a model that is built on the meta device."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import open_clip
import timm
import torch
from torch import nn

from renaissance.api import Modality, VisionInput
from renaissance.builtin import open_clip_text, open_clip_vision, timm_vision
from renaissance.builtin.described import Library, TextRow, VisionRow
from renaissance.builtin.open_clip_entries import OpenClipTextOptions, OpenClipVisionOptions
from renaissance.builtin.open_clip_library import chosen_config, create_tower
from renaissance.builtin.timm_entries import TimmOptions
from renaissance.errors import CapabilityError, HubError, SpecError

DOWN_SAMPLES = "it down-samples a grid of image features from stage to stage, and a text has no place in that grid"
NO_FOLD = "its blocks are not a plain stack over tokens, so no tokens of a text can join them"
NO_JOIN = "its blocks take no tokens of the other modality"

BuildVision = Callable[[int | None], Any]
Job = tuple[Library, Modality, str]
# a row, or why the model cannot be a backbone
Described = VisionRow | TextRow | str


@contextmanager
def on_meta() -> Iterator[None]:
    """Build models of shapes alone, in silence."""
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        yield


def timm_row(architecture: str) -> Described:
    """Return the row of a timm architecture."""
    row = _vision(lambda size: timm_vision.build(TimmOptions(model=architecture, image_size=size), weights="random"))
    return row if isinstance(row, str) else row._replace(tags=_timm_tags(architecture, row))


def open_clip_vision_row(model: str) -> Described:
    """Return the row of the vision tower of an open_clip model."""

    def build(size: int | None) -> Any:
        return open_clip_vision.build(OpenClipVisionOptions(model=model, image_size=size), weights="random")

    row = _vision(build)
    return row if isinstance(row, str) else row._replace(tags=_open_clip_tags(model))


def open_clip_text_row(model: str) -> Described:
    """Return the row of the text tower of an open_clip model; its tokenizer may be on the Hub alone."""
    try:
        with on_meta():
            backbone = open_clip_text.build(OpenClipTextOptions(model=model), weights="random")
    except SpecError as error:
        return str(error)
    except HubError:
        with on_meta():
            tower: Any = create_tower(chosen_config(model, None, "text", {}), "text")
        depth, blocks = len(tower.transformer.resblocks), NO_JOIN
        return TextRow(
            tower.width, depth, False, tower.context_length, tower.vocab_size, None, blocks, _open_clip_tags(model)
        )
    facts = backbone.processor.facts
    return TextRow(
        width=backbone.width,
        depth=len(backbone.blocks) or None,
        class_token=backbone.class_token,
        max_tokens=facts.max_tokens,
        vocabulary=facts.vocabulary,
        positions=getattr(backbone, "positions", None),
        refused=_refused(backbone),
        tags=_open_clip_tags(model),
    )


def _vision(build: BuildVision) -> VisionRow | str:
    try:
        with on_meta():
            backbone = build(None).eval()
    except SpecError as error:
        return str(error)
    height, width = backbone.processor.image_size
    side = height if height == width else None
    grid = backbone.grid if backbone.grid and all(backbone.grid) else None
    token = side // grid[0] if side and grid and grid[0] == grid[1] and side % grid[0] == 0 else None
    row = VisionRow(
        width=backbone.width,
        depth=len(backbone.blocks) or None,
        class_token=backbone.class_token,
        image_size=side,
        patch_size=_patch_size(backbone, token),
        grid=grid,
        token_side=None,
        size_step=None,
        any_resolution=False,
        positions=getattr(backbone, "positions", None),
        refused=_refused(backbone),
        tags="",
    )
    if side is not None and token is not None:
        row = _with_sizes(row, side, token, backbone, build)
    return row if row.depth else row._replace(patch_size=None)  # stages start from patches, and tokens are none of them


def _with_sizes(row: VisionRow, side: int, token: int, backbone: Any, build: BuildVision) -> VisionRow:
    """Return the row with what other image sizes give; `token`: pixels a side of a token.

    A layered backbone starts from patches that do not overlap, and its adapter resizes it by these. Others are tried.
    """
    if row.depth is not None:
        return row._replace(size_step=token, token_side=token, any_resolution=_tokens(backbone, 2 * side) is not None)
    free = _tokens(backbone, 2 * side) is not None

    @cache
    def cells(size: int) -> int | None:
        return _tokens(backbone, size) if free else _cells(build, size)

    tried = [one for one in _steps(row, token, free) if side % one == 0]
    found = next((one for one in tried if cells(side + one) is not None), None)
    if found is None and not free and tried[-1:] == [2 * token] and cells(2 * side) is None:
        found = 0
    # twice the side: a grid that is rounded up would show
    linear = found and token % found == 0 and cells(2 * side) == (2 * side // token) ** 2
    return row._replace(size_step=found, token_side=token if linear else None, any_resolution=free)


def _steps(row: VisionRow, token: int, free: bool) -> list[int]:
    """Return what sides may be multiples of, the least first."""
    if free:
        return [1, token]
    least = row.patch_size or token
    between = [least * 2**power for power in range(8) if least * 2**power < token]
    return [*between, token, 2 * token]


def _cells(build: BuildVision, size: int) -> int | None:
    """Return how many tokens are in the grid of a model built for images of that size; None: it cannot be."""
    try:
        with on_meta():
            grid = build(size).grid
    except SpecError:
        return None
    return None if grid is None else int(grid[0] * grid[1])


def _tokens(backbone: Any, size: int) -> int | None:
    """Return how many tokens a built model's grid has for images of that size; None: it does not take them."""
    try:
        with on_meta(), torch.no_grad():
            tokens = backbone(VisionInput(torch.zeros(1, 3, size, size, dtype=torch.uint8))).tokens
    except (SpecError, CapabilityError, RuntimeError, AssertionError, ValueError):
        return None
    return int(tokens.shape[1]) - int(backbone.num_prefix_tokens)


def _patch_size(backbone: Any, token: int | None) -> int | None:
    """Return the side of the patches that the model starts from; None: it starts with convolutions that overlap."""
    if len(backbone.blocks):
        return token
    first = next((module for module in backbone.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None or first.kernel_size != first.stride or len(set(first.stride)) > 1 or first.stride[0] == 1:
        return None
    return int(first.stride[0])


def _refused(backbone: Any) -> str | None:
    """Return why no one-tower model can be based on this; None where one can."""
    if len(backbone.blocks):
        return None if hasattr(backbone, "join") else NO_JOIN
    inner = getattr(backbone, "model", None) or getattr(backbone, "visual", None)
    stages = getattr(getattr(inner, "trunk", inner), "feature_info", None) or []
    same = len({stage["reduction"] for stage in stages}) == 1
    return NO_FOLD if same else DOWN_SAMPLES


def _timm_tags(architecture: str, row: VisionRow) -> str:
    """Return the tags of a timm architecture's weights, the default one first, with the side of their images."""
    default = getattr(timm.get_pretrained_cfg(architecture), "tag", None)
    names = [name.partition(".")[2] for name in _timm_weights() if name.partition(".")[0] == architecture]
    ordered = sorted(filter(None, names), key=lambda name: (name != default, name))
    return " ".join(f"{name}{_other_side(f'{architecture}.{name}', row)}" for name in ordered)


@cache
def _timm_weights() -> tuple[str, ...]:
    return tuple(timm.list_pretrained())


def _other_side(name: str, row: VisionRow) -> str:
    _, height, width = timm.get_pretrained_cfg(name).input_size
    if height != width:
        return "=0"
    return "" if height == row.image_size else f"={height}"


def _open_clip_tags(model: str) -> str:
    return " ".join(open_clip.list_pretrained_tags_by_model(model))


def jobs() -> list[Job]:
    """Return each model that is described: its library, modality and name."""
    models = open_clip.list_models()
    return [
        *(("timm", "vision", name) for name in timm.list_models()),
        *(("open-clip", "vision", name) for name in models),
        *(("open-clip", "text", name) for name in models),
    ]


def row_of(job: Job) -> Described:
    """Return the row of one model."""
    library, modality, name = job
    logging.disable(logging.WARNING)  # of the libraries, on what is not on this machine
    try:
        if library == "timm":
            return timm_row(name)
        return open_clip_vision_row(name) if modality == "vision" else open_clip_text_row(name)
    finally:
        logging.disable(logging.NOTSET)


VERSIONS: Mapping[Library, str] = {"timm": timm.__version__, "open-clip": open_clip.__version__}


def as_json(rows: Mapping[Job, Described]) -> str:
    """Return the table as it ships: one line a model, reasons by number."""
    reasons = sorted({row.refused for row in rows.values() if not isinstance(row, str) and row.refused is not None})
    sections = []
    for library, version in VERSIONS.items():
        modalities = dict.fromkeys(modality for lib, modality, _ in rows if lib == library)
        bodies = [f'"version": {json.dumps(version)}']
        for modality in modalities:
            lines = [
                f"{json.dumps(name)}:{_line(row, reasons)}"
                for (lib, of, name), row in sorted(rows.items())
                if (lib, of) == (library, modality)
            ]
            bodies.append(f'"{modality}": {{\n' + ",\n".join(lines) + "\n}")
        sections.append(f'"{library}": {{' + ",\n".join(bodies) + "}")
    return "{" + ",\n".join([*sections, f'"reasons": {json.dumps(reasons)}']) + "}\n"


def _line(row: Described, reasons: list[str]) -> str:
    if isinstance(row, str):
        return json.dumps(row)
    reason = None if row.refused is None else reasons.index(row.refused)
    values = [int(value) if isinstance(value, bool) else value for value in row._replace(refused=reason)]  # type: ignore[arg-type]
    return json.dumps(values, separators=(",", ":"))
