from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from renaissance.errors import ModelFileError, NonFiniteError, OutputError
from renaissance.tensor_headers import read_header, read_state
from renaissance.tensors import ALIGNED, load_state, save_state


class Tied(nn.Module):
    """Two names for one table, as of word embeddings and their decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.decoder = nn.Linear(4, 5)
        self.decoder.weight = self.embedding.weight
        self.register_buffer("steps", torch.tensor(3))


def empty() -> Tied:
    with torch.device("meta"):
        return Tied()


def written(path: Path, header: object, data: bytes = b"") -> Path:
    """Write a file with this header (JSON-able, or bytes) and data."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


def entry(shape: list[Any], start: int, stop: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


# --- disks ------------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_an_output_error(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OutputError, match=r"The weights cannot be written \(.*\)\. Free some space"):
            save_state({"weight": torch.zeros(100_000)}, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# --- ties -------------------------------------------------------------------------------------------------------------


def test_a_shared_tensor_is_stored_once_and_shared_again(tmp_path: Path) -> None:
    model, loaded = Tied(), empty()
    save_state(model.state_dict(keep_vars=True), tmp_path)
    stored = read_state(tmp_path)
    assert set(stored.tensors) == {"embedding.weight", "decoder.bias", "steps"}
    load_state(loaded, stored)
    assert loaded.decoder.weight is loaded.embedding.weight
    assert torch.equal(loaded.embedding.weight, model.embedding.weight)


def test_ties_that_an_empty_build_lost_are_made_again(tmp_path: Path) -> None:
    save_state(Tied().state_dict(keep_vars=True), tmp_path)
    loaded = empty()
    loaded.decoder.weight = nn.Parameter(torch.empty(5, 4, device="meta"))
    load_state(loaded, read_state(tmp_path))
    assert loaded.decoder.weight is loaded.embedding.weight


def test_copies_are_no_substitute_for_a_shared_tensor(tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in Tied().state_dict().items()}
    save_state(state, tmp_path)
    with pytest.raises(ModelFileError, match=r"'decoder\.weight' is stored apart from 'embedding\.weight'"):
        load_state(empty(), read_state(tmp_path))


def test_loading_keeps_what_is_trained_and_what_is_not(tmp_path: Path) -> None:
    save_state(Tied().state_dict(keep_vars=True), tmp_path)
    loaded = empty()
    loaded.embedding.weight.requires_grad_(False)
    load_state(loaded, read_state(tmp_path))
    assert not loaded.embedding.weight.requires_grad
    assert loaded.decoder.bias.requires_grad


def test_a_state_that_does_not_fit_leaves_the_model_untouched(tmp_path: Path) -> None:
    state = Tied().state_dict(keep_vars=True)
    del state["steps"]
    save_state(state, tmp_path)
    model = Tied()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ModelFileError, match="'steps' is missing"):
        load_state(model, read_state(tmp_path))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_non_finite_tensor_is_named_and_not_written(value: float, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="'x'"):
        save_state({"x": torch.tensor([1.0, value])}, tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- shards -----------------------------------------------------------------------------------------------------------

STATE = {f"layer{index}": torch.full((4,), float(index)) for index in range(4)}


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name in STATE:
            self.register_buffer(name, torch.zeros(4, device="meta"))


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    save_state(STATE, tmp_path, max_shard_bytes=32)
    return tmp_path


def test_shards_load_as_one_state(sharded: Path) -> None:
    assert len(list(sharded.glob("model-*-of-00002.safetensors"))) == 2
    loaded = Layers()
    load_state(loaded, read_state(sharded))
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in STATE.items())


def change_index(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda listed: listed.update(layer0="../model-00001-of-00002.safetensors"), id="traversal"),
        pytest.param(lambda listed: listed.update(layer0="/etc/passwd"), id="absolute"),
        pytest.param(lambda listed: listed.update(layer0="pytorch_model-00001.bin"), id="bin"),
        pytest.param(lambda listed: listed.update(layer0=5), id="number"),
        pytest.param(lambda listed: listed.update(layer0="model-00009-of-00009.safetensors"), id="missing-shard"),
        pytest.param(lambda listed: listed.update(more="model-00001-of-00002.safetensors"), id="not-in-shard"),
        pytest.param(lambda listed: listed.pop("layer0"), id="not-in-index"),
        pytest.param(lambda listed: listed.update(layer0="model-00002-of-00002.safetensors"), id="other-shard"),
        pytest.param(lambda listed: listed.clear(), id="empty"),
        pytest.param(
            lambda listed: listed.update({f"x{n}": f"model-{n:05d}-of-99999.safetensors" for n in range(30_000)}),
            id="many",
        ),
    ],
)
def test_an_index_that_lies_is_refused(sharded: Path, change: Callable[[dict[str, Any]], object]) -> None:
    change_index(sharded, change)
    with pytest.raises(ModelFileError):
        read_state(sharded)


def test_one_file_and_shards_side_by_side_are_refused(sharded: Path) -> None:
    save_state({"x": torch.zeros(1)}, sharded)
    with pytest.raises(ModelFileError, match="holds both"):
        read_state(sharded)


# --- headers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "data"),
    [
        pytest.param({"x": entry([2], 0, 8)}, bytes(4), id="too few bytes"),
        pytest.param({"x": entry([2], 0, 8)}, bytes(12), id="bytes left over"),
        pytest.param({"x": entry([2], 0, 4)}, bytes(4), id="size is not the shape's"),
        pytest.param({"x": entry([1], 0, 4), "y": entry([1], 0, 4)}, bytes(4), id="overlap"),
        pytest.param({"x": entry([1], 0, 4), "y": entry([1], 8, 12)}, bytes(12), id="gap"),
        pytest.param({"x": entry([-1], 0, -4)}, b"", id="negative"),
        pytest.param({"x": entry([True], 0, 4)}, bytes(4), id="bool"),
        pytest.param({"x": entry([1.0], 0, 4)}, bytes(4), id="float"),
        pytest.param({"x": entry([2**63, 2], 0, 4)}, bytes(4), id="beyond 64 bits"),
        pytest.param({"x": entry([1] * 9, 0, 4)}, bytes(4), id="rank 9"),
        pytest.param({"x": entry([1], 0, 4, dtype="F31")}, bytes(4), id="dtype"),
        pytest.param({"x": {"dtype": "F32", "shape": [1]}}, bytes(4), id="no offsets"),
        pytest.param({"x": 5}, b"", id="no entry"),
        pytest.param({"__metadata__": 5}, b"", id="metadata"),
        pytest.param({"__metadata__": {"tied": "["}}, b"", id="ties"),
        pytest.param({"__metadata__": {"tied": '{"x": "x"}'}, "x": entry([1], 0, 4)}, bytes(4), id="tied to itself"),
        pytest.param(b'{"x": 1, "x": 2}', b"", id="key twice"),
        pytest.param(b"[" * 100_000, b"", id="deep"),
        pytest.param(b"\xff", b"", id="no text"),
        pytest.param(b"", b"", id="no header"),
    ],
)
def test_a_header_that_does_not_describe_its_bytes_is_refused(header: object, data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"x\.safetensors"):
        read_header(written(tmp_path / "x.safetensors", header, data))


@pytest.mark.parametrize("length", [0, 7])
def test_a_file_too_short_for_a_header_is_refused(length: int, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(bytes(length))
    with pytest.raises(ModelFileError):
        read_header(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b'{"x":{"dtype":"F32","shape":[' + b"1," * 10**6 + b'1],"data_offsets":[0,4]}}', id="rank"),
        pytest.param(b"{" + b'"x":{},' * 400_000 + b"}", id="tensors"),
        pytest.param(b"{" + b" " * (5 * 2**20) + b"}", id="size"),
    ],
)
def test_a_header_bomb_is_refused_from_its_first_bytes(header: bytes, tmp_path: Path) -> None:
    path = written(tmp_path / "x.safetensors", header)
    taken = []
    for _ in range(3):  # the best of three: other work on the machine slows one
        start = time.process_time()
        with pytest.raises(ModelFileError):
            read_header(path)
        taken.append(time.process_time() - start)
    assert min(taken) < 0.1


def test_what_this_module_writes_it_reads(tmp_path: Path) -> None:
    state: dict[str, Tensor] = {
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 3),
        "strided": torch.arange(12.0).reshape(3, 4).T,
        "part": torch.arange(12.0)[3:6],
        "half": torch.ones(3, dtype=torch.bfloat16),
        "whole": torch.arange(3),
        "truth": torch.tensor([True, False]),
    }
    save_state(state, tmp_path)
    tensors, tied = read_header(tmp_path / "model.safetensors")
    assert tied == {}
    assert {name: (t.dtype, t.shape) for name, t in tensors.items()} == {
        name: (t.dtype, tuple(t.shape)) for name, t in state.items()
    }


def test_tensors_are_aligned_in_files_and_in_memory(tmp_path: Path) -> None:
    state: dict[str, Tensor] = {"odd": torch.randn(3), "table": torch.randn(16, 16), "truth": torch.ones(3).bool()}
    state |= {"narrow": torch.randn(16, 16).half(), "empty": torch.zeros(0, 3), "scalar": torch.tensor(1.5)}
    module = nn.Module()
    for name, tensor in state.items():
        module.register_buffer(name, torch.empty_like(tensor))
    path = tmp_path / "model.safetensors"
    save_state(state, tmp_path)
    begin = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8:begin])
    assert [(begin + header[name]["data_offsets"][0]) % ALIGNED for name in ("table", "narrow")] == [0, 0]
    assert {name: tensor.tolist() for name, tensor in load_file(path).items()} == {
        name: tensor.tolist() for name, tensor in state.items()
    }
    for save in (lambda: None, lambda: save_file(state, path, {"tied": "{}"})):  # as written here, then by the library
        save()
        load_state(module, read_state(tmp_path))
        loaded = module.state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
        assert all(tensor.data_ptr() % ALIGNED == 0 for tensor in loaded.values())


def test_equal_states_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        torch.manual_seed(0)
        save_state(Tied().state_dict(keep_vars=True), tmp_path / name)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
