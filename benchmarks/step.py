"""One MLM + ITM training step of renaissance, beside the same model composed of `transformers` modules by hand.

python benchmarks/step.py [--pairs N] [--batch N] [--case none|vision|text|both] [--size full|tiny]

Three columns, in one process and on one thread, in turns: renaissance; the composition as first written; and that
composition made sensible (composition.py). All compute the same losses from the same weights, captions, masks and
pairs; the lines above the table show that they do.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from composition import IGNORED, Composition, Work, copy_weights, make_sensible, plain_loss, sensible_loss
from paired import Timings, table, take_turns
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from torch.optim import AdamW

from renaissance.api import Batch, Features, Modality, Task, TextInput, VisionInput
from renaissance.assemble import Assembly, assemble
from renaissance.recipe.training import Optimiser
from renaissance.resolve import resolve
from renaissance.training.optimiser import make_optimiser
from renaissance.training.train_step import TrainStep

# Tokens of a caption, special ones included: 8 to 20, mean 13, about what captions of COCO have. Batches repeat them.
LENGTHS = (8, 10, 11, 12, 13, 14, 16, 20)
PLAIN_LENGTH = 50

SPECIAL = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}  # as in BERT's vocabulary

CASES: Mapping[str, frozenset[str]] = {
    "none": frozenset(),
    "vision": frozenset({"vision"}),
    "text": frozenset({"text"}),
    "both": frozenset({"vision", "text"}),
}


@dataclass(frozen=True, slots=True)
class Size:
    """Which model is timed: its towers' options beside the tokenizer, its fusion, and the entries of the tokenizer."""

    vision: Mapping[str, int]
    text: Mapping[str, int]
    fusion: Mapping[str, int]
    vocabulary: int


SIZES: Mapping[str, Size] = {
    "full": Size({}, {}, {"layers": 6, "width": 256, "heads": 4}, 30_522),
    "tiny": Size(
        {"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "heads": 2, "mlp_width": 64},
        {"layers": 2, "width": 32, "heads": 2, "mlp_width": 64, "max_tokens": 64},
        {"layers": 2, "width": 32, "heads": 2},
        512,
    ),
}


class Unencoded:
    """Features of `count` images and texts that hold nothing: to draw masks and pairs, tasks read none of them."""

    def __init__(self, count: int) -> None:
        self.vision = self.text = Features(torch.zeros(count, 1, 1), torch.ones(count, 1, dtype=torch.bool))

    def view(self, task: str) -> tuple[Features | None, Features | None]:
        """Return a view of the same emptiness."""
        return self.vision, self.text

    def represent(self, features: Features, modality: Modality) -> Tensor:
        """Return one vector for each input."""
        return features.tokens[:, 0]


@dataclass(frozen=True, slots=True)
class Trial:
    """One column: the model, its loss of one step, and its optimiser."""

    model: nn.Module
    loss: Callable[[], Tensor]
    optimiser: torch.optim.Optimizer

    def step(self) -> None:
        """Do one training step."""
        self.optimiser.zero_grad(set_to_none=True)
        self.loss().backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()


def main() -> None:
    """Print the table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="rounds in which every column does one step")
    parser.add_argument("--batch", type=int, default=8, help="pairs of an image and a caption in a step")
    parser.add_argument("--case", choices=[*CASES, "all"], default="all", help="which towers are frozen")
    parser.add_argument("--size", choices=list(SIZES), default="full", help="tiny: for tests")
    given = parser.parse_args()
    torch.set_num_threads(1)
    threads = f"{torch.get_num_threads()} thread, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}"
    print(f"torch {torch.__version__}, {threads}, batch {given.batch}, captions of {LENGTHS} tokens")
    cases = list(CASES) if given.case == "all" else [given.case]
    print(report(cases, size=given.size, batch=given.batch, pairs=given.pairs))


def report(cases: list[str], *, size: str, batch: int, pairs: int) -> str:
    """Time these cases; print for each that the columns agree; return the table."""
    rows = []
    for case in cases:
        trials = make_trials(case, size=size, batch=batch)
        print(f"{case} frozen: {_sameness(trials)}", flush=True)
        rows.append(_row(case, take_turns({name: trial.step for name, trial in trials.items()}, pairs)))
    header = ("frozen", "renaissance, CPU s", "plain / renaissance", "sensible / renaissance")
    return f"\nmedians of {pairs} rounds (least to greatest)\n{table(header, rows)}"


def make_trials(case: str, *, size: str, batch: int) -> dict[str, Trial]:
    """Return the three columns of one case, with the same weights and the same work."""
    sizes, frozen = SIZES[size], CASES[case]
    assembly = _assembly(sizes, frozen)
    inputs = _batch(assembly, batch)
    step = TrainStep(assembly, {"mlm": 1.0, "itm": 1.0}).train()
    work = _work(step, inputs)
    optimiser = Optimiser()
    plain = _composition(assembly, frozen, "eager")
    sensible = make_sensible(_composition(assembly, frozen, "sdpa"))
    padded = work.padded(max(PLAIN_LENGTH, work.ids.shape[1]))
    return {
        "renaissance": Trial(step, lambda: cast(Tensor, step(inputs).loss), make_optimiser(step, optimiser)),
        "plain": Trial(plain, lambda: plain_loss(plain, padded), _plain_adamw(plain, optimiser)),
        "sensible": Trial(sensible, lambda: sensible_loss(sensible, work), _plain_adamw(sensible, optimiser)),
    }


def losses_without_dropout(trials: Mapping[str, Trial]) -> dict[str, float]:
    """Return each column's loss without dropout; the modes of the modules are as before afterwards."""
    losses = {}
    for name, trial in trials.items():
        modes = [(part, part.training) for part in trial.model.modules()]
        trial.model.eval()
        with torch.no_grad():
            losses[name] = trial.loss().item()
        for part, training in modes:
            part.training = training
    return losses


def parameters(trial: Trial) -> tuple[int, int]:
    """Return how many parameters a column has, and how many of them are trained."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in trial.model.parameters()]
    return sum(count for count, _ in counts), sum(count for count, trained in counts if trained)


def _assembly(size: Size, frozen: frozenset[str]) -> Assembly:
    rule = {0: "", 1: f", frozen {next(iter(frozen), '')}", 2: ", frozen both"}[len(frozen)]
    with tempfile.TemporaryDirectory() as folder:
        _tokenizer(size.vocabulary).save(str(Path(folder) / "tokenizer.json"))
        text = _options({"tokenizer": folder, **size.text})
        towers = f"deit-tiny{_options(size.vision)} + electra-small{text}"
        line = f"{towers}, two-tower, random both{rule}, lxmert{_options(size.fusion)}"
        return assemble(resolve(line, ("mlm", "itm")))


def _options(options: Mapping[str, object]) -> str:
    listed = ", ".join(f"{name}={json.dumps(value)}" for name, value in options.items())
    return f"({listed})" if listed else ""


def _tokenizer(entries: int) -> Tokenizer:
    """Return a WordPiece with as many entries as the model's own, which is on the Hub; no text is tokenized here."""
    vocabulary = {SPECIAL.get(index, f"piece{index}"): index for index in range(entries)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(SPECIAL.values()))
    return tokenizer


def _composition(assembly: Assembly, frozen: frozenset[str], attention: str) -> Composition:
    encoder = cast(Any, assembly.encoder)
    vision, text = encoder.vision.config["transformers"], encoder.text.config["transformers"]
    model = Composition(vision, text, assembly.plan.fusion.options.model_dump(), attention=attention, frozen=frozen)
    copy_weights(assembly, model)
    return model.train()


def _plain_adamw(model: nn.Module, optimiser: Optimiser) -> AdamW:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    chosen = optimiser.model_dump(include={"lr", "betas", "eps", "weight_decay"})
    return AdamW(trained, **chosen)


def _batch(assembly: Assembly, count: int) -> Batch:
    """Return random images, each with one random caption."""
    random = torch.Generator().manual_seed(0)
    tower = cast(Any, assembly.encoder)
    height, width = tower.vision.processor.image_size
    vocabulary = tower.text.processor.facts.vocabulary
    lengths = torch.tensor([LENGTHS[row % len(LENGTHS)] for row in range(count)])
    mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)  # [P, L]
    ids = torch.randint(max(SPECIAL) + 1, vocabulary, mask.shape, generator=random)
    ids[:, 0] = 101
    ids[torch.arange(count), lengths - 1] = 102
    rows = torch.arange(count)
    return Batch(
        images=VisionInput(torch.randn(count, 3, height, width, generator=random)),
        texts=TextInput(ids.masked_fill(~mask, 0), mask),
        pairs=torch.stack([rows, rows], dim=1),
        slots=torch.zeros(count, dtype=torch.int64),
        items=rows,
        seeds=rows,
        caption_keys=1 + rows.unsqueeze(1),
        text_keys=1 + rows,
    )


def _work(step: TrainStep, batch: Batch) -> Work:
    """Return the masks and pairs that our tasks draw for this batch."""
    assert batch.images is not None
    tasks = {name: cast(Task, task) for name, task in step.tasks.items()}
    masked = tasks["mlm"].views(batch).texts
    predicted, matched = (tasks[name].pairs(Unencoded(len(batch.pairs)), batch, {}) for name in ("mlm", "itm"))
    assert masked is not None
    assert predicted is not None
    assert predicted.targets is not None
    assert matched is not None
    assert matched.targets is not None
    if len(matched.targets) < len(batch.pairs) or not (predicted.targets != IGNORED).any():
        raise SystemExit(f"A batch of {len(batch.pairs)} has no masked token or no false image; use a larger --batch.")
    texts = batch.texts
    return Work(
        batch.images.pixels,
        texts.token_ids,
        texts.mask,
        masked.token_ids,
        predicted.targets,
        matched.index[:, 0],
        matched.targets,
    )


def _sameness(trials: Mapping[str, Trial]) -> str:
    losses = losses_without_dropout(trials)
    counts = {parameters(trial) for trial in trials.values()}
    if len(counts) != 1 or max(losses.values()) - min(losses.values()) > 1e-4 * max(losses.values()):
        raise RuntimeError(f"The columns do not compute the same: parameters {counts}, losses {losses}")
    total, trained = counts.pop()
    shown = ", ".join(f"{name} {loss:.5f}" for name, loss in losses.items())
    return f"{total:,} parameters each, {trained:,} trained; losses without dropout: {shown}"


def _row(case: str, timings: Timings) -> tuple[str, ...]:
    ratios = (str(timings.ratio(name, "renaissance")) for name in ("plain", "sensible"))
    return case, str(timings.spread("renaissance")), *ratios


if __name__ == "__main__":
    main()
