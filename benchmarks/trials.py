"""The columns of the step benchmark: one model, three ways of training it, and its store of frozen features.

Letters in shapes: P pairs, as many images and captions, L tokens of a caption.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from composition import (
    IGNORED,
    Composition,
    Work,
    additive,
    copy_weights,
    lxmert_config,
    make_sensible,
    plain_loss,
    sensible_loss,
)
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from torch.optim import AdamW

from renaissance.api import Batch, Features, Modality, Task, TextInput, VisionInput
from renaissance.assemble import Assembly, assemble
from renaissance.features.keys import content_digest
from renaissance.features.store import FeatureStore, build_or_open
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
    """Which model is timed: its towers with their options beside the tokenizer, its fusion, and the usual batch."""

    towers: tuple[str, str]
    vision: Mapping[str, int]
    text: Mapping[str, int]
    fusion: Mapping[str, int]
    vocabulary: int
    batch: int


FUSION = {"layers": 6, "width": 256, "heads": 4}
SIZES: Mapping[str, Size] = {
    "small": Size(("deit-tiny", "electra-small"), {}, {}, FUSION, 30_522, 8),
    "base": Size(("vit-base", "bert-base"), {}, {}, FUSION, 30_522, 4),
    "tiny": Size(
        ("deit-tiny", "electra-small"),
        {"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "heads": 2, "mlp_width": 64},
        {"layers": 2, "width": 32, "heads": 2, "mlp_width": 64, "max_tokens": 64},
        {"layers": 2, "width": 32, "heads": 2},
        512,
        8,
    ),
}
# which frozen towers are read from a store, by the name of the column
STORES: Mapping[str, frozenset[str]] = {
    "vision stored": frozenset({"vision"}),
    "stored": frozenset({"vision", "text"}),
}
# of the code of the plain column and of its lengths, which are not to change: all ratios are to it
PLAIN_DIGEST = "7dcfd7e47f5511178a32067a5f68fb09d7ae3fa22ab36602a15162ec8690c600"


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


def make_trials(case: str, *, size: str, batch: int | None = None) -> dict[str, Trial]:
    """Return the columns of one case, with the same weights and the same work; stored ones where towers are frozen."""
    sizes, frozen = SIZES[size], CASES[case]
    assembly = assembled(sizes, frozen)
    inputs = make_batch(assembly, batch or sizes.batch)
    step = TrainStep(assembly, {"mlm": 1.0, "itm": 1.0}).train()
    work = _work(step, inputs)
    optimiser = Optimiser()
    sensible = make_sensible(_composition(assembly, frozen, "sdpa"))
    trials = {
        "renaissance": Trial(step, partial(our_loss, step, lambda: inputs), make_optimiser(step, optimiser)),
        "plain": _plain(assembly, frozen, work),
        "sensible": Trial(sensible, lambda: sensible_loss(sensible, work), plain_adamw(sensible, optimiser)),
    }
    for name, stored in STORES.items():
        chosen = stored & frozen
        if chosen and (name == "stored" or chosen < frozen):
            read = stored_batch(assembly, inputs, chosen)
            trials[name] = Trial(step, partial(our_loss, step, read), trials["renaissance"].optimiser)
    return trials


def plain_unfrozen(*, size: str, batch: int | None = None) -> Trial:
    """Return the plain column of the case in which nothing is frozen, alone."""
    sizes = SIZES[size]
    assembly = assembled(sizes, frozenset())
    step = TrainStep(assembly, {"mlm": 1.0, "itm": 1.0})
    return _plain(assembly, frozenset(), _work(step, make_batch(assembly, batch or sizes.batch)))


def our_loss(step: TrainStep, batch: Callable[[], Batch]) -> Tensor:
    """Return the loss of a step of renaissance."""
    return cast(Tensor, step(batch()).loss)


def stored_batch(assembly: Assembly, batch: Batch, parts: frozenset[str]) -> Callable[[], Batch]:
    """Store what these frozen towers give for a batch; return what reads the batch with it from the store."""
    encoder, count = cast(Any, assembly.encoder), len(batch.pairs)
    folder = tempfile.mkdtemp()
    texts = batch.texts
    assert batch.images is not None
    pixels = batch.images.pixels
    loads: Mapping[str, tuple[Callable[..., Features], Callable[..., Any]]] = {
        "vision": (encoder.encode_vision, lambda rows: VisionInput(pixels[list(rows)])),
        "text": (encoder.encode_text, lambda rows: TextInput(texts.token_ids[list(rows)], texts.mask[list(rows)])),
    }
    stores: dict[str, FeatureStore] = {}
    for part in sorted(parts):
        digests = [content_digest(f"{part} {row}") for row in range(count)]
        place = Path(folder) / content_digest(part)
        stores[part] = build_or_open(place, loads[part][0], digests, loads[part][1], about={})

    def read() -> Batch:
        read = {f"stored_{part}": store.read(range(count)) for part, store in stores.items()}
        return replace(batch, images=None if "vision" in stores else batch.images, **cast(Any, read))

    weakref.finalize(read, shutil.rmtree, folder, ignore_errors=True)
    return read


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


def assembled(size: Size, frozen: frozenset[str]) -> Assembly:
    """Build the model with random weights, some towers frozen."""
    rule = {0: "", 1: f", frozen {next(iter(frozen), '')}", 2: ", frozen both"}[len(frozen)]
    with tempfile.TemporaryDirectory() as folder:
        _tokenizer(size.vocabulary).save(str(Path(folder) / "tokenizer.json"))
        text = _options({"tokenizer": folder, **size.text})
        towers = f"{size.towers[0]}{_options(size.vision)} + {size.towers[1]}{text}"
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


def _plain(assembly: Assembly, frozen: frozenset[str], work: Work) -> Trial:
    plain = _composition(assembly, frozen, "eager")
    padded = work.padded(max(PLAIN_LENGTH, work.ids.shape[1]))
    return Trial(plain, lambda: plain_loss(plain, padded), plain_adamw(plain, Optimiser()))


def plain_adamw(model: nn.Module, optimiser: Optimiser) -> AdamW:
    """Return AdamW as PyTorch has it by default, over what is trained."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    chosen = optimiser.model_dump(include={"lr", "betas", "eps", "weight_decay"})
    return AdamW(trained, **chosen)


def make_batch(assembly: Assembly, count: int) -> Batch:
    """Return random images, each with one random caption."""
    random = torch.Generator().manual_seed(0)
    tower = cast(Any, assembly.encoder)
    height, width = tower.vision.processor.image_size
    vocabulary = tower.text.processor.facts.vocabulary
    lengths = torch.tensor([LENGTHS[int((row + 0.5) * len(LENGTHS) / min(count, 8)) % 8] for row in range(count)])
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
        image_keys=1 + rows,
        view_keys=1 + rows,
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


def check_plain() -> None:
    """Check that the plain column is the one that all ratios are to."""
    parts = (Composition, Work, plain_loss, additive, lxmert_config, _plain, plain_adamw)
    sources = [*(inspect.getsource(part) for part in parts), str((PLAIN_LENGTH, LENGTHS))]
    found = hashlib.sha256("".join(sources).encode()).hexdigest()
    if found != PLAIN_DIGEST:
        raise SystemExit(f"The plain column was changed (its digest is {found}); ratios to it are other ratios.")
