"""From a model to a folder of graphs that run without renaissance, each compared with the model before it is there."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

import renaissance
from renaissance.assemble import Assembly
from renaissance.durable import replacing, sha256_of
from renaissance.errors import CapabilityError, ExportError, OutputError, SpecError
from renaissance.exporting.graphs import GRAPHS, AsGiven, Fit, Graph, Padded, Part
from renaissance.exporting.programs import Format, Run, Writer, trace, writer
from renaissance.exporting.samples import TRACED, checked_sizes, samples, shapes
from renaissance.models.two_tower import TwoTower
from renaissance.pretrained import Model, from_pretrained
from renaissance.shorthand import format_spec
from renaissance.spec import shown
from renaissance.toolkit.building import drop_parts, unused_parts
from renaissance.toolkit.messages import first_line

FACTS = "export.json"
TOLERANCE = 1e-4  # absolute, or of the value where that is more than 1
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
NEEDS: Mapping[Part, str] = {"dual": "itc", "match": "itm"}


@dataclass(frozen=True, slots=True)
class ExportedGraph:
    """One file. inputs, outputs: name to dtype and shape, where a word names an axis of any size.

    text_length: to how many tokens it pads texts inside, None where it computes as many as it is given. compared: the
    shapes of inputs at which it was compared with the model; difference: the greatest one that was found there.
    """

    file: str
    inputs: Mapping[str, Mapping[str, Any]]
    outputs: Mapping[str, Mapping[str, Any]]
    text_length: int | None
    compared: Sequence[Mapping[str, Sequence[int]]]
    difference: float


@dataclass(frozen=True, slots=True)
class Exported:
    """A folder of exported graphs; export.json in it says the same, and how inputs are prepared."""

    folder: Path
    format: Format
    part: Part
    spec: str
    graphs: tuple[ExportedGraph, ...]


def export(model: Any, out: str | Path, *, format: Format = "onnx", part: Part = "dual") -> Exported:  # noqa: A002 - as --format
    """Write a part of a model to the folder `out`, wholly or not at all; each graph is fp32 and runs on its own.

    model: a `Model`, or what `from_pretrained` takes. part: "dual", images and texts to unit vectors, a graph each;
    "vision" or "text", a tower's tokens and its pooled vector; "match", pairs to probabilities. format: "onnx" or
    "torch-export". Batch and text length are free. Each file is run at other ones than those traced, and compared.

    Raises:
        ExportError: the model cannot be traced, or a file gives other values than the model.
        CapabilityError: the model was not trained for the part, or has no such tower.
        MissingPackageError: onnx, onnxruntime or onnxscript is not installed.
        OutputError: `out` is taken, or cannot be written.
    """
    if part not in GRAPHS:
        raise SpecError(f"There is no part '{shown(part)}' to export. Choose from: {', '.join(get_args(Part))}.")
    files = writer(format)
    whole = model if isinstance(model, Model) else from_pretrained(model)
    _check_part(whole, part)
    with replacing(_free(Path(out).absolute())) as folder:
        own = _plain(whole.assembly)
        graphs = tuple(_written(own, graph, files, folder) for graph in GRAPHS[part])
        exported = Exported(Path(out), format, part, format_spec(whole.spec), graphs)
        _describe(exported, own, folder, files)
    return exported


def _free(target: Path) -> Path:
    """Return `target`, where nothing is yet, or an empty folder."""
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise OutputError(f"{target} exists. Choose another folder, or remove it.")
    return target


def _check_part(model: Model, part: Part) -> None:
    task = NEEDS.get(part)
    if task is not None and task not in model.tasks:
        raise CapabilityError(
            f"Part '{part}' needs a head trained for '{task}', and this model has the tasks: "
            f"{', '.join(model.tasks) or 'none'}. Train one with tasks: [{task}], or export part 'vision' or 'text'."
        )
    if task is None and not isinstance(model.encoder, TwoTower):
        raise CapabilityError(
            f"Part '{part}' is a tower, and a one-tower model has none of its own. Export part 'dual' or 'match'."
        )


def _plain(assembly: Assembly) -> Assembly:
    """Return a copy of the model to export: fp32, on the CPU, for inference."""
    return copy.deepcopy(assembly).float().cpu().eval()


# --- one graph ------------------------------------------------------------------------------------------------------


def _written(own: Assembly, graph: Graph, files: Writer, folder: Path) -> ExportedGraph:
    """Trace a graph, write its file, and compare what the file gives with what the model gives."""
    program, fit = _traced(own, graph)
    path = folder / f"{graph.name}{files.suffix}"
    try:
        files.write(program, graph, _max_tokens(own), path)
        run = files.opened(path)
    except Exception as error:  # the exporters and the runtimes have many errors of their own
        raise ExportError(
            f"{path.name}: this graph cannot be written or opened ({_reason(error)}). Try another --format."
        ) from error
    reference = graph.module(own, AsGiven())
    compared, difference = [], 0.0
    for sizes in checked_sizes(graph, _max_tokens(own)):
        inputs = samples(own.encoder, graph, sizes)
        difference = max(difference, _difference(path.name, reference, run, inputs, graph.outputs))
        compared.append(shapes(inputs))
    given, expected = _example(own, graph, reference)
    outputs = dict(zip(graph.outputs, expected, strict=True))
    return ExportedGraph(
        path.name,
        {name: _described(value, graph.axes[name]) for name, value in given.items()},
        {name: _described(value, _output_axes(graph, value)) for name, value in outputs.items()},
        fit.length if isinstance(fit, Padded) else None,
        compared,
        difference,
    )


def _traced(own: Assembly, graph: Graph) -> tuple[ExportedProgram, Fit]:
    """Return the program of a graph; where it cannot be had for all lengths, that which pads texts to the longest.

    Raises:
        ExportError: it cannot be had at all.
    """
    facts = own.encoder.text.processor.facts
    inputs = samples(own.encoder, graph, TRACED)
    fits: list[Fit] = [AsGiven()]
    if graph.reads_texts:
        fits.append(Padded(facts.max_tokens, facts.pad_id))
    failures: list[Exception] = []
    for fit in fits:
        try:
            return trace(_lean(own, graph, fit, inputs), inputs, graph, max_tokens=facts.max_tokens), fit
        except Exception as error:  # torch.export has no one class for what it cannot record
            failures.append(error)
    raise ExportError(
        f"'{graph.name}' of '{format_spec(own.plan.spec)}' cannot be exported: what its code does depends on values "
        f"or sizes in a way that torch.export does not record ({_reason(failures[0])}). Choose another backbone."
    ) from failures[0]


def _reason(error: BaseException) -> str:
    """Return what went wrong first, in a line; the exporters wrap it in advice to those who make them."""
    while error.__cause__ is not None:
        error = error.__cause__
    return shown(_COLOURS.sub("", first_line(error)), 300).rstrip(".")


def _lean(own: Assembly, graph: Graph, fit: Fit, inputs: Mapping[str, Tensor]) -> nn.Module:
    """Return the module of a graph without the parts that its outputs do not depend on.

    Nothing of it is frozen: what is frozen runs in canonical shapes, which follow from values.
    """
    module = graph.module(copy.deepcopy(own).requires_grad_(True), fit).eval()
    lean = copy.deepcopy(module)
    drop_parts(lean, unused_parts(module, module(*inputs.values())))
    try:
        lean(*inputs.values())
    except Exception:  # some towers run a part, or read its config, although no output depends on it: all of it stays
        return module
    return lean


def _difference(
    name: str, reference: nn.Module, run: Run, inputs: Mapping[str, Tensor], outputs: Sequence[str]
) -> float:
    """Return the greatest difference between a file and the model on these inputs.

    Raises:
        ExportError: it is greater than TOLERANCE, or a shape or a mask is another.
    """
    with torch.inference_mode():
        wanted, found = reference(*inputs.values()), run(inputs)
    greatest = 0.0
    for output, value, given in zip(outputs, wanted, found, strict=True):
        told = f"{name}: '{output}' at inputs {shapes(inputs)}"
        if value.shape != given.shape:
            raise ExportError(f"{told} has shape {list(given.shape)}, and the model gives {list(value.shape)}.{_WAY}")
        apart = (value.double() - given.double()).abs()
        if not (apart <= TOLERANCE * value.double().abs().clamp(min=1)).all():
            raise ExportError(f"{told} differs from the model by up to {apart.max().item():.2g}.{_WAY}")
        greatest = max(greatest, apart.max().item())
    return greatest


_WAY = " Nothing was written. Try another --format, or another version of torch."


# --- export.json ----------------------------------------------------------------------------------------------------


def _example(own: Assembly, graph: Graph, reference: nn.Module) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    inputs = samples(own.encoder, graph, TRACED)
    with torch.inference_mode():
        return inputs, reference(*inputs.values())


def _output_axes(graph: Graph, value: Tensor) -> Mapping[int, str]:
    """Return the axes of an output that have any size: the first, and of the tokens of texts the second."""
    axes = next(iter(graph.axes.values()))
    return axes if value.dim() > 1 and graph.name == "text" else {0: axes[0]}


def _described(value: Tensor, axes: Mapping[int, str]) -> dict[str, Any]:
    shape = [axes.get(axis, size) for axis, size in enumerate(value.shape)]
    return {"dtype": str(value.dtype).removeprefix("torch."), "shape": shape}


def _max_tokens(own: Assembly) -> int:
    longest: int = own.encoder.text.processor.facts.max_tokens
    return longest


def _describe(exported: Exported, own: Assembly, folder: Path, files: Writer) -> None:
    """Write the processors' files, and export.json: what somebody needs who has the folder and nothing else."""
    read = {name for graph in GRAPHS[exported.part] for name in graph.axes}
    towers = [name for name, key in (("vision", "pixels"), ("text", "token_ids")) if key in read]
    for name in towers:
        (folder / name).mkdir()
        getattr(own.encoder, name).save(folder / name)
    facts = {
        "library": "renaissance",
        "version": renaissance.__version__,
        "format": exported.format,
        **files.facts(folder / exported.graphs[0].file),
        "part": exported.part,
        "spec": exported.spec,
        "tolerance": TOLERANCE,
        "graphs": [asdict(graph) for graph in exported.graphs],
        **{f"{name}_processor": getattr(own.encoder, name).processor.describe() for name in towers},
        **({"normalised_inside": True} if "vision" in towers else {}),  # mean and std are not for the reader to apply
        **_similarity(own, exported.part),
        "sha256": {
            path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()
        },
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _similarity(own: Assembly, part: Part) -> dict[str, Any]:
    """Return what dot products of unit vectors are multiplied by, and what is added, before a softmax or a sigmoid."""
    if part != "dual":
        return {}
    head: Any = own.tasks["itc"]
    bias = 0.0 if head.bias is None else head.bias.item()
    return {"similarity": {"loss": head.options.loss, "scale": head.scale.item(), "bias": bias}}
