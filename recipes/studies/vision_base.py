"""Make the vision base of the one-tower study: a ViT of MiniLM's shape that gives what EfficientNet-Lite0 gives.

    make vision-base DATA=../shared/data/pictures VISION_BASE=vision-base
    python recipes/studies/vision_base.py --pictures FOLDER --out FOLDER

The teacher runs once over two views of each picture, and what it gave is kept on disk while the student learns it: of
each patch the teacher's feature there, and of the class token their mean. A mirrored view
has the mirrored features, and the student sees half of the patches at a time, which halves its cost. Learned from are
the pictures that recipes/pictures.yaml trains on: its held-out families and ids, and all of fluent, stay unseen. The
folder then holds what `post-norm-vit(weights="FOLDER")` reads, and report.json: how good it is.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from renaissance.api import BackboneEntry, Features, VisionInput
from renaissance.builtin.post_norm_entries import PostNormOptions
from renaissance.builtin.post_norm_vit import PostNormViT, build, write_weights
from renaissance.data.cache import cache_folder
from renaissance.data.decode import decode
from renaissance.data.load import load_data
from renaissance.data.records import Record
from renaissance.recipe import load_recipe
from renaissance.recipe.data import ImagesData
from renaissance.registry import default_registry, load_factory
from renaissance.toolkit.images import ImageProcessor

SPLITS = Path(__file__).parents[1] / "pictures.yaml"
HELD_OUT = ("families", "ids")
AT_ONCE = 32
SIDE = 160  # of the pictures, in pixels


@dataclass(frozen=True, slots=True)
class Plan:
    """What is learned from whom, and how long.

    views: of each picture, the first one whole. smallest: side of a view, as a share of the picture's. seen: share of
    the patches that the student sees in an update. steps: updates.
    """

    student: PostNormOptions = field(default_factory=lambda: PostNormOptions(dropout=0.0))
    teacher: str = "packaged:efficientnet-lite0"
    teacher_options: Mapping[str, Any] = field(default_factory=lambda: {"crop": 1.0})
    views: int = 2
    smallest: float = 0.5
    seen: float = 0.5
    steps: int = 1600
    batch: int = 32
    lr: float = 7e-4
    weight_decay: float = 0.05
    warmup: float = 0.1
    seed: int = 0

    def described(self) -> dict[str, Any]:
        """Return it JSON-able."""
        return {
            **asdict(self),
            "student": self.student.model_dump(mode="json"),
            "teacher_options": {**self.teacher_options},
        }


@dataclass(frozen=True, slots=True)
class Lessons:
    """Views of pictures uint8 [V, 3, H, W], and what the teacher gives of each patch there, fp16 [V, N, C] on disk."""

    pixels: Tensor
    features: np.ndarray

    def batch(self, rows: Tensor, *, mirrored: bool = False) -> tuple[VisionInput, Tensor]:
        """Return some of the views, and the teacher's features of them, fp32."""
        pixels, features = self.pixels[rows], torch.from_numpy(self.features[rows.numpy()]).float()
        if mirrored:
            side = round(features.shape[1] ** 0.5)
            pixels, features = pixels.flip(-1), features.reshape(len(features), side, side, -1).flip(2).flatten(1, 2)
        return VisionInput(pixels), features

    def of_teacher(self) -> Tensor:
        """Return the mean of the teacher's features [V, C] of each view, fp32."""
        return torch.stack([torch.from_numpy(part.astype(np.float32)).mean(0) for part in self.features])

    def whole(self, views: int) -> Lessons:
        """Return the first of each picture's views: all of it."""
        return Lessons(self.pixels[::views], self.features[::views])


class Student(nn.Module):
    """A tower with linear layers to the teacher's width; what is learned is centred by `mean` [C], and has one scale.

    Channels that hardly vary would count as much as all others if each had its own scale.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, tower: PostNormViT, lessons: Lessons) -> None:
        super().__init__()
        self.tower = tower
        few = lessons.features[:: max(1, len(lessons.features) // 1000)].astype(np.float32)
        some = torch.from_numpy(few).flatten(0, 1)
        self.register_buffer("mean", some.mean(0))
        self.register_buffer("deviation", (some - self.mean).square().mean().sqrt())
        self.patches, self.whole = (nn.Linear(tower.width, len(self.mean)) for _ in range(2))

    def forward(
        self, images: VisionInput, features: Tensor, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return predicted and true features of patches [V, N, C], then of the whole pictures [V, C].

        seen int64 [M]: the patches that the tower sees, and that are predicted; None: all of them.
        """
        own = self.tower.embedded(images)
        wanted = (features - self.mean) / self.deviation
        whole = wanted.mean(1)
        if seen is not None:
            kept = torch.cat((torch.zeros(1, dtype=torch.int64), 1 + seen))
            own, wanted = Features(own.tokens[:, kept], own.mask[:, kept]), wanted[:, seen]
        state = self.tower.join(own, None)
        for index in range(len(self.tower.blocks)):
            state = self.tower.step(index, state)
        tokens = self.tower.finish(state).tokens
        return self.patches(tokens[:, 1:]), wanted, self.whole(tokens[:, 0]), whole


# --- the lessons ------------------------------------------------------------------------------------------------------


def pictures_of(records: Sequence[Record]) -> Tensor:
    """Return pixels uint8 [P, 3, SIDE, SIDE] of the records' pictures."""
    squared = ImageProcessor((SIDE, SIDE), resize="squash", mean=(0.5,) * 3, std=(0.5,) * 3)
    return torch.cat([squared([decode(r.image.read(), name=r.image.name)]).pixels for r in records])


def views_of(pictures: Tensor, plan: Plan, *, views: int) -> list[tuple[int, int, int, int]]:
    """Return picture, top, left and side of each view; the first one of each picture is all of it."""
    generator = np.random.default_rng(plan.seed)
    found = []
    for index in range(len(pictures)):
        found.append((index, 0, 0, SIDE))
        for _ in range(views - 1):
            side = round(SIDE * generator.uniform(plan.smallest, 1.0))
            top, left = (int(generator.integers(SIDE - side + 1)) for _ in range(2))
            found.append((index, top, left, side))
    return found


def teacher_of(plan: Plan) -> Any:
    """Return the teacher."""
    entry = cast(BackboneEntry, default_registry().find("backbone", plan.teacher, "vision").entry)
    options = entry.options.model_validate({**plan.teacher_options})
    return load_factory(entry)(options, weights="pretrained", saved=None).eval().requires_grad_(False)


def lessons_of(records: Sequence[Record], plan: Plan, teacher: Any, file: Path, *, views: int) -> Lessons:
    """Run the teacher once over the views of pictures, and keep what it gives in `file`, on the student's grid.

    What is there already, as a run was stopped, is taken as it is.
    """
    pictures = pictures_of(records)
    chosen = views_of(pictures, plan, views=views)
    side = plan.student.image_size
    grid = side // plan.student.patch_size
    large = teacher.processor.image_size[0]
    pixels = torch.empty((len(chosen), 3, side, side), dtype=torch.uint8)
    shape = (len(chosen), grid * grid, teacher.width)
    partial = file.with_suffix(".partial")
    known = file.is_file()
    features = np.load(file, mmap_mode="r") if known else np.lib.format.open_memmap(partial, "w+", np.float16, shape)
    for start in range(0, len(chosen), AT_ONCE):
        part = chosen[start : start + AT_ONCE]
        pixels[start : start + len(part)] = torch.stack([_view(pictures[index], side, *rest) for index, *rest in part])
        if not known:
            seen = torch.stack([_view(pictures[index], large, *rest) for index, *rest in part])
            with torch.inference_mode():
                given = _on_grid(teacher(VisionInput(seen)).tokens, grid)
            features[start : start + len(part)] = given.half().numpy()
    if not known:
        features.flush()
        partial.rename(file)
    return Lessons(pixels, features)


def key_of(records: Sequence[Record], plan: Plan, *, views: int) -> str:
    """Return what tells the teacher's features of these pictures apart from others."""
    facts = {name: plan.described()[name] for name in ("teacher", "teacher_options", "smallest", "seed")}
    sizes = (plan.student.image_size, plan.student.patch_size, views)
    named = json.dumps([facts, sizes, [record.image.name for record in records]])
    return sha256(named.encode()).hexdigest()[:16]


def _view(picture: Tensor, size: int, top: int, left: int, side: int) -> Tensor:
    """Return pixels uint8 [3, size, size] of a square part of a picture."""
    processor = ImageProcessor((size, size), mean=(0.5,) * 3, std=(0.5,) * 3)
    return processor.fit_part(picture, top=top, left=left, height=side, width=side)


def _on_grid(tokens: Tensor, grid: int) -> Tensor:
    """Return tokens [V, K, C] of a square grid, behind any class token, on another grid: [V, grid * grid, C]."""
    side = int(tokens.shape[1] ** 0.5)
    maps = (
        tokens[:, tokens.shape[1] - side * side :].transpose(1, 2).unflatten(2, (side, side))
    )  # [V, C, rows, columns]
    return F.interpolate(maps, size=(grid, grid), mode="bilinear", antialias=True).flatten(2).transpose(1, 2)


# --- learning ---------------------------------------------------------------------------------------------------------


def distil(lessons: Lessons, plan: Plan) -> Student:
    """Return a student that has learned the lessons: squared error, AdamW, cosine decay after a warm-up."""
    torch.manual_seed(plan.seed)
    student = Student(build(plan.student, weights="random", saved=None), lessons).train()
    matrices = [p for p in student.parameters() if p.ndim > 1]
    others = [p for p in student.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": plan.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=plan.lr, fused=True)
    generator = torch.Generator().manual_seed(plan.seed)
    order = torch.empty(0, dtype=torch.int64)
    begun = time.perf_counter()
    for step in range(plan.steps):
        if len(order) < plan.batch:
            order = torch.cat((order, torch.randperm(len(lessons.pixels), generator=generator)))
        rows, order = order[: plan.batch], order[plan.batch :]
        for group in optimiser.param_groups:
            group["lr"] = plan.lr * _factor(step / plan.steps, plan.warmup)
        mirrored = bool(torch.randint(2, (), generator=generator))
        seen = torch.randperm(patches_of(plan), generator=generator)[: round(plan.seen * patches_of(plan))]
        patches, wanted, whole, mean = student(*lessons.batch(rows, mirrored=mirrored), seen)
        loss = F.mse_loss(patches, wanted) + F.mse_loss(whole, mean)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        if step % 20 == 0 or step == plan.steps - 1:
            print(
                f"update {step + 1} of {plan.steps}: loss {loss.item():.4f}, {time.perf_counter() - begun:.0f} s",
                flush=True,
            )
    return student.eval()


def patches_of(plan: Plan) -> int:
    """Return how many patches the student has."""
    return (plan.student.image_size // plan.student.patch_size) ** 2


def _factor(done: float, warmup: float) -> float:
    return (done + 1e-3) / warmup if done < warmup else 0.5 * (1 + np.cos(np.pi * (done - warmup) / (1 - warmup)))


# --- how good it is ---------------------------------------------------------------------------------------------------


@torch.inference_mode()
def explained(student: Student, lessons: Lessons) -> dict[str, float]:
    """Return how much of the variance of the teacher's features is predicted (R squared, over all channels)."""
    rows = torch.arange(len(lessons.pixels))
    starts = range(0, len(rows), AT_ONCE)
    parts = [student(*lessons.batch(rows[start : start + AT_ONCE])) for start in starts]
    patches, wanted, whole, mean = (torch.cat(column).flatten(0, -2) for column in zip(*parts, strict=True))
    return {"patches": _r_squared(patches, wanted), "whole": _r_squared(whole, mean)}


def _r_squared(predicted: Tensor, true: Tensor) -> float:
    return 1 - float((predicted - true).square().sum() / (true - true.mean(0)).square().sum())


@torch.inference_mode()
def vectors_of(tower: Any, pixels: Tensor) -> Tensor:
    """Return the mean of the tokens [V, D] of each view."""
    starts = range(0, len(pixels), AT_ONCE)
    return torch.cat([tower(VisionInput(pixels[start : start + AT_ONCE])).tokens.mean(1) for start in starts])


def probe(vectors: tuple[Tensor, Tensor], groups: tuple[Sequence[str], Sequence[str]]) -> float:
    """Return in percent how often a ridge regression, fitted to the first vectors, finds the group of the others."""
    names = sorted(set(groups[0]))
    mean, deviation = vectors[0].mean(0), vectors[0].std(0) + 1e-6
    fitted, tested = (torch.cat(((v - mean) / deviation, torch.ones(len(v), 1)), 1).double() for v in vectors)
    wanted = torch.stack([torch.tensor([float(group == name) for name in names]) for group in groups[0]]).double()
    gram = fitted.T @ fitted + 0.1 * len(fitted) * torch.eye(fitted.shape[1], dtype=torch.float64)
    said = (tested @ torch.linalg.solve(gram, fitted.T @ wanted)).argmax(1)
    return 100 * float(np.mean([names[int(place)] == group for place, group in zip(said, groups[1], strict=True)]))


# --- all of it --------------------------------------------------------------------------------------------------------


def make(pictures: Path, out: Path, plan: Plan) -> dict[str, Any]:
    """Distil a base into `out`; return what report.json holds."""
    begun = time.process_time()
    section = cast(ImagesData, load_recipe(SPLITS).data).model_copy(update={"path": str(pictures)})
    data = load_data(section, cache=cache_folder(), on_bad_sample="error", validation=0)
    train, held = list(data.held), [record for name in HELD_OUT for record in data.splits[name]]
    out.mkdir(parents=True, exist_ok=True)
    asked = ((train, plan.views), (held, 1))
    files = [out / f"features-{key_of(records, plan, views=views)}.npy" for records, views in asked]
    teacher = teacher_of(plan)
    lessons = lessons_of(train, plan, teacher, files[0], views=plan.views)
    unseen = lessons_of(held, plan, teacher, files[1], views=1)
    print(
        f"the teacher saw {len(lessons.pixels):,} views of {len(train):,} pictures, and {len(held):,} others",
        flush=True,
    )
    student = distil(lessons, plan)
    write_weights(student.tower, out)
    torch.manual_seed(plan.seed)
    fresh = build(plan.student, weights="random", saved=None).eval()
    seen = lessons.whole(plan.views)
    groups = [record.fields["group"] for record in train], [record.fields["group"] for record in held]
    report = {
        "plan": plan.described(),
        "pictures": {"train": len(train), "views": len(lessons.pixels), "held out": len(held)},
        "R squared of the teacher's features": {
            "train": explained(student, seen),
            "held out": explained(student, unseen),
        },
        "linear probe on the group, held out": {
            "random": probe((vectors_of(fresh, seen.pixels), vectors_of(fresh, unseen.pixels)), groups),
            "distilled": probe(
                (vectors_of(student.tower, seen.pixels), vectors_of(student.tower, unseen.pixels)), groups
            ),
            "teacher": probe((seen.of_teacher(), unseen.of_teacher()), groups),
            "most frequent": 100 * max(groups[1].count(name) for name in set(groups[1])) / len(groups[1]),
        },
        "CPU seconds": round(time.process_time() - begun),
    }
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for file in files:
        file.unlink()
    return report


def main() -> None:
    """Make the base that the command line asks for."""
    parser = argparse.ArgumentParser(description="Make the vision base of the one-tower study.")
    parser.add_argument("--pictures", type=Path, required=True, help="the folder with captions.jsonl")
    parser.add_argument("--out", type=Path, default=Path("vision-base"), help="the folder to write")
    parser.add_argument("--steps", type=int, default=Plan().steps, help="updates of the student")
    parser.add_argument("--views", type=int, default=Plan().views, help="of each picture, the first one whole")
    given = parser.parse_args()
    print(json.dumps(make(given.pictures, given.out, Plan(steps=given.steps, views=given.views)), indent=1))


if __name__ == "__main__":
    main()
