"""The two formats: how a traced program is written to a file, and run from it again.

Letters in shapes: those of `renaissance.exporting.graphs`.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.attention import SDPBackend, sdpa_kernel

from renaissance.api import Features, TextInput, VisionInput
from renaissance.errors import MissingPackageError, SpecError
from renaissance.exporting.graphs import Graph
from renaissance.spec import shown

Format = Literal["onnx", "torch-export"]
Run = Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]]

# a protobuf file ends at 2 GiB; beyond, weights stand in a file beside the graph
INLINE_BYTES = 2**31 - 2**24


@cache
def register_inputs() -> None:
    """Let `torch.export.export` take a tower on its own inputs: VisionInput and TextInput in, Features out."""
    for kind in (VisionInput, TextInput, Features):
        torch.export.register_dataclass(kind, serialized_type_name=f"renaissance.api.{kind.__name__}")


def trace(module: nn.Module, inputs: Mapping[str, Tensor], graph: Graph, *, max_tokens: int) -> ExportedProgram:
    """Return the program of a module on inputs of which the graph's axes have any size, texts up to `max_tokens`.

    Raises:
        Exception: whatever torch.export meets in code that it cannot record.
    """
    with _still(), torch.no_grad():
        return torch.export.export(
            module, tuple(inputs.values()), dynamic_shapes=_axes(graph, max_tokens), strict=False
        )


@dataclass(frozen=True, slots=True)
class Writer:
    """A format. write(program, graph, max_tokens, path); opened(path) runs what was written; facts(path) are told."""

    suffix: str
    write: Callable[[ExportedProgram, Graph, int, Path], None]
    opened: Callable[[Path], Run]
    facts: Callable[[Path], Mapping[str, Any]]


def writer(name: str) -> Writer:
    """Return the writer of a format.

    Raises:
        SpecError: there is no such format.
        MissingPackageError: what it needs is not installed.
    """
    if name == "onnx":
        _check_onnx()
        return Writer(".onnx", _write_onnx, _open_onnx, _onnx_facts)
    if name == "torch-export":
        return Writer(".pt2", _write_program, _open_program, lambda path: {"torch": torch.__version__})
    raise SpecError(f"There is no export format '{shown(name)}'. Choose from: {', '.join(get_args(Format))}.")


def _axes(graph: Graph, max_tokens: int) -> tuple[dict[int, Any], ...]:
    """Return the axes of each input that may have any size, as torch.export writes them."""
    dims = {name: Dim(name, min=1) for axes in graph.axes.values() for name in axes.values() if name != "tokens"}
    dims["tokens"] = Dim("tokens", min=1, max=max_tokens)
    return tuple({axis: dims[name] for axis, name in axes.items()} for axes in graph.axes.values())


# --- ONNX -----------------------------------------------------------------------------------------------------------


def _check_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            f"ONNX files need the package {error.name}. Try: pip install 'renaissance-vl[export]'"
        ) from None


def _write_onnx(program: ExportedProgram, graph: Graph, max_tokens: int, path: Path) -> None:
    weights = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    # other kernels of attention give strides by which a copy is left out that the decomposed program needs (T5)
    with _still(), sdpa_kernel(SDPBackend.MATH):
        written = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=list(graph.axes),
            output_names=list(graph.outputs),
            dynamic_shapes=_axes(graph, max_tokens),
        )
        assert written is not None
        written.save(path, external_data=weights > INLINE_BYTES)


def _open_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        outputs: Sequence[Any] = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        return tuple(torch.from_numpy(output) for output in outputs)

    return run


def _onnx_facts(path: Path) -> Mapping[str, Any]:
    import onnx

    model = onnx.load(path, load_external_data=False)
    return {"opset": next(used.version for used in model.opset_import if used.domain == "")}


# --- torch.export ---------------------------------------------------------------------------------------------------


def _write_program(program: ExportedProgram, graph: Graph, max_tokens: int, path: Path) -> None:
    with _still():
        torch.export.save(program, path)


def _open_program(path: Path) -> Run:
    with _still():
        module: Any = torch.export.load(path).module()
    return lambda inputs: tuple(module(*inputs.values()))


@contextmanager
def _still() -> Iterator[None]:
    """Keep from users what torch tells of its own insides while it exports: warnings, its log, graphs that fail."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
