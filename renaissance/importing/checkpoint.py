"""The two sides of an import: a checkpoint whose tensors are taken once, and a model whose tensors are filled once."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from renaissance.errors import ModelFileError
from renaissance.spec import did_you_mean, shown
from renaissance.tensor_headers import read_header, read_state
from renaissance.tensors import tied_names

# Zip archives (torch.save since 1.6), and the first byte of pickles of protocol 2 and later.
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80")
# Where trainers keep the weights beside optimiser and epoch.
_NESTED = ("state_dict", "model")
_WRAPPED = "module."  # DistributedDataParallel's prefix


class Checkpoint:
    """The tensors of a checkpoint by name; each is taken exactly once. `source` names the checkpoint in messages.

    `called` maps a name here to what the file calls it, for a checkpoint that was brought into another layout.
    """

    def __init__(self, source: str, tensors: Mapping[str, Tensor], called: Mapping[str, str] | None = None) -> None:
        self.source = source
        self.taken: dict[str, Tensor] = {}
        self.left_out: tuple[str, ...] = ()
        self._tensors = dict(tensors)
        self._called = called or {}

    @classmethod
    def open(cls, path: Path, *, from_pickle: bool = False) -> Checkpoint:
        """Open a safetensors file, a folder with one or with shards, or, with `from_pickle`, a pickled file.

        Raises:
            ModelFileError: there is none, it is damaged, or it is pickled and `from_pickle` was not said.
        """
        if path.is_dir():
            return cls(str(path), _mapped(path, sorted({tensor.file for tensor in read_state(path).tensors.values()})))
        if not _is_pickled(path):
            read_header(path)  # refuses what is no safetensors file before anything is mapped
            return cls(str(path), _mapped(path.parent, [path.name]))
        if not from_pickle:
            raise ModelFileError(
                f"{path} is a pickled file, which can run code when it is read. Get it as safetensors; or read nothing "
                "but its tensors, with --from-pickle (in Python: from_pickle=True)."
            )
        return cls(str(path), _unpickled(path))

    def called(self, name: str) -> str:
        """Return what the file calls a tensor, as it can be printed."""
        return shown(self._called.get(name, name), 200)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tensors that nothing has taken yet, in the file's order."""
        return tuple(name for name in self._tensors if name not in self.taken)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str, dims: int | None = None) -> tuple[int, ...]:
        """Return the shape of a tensor, which stays to be taken.

        Raises:
            ModelFileError: it is missing, or has another number of dimensions than `dims`.
        """
        shape = tuple(self._found(name).shape)
        if dims is not None and len(shape) != dims:
            raise ModelFileError(
                f"{self.source}: the tensor '{self.called(name)}' has the shape {list(shape)}, and this kind of model "
                f"has {dims} dimensions there. Check that it is of this kind."
            )
        return shape

    def take(self, name: str, shape: Sequence[int] | None = None) -> Tensor:
        """Return a tensor, which nothing can take again.

        Raises:
            ModelFileError: it is missing, or has another shape than `shape`.
        """
        assert name not in self.taken, f"{name} is taken twice"
        tensor = self._found(name)
        if shape is not None and tuple(tensor.shape) != tuple(shape):
            raise ModelFileError(
                f"{self.source}: the tensor '{self.called(name)}' has the shape {list(tensor.shape)}, and the model "
                f"needs {list(shape)}. Name the architecture, or the options, that it was trained with."
            )
        self.taken[name] = tensor
        return tensor

    def _found(self, name: str) -> Tensor:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise ModelFileError(
                f"{self.source} lacks the tensor '{self.called(name)}'.{did_you_mean(name, self.names)} "
                "Check that it is of this kind and architecture."
            )
        return tensor

    def take_equal(self, name: str, expected: Tensor) -> None:
        """Take a tensor that says nothing new: a second name of a shared one, or a constant.

        Raises:
            ModelFileError: it is missing, or is not `expected`.
        """
        if not torch.equal(self.take(name, expected.shape), expected):
            raise ModelFileError(
                f"{self.source}: the tensor '{self.called(name)}' is not what this kind of model has there, and the "
                "import would lose it. Check that the checkpoint is of this kind."
            )

    def leave_out(self, names: Sequence[str]) -> None:
        """Take tensors that the model shall do without.

        Raises:
            ModelFileError: one is not there.
        """
        for name in names:
            self.take(name)
            del self.taken[name], self._tensors[name]
        self.left_out += tuple(names)

    def replaced(self, tensors: Mapping[str, Tensor], called: Mapping[str, str]) -> Checkpoint:
        """Return the checkpoint in another layout: the tensors that were taken, under other names.

        Raises:
            ModelFileError: a tensor is left over.
        """
        self.done()
        return Checkpoint(self.source, tensors, called)

    def done(self) -> None:
        """Check that every tensor was taken.

        Raises:
            ModelFileError: naming the first that is left over.
        """
        left = self.names
        if left:
            more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
            raise ModelFileError(
                f"{self.source}: no part of the model takes the tensor '{self.called(left[0])}'{more}. "
                "Check that the checkpoint is of this kind and architecture."
            )


class Target:
    """The tensors of a model; each is filled exactly once, and nothing is written before all are."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._state: dict[str, Tensor] = model.state_dict(keep_vars=True)
        self._filled: dict[str, Tensor] = {}

    def under(self, prefix: str) -> tuple[str, ...]:
        """Return the names that start with `prefix`, without it."""
        return tuple(name.removeprefix(prefix) for name in self._state if name.startswith(prefix))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor of the model."""
        return tuple(self._state[name].shape)

    def copy(self, checkpoint: Checkpoint, theirs: str, ours: str) -> None:
        """Fill a tensor with one of the checkpoint.

        Raises:
            ModelFileError: the checkpoint lacks it, or it has another shape or another kind of numbers.
        """
        tensor = checkpoint.take(theirs, self.shape(ours))
        self._check_kind(checkpoint, theirs, tensor, ours)
        self.fill(ours, tensor)

    def copy_transposed(self, checkpoint: Checkpoint, theirs: str, ours: str) -> None:
        """Fill a matrix [A, B] with one of the checkpoint [B, A].

        Raises:
            ModelFileError: the checkpoint lacks it, or it has another shape or another kind of numbers.
        """
        tensor = checkpoint.take(theirs, self.shape(ours)[::-1])
        self._check_kind(checkpoint, theirs, tensor, ours)
        self.fill(ours, tensor.T)

    def fill(self, name: str, tensor: Tensor) -> None:
        """Fill a tensor of the model; numbers of another precision are converted to its own."""
        assert name not in self._filled, f"{name} is filled twice"
        expected = self._state[name]
        assert tensor.shape == expected.shape, f"{name} is filled with {list(tensor.shape)}"
        self._filled[name] = tensor.to(expected.dtype)

    def done(self) -> None:
        """Write what was filled to the model.

        Raises:
            ModelFileError: naming the first tensor of the model that nothing filled.
        """
        for name, kept in tied_names(self._state).items():
            if kept in self._filled:
                self._filled.setdefault(name, self._filled[kept])
        empty = [name for name in self._state if name not in self._filled]
        if empty:
            raise ModelFileError(
                f"Nothing in the checkpoint fills the model's '{shown(empty[0], 200)}'. "
                "Check that it is of this kind and architecture."
            )
        self._model.load_state_dict(self._filled, strict=True)

    def _check_kind(self, checkpoint: Checkpoint, theirs: str, tensor: Tensor, ours: str) -> None:
        expected = self._state[ours]
        if tensor.is_floating_point() != expected.is_floating_point() or tensor.is_complex():
            raise ModelFileError(
                f"{checkpoint.source}: the tensor '{checkpoint.called(theirs)}' holds {_plain(tensor.dtype)}, and the "
                f"model needs {_plain(expected.dtype)}. Check that it is of this kind, and is not quantised."
            )


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# --- reading --------------------------------------------------------------------------------------------------------


def _is_pickled(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4).startswith(_PICKLE_STARTS) and not _is_header(path)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror or error}). Check the path.") from None


def _is_header(path: Path) -> bool:
    """Return whether JSON follows the first eight bytes: a header's length may begin with any byte."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _mapped(folder: Path, files: Sequence[str]) -> dict[str, Tensor]:
    """Return the tensors of safetensors files, mapped into memory."""
    tensors: dict[str, Tensor] = {}
    for name in files:
        try:
            with safe_open(folder / name, framework="pt", device="cpu") as opened:
                tensors |= {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  # no mapping
        except (SafetensorError, OSError) as error:
            raise ModelFileError(f"{folder / name} cannot be read ({shown(error)}). Download it again.") from None
    return tensors


def _unpickled(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a pickled state, which may be wrapped as trainers do it; nothing in it is run."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelFileError(
            f"{path} holds more than tensors and plain data, or is damaged, so it is not read. Save its state_dict "
            "alone, best as safetensors."
        ) from None
    except Exception as error:  # a damaged archive fails anywhere in torch's reader
        raise ModelFileError(
            f"{path} cannot be read ({type(error).__name__}: {shown(error)}). Download it again."
        ) from None
    state = _innermost(loaded)
    odd = next((name for name, value in state.items() if not _is_weight(name, value)), None)
    if odd is not None or not state:
        what = f"'{shown(odd)}' is no tensor" if state else "there are no tensors in it"
        raise ModelFileError(f"{path} is no state_dict: {what}. Save the model's state_dict alone.")
    if all(name.startswith(_WRAPPED) for name in state):
        state = {name.removeprefix(_WRAPPED): tensor for name, tensor in state.items()}
    return state


def _innermost(loaded: Any) -> dict[Any, Any]:
    """Return the state of a file that holds it alone, or beside what else a trainer keeps."""
    if not isinstance(loaded, dict):
        return {}
    return dict(next((loaded[key] for key in _NESTED if isinstance(loaded.get(key), dict)), loaded))


def _is_weight(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
