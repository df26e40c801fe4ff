"""The ledger: FLOPs are those of the real step, backward included, whatever is frozen, stored or recomputed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.nn.attention import SDPBackend, sdpa_kernel

from renaissance.api import Batch
from renaissance.cost.counting import FlopCount
from renaissance.features.layout import Cost
from renaissance.models.recomputing import recompute
from renaissance.training.ledger import Ledger
from renaissance.training.ledger_file import ledger_facts
from renaissance.training.phases import Phases
from renaissance.training.train_step import TrainStep

Tiny = Callable[..., Any]
TASKS = ("mlm", "itm", "itc")
# frozen from the input on, whole or in part, and in the middle: above a trained block, and above trained towers
RULES = ("", "frozen vision", "frozen text", "frozen both", "frozen vision[1:]", "frozen text[:1]", "frozen fusion")
# frozen from the input on in part and whole, and in the middle: a tower below its trained first block, a fusion
RULES = ("", "frozen vision", "frozen text", "frozen both", "frozen vision[1:]", "frozen text[:1]", "frozen fusion")


def step_of(model: Any, ledger: Ledger | None = None, parts: int = 1) -> TrainStep:
    step = TrainStep(model, dict.fromkeys(model.tasks, 1.0), parts).train()
    if ledger is not None:
        step.meter = ledger
    return step


def really(step: TrainStep, batch: Batch) -> tuple[int, int]:
    """Return the FLOPs of a step, forward and backward, as its operations say; attention is plain products."""
    with sdpa_kernel(SDPBackend.MATH), FlopCount() as count:
        loss = step(batch).loss
        forward = count.total
        loss.backward()
    return forward, count.total - forward


def counted(ledger: Ledger, what: str) -> int:
    """Return the FLOPs that a ledger has counted of one direction, over all parts."""
    totals = ledger.totals(Accelerator(cpu=True))
    return sum(int(value) for name, value in totals.items() if name.startswith("flops/") and name.endswith(what))


@pytest.mark.parametrize("fusion", ["lxmert", "dual"])
@pytest.mark.parametrize("rules", RULES)
def test_flops_are_those_of_the_real_step(rules: str, fusion: str, tiny_model: Tiny, tiny_batch: Tiny) -> None:
    model = tiny_model(TASKS if fusion == "lxmert" else ("itc",), rules, fusion=fusion)
    batch, ledger = tiny_batch(model, 5), Ledger(torch.device("cpu"))
    expected = really(step_of(model), batch)
    step = step_of(model, ledger)
    for times in (1, 2):
        step(batch).loss.backward()
        assert (counted(ledger, "forward"), counted(ledger, "backward")) == (times * expected[0], times * expected[1])
    assert counted(ledger, "recomputed") == 0


def test_counting_changes_no_loss(tiny_model: Tiny, tiny_batch: Tiny) -> None:
    model = tiny_model(TASKS, "frozen vision")
    batch = tiny_batch(model, 5)
    plain, metered = (step_of(model, ledger)(batch).loss for ledger in (None, Ledger(torch.device("cpu"))))
    assert torch.equal(plain, metered)


def test_what_is_recomputed_is_counted_apart(tiny_model: Tiny, tiny_batch: Tiny) -> None:
    model = tiny_model(TASKS, "frozen text")
    recompute(model.encoder)
    batch, ledger = tiny_batch(model, 5), Ledger(torch.device("cpu"))
    forward, backward = really(step_of(model), batch)
    step_of(model, ledger)(batch)
    assert counted(ledger, "recomputed") > 0
    assert counted(ledger, "forward") == forward
    assert counted(ledger, "backward") + counted(ledger, "recomputed") == backward


def test_a_batch_in_parts_counts_its_second_pass(tiny_model: Tiny, tiny_batch: Tiny) -> None:
    model = tiny_model(("itm", "itc"))
    batch, ledger = tiny_batch(model, 4), Ledger(torch.device("cpu"))
    forward, backward = really(step_of(model, parts=2), batch)
    step_of(model, ledger, parts=2)(batch)
    assert counted(ledger, "forward") == forward
    assert counted(ledger, "backward") + counted(ledger, "recomputed") == backward


def test_what_a_store_gives_is_not_counted_but_spared(tiny_model: Tiny, tiny_batch: Tiny) -> None:
    model = tiny_model(TASKS, "frozen both")
    batch, computed, read = tiny_batch(model, 5), Ledger(torch.device("cpu")), Ledger(torch.device("cpu"))
    step_of(model, computed)(batch)
    model.eval()
    stored = replace(
        batch,
        images=None,
        stored_vision=model.encoder.encode_vision(batch.images),
        stored_text=model.encoder.encode_text(batch.texts),
    )
    expected = really(step_of(model), stored)
    step_of(model, read)(stored)
    totals, without = read.totals(Accelerator(cpu=True)), computed.totals(Accelerator(cpu=True))
    assert (counted(read, "forward"), counted(read, "backward")) == expected
    assert totals.get("flops/vision/forward", 0) == 0
    assert totals["stored/vision"] == 5
    assert "calls/vision" not in totals
    # masked texts are computed with the store and without it
    assert totals["spared/flops"] == counted(computed, "forward") - counted(read, "forward")
    assert totals["unfrozen/flops"] == pytest.approx(without["unfrozen/flops"], rel=0.005)
    assert totals["bytes/store"] > 0


@pytest.mark.parametrize("spares", [True, False])
def test_what_a_store_spared_is_known_only_if_all_of_it_was_counted(
    spares: bool, tiny_model: Tiny, tiny_batch: Tiny
) -> None:
    """A run may go on with another strategy, of which one counts what is spared and one does not."""
    model, alone = tiny_model(("itm",), "frozen vision"), Accelerator(cpu=True)
    batch = tiny_batch(model, 3)
    with torch.no_grad():
        stored = replace(batch, images=None, stored_vision=model.eval().encoder.encode_vision(batch.images))
    ledger, later = Ledger(torch.device("cpu"), spares=spares), Ledger(torch.device("cpu"))
    step_of(model, ledger)(stored)
    later.restore(ledger.totals(alone))
    step_of(model, later)(stored)
    facts = ledger_facts(later.totals(alone), {}, Cost(2.0, 10**6), name="both", batch=3, processes=1)
    compared = facts["compared"]
    assert (compared["frozen, no store"] is not None) == (compared["nothing frozen"] is not None) == spares
    assert compared["as run, store built"] == compared["as run"] + 10**6
    assert facts["store"] == {"flops": 10**6, "seconds": 2.0}


def test_a_frozen_model_knows_what_it_would_take_with_nothing_frozen(tiny_model: Tiny, tiny_batch: Tiny) -> None:
    whole, still = (Ledger(torch.device("cpu")) for _ in range(2))
    free, frozen = tiny_model(TASKS), tiny_model(TASKS, "frozen fusion, frozen vision")
    batch = tiny_batch(free, 8)
    step_of(free, whole)(batch)
    step_of(frozen, still)(batch)
    took = counted(whole, "forward") + counted(whole, "backward")
    assert whole.totals(Accelerator(cpu=True))["unfrozen/flops"] == took
    assert still.totals(Accelerator(cpu=True))["unfrozen/flops"] == took


def test_a_stage_that_thaws_counts_anew(tiny_model: Tiny, tiny_batch: Tiny) -> None:
    model = tiny_model(("itm",), "frozen fusion")
    batch, ledger = tiny_batch(model, 4), Ledger(torch.device("cpu"))
    step_of(model, ledger)(batch)
    before = counted(ledger, "backward")
    model.encoder.fusion.requires_grad_(True)
    ledger.begin_stage()
    step_of(model, ledger)(batch)
    assert counted(ledger, "backward") - before > before


def test_a_resumed_ledger_goes_on_counting(tiny_model: Tiny, tiny_batch: Tiny) -> None:
    model, alone = tiny_model(("itm",)), Accelerator(cpu=True)
    batch, first, second = tiny_batch(model, 4), Ledger(torch.device("cpu")), Ledger(torch.device("cpu"))
    step_of(model, first)(batch)
    first.update([batch])
    second.restore(json.loads(json.dumps(first.totals(alone))))
    step_of(model, second)(batch)
    second.update([batch])
    assert second.totals(alone)["updates"] == 2
    assert second.flops(alone) == 2 * first.flops(alone)
    assert second.totals(alone)["peak/rss"] >= first.totals(alone)["peak/rss"]


def test_a_moment_counts_for_the_innermost_phase() -> None:
    phases = Phases(torch.device("cpu"))
    with phases("towers"):
        began = time.process_time()
        with phases("fusion"):
            while time.process_time() - began < 0.02:
                pass
    phases.settle()
    assert phases.cpu["fusion"] >= 0.02
    assert set(phases.wall) == {"rest", "towers", "fusion"}
