"""What a model costs, said without its weights, is what the built model costs."""

from __future__ import annotations

import io
import json
import mmap
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from renaissance.api import Item, TextInput
from renaissance.assemble import Assembly, assemble
from renaissance.cli import main
from renaissance.cost import PRESETS, Cost, assemble_without_weights, cost, counted, synthetic_batch
from renaissance.cost.counting import measured, runs_of
from renaissance.cost.flops import StepCount
from renaissance.cost.items import item_batch
from renaissance.cost.shapes import without_pixels
from renaissance.errors import SpecError
from renaissance.resolve import resolve
from renaissance.training.train_step import TrainStep

SIZES = "layers={layers}, width=32, heads=2, mlp_width=64, dropout={dropout}"
VISION = "tiny-vit(image_size=32, patch_size=8, {sizes})"
TEXT = "tiny-bert({sizes})"
HEAD = "{fusion}(layers={layers}, width=32, heads=2, dropout={dropout})"
TASKS = ("mlm", "itm", "itc")
RULES = ("", "frozen vision", "frozen text", "frozen both", "frozen text[:2]")
BATCH, TEXT_TOKENS, MASKED = 6, 11, 17


def line(rules: str = "", *, layers: int = 5, dropout: float = 0.0, fusion: str = "lxmert") -> str:
    sizes = SIZES.format(layers=layers, dropout=dropout)
    head = "dual(width=32)" if fusion == "dual" else HEAD.format(fusion=fusion, layers=layers, dropout=dropout)
    towers = f"{VISION.format(sizes=sizes)} + {TEXT.format(sizes=sizes)}"
    return ", ".join(part for part in (towers, "random both", rules, head) if part)


def built(spec: str, tasks: Sequence[str] = TASKS) -> Assembly:
    """Build the model with real weights, its 'mlm' predicting every ordinary word of the batch."""
    uses: Mapping[str, Mapping[str, Any]] = {name: {"probability": 1.0} if name == "mlm" else {} for name in tasks}
    return assemble(resolve(spec, uses)).train()


@cache
def found(spec: str, tasks: tuple[str, ...] = TASKS) -> Cost:
    """Return what `cost` says of a step."""
    return cost(spec, tasks, batch=BATCH, text_tokens=TEXT_TOKENS, masked=MASKED)


@cache
def metered(spec: str, tasks: tuple[str, ...] = TASKS) -> tuple[int, int, int]:
    """Return what a real step takes, by torch's own counters: FLOPs forward, FLOPs in all, and bytes saved."""
    model = built(spec, tasks)
    batch = synthetic_batch(model, BATCH, TEXT_TOKENS, MASKED)
    step = TrainStep(model, dict.fromkeys(model.tasks, 1.0))
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = step(batch).loss
        forward = counter.get_total_flops()
        loss.backward()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved = sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights)
    return forward, counter.get_total_flops(), saved


def without_weights(spec: str, tasks: Sequence[str] = TASKS) -> Assembly:
    return assemble_without_weights(resolve(spec, tasks))


# --- parameters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        *(line(rules) for rules in RULES),
        line(fusion="co-attention"),
        "deit-tiny + tiny-bert, random both, frozen vision[:4]",
        "swin-tiny(width=96, depths=[2, 2], heads=[3, 6], image_size=56) + tiny-bert, random both, frozen text",
        "timm:vit_tiny_patch16_224 + tiny-bert, random both",
    ],
)
def test_parameters_are_those_of_the_built_model(spec: str) -> None:
    model, shapes = built(spec), without_weights(spec)
    assert counted(shapes) == counted(model)
    assert counted(shapes.encoder.vision) == counted(model.encoder.vision)
    assert counted(shapes.encoder.text) == counted(model.encoder.text)


def test_the_parts_add_up_to_the_total() -> None:
    of_parts = found(line("frozen vision")).parts.values()
    assert sum(part.total for part in of_parts) == found(line("frozen vision")).parameters.total
    assert sum(part.trainable for part in of_parts) == found(line("frozen vision")).parameters.trainable


def test_a_shared_tensor_is_counted_once() -> None:
    first, second = nn.Linear(3, 4, bias=False), nn.Linear(3, 4, bias=False)
    second.weight = first.weight
    assert counted(nn.Sequential(first, second)).total == 12


@pytest.mark.parametrize(
    ("rules", "millions"),
    [("", 38.26), ("frozen vision", 32.70), ("frozen text", 24.78), ("frozen both", 19.22)],
)
def test_the_papers_small_model_has_its_trainable_parameters_without_a_download(rules: str, millions: float) -> None:
    line = ", ".join(filter(None, ("deit-tiny(pooler=true) + electra-small", rules)))
    assert counted(without_weights(line, ("mlm", "itm"))).trainable / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize(("rules", "millions"), [("", 222.15), ("frozen both", 26.87)])
def test_the_papers_base_model_has_its_trainable_parameters_without_a_download(rules: str, millions: float) -> None:
    line = ", ".join(filter(None, ("vit-base(pooler=true) + electra-base, lxmert(layers=10)", rules)))
    assert counted(without_weights(line, ("mlm", "itm"))).trainable / 1e6 == pytest.approx(millions, abs=0.005)


def test_roberta_keeps_its_own_vocabulary_and_positions_without_a_download() -> None:
    model = without_weights("tiny-vit + roberta-base, random vision", ("itm",))
    width, blocks = 768, 12 * (4 * 768 * 769 + 2 * 768 * 3072 + 3072 + 768 + 4 * 768)
    assert counted(model.encoder.text).total == (50265 + 514 + 1 + 2) * width + blocks


# --- FLOPs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", RULES)
def test_flops_equal_those_of_a_real_step_exactly(rules: str) -> None:
    flops = found(line(rules)).flops
    assert (flops.forward, flops.training) == metered(line(rules))[:2]
    assert 0 < flops.attention < flops.training


@pytest.mark.parametrize(
    ("spec", "tasks"),
    [
        (line(fusion="co-attention", dropout=0.1), TASKS),
        (line("frozen both", fusion="dual"), ("itc",)),
        (line(fusion="bridge", layers=2), ("itm",)),
        (VISION.format(sizes=SIZES.format(layers=5, dropout=0.1)) + ", one-tower, random encoder", ("mlm", "itm")),
        (TEXT.format(sizes=SIZES.format(layers=5, dropout=0.0)) + ", one-tower, random encoder", ("itm",)),
        ("swin-tiny(width=96, depths=[2, 2], heads=[3, 6], image_size=56) + tiny-bert, random both", ("itm", "itc")),
    ],
)
def test_flops_equal_those_of_a_real_step_for_each_kind_of_model(spec: str, tasks: tuple[str, ...]) -> None:
    flops = found(spec, tasks).flops
    assert (flops.forward, flops.training) == metered(spec, tasks)[:2]


ITEM_TASKS: dict[str, dict[str, Any]] = {
    "vqa": {"labels": ["no", "yes", "red", "blue"]},
    "nlvr2": {},
    "referring": {},
    "choice": {"candidates": "images"},
    "regression": {"field": "amount"},
    "image-classification": {"labels": ["cat", "dog"]},
    "text-classification": {"subset": "mrpc"},
}


@pytest.mark.parametrize(
    ("name", "spec"),
    [("vqa", line("frozen both")), ("nlvr2", line()), *((name, line(layers=1)) for name in ITEM_TASKS)],
)
def test_the_cost_of_a_task_on_items_is_that_of_a_real_step(name: str, spec: str) -> None:
    uses = {name: ITEM_TASKS[name]}
    model = assemble(resolve(spec, uses)).train()
    said = cost(spec, uses, batch=BATCH, text_tokens=TEXT_TOKENS)
    step = TrainStep(model, {name: 1.0})
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = step(synthetic_batch(model, BATCH, TEXT_TOKENS)).loss
        forward = counter.get_total_flops()
        loss.backward()
    assert (said.flops.forward, said.flops.training) == (forward, counter.get_total_flops())
    assert said.parameters == counted(model)


def test_two_images_of_an_item_cost_twice_those_of_one() -> None:
    batches = [synthetic_batch(assemble(resolve(line(), (task,))), BATCH, TEXT_TOKENS) for task in ("vqa", "nlvr2")]
    assert [len(batch.pairs) for batch in batches] == [BATCH, 2 * BATCH]
    assert batches[1].slots.tolist() == [0, 1] * BATCH


class Located:
    """A task that learns where something is in a whole image."""

    slots, regions, paired = 1, False, False

    @staticmethod
    def targets(items: Sequence[Item]) -> torch.Tensor:
        sizes = [Image.open(io.BytesIO(item.images[0].read())).size for item in items]
        return torch.tensor([[*item.boxes[0], *size] for item, size in zip(items, sizes, strict=True)])


def test_made_up_items_have_a_box_inside_of_an_image_that_can_be_read() -> None:
    texts = TextInput(torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.bool))
    batch = item_batch({"located": Located()}, 2, (32, 32), lambda count: texts)
    for left, top, width, height, columns, rows in batch.targets["located"].tolist():
        assert 0 <= left < left + width <= columns
        assert 0 <= top < top + height <= rows


def test_tasks_on_items_and_on_captions_are_counted_apart() -> None:
    with pytest.raises(SpecError, match="Of vqa, itm some are on items with labels, and others on images"):
        cost(line(), ("vqa", "itm"))
    with pytest.raises(SpecError, match="The tasks vqa, nlvr2 read items differently"):
        cost(line(), ("vqa", "nlvr2"))


def test_a_frozen_prefix_costs_no_backward() -> None:
    free, held = found(line()).flops, found(line("frozen text")).flops
    assert held.backward < free.backward
    assert held.backward < 2 * free.forward


# --- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [*map(line, RULES), line(fusion="co-attention", dropout=0.1)])
def test_activations_are_within_15_percent_of_what_a_real_step_saves(spec: str) -> None:
    assert found(spec).memory.activations == pytest.approx(metered(spec)[2], rel=0.15)


def test_frozen_parts_have_neither_gradients_nor_moments() -> None:
    parameters, memory = found(line("frozen both")).parameters, found(line("frozen both")).memory
    assert memory.weights == 4 * parameters.total
    assert memory.gradients == 4 * parameters.trainable
    assert memory.optimiser == 8 * parameters.trainable


def test_shards_share_all_but_the_activations() -> None:
    memory = found(line()).memory
    assert memory.sharded(1) == memory.total
    assert memory.sharded(4) == pytest.approx((memory.total - memory.activations) / 4 + memory.activations, abs=1)


# --- presets, errors, the command -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_size_of_its_name(name: str) -> None:
    billions = float(name.rpartition("-")[2].removesuffix("b"))
    size = counted(without_weights(PRESETS[name], ("mlm", "itm"))).total
    assert size / 1e9 == pytest.approx(billions, rel=0.05)


@pytest.mark.parametrize(
    ("batch", "text_tokens", "masked", "told"),
    [(2, 999, None, "takes 3 to 64"), (2, 8, 99, "give 0 to 12"), (1, 8, None, "at least 2 pairs")],
)
def test_a_batch_that_cannot_be_had_is_refused(batch: int, text_tokens: int, masked: int | None, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        cost(line(), batch=batch, text_tokens=text_tokens, masked=masked)


def test_the_command_prints_what_the_function_returns(capsys: pytest.CaptureFixture[str]) -> None:
    expected = found(line())
    options = ["--tasks", "mlm,itm,itc", "--batch", str(BATCH), "--text-tokens", str(TEXT_TOKENS)]
    assert main(["cost", line(), *options, "--masked", str(MASKED), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["flops"]["training"] == expected.flops.training
    assert printed["memory"]["sharded"]["8"] == expected.memory.sharded(8)


def test_the_command_shows_parts_memory_and_shards(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", line(layers=2), "--tasks", "itm", "--batch", "2", "--text-tokens", "8"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("vision", "trainable", "training FLOPs a sample", "FSDP shards"))


def test_the_images_of_a_batch_take_no_memory() -> None:
    assembly = without_weights(line(layers=2), ("itm",))
    images: Any = without_pixels(synthetic_batch(assembly, BATCH, TEXT_TOKENS), assembly).images
    assert isinstance(images.pixels, FakeTensor)
    assert images.pixels.shape == (BATCH, 3, 32, 32)


# --- what is frozen -------------------------------------------------------------------------------------------------

SIX = partial(line, layers=6)


def backward(rules: str) -> int:
    return found(SIX(rules)).flops.backward


def products_of_a_text_block() -> tuple[int, int]:
    """Return the FLOPs of a block forward, for the texts and their masked twins: of linear layers, of attention."""
    tokens = 2 * BATCH * TEXT_TOKENS
    return 2 * tokens * (4 * 32 * 32 + 2 * 32 * 64), 2 * 2 * tokens * TEXT_TOKENS * 32


def test_a_frozen_middle_costs_no_weight_gradients() -> None:
    linear, _ = products_of_a_text_block()
    assert backward("") - backward("frozen text[2:4]") == 2 * linear


def test_each_block_of_a_frozen_prefix_costs_no_backward_at_all() -> None:
    linear, attention = products_of_a_text_block()
    for shorter, longer in (("[:1]", "[:2]"), ("[:2]", "[:3]")):
        assert backward(f"frozen text{shorter}") - backward(f"frozen text{longer}") == 2 * linear + 2 * attention


@pytest.mark.parametrize(
    "rules",
    [
        "frozen text[2:4]",
        "frozen text, trainable text[-2:]",
        "lora(rank=2) text",
        'frozen both("*.attention.*"), frozen fusion[:1], frozen vision.norms',
        "frozen both, lora(rank=2) vision[3:5], bitfit text",
    ],
)
def test_blocks_that_are_left_out_of_the_count_cost_what_they_would_cost(rules: str) -> None:
    assembly = assemble_without_weights(resolve(SIX(rules), ("itm",))).train()
    batch = without_pixels(synthetic_batch(assembly, BATCH, TEXT_TOKENS), assembly)
    step = TrainStep(assembly, {"itm": 1.0})
    assert measured(step, batch, tuple(runs_of(assembly.encoder))) == measured(step, batch, ())


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is told by Linux alone")
def test_counting_holds_no_memory_of_what_was_let_go() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    weight, inputs = nn.Parameter(torch.ones(64, 64)), torch.ones(16_384, 64)  # 4 MiB
    with torch.no_grad(), StepCount() as count:
        before = resident()
        for _ in range(100):
            (inputs @ weight).relu_()
        assert resident() - before < 100 * inputs.nbytes / 4
    assert count.taken.forward == 100 * 2 * inputs.numel() * 64
