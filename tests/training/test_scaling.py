"""Two processes train as one does: DDP and FSDP, uneven batches, images that both read, batches in parts, whole runs.

One pair of processes checks all of it, for starting them costs more than what they do.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from renaissance.assemble import assemble
from renaissance.data.collate import Collator
from renaissance.data.records import Record
from renaissance.models.recomputing import recompute
from renaissance.recipe.distributed import Distributed
from renaissance.resolve import resolve
from renaissance.training.run import run
from renaissance.training.sharded import clip_gradients, shard, whole
from renaissance.training.train_step import TrainStep
from tests.processes import in_two_processes

TASKS: Mapping[str, Any] = {"mlm": {"at_least_one": True}, "itm": {"negatives": "hard"}, "itc": {"width": 16}}
CUT = 5  # of 8 records the first process reads so many, the second the rest


@dataclass(frozen=True)
class Case:
    """A model, and how two processes train it; one process trains it plainly."""

    spec: str
    tasks: Mapping[str, Any] = field(default_factory=lambda: TASKS)
    distributed: Distributed | None = None  # None: DDP
    recomputed: bool = False
    parts: int = 1
    bf16: bool = False
    tolerance: float = 1e-6


# --- the data: two records of one image, one of which each process reads; a caption that two images share -------------


@dataclass(frozen=True)
class Picture:
    name: str
    shade: int

    def read(self) -> bytes:
        noise = np.random.default_rng(self.shade).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        with io.BytesIO() as file:
            Image.fromarray(noise).save(file, "PNG")
            return file.getvalue()


def records() -> list[Record]:
    captions = [("a red cup",), ("two dogs",), ("a tree",), ("a house",), ("a cat",)]
    captions += [("a big dog and a small one",), ("a red cup",), ("a train",)]
    pictures = [Picture(f"{number}.png", number) for number in range(8)]
    pictures[5] = pictures[1]
    return [Record(f"r{n}", pictures[n], captions[n], f"row {n}") for n in range(8)]


def batch_of(model: Any, chosen: list[Record]) -> Any:
    return Collator(model.encoder.vision.processor, model.encoder.text.processor, seed=0)(chosen, 0)


# --- what a process does ----------------------------------------------------------------------------------------------


def trained(case: Case, part: slice, wrap: Callable[[TrainStep], nn.Module]) -> dict[str, Any]:
    """Return losses and gradient norms of two updates, and the weights after them."""
    model = assemble(resolve(case.spec, case.tasks), seed=0).train()
    if case.recomputed:
        recompute(model.encoder)
    step = TrainStep(model, dict.fromkeys(case.tasks, 1.0), case.parts)
    batch, wrapped = batch_of(model, records()[part]), wrap(step)
    held = [own for own in step.parameters() if own.requires_grad]
    optimiser = torch.optim.SGD(held, lr=0.1, foreach=False)  # AdamW makes large steps of the rounding of no gradient
    figures: dict[str, Tensor] = {}
    for update in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=case.bf16):
            output = wrapped(batch)
        output.loss.backward()
        figures |= {f"{update} {name}": value for name, value in output.losses.items()}
        figures[f"{update} norm"] = clip_gradients(held, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        step.momentum.update()
    queued = dict(step.momentum.past("itc")) if "itc" in step.momentum.queues else {}
    return {"figures": figures, "weights": whole(model.state_dict(), keep=True), "queued": queued}


def together(case: Case, rank: int) -> dict[str, Any]:
    def wrap(step: TrainStep) -> nn.Module:
        if case.distributed is None:
            return DistributedDataParallel(step, find_unused_parameters=True)
        shard(step, case.distributed, bf16=case.bf16)
        return step

    return trained(case, slice(0, CUT) if rank == 0 else slice(CUT, 8), wrap)


def work(rank: int, folder: str, cases: Mapping[str, Case], runs: Mapping[str, Any], cache: str) -> None:
    torch.save({name: together(case, rank) for name, case in cases.items()}, f"{folder}/{rank}.pt")
    os.environ["RENAISSANCE_CACHE"] = cache
    for name, (recipe, resume) in runs.items():
        run(recipe, out=Path(folder) / "runs" / name, resume=resume)


# --- the cases --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cases(tiny_spec: Callable[..., str]) -> dict[str, Case]:
    full, grad = Distributed(strategy="fsdp"), Distributed(strategy="fsdp", shard="grad")
    offload = Distributed(strategy="fsdp", offload=True)
    cut = "frozen vision, frozen text[:1]"
    queue = {"itc": {"width": 16, "queue": 12, "distillation": 0.4, "distillation_ramp": 0}}
    both = {"itm": {"replaced": "both"}, "itc": {"width": 16}}
    shared = 'text-cross-attention(layers=2, heads=2, text_blocks="shared", dropout=0.0)'
    text_cross = tiny_spec().replace("lxmert(layers=2, width=32, heads=2, dropout=0.0)", shared)
    return {
        "ddp": Case(tiny_spec()),
        "ddp, queue": Case(tiny_spec(), queue),
        "ddp, again in the backward pass": Case(tiny_spec(), both, recomputed=True),
        "ddp, in parts": Case(tiny_spec(cut), parts=2),
        "fsdp": Case(tiny_spec(), distributed=full),
        "fsdp, frozen and offload": Case(tiny_spec("frozen vision, frozen text"), distributed=offload),
        "fsdp, in parts and again": Case(tiny_spec(cut), distributed=full, parts=2, recomputed=True),
        "fsdp, q-former and grad": Case(tiny_spec(fusion="q-former"), distributed=grad),
        "fsdp, shared text blocks": Case(text_cross, distributed=full),
        "fsdp, dual": Case(tiny_spec(fusion="dual"), {"itc": {}}, distributed=full),
        "fsdp, bf16": Case(tiny_spec(), distributed=full, bf16=True, tolerance=5e-2),
    }


NAMES = [
    "ddp", "ddp, queue", "ddp, again in the backward pass", "ddp, in parts", "fsdp", "fsdp, frozen and offload",
    "fsdp, in parts and again", "fsdp, q-former and grad", "fsdp, shared text blocks", "fsdp, dual", "fsdp, bf16",
]  # fmt: skip


@pytest.fixture(scope="module")
def recipes(tiny_spec: Callable[..., str]) -> dict[str, dict[str, Any]]:
    """Runs of four updates, with a last batch of each epoch that is not full."""
    plain: dict[str, Any] = {
        "name": "tiny",
        "start": tiny_spec(),
        "tasks": {"mlm": {}, "itm": {"options": {"negatives": "hard"}}, "itc": {"options": {"width": 16}}},
        "data": {"kind": "world", "train": 19, "test": 4, "captions": 2, "image_size": 32},
        "batch": {"size": 8},
        "budget": {"steps": 4},
        "checkpoint_every": 2,
        "schedule": {"warmup_steps": 1},
        "optimiser": {"lr": 0.002},
        "evaluation": {"tasks": {"retrieval": {}}, "untrained": False},
    }
    fsdp = {"strategy": "fsdp"}
    measured = {"tasks": {"retrieval": {}}, "untrained": False, "every": 2, "validation": 4}
    thawed = {"start": tiny_spec("frozen text"), "freezing": {"stages": [{"at": 2, "thaw": ["text"]}]}}
    cached = {"batch": {"size": 8, "accumulation": 2, "cached": True}}
    return {
        "plain": plain,
        "averaged": {**plain, "distributed": fsdp, "ema": {"decay": 0.9}, "evaluation": measured},
        "thawed, in parts": {**plain, **thawed, **cached, "distributed": fsdp},
    }


@pytest.fixture(scope="module")
def results(
    cases: dict[str, Case], recipes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, Any]]]:
    """What two processes make of the cases, and a folder of the runs of one and of two."""
    folder = tmp_path_factory.mktemp("scaling")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RENAISSANCE_CACHE", str(folder / "cache"))
        for name, recipe in recipes.items():
            run({key: value for key, value in recipe.items() if key != "distributed"}, out=folder / "alone" / name)
    # a run of one process that two with a divided model go on with, from its second update
    shutil.copytree(folder / "alone" / "plain", folder / "runs" / "resumed")
    shutil.rmtree(folder / "runs" / "resumed" / "checkpoints" / "step-00000004")
    runs = {name: (recipe, False) for name, recipe in recipes.items() if "distributed" in recipe}
    in_two_processes(
        work,
        folder,
        cases,
        {**runs, "resumed": ({**recipes["plain"], "distributed": {"strategy": "fsdp"}}, True)},
        str(folder / "cache"),
    )
    return folder, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def apart(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Return the largest difference of two sets of tensors with the same names, where they are large as a share."""
    assert first.keys() == second.keys()
    return max(float(((first[name] - second[name]).abs() / second[name].abs().clamp(min=1)).max()) for name in second)


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_have_the_losses_and_the_gradient_of_one(
    name: str, cases: dict[str, Case], results: tuple[Path, list[Any]]
) -> None:
    assert cases.keys() == set(NAMES)
    case, (_, ranks) = cases[name], results
    alone = trained(Case(case.spec, case.tasks, bf16=case.bf16), slice(0, 8), lambda step: step)
    for rank in ranks:
        first = [figure for figure in alone["figures"] if figure.startswith("0 ") and figure != "0 norm"]
        assert apart(*({own: made["figures"][own] for own in first} for made in (rank[name], alone))) < case.tolerance
        assert apart(rank[name]["figures"], alone["figures"]) < max(2e-5, case.tolerance)
        assert apart(rank[name]["weights"], alone["weights"]) < max(2e-5, case.tolerance)


def test_the_queue_of_two_processes_is_that_of_one(cases: dict[str, Case], results: tuple[Path, list[Any]]) -> None:
    case = cases["ddp, queue"]
    alone = trained(case, slice(0, 8), lambda step: step)["queued"]
    for rank in results[1]:
        queued = rank["ddp, queue"]["queued"]
        assert len(queued["images"]) == 12
        assert len(queued["image_keys"].unique()) == 7  # of eight records, two are of one image
        assert (
            apart({name: queued[name] for name in ("images", "texts")}, {n: alone[n] for n in ("images", "texts")})
            < 1e-5
        )
        for name in ("image_keys", "text_keys"):
            assert torch.equal(queued[name], alone[name])
        for own, expected in zip(queued["caption_keys"].tolist(), alone["caption_keys"].tolist(), strict=True):
            assert set(own) - {0} == set(expected) - {0}


def weights(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load_file(folder / "model" / "model.safetensors")
    return tensors


@pytest.mark.parametrize("name", ["averaged", "thawed, in parts"])
def test_a_run_with_a_divided_model_saves_the_model_of_one_process(name: str, results: tuple[Path, list[Any]]) -> None:
    folder, _ = results
    assert apart(weights(folder / "runs" / name), weights(folder / "alone" / name)) < 2e-5


def test_checkpoints_of_a_divided_model_have_the_form_of_those_of_one_process(
    results: tuple[Path, list[Any]],
) -> None:
    folder, _ = results
    for file in ("model.safetensors", "optimiser.safetensors", "average.safetensors"):
        place = Path("averaged") / "checkpoints" / "step-00000004" / file
        assert apart(load_file(folder / "runs" / place), load_file(folder / "alone" / place)) < 2e-5


def test_one_process_two_and_one_again_train_as_one(
    recipes: dict[str, Any], results: tuple[Path, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = results
    alone = weights(folder / "alone" / "plain")
    assert apart(weights(folder / "runs" / "resumed"), alone) < 2e-5
    monkeypatch.setenv("RENAISSANCE_CACHE", str(folder / "cache"))
    shutil.rmtree(folder / "runs" / "resumed" / "checkpoints" / "step-00000002")
    shutil.rmtree(folder / "runs" / "resumed" / "model")
    run(recipes["plain"], out=folder / "runs" / "resumed", resume=True)  # from what two processes wrote last
    assert apart(weights(folder / "runs" / "resumed"), alone) < 2e-5
