"""What the paper's models and the six scale presets cost, without a weight.

`make costs` writes docs/costs.md, and the forecast in docs/scaling.md.
"""

from __future__ import annotations

import gc
import re
from pathlib import Path

from renaissance.cost import PRESETS, SHARDS, Cost, cost

DOCS = Path(__file__).parent.parent / "docs"
PAGE, SCALING = DOCS / "costs.md", DOCS / "scaling.md"
FORECAST = re.compile(r"(?<=<!-- forecast -->\n).*?(?=<!-- /forecast -->)", re.S)
SMALL = "deit-tiny(pooler=true) + electra-small, two-tower"
BASE = "vit-base(pooler=true) + electra-base, two-tower, lxmert(layers=10)"
FREEZING = ("", ", frozen vision", ", frozen text", ", frozen both")
# The paper's figures in millions, where it gives them (arXiv 2411.06657); trainable where something is frozen.
PAPER: dict[str, float | None] = {
    **dict(zip((SMALL + rule for rule in FREEZING), (38.26, 32.70, 24.78, 19.22), strict=True)),
    BASE: 222.15,
    f"{BASE}, frozen both": 26.87,
    "bert-base, one-tower": 134.52,
    "electra-base, one-tower": 134.52,
    "vit-base + bert-base, one-tower": 134.52,
    "electra-small, one-tower": None,
    "deit-small, one-tower": None,
    "dino-small, one-tower": None,
}
HEADER = """# What models cost

Parameters with the heads of MLM and ITM, FLOPs of a pair with a text of 32 tokens (15% masked), and memory in fp32 at a
batch of 32. `renaissance cost SPEC` prints each; `make costs` writes this page.

The paper counts the pooler of its ViTs, which nothing reads and a tower here has only where `pooler=true` asks for it.
Its one-tower models differ from these by 0.23M, which is not explained; that of Swin-S cannot be built (see
[Backbones](backbones.md)).

## The paper's models

"""


def row(spec: str, found: Cost, paper: float | None = None, *, shards: bool = False) -> str:
    """Return one row of a table."""
    sizes, flops, memory = found.parameters, found.flops, found.memory
    cells = [f"`{spec}`", f"{sizes.total / 1e6:,.2f}", f"{sizes.trainable / 1e6:,.2f}"]
    if not shards:
        cells.append("" if paper is None else f"{paper:.2f}")
    cells += [f"{flops.forward / found.batch / 1e9:,.2f}", f"{flops.training / found.batch / 1e9:,.2f}"]
    if shards:
        cells += [f"{memory.sharded(count) / 2**30:,.1f}" for count in SHARDS]
    else:
        cells.append(f"{memory.total / 2**30:,.2f}")
    return f"| {' | '.join(cells)} |\n"


def page() -> str:
    """Return the page."""
    text = HEADER
    text += "| spec | parameters, M | trainable, M | in the paper, M | forward GFLOP | training GFLOP | memory, GiB |\n"
    text += f"|{'---|' * 7}\n"
    for spec, paper in PAPER.items():
        text += row(spec, cost(spec), paper)
        gc.collect()
    text += "\n## Presets\n\nMemory of a GPU by the number of FSDP shards, at a batch of 2 a GPU.\n\n"
    names = " | ".join(f"{count} shards, GiB" for count in SHARDS)
    text += f"| preset | parameters, M | trainable, M | forward GFLOP | training GFLOP | {names} |\n"
    text += f"|{'---|' * (5 + len(SHARDS))}\n"
    for preset in PRESETS:
        text += row(preset, cost(preset, batch=2), shards=True)
        gc.collect()
    return text


def forecast() -> str:
    """Return the memory of a GPU that trains the preset of 8 billion parameters, by what is frozen and its batch."""
    counts = (1, 8, 64)
    text = "| spec | batch of a GPU | trainable, M | weights, gradients, moments, GiB | activations, GiB |"
    text += "".join(f" {count} GPU{'s' * (count > 1)}, GiB |" for count in counts)
    text += f"\n|{'---|' * (5 + len(counts))}\n"
    for rule in ("", ", frozen both"):
        for batch in (2, 8):
            found = cost(PRESETS["two-tower-8b"] + rule, batch=batch)
            memory = found.memory
            cells = [f"`two-tower-8b{rule}`", str(batch), f"{found.parameters.trainable / 1e6:,.0f}"]
            cells += [f"{part / 2**30:,.1f}" for part in (memory.total - memory.activations, memory.activations)]
            cells += [f"{memory.sharded(count) / 2**30:,.1f}" for count in counts]
            text += f"| {' | '.join(cells)} |\n"
            gc.collect()
    return text


if __name__ == "__main__":
    written = page()
    PAGE.write_text(written, encoding="utf-8")
    foreseen = forecast()
    SCALING.write_text(FORECAST.sub(lambda _: foreseen, SCALING.read_text(encoding="utf-8")), encoding="utf-8")
    print(written, foreseen, sep="\n")
