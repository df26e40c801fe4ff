"""Weights in files: safetensors, mapped into memory; a state that does not fit is refused before a model is touched."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from renaissance.errors import ModelFileError, NonFiniteError, OutputError
from renaissance.manifest import AGAIN, INDEX
from renaissance.spec import shown
from renaissance.tensor_headers import DTYPE_NAMES, TIED, StoredState

MAX_SHARD_BYTES = 5 * 10**9
# bytes: where PyTorch has a tensor begin that it allocates on a CPU
ALIGNED = 64


# --- saving ---------------------------------------------------------------------------------------------------------


def save_state(
    state: Mapping[str, Tensor],
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a state into `folder` as one file, or as shards and an index; a shared tensor is stored once.

    dtype: of float32 parameters in the files; buffers stay as they are.

    Raises:
        NonFiniteError: a tensor holds NaN or infinity, or would in this dtype.
        OutputError: the disk is full, or fails otherwise.
    """
    tied = tied_names(state)
    kept = {name: tensor for name, tensor in state.items() if name not in tied}
    for name, tensor in kept.items():
        _check_finite(name, tensor, dtype)
    split = split_state_dict_into_shards_factory(
        kept,
        get_storage_size=lambda tensor: tensor.numel() * stored_dtype(tensor, dtype).itemsize,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_bytes,
    )
    note = {TIED: json.dumps(tied, sort_keys=True)}
    for file, names in split.filename_to_tensors.items():
        shard = {name: kept[name].detach().to("cpu", stored_dtype(kept[name], dtype)).contiguous() for name in names}
        _write(shard, folder / file, note)
    if split.is_sharded:
        index = {"metadata": {"total_size": split.metadata["total_size"]}, "weight_map": split.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def stored_dtype(tensor: Tensor, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of a tensor in files whose parameters are stored as `dtype`."""
    return dtype if isinstance(tensor, nn.Parameter) and tensor.dtype == torch.float32 else tensor.dtype


def _check_finite(name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    if not tensor.is_floating_point():
        return
    if not bool(torch.isfinite(tensor).all()):
        raise NonFiniteError(f"The tensor '{name}' holds NaN or infinity, so the model was not saved. Train it anew.")
    stored = stored_dtype(tensor, dtype)
    if stored != tensor.dtype and not bool(torch.isfinite(tensor.detach().to(stored)).all()):
        raise NonFiniteError(
            f"The tensor '{name}' has values that {_plain(stored)} cannot hold, so the model was not saved. Save it as "
            "bfloat16 or float32."
        )


def _write(tensors: Mapping[str, Tensor], path: Path, note: dict[str, str]) -> None:
    """Write a safetensors file whose tensors begin where memory that is mapped is aligned, but for a few small ones.

    The library writes tensors by their names, and a single odd size moves all that follow: see `align`.
    """
    order = sorted(tensors, key=lambda name: (tensors[name].nbytes % ALIGNED != 0, name))
    ends = list(itertools.accumulate(tensors[name].nbytes for name in order))
    entries = {
        name: {
            "dtype": DTYPE_NAMES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [end - tensors[name].nbytes, end],
        }
        for name, end in zip(order, ends, strict=True)
    }
    header = json.dumps({"__metadata__": note, **entries}, separators=(",", ":")).encode()
    header += b" " * (-(8 + len(header)) % ALIGNED)
    try:
        with path.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for name in order:
                file.write(tensors[name].flatten().view(torch.uint8).numpy().data)
    except OSError as error:
        raise OutputError(
            f"The weights cannot be written ({error.strerror or error}). Free some space, or choose another folder."
        ) from error


def tied_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Map each name whose tensor came before under another name to that first name."""
    first: dict[object, str] = {}
    tied = {}
    for name, tensor in state.items():
        same = first.setdefault(_identity(tensor), name)
        if same != name:
            tied[name] = same
    return tied


def _identity(tensor: Tensor) -> object:
    """Return what two tensors share exactly if they are the same memory, seen the same way."""
    if tensor.is_meta or tensor.numel() == 0:
        return id(tensor)
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())


# --- loading --------------------------------------------------------------------------------------------------------


def check_fit(stored: StoredState, expected: Mapping[str, Tensor], *, dtype: torch.dtype = torch.float32) -> None:
    """Compare names, shapes and dtypes with those of a model's state, from the headers alone.

    dtype: what parameters are stored as.

    Raises:
        ModelFileError: naming the first tensor that is missing, left over, misshaped or of another type.
    """
    names = {**{name: name for name in stored.tensors}, **stored.tied}
    missing = sorted(set(expected) - set(names)) + sorted(set(stored.tied.values()) - set(stored.tensors))
    left_over = sorted(set(names) - set(expected))
    for faults, told in ((missing, "is missing"), (left_over, "belongs to no part of the model")):
        if faults:
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            raise ModelFileError(f"{stored.folder}: the tensor '{shown(faults[0], 200)}' {told}{more}. {AGAIN}.")
    for name, kept in names.items():
        found, wanted = stored.tensors[kept], expected[name]
        if found.shape != tuple(wanted.shape):
            raise _unfit(stored, name, f"has the shape {list(found.shape)}, and not {list(wanted.shape)}")
        if found.dtype != (kind := stored_dtype(wanted, dtype)):
            raise _unfit(stored, name, f"has the type {_plain(found.dtype)}, and not {_plain(kind)}")
    for name, kept in tied_names(expected).items():
        if names[name] != names[kept]:
            raise _unfit(stored, name, f"is stored apart from '{kept}', with which the model shares it")


def _unfit(stored: StoredState, name: str, fault: str) -> ModelFileError:
    return ModelFileError(f"{stored.folder}: the tensor '{shown(name, 200)}' {fault}. {AGAIN}.")


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def load_state(
    module: nn.Module,
    stored: StoredState,
    *,
    dtype: torch.dtype = torch.float32,
    there: Collection[str] = (),
) -> None:
    """Give `module` the stored tensors, mapped into memory, in place of its own; tie again what was tied.

    dtype: what parameters are stored as; they are loaded in the dtype that `module` has them in. there: names of the
    tensors that `module` has, and that are not stored.

    Raises:
        ModelFileError: the tensors do not fit (see `check_fit`), or the files changed since their headers were read.
    """
    own = module.state_dict(keep_vars=True)
    expected = {name: tensor for name, tensor in own.items() if name not in there}
    check_fit(stored, expected, dtype=dtype)
    tensors = {name: tensor.to(expected[name].dtype) for name, tensor in _mapped(stored).items()}
    state = {**tensors, **{name: tensors[kept] for name, kept in stored.tied.items()}}
    module.load_state_dict({**own, **state}, strict=True, assign=True)
    for name, kept in stored.tied.items():
        owner, _, leaf = name.rpartition(".")
        source, _, source_leaf = kept.rpartition(".")
        setattr(module.get_submodule(owner), leaf, getattr(module.get_submodule(source), source_leaf))
    align(module)


def align(module: nn.Module) -> None:
    """Copy the weights that begin at no boundary of memory, as mapped ones may.

    Kernels may sum in another order there, and a model is to give the same bits however its weights came.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if not tensor.is_meta and tensor.data_ptr() % ALIGNED:
            tensor.data = tensor.data.clone()


def _mapped(stored: StoredState) -> dict[str, Tensor]:
    """Return the tensors; memory is shared with the files until something writes to it."""
    tensors: dict[str, Tensor] = {}
    for file in sorted({tensor.file for tensor in stored.tensors.values()}):
        try:
            with safe_open(stored.folder / file, framework="pt", device="cpu") as opened:
                tensors |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # no mapping
        except (SafetensorError, OSError) as error:
            raise ModelFileError(f"{stored.folder / file} cannot be read ({shown(error)}). {AGAIN}.") from None
    return tensors
