"""GQA, balanced: questions on Visual Genome's images, with the steps by which the scene graph answers them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from renaissance.data.world.layouts.asked import Posed, pose, question_figure
from renaissance.data.world.layouts.site import Figures, sites
from renaissance.data.world.worlds import Split, World

FILES: Mapping[str, Split] = {"train": "train", "val": "val", "testdev": "test"}
# form -> detailed, semantic and structural type, and the last step
TYPES = {
    "exists": ("exist", "obj", "verify", "exist"),
    "is": ("verifyAttr", "attr", "verify", "verify"),
    "stands": ("verifyRel", "rel", "verify", "verify rel"),
    "lies": ("verifyPosition", "attr", "verify", "verify hposition"),
    "how many": ("count", "obj", "query", "count"),
    "colour": ("queryColor", "attr", "query", "query"),
    "shape": ("queryShape", "attr", "query", "query"),
    "size": ("querySize", "attr", "query", "query"),
    "texture": ("queryTexture", "attr", "query", "query"),
    "side": ("directSide", "attr", "query", "query"),
}


def write_gqa(root: Path, world: World) -> Mapping[str, Figures]:
    """Write `{train,val,testdev}_balanced_questions.json` and `images/`."""
    posed = {name: pose(world, "gqa", split) for name, split in FILES.items()}
    figures: dict[str, Figures] = {}
    for language, site in sites(root, "gqa", world):
        for name, rows in posed.items():
            site.json(f"{name}_balanced_questions.json", {_id(each): _entry(each, language) for each in rows})
            for each in rows:
                site.knows(name, _id(each), each.answer)
            for picture in world.by_split[FILES[name]]:
                site.image(f"images/{picture.genome_id}.jpg", picture)
        figures[site.name] = {
            name: question_figure(posed["train"], posed[name], _score, "accuracy", _form) for name in ("val", "testdev")
        }
    return figures


def _score(posed: Posed, answer: str) -> float:
    return float(posed.answer == answer)


def _form(posed: Posed) -> str:
    return TYPES[posed.asked.form][0]


def _id(posed: Posed) -> str:
    return f"{posed.picture.genome_id:08d}{posed.number:02d}"


def _entry(posed: Posed, language: str) -> dict[str, Any]:
    detailed, semantic, structural, _ = TYPES[posed.asked.form]
    steps = _steps(posed)
    said = "; ".join(f"{step['operation']}: {step['argument']} {step['dependencies']}" for step in steps)
    return {
        "semantic": steps,
        "entailed": [],
        "equivalent": [_id(posed)],
        "question": posed.texts[language],
        "imageId": str(posed.picture.genome_id),
        "isBalanced": True,
        "groups": {"global": None, "local": f"{posed.asked.form}-{posed.kind}"},
        "answer": posed.answer,
        "semanticStr": said,
        "annotations": {"answer": {}, "question": {}, "fullAnswer": {}},
        "types": {"detailed": detailed, "semantic": semantic, "structural": structural},
        "fullAnswer": f"{posed.answer.capitalize()}.",
    }


def _steps(posed: Posed) -> list[dict[str, Any]]:
    """Return the steps by which the graph answers: select, filter by each attribute that is said, and the last one."""
    noun = posed.asked.subject.noun
    steps: list[dict[str, Any]] = [_step("select", [], noun.shape or "shape")]
    for name in ("colour", "size", "texture"):
        value = getattr(noun, name)
        if value is not None:
            steps.append(_step(f"filter {name}", [len(steps) - 1], value))
    last = TYPES[posed.asked.form][3]
    argument = posed.asked.value or {"exist": "?", "count": "?"}.get(last, posed.asked.form)
    other = posed.asked.other
    if other is not None:
        argument = f"{' '.join(part for part in (other.colour, other.texture, other.shape) if part)},{argument},o"
    return [*steps, _step(last, [len(steps) - 1], argument)]


def _step(operation: str, dependencies: list[int], argument: str) -> dict[str, Any]:
    return {"operation": operation, "dependencies": dependencies, "argument": argument}
