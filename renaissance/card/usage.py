"""The code of a card: how the model is loaded, and asked for what its tasks can tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from renaissance.card.markdown import code
from renaissance.card.sources import Sources

PICTURE = '"picture.jpg"'
TEXT = '"a red cup on a table"'
_ONE = f"images=[{PICTURE}], texts=[{TEXT}]"
_TWO = f"images=[({PICTURE}, {PICTURE})], texts=[{TEXT}]"
_BOXES = "boxes=[[(0, 0, 8, 8), (8, 8, 8, 8)]]  # left, top, width, height in pixels"
# tasks that read something else than one picture with one text
ASKED = {
    "image-classification": f"images=[{PICTURE}]",
    "text-classification": f"texts=[{TEXT}]",
}
CANDIDATES = {
    "texts": f"images=[{PICTURE}], texts=[({TEXT}, {TEXT})]",
    "images": _TWO,
    "boxes": f"{_ONE}, {_BOXES}",
}


def usage(sources: Sources, repo: str | None) -> str:
    """Return Python that loads the model and calls what it was trained for."""
    return "\n".join(["import renaissance", "", _loading(sources, repo), *_calls(sources)])


def packages(sources: Sources) -> str:
    """Return the line of pip that installs what the model needs."""
    plugins = [f"renaissance-plugin-{name}" for name in sources.config.plugins]
    return " ".join(["pip install renaissance-vl", *plugins])


def stored(sources: Sources) -> Iterator[str]:
    """Yield how the weights are stored, and which towers are not among them."""
    loaded = ", and loaded as float32" if sources.config.dtype != "float32" else ""
    yield f"Parameters are stored as {sources.config.dtype}{loaded}."
    for tower, source in sources.config.left_out.items():
        at = f" at the commit {code(source.revision)}" if source.revision else ""
        yield (
            f"Those of the {tower} tower are not among them, as it was never trained: they come from "
            f"{code(source.repository or source.distribution)}{at}, and have the SHA-256 {code(source.digest)}."
        )


def _loading(sources: Sources, repo: str | None) -> str:
    if repo is None:
        return 'model = renaissance.from_pretrained(".")  # the folder of this card'
    trusted = ", ".join(f'"{name}"' for name in sources.config.plugins)
    return f'model = renaissance.from_pretrained("{repo}"{f", trust=[{trusted}]" if trusted else ""})'


def _calls(sources: Sources) -> Iterator[str]:
    tasks = sources.assembly.tasks
    if "itc" in tasks:
        yield f"vectors = model.embed({_ONE})"
        yield "print(vectors.images @ vectors.texts.T)  # how alike each picture and each text are, from -1 to 1"
    if "itm" in tasks:
        yield f"print(model.match({_ONE}))  # the probability that picture i and text i belong together"
    for name, task in sources.plan.tasks.items():
        if given := _asked(name, task.entry.slots, tasks[name]):
            arguments, _, remark = given.partition("  #")
            yield f'print(model.predict("{name}", {arguments})){f"  #{remark}" if remark else ""}'


def _asked(name: str, slots: int, head: Any) -> str:
    """Return the arguments of `predict` for a task; empty for one that chooses nothing."""
    candidates = getattr(head, "candidates", None)
    if candidates is not None:
        return CANDIDATES[candidates]
    if not getattr(head, "labels", ()):
        return ""
    return ASKED.get(name, _TWO if slots > 1 else _ONE)
