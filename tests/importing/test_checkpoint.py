from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from renaissance.assemble import Assembly, assemble
from renaissance.errors import ModelFileError
from renaissance.importing import import_checkpoint
from renaissance.importing.checkpoint import Checkpoint, Target
from renaissance.importing.importers import IMPORTERS, DescribedOptions, Importer
from renaissance.registry import Registry
from renaissance.resolve import resolve
from renaissance.tensors import save_state


def state() -> dict[str, torch.Tensor]:
    return {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


def opened(**tensors: torch.Tensor) -> Checkpoint:
    return Checkpoint("some.safetensors", tensors)


def assert_holds(checkpoint: Checkpoint) -> None:
    for name, tensor in state().items():
        assert torch.equal(checkpoint.take(name, tensor.shape), tensor)
    checkpoint.done()


# --- each tensor once -----------------------------------------------------------------------------------------------


def test_a_tensor_that_nothing_took_is_named() -> None:
    checkpoint = opened(**state())
    checkpoint.take("weight")
    with pytest.raises(ModelFileError, match=r"some\.safetensors: no part of the model takes the tensor 'bias'"):
        checkpoint.done()


def test_a_tensor_that_is_missing_is_named_with_the_nearest() -> None:
    with pytest.raises(ModelFileError, match=r"lacks the tensor 'wieght'\. Did you mean 'weight'\?"):
        opened(**state()).take("wieght")


def test_a_tensor_of_another_shape_is_named_with_both_shapes() -> None:
    with pytest.raises(ModelFileError, match=r"'weight' has the shape \[2, 3\], and the model needs \[3, 2\]"):
        opened(**state()).take("weight", (3, 2))


def test_a_tensor_cannot_be_taken_twice() -> None:
    checkpoint = opened(**state())
    checkpoint.take("weight")
    with pytest.raises(AssertionError, match="taken twice"):
        checkpoint.take("weight")


def test_a_second_name_of_a_tensor_counts_only_if_it_is_equal() -> None:
    checkpoint = opened(**state(), decoder=torch.ones(2), ids=torch.ones(2))
    checkpoint.take_equal("decoder", checkpoint.take("bias"))
    with pytest.raises(ModelFileError, match="'ids' is not what this kind of model has there"):
        checkpoint.take_equal("ids", torch.zeros(2))


def test_what_is_left_out_must_be_there_and_is_reported() -> None:
    checkpoint = opened(**state())
    checkpoint.leave_out(["bias"])
    assert checkpoint.left_out == ("bias",)
    assert checkpoint.names == ("weight",)
    with pytest.raises(ModelFileError, match="lacks the tensor 'logit_bias'"):
        checkpoint.leave_out(["logit_bias"])


def test_a_checkpoint_in_another_layout_names_tensors_as_the_file_does() -> None:
    checkpoint = opened(**state())
    taken = {"a": checkpoint.take("weight"), "b": checkpoint.take("bias")}
    layout = checkpoint.replaced(taken, {"a": "weight", "b": "bias"})
    layout.take("a")
    with pytest.raises(ModelFileError, match="takes the tensor 'bias'"):
        layout.done()


# --- each tensor of ours filled -------------------------------------------------------------------------------------


def test_a_model_is_written_only_when_every_tensor_is_filled() -> None:
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    target, checkpoint = Target(model), opened(**state())
    target.copy(checkpoint, "weight", "weight")
    with pytest.raises(ModelFileError, match="fills the model's 'bias'"):
        target.done()
    assert torch.equal(model.weight, before)
    target.copy(checkpoint, "bias", "bias")
    target.done()
    assert torch.equal(model.weight, state()["weight"])


def test_a_shared_tensor_is_filled_by_any_one_of_its_names() -> None:
    model = nn.ModuleDict({"first": nn.Linear(3, 2), "second": nn.Linear(3, 2)})
    model["second"] = model["first"]
    target, checkpoint = Target(model), opened(**state())
    for name in state():
        target.copy(checkpoint, name, f"first.{name}")
    target.done()
    assert torch.equal(model["second"].weight, state()["weight"])


def test_half_precision_becomes_the_models_own_exactly() -> None:
    model = nn.Linear(3, 2)
    target, checkpoint = Target(model), opened(**{name: tensor.half() for name, tensor in state().items()})
    for name in state():
        target.copy(checkpoint, name, name)
    target.done()
    assert model.weight.dtype == torch.float32
    assert torch.equal(model.weight, state()["weight"])


def test_a_quantised_tensor_is_refused() -> None:
    checkpoint = opened(weight=torch.zeros(2, 3, dtype=torch.int8))
    with pytest.raises(ModelFileError, match="'weight' holds int8, and the model needs float32"):
        Target(nn.Linear(3, 2)).copy(checkpoint, "weight", "weight")


# --- files ----------------------------------------------------------------------------------------------------------


def test_a_safetensors_file_and_a_folder_with_one_are_read(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "model.safetensors")
    assert_holds(Checkpoint.open(tmp_path / "model.safetensors"))
    assert_holds(Checkpoint.open(tmp_path))


def test_a_folder_with_shards_is_read(tmp_path: Path) -> None:
    save_state(state(), tmp_path, max_shard_bytes=24)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert_holds(Checkpoint.open(tmp_path))


def test_a_pickled_file_is_refused_with_the_flag_that_reads_it(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "model.bin")
    with pytest.raises(ModelFileError, match=r"pickled file.*--from-pickle"):
        Checkpoint.open(tmp_path / "model.bin")
    assert_holds(Checkpoint.open(tmp_path / "model.bin", from_pickle=True))


def test_an_old_pickled_file_is_refused_as_well(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "model.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ModelFileError, match="--from-pickle"):
        Checkpoint.open(tmp_path / "model.pt")
    assert_holds(Checkpoint.open(tmp_path / "model.pt", from_pickle=True))


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_weights_that_a_trainer_keeps_beside_other_things_are_found(tmp_path: Path, key: str) -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in state().items()}
    torch.save({"epoch": 3, "name": "run", key: wrapped, "optimizer": {"lr": 0.1}}, tmp_path / "epoch_3.pt")
    assert_holds(Checkpoint.open(tmp_path / "epoch_3.pt", from_pickle=True))


def test_a_safetensors_file_that_begins_as_a_pickle_does_is_none(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for padding in range(0, 512, 8):  # until the length of its header, the first byte of the file, is 0x80
        save_file(state(), path, metadata={"padding": "x" * padding})
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    assert_holds(Checkpoint.open(path))


class Command:
    """What an attacker pickles: reading it runs a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_code_in_a_pickled_file_is_never_run(tmp_path: Path) -> None:
    torch.save({**state(), "evil": Command(tmp_path / "ran")}, tmp_path / "model.bin")
    with pytest.raises(ModelFileError, match="more than tensors and plain data"):
        Checkpoint.open(tmp_path / "model.bin", from_pickle=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"weight": torch.ones(1), "epoch": 3}, "'epoch' is no tensor"),
        ({1: torch.ones(1)}, "'1' is no tensor"),
        ([torch.ones(1)], "no tensors in it"),
        ({"weight": torch.ones(1, device="meta")}, "'weight' is no tensor"),
        ({}, "no tensors in it"),
    ],
)
def test_a_pickled_file_that_is_no_state_is_refused(tmp_path: Path, saved: object, message: str) -> None:
    torch.save(saved, tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match=message):
        Checkpoint.open(tmp_path / "model.pt", from_pickle=True)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and nothing more", b"\x80\x02", b"hello, I am no checkpoint"])
def test_a_damaged_file_is_a_typed_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(ModelFileError):
        Checkpoint.open(path, from_pickle=True)


def test_a_file_that_is_not_there_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="cannot be read"):
        Checkpoint.open(tmp_path / "none.safetensors")


def test_a_tensor_that_an_importer_forgets_is_found_when_it_does_not_look_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgetful = Importer(summary="Forgets.", convert=f"{__name__}:forgetful", options=DescribedOptions)
    monkeypatch.setitem(IMPORTERS, "forgetful", forgetful)
    save_file(state(), tmp_path / "some.safetensors")
    with pytest.raises(ModelFileError, match="no part of the model takes the tensor 'bias'"):
        import_checkpoint("forgetful", tmp_path / "some.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def forgetful(checkpoint: Checkpoint, options: DescribedOptions, registry: Registry) -> Assembly:
    """Convert as an importer does that takes one tensor, and looks for no others."""
    checkpoint.take("weight")
    line = "tiny-vit(image_size=32, patch_size=8, layers=1, width=16, heads=2, mlp_width=16), one-tower, random encoder"
    return assemble(resolve(line, {}, registry=registry))
