"""A study that never was: results as the analysis writes them, with each section filled."""

from __future__ import annotations

import base64
import io
import json
import random
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

ARMS = ("none", "vision", "text", "both", "no-vlp", "random-towers")
FROZEN = {"vision": ("vision",), "text": ("text",), "both": ("vision", "text"), "random-towers": ("vision", "text")}
WORTH = {"none": 64.0, "vision": 64.6, "text": 62.9, "both": 61.2, "no-vlp": 49.5, "random-towers": 45.0}
TAKEN = {"none": 1.0, "vision": 0.61, "text": 0.78, "both": 0.34, "no-vlp": 0.0, "random-towers": 0.34}
SEEDS = 6
PRIMARY = "finetune/test/vqa/accuracy"


def facts() -> dict[str, Any]:
    """Return the results of a finished study."""
    draw = random.Random(7)
    return {
        "format": 1,
        "study": {
            "name": "freezing",
            "question": "What does freezing pretrained towers in vision-language pretraining cost downstream, and "
            "what does it save?",
            "scope": "in the generated world of scenes, with EfficientNet-Lite0 and MiniLM",
            "preset": "cpu",
            "about": "two cores, one night",
            "verdicts": "confirmatory",
            "primary": "vision-no-loss",
            "digest": "3f" * 32,
            "version": "0.1.0",
            "command": "renaissance study run freezing --preset cpu",
            "complete": True,
        },
        "arms": [_arm(name) for name in ARMS],
        "stages": [
            {"name": "pretrain", "tasks": ["mlm", "itm"], "updates": 4000, "batch": 64, "data": "scenes, 20,000 pairs",
             "seeds": SEEDS},
            {"name": "finetune", "tasks": ["vqa"], "updates": 800, "batch": 64, "data": "scenes, 12,000 questions",
             "seeds": 2},
        ],
        "hypotheses": hypotheses(draw),
        "claims": [
            {"number": 1, "claim": "Freezing saves compute at little to no cost downstream.", "verdict": "supported",
             "by": ["freezing/vision-no-loss"], "reason": "No loss with the vision tower frozen."},
            {"number": 3, "claim": "Two-tower models do more per parameter.", "verdict": "not tested here", "by": [],
             "reason": "This study has two-tower models alone."},
        ],
        "scores": [score for name in ARMS for score in _scores(name, draw)],
        "compute": [row for name in ARMS for row in _compute(name)],
        "reach": [
            {"arm": name, "stage": "pretrain", "metric": "validation/itm/accuracy", "value": 70.0,
             "flops": [2.0e14 * TAKEN[name] * (1 + 0.1 * seed) for seed in range(SEEDS - 1)] + [None],
             "every": 200, "samples": [90000.0 + 1000 * seed for seed in range(SEEDS - 1)] + [None],
             "ratio": None if name == "none" else {
                 "to": "none", "flops": {"mean": TAKEN[name], "low": TAKEN[name] - 0.05, "high": TAKEN[name] + 0.05,
                                         "n": SEEDS - 1},
                 "samples": {"mean": 1.0, "low": None, "high": None, "n": SEEDS - 1}}}
            for name in ARMS if TAKEN[name]
        ],
        "variance": [
            {"metric": PRIMARY, "arm": name, "pretraining": 0.42, "finetuning": 0.11, "items": 0.47, "sd": 1.31}
            for name in ARMS[:4]
        ],
        "curves": [curve for name in ARMS if TAKEN[name] for curve in _curves(name, draw)],
        "cases": [_case(place, draw) for place in range(10)],
        "explanations": [],
        "runs": [run for name in ARMS for run in _runs(name)],
        "machine": {"cpu": "a processor with 2 cores", "threads": 2, "torch": "2.14.0", "gpu": None},
        "notes": ["Seed 5 is left out of the contrasts with 'text': its run failed."],
    }  # fmt: skip


def small() -> dict[str, Any]:
    """Return results that are drawn fast: those of runs that are not many, without most figures."""
    return {**facts(), "compute": [], "reach": [], "variance": [], "curves": []}


def hypotheses(draw: random.Random) -> list[dict[str, Any]]:
    """Return one of each verdict; the primary one does not come first."""
    towers = ["none", "no-vlp"]
    less = "Freezing the vision tower loses less than a fifth of what pretraining gains."
    found = [
        hypothesis("both-no-loss", "Freezing both towers loses nothing.", -2.8, "refuted", ["both", *towers], draw),
        hypothesis("vision-no-loss", less, 0.6, "supported", ["vision", *towers], draw),
        hypothesis("vision-raises", "Freezing the vision tower raises scores.", 0.6, "undecided", ["vision", "none"],
                   draw, kind="greater"),
        hypothesis("random-void", "Random towers lose nothing.", -18.2, "void", ["random-towers", *towers], draw),
        hypothesis("both-saves", "Freezing both towers saves more than half of the FLOPs.", 2.1e14, "supported",
                   ["none", "both"], draw, kind="greater"),
    ]  # fmt: skip
    found[1] |= {"primary": True, "confirmatory": True}
    found[4] |= {"metric": "pretrain/ledger/flops_as_run"}
    return found


def hypothesis(
    name: str, says: str, mean: float, verdict: str, arms: list[str], draw: random.Random, *, kind: str = "no-loss"
) -> dict[str, Any]:
    spread = abs(mean) * 0.1 if abs(mean) > 1000 else 0.9
    gain = {"mean": 14.5, "sd": 1.1, "low": 13.3, "high": 15.7, "n": SEEDS}
    share = {"share": 0.2, "of": ["none", "no-vlp"], "gain": gain, "p_gain": 1e-05}
    return {
        "name": name, "says": says, "kind": kind, "primary": False, "metric": PRIMARY, "arms": arms, "n": SEEDS,
        "alpha": 0.05, "differences": [float(f"{draw.gauss(mean, spread):.6g}") for _ in range(SEEDS)],
        "estimate": {"mean": mean, "sd": spread, "low": mean - spread, "high": mean + spread, "n": SEEDS},
        "bootstrap": {"low": mean - 0.8 * spread, "high": mean + 0.8 * spread,
                      "over": ["pretraining seeds", "fine-tuning seeds", "items"]},
        "p": 0.0004 if verdict == "supported" else 0.21, "p_permutation": 0.0156, "p_holm": 0.0016,
        "margin": {"value": 2.9, **share} if kind == "no-loss" else {"value": 0.0},
        "equivalence": {"p_lower": 0.0004, "p_upper": 0.004, "p": 0.004} if kind == "no-loss" else None,
        "seeds_needed": 5, "verdict": verdict, "confirmatory": False,
        "reason": f"The {name} contrast of {SEEDS} seeds lies where the margin puts it.",
        "sentence": f"In the generated world of scenes, with these towers: {says[0].lower()}{says[1:]}",
    }  # fmt: skip


def _arm(name: str) -> dict[str, Any]:
    held = FROZEN.get(name, ())
    rule = f", frozen {' '.join(held)}" if held else ""
    total = 38_260_000
    trainable = total - sum({"vision": 5_560_000, "text": 13_480_000}[part] for part in held)
    blocks = {"vision": 12, "text": 12}
    return {
        "name": name,
        "control": name in ("no-vlp", "random-towers"),
        "about": "the same towers, a fresh fusion, straight to fine-tuning" if name == "no-vlp" else "",
        "levels": {} if name in ("no-vlp", "random-towers") else {"frozen": name},
        "varies": ["pretrain.start.freeze"],
        "spec": f"packaged:efficientnet-lite0 + packaged:minilm, two-tower{rule}",
        "parameters": {"total": total, "trainable": trainable, "without_embeddings": 26_400_000},
        "flops_a_pair": 3_400_000_000,
        "frozen": {part: f"{blocks[part]} of {blocks[part]} blocks" for part in held},
    }


def _scores(name: str, draw: random.Random) -> list[dict[str, Any]]:
    rows = []
    for stage, split, task, metric, shift, chance in (
        ("pretrain", "test", "retrieval", "r_at_1", -20.0, 1.0),
        ("finetune", "test", "vqa", "accuracy", 0.0, 25.0),
        ("finetune", "validation", "vqa", "accuracy", 0.6, 25.0),
    ):
        if stage == "pretrain" and not TAKEN[name]:
            continue
        mean = WORTH[name] + shift
        inner = 1 if stage == "pretrain" else 2
        values = [[float(f"{draw.gauss(mean, 1.2):.6g}") for _ in range(inner)] for _ in range(SEEDS)]
        rows.append(
            {"arm": name, "stage": stage, "split": split, "task": task, "metric": metric, "model": "trained",
             "chance": chance, "mean": mean, "sd": 1.2, "low": mean - 1.3, "high": mean + 1.3, "values": values}
        )  # fmt: skip
    if name == "none":
        rows.append({**rows[-1], "model": "blind", "mean": 38.2, "low": 37.0, "high": 39.5})
    return rows


def _compute(name: str) -> list[dict[str, Any]]:
    rows = []
    for stage, flops, seconds in (("pretrain", 4.0e14, 5400.0), ("finetune", 0.9e14, 900.0)):
        taken = TAKEN[name] if stage == "pretrain" else 1.0
        if not taken:
            continue
        saved = 1 - taken
        rows.append(
            {"arm": name, "stage": stage, "updates": 4000, "samples": 256000,
             "flops": {"as_run": flops * taken, "no_store": flops * (taken + 0.1),
                       "store_built": flops * (taken + 0.02), "nothing_frozen": flops},
             "seconds": {"training": seconds * taken, "evaluation": 60.0, "store": 40.0 if saved else 0.0},
             "peak_memory_bytes": 1_500_000_000 * (0.5 + taken / 2), "means over seeds": True,
             "saving": None if name == "none" else {
                 "flops": {"as_run": saved, "no_store": saved - 0.1, "store_built": saved - 0.02},
                 "seconds": {"training": saved}, "peak_memory_bytes": saved / 2}}
        )  # fmt: skip
    return rows


def _curves(name: str, draw: random.Random) -> list[dict[str, Any]]:
    rows = []
    for metric, start, end in (
        ("validation/itm/accuracy", 50.0, WORTH[name] + 12),
        ("validation/mlm/accuracy", 4.0, 41.0),
    ):
        points = []
        for place in range(1, 21):
            mean = start + (end - start) * (1 - 0.8**place) + draw.gauss(0, 0.4)
            flops = 4.0e14 * TAKEN[name] * place / 20
            points.append([200 * place, 12800 * place, flops, round(mean, 3), round(mean - 1, 3), round(mean + 1, 3)])
        rows.append({"arm": name, "stage": "pretrain", "metric": metric, "points": points})
    return rows


def _runs(name: str) -> list[dict[str, Any]]:
    rows = []
    for seed in range(SEEDS):
        failed = name == "text" and seed == 5
        identity = f"pretrain-{ARMS.index(name):02d}{seed}c41f"
        rows.append(
            {"id": identity, "arms": [name], "stage": "pretrain", "seeds": [seed],
             "state": "failed" if failed else "done", "seconds": 5400 * max(TAKEN[name], 0.1),
             "flops": 4.0e14 * TAKEN[name], "command": f"renaissance run runs/{identity}/recipe.yaml",
             "scores_sha256": None if failed else f"{seed}a" * 32,
             "error": {"type": "NonFiniteError", "message": "the loss of itm became NaN at update 812",
                       "exit_code": 3} if failed else None}
        )  # fmt: skip
    return rows


def _case(place: int, draw: random.Random) -> dict[str, Any]:
    captions = ["a red circle above a blue square", "two green triangles", "a small yellow star", "a purple square"]
    right = place % 3 != 2
    return {
        "arm": ARMS[place % 4], "run": f"pretrain-{place % 4:02d}0c41f", "query": captions[place % 4],
        "kind": "image->text" if place < 6 else "text->image", "image": scene(draw), "right": right,
        "top": [{"text": captions[(place + shift + (not right)) % 4], "score": 0.91 - 0.2 * shift,
                 "right": right and not shift} for shift in range(3)],
    }  # fmt: skip


def scene(draw: random.Random, side: int = 96) -> str:
    """Return a drawn scene as a data URI."""
    image = Image.new("RGB", (side, side), (242, 240, 235))
    pen = ImageDraw.Draw(image)
    for _ in range(3):
        left, top, size = draw.randrange(side - 30), draw.randrange(side - 30), draw.randrange(14, 30)
        colour = draw.choice([(200, 40, 40), (40, 90, 200), (30, 150, 80), (220, 180, 30)])
        form = draw.choice([pen.ellipse, pen.rectangle])
        form((left, top, left + size, top + size), fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def study_in(folder: Path, given: dict[str, Any] | None = None) -> Path:
    """Write results.json into a folder, and return this."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(facts() if given is None else given), encoding="utf-8")
    return folder


def explained(folder: Path) -> Path:
    """Write results.json, and beside it an explanation of the arm 'vision' as `renaissance explain` leaves it."""
    given = facts()
    given["explanations"] = [{"arm": name, "folder": f"explanations/{name}"} for name in ("vision", "both")]
    given["explanations"][0]["beginning"] = "beginnings/vision"
    place = study_in(folder, given) / "explanations" / "vision"
    place.mkdir(parents=True)
    header, _, data = scene(random.Random(1), 300).partition(",")
    assert header.startswith("data:image/png")
    (place / "attribution.png").write_bytes(base64.b64decode(data))
    points = {"samples": 64, "hits": 43.75, "interval": [32.0, 56.2], "chance": 12.5, "above_chance": 31.2,
              "above_chance_interval": [19.0, 43.0], "other_things": 14.0, "box_area": 9.0}  # fmt: skip
    explanation = {
        "format": 1,
        "output": {"task": "itm", "label": None, "name": "logit (itm)"},
        "sample": {"text": "a red circle above a blue square"},
        "shares": {"samples": 64, "image_share": 0.61, "image_share_interval": [0.55, 0.67],
                   "lost_without_image": 2.31, "lost_without_text": 1.44},
        "pointing": {"attribution": points},
        "against": {"name": given["runs"][0]["id"]},
        "drift": [{"layer": "vision.0", "weights": 0.125, "cka": 0.25, "cosine": 0.9},
                  {"layer": "fusion.final", "weights": None, "cka": 0.5, "cosine": 0.8}],
        "cka": {"layers": ["vision.0", "text.0"], "against_layers": ["text.0", "vision.0"],
                "against": [[0.11, 0.75], [0.987, 0.22]]},
        "probes": [{"layer": "vision.0", "target": "colour", "accuracy": 62.5, "majority": 14.06},
                   {"layer": "vision.0", "target": "shape", "accuracy": 31.25, "majority": 10.9}],
        "pictures": [{"file": "attribution.png", "section": "sample", "title": "What each patch adds"},
                     {"file": "gone.png", "section": "cka", "title": "Never drawn"}],
        "unavailable": {"rollout": "this tower gives no attention"},
    }  # fmt: skip
    (place / "explanation.json").write_text(json.dumps(explanation), encoding="utf-8")
    since = {
        "drift": [{"layer": "vision.0", "weights": 0.03, "cka": 0.0625, "cosine": 0.99}],
        "probes": [{"layer": "vision.0", "target": "colour", "accuracy": 62.5},
                   {"layer": "text.0", "target": "size", "accuracy": 20.0}],
        "probes_against": [{"layer": "vision.0", "target": "colour", "accuracy": 75.0}],
    }  # fmt: skip
    beginning = folder / "beginnings" / "vision"
    beginning.mkdir(parents=True)
    (beginning / "explanation.json").write_text(json.dumps(since), encoding="utf-8")
    return folder
