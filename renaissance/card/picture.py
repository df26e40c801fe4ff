"""The picture of a model: a mermaid flowchart, which the Hub and GitHub draw."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from renaissance.api import Capabilities
from renaissance.card.figures import count, share, short, square
from renaissance.card.markdown import label
from renaissance.card.sources import Sources
from renaissance.cost import counted
from renaissance.models.one_tower import OneTower
from renaissance.models.parts import layers_of
from renaissance.plans import OneTowerPlan

# tasks of a tower by itself
READS = {"image-classification": ("vision",), "text-classification": ("text",)}
STYLE = (
    "classDef frozen fill:#80a9d6,stroke:#2b5c92,color:#000",
    "classDef trained fill:#fdb863,stroke:#d95f02,color:#000",
)


def picture(sources: Sources) -> str:
    """Return the flowchart: what comes in, the towers with their sizes, what fuses them, and the heads."""
    lines = [*_inputs(sources), *_parts(sources), *_heads(sources), *STYLE]
    return "\n".join(["flowchart LR", *(f"  {line}" for line in lines)])


def _inputs(sources: Sources) -> Iterator[str]:
    facts = [tower.facts for tower in sources.towers.values()]
    size = _first(facts, "image_size")
    longest = _first(facts, "max_tokens")
    yield f"images[{label(['images', *([square(size)] if size else [])])}]"
    yield f"texts[{label(['texts', *([f'up to {count(longest)} tokens'] if longest else [])])}]"


def _first(facts: list[Capabilities], name: str) -> int | None:
    return next((value for one in facts if isinstance(value := getattr(one, name), int)), None)


def _parts(sources: Sources) -> Iterator[str]:
    """Yield the boxes of the encoder's parts, and the arrows between them."""
    plan, encoder = sources.plan, sources.assembly.encoder
    if isinstance(plan, OneTowerPlan):
        other = "text" if encoder.modality == "vision" else "vision"
        name = plan.donor.name if plan.donor else "new embeddings"
        yield _box("encoder", f"encoder: {plan.base.name}", sources)
        yield _box(other, f"{other} embeddings: {name}", sources)
        images, texts = ("encoder", "text") if other == "text" else ("vision", "encoder")
        yield from (f"images --> {images}", f"texts --> {texts}", f"{other} --> encoder")
    else:
        yield _box("vision", f"vision: {plan.vision.name}", sources)
        yield _box("text", f"text: {plan.text.name}", sources)
        yield _box("fusion", f"fusion: {plan.fusion.name}", sources)
        yield from ("images --> vision", "texts --> text", "vision --> fusion", "text --> fusion")


def _box(part: str, title: str, sources: Sources) -> str:
    encoder: Any = sources.assembly.encoder
    module = getattr(encoder, part)
    size = counted(module)
    blocks = sum(layer.name.isdigit() for layer in layers_of(encoder, part))
    depth = f"{count(blocks)} layer{'s' if blocks > 1 else ''}, " if blocks else ""
    width = getattr(module, "width", None)
    sizes = [f"{depth}width {count(width)}"] if isinstance(width, int) else []
    state = _state(size.trainable, size.total)
    style = "frozen" if size.total and not size.trainable else "trained"
    return f"{part}[{label([title, *sizes, f'{short(size.total)} parameters', state])}]:::{style}"


def _state(trainable: int, total: int) -> str:
    if trainable in (0, total):
        return "trained" if trainable or not total else "frozen"
    return f"{share(1 - trainable / total)} frozen"


def _heads(sources: Sources) -> Iterator[str]:
    """Yield the heads of the tasks that are trained: above the fusion, or above single towers."""
    plan, encoder = sources.plan, sources.assembly.encoder
    joint = "encoder" if isinstance(encoder, OneTower) else "fusion"
    trained = [(name, task) for name, task in plan.tasks.items() if task.entry.trains]
    for number, (name, task) in enumerate(trained):
        size = counted(sources.assembly.tasks[name]).total
        yield f"head{number}([{label([f'task: {task.name}', f'{short(size)} parameters'])}])"
        below = (joint,) if task.entry.outputs or joint == "encoder" else READS.get(task.name, ("vision", "text"))
        yield from (f"{part} --> head{number}" for part in below)
