"""Run the sweep; write the table of descriptions that ships, and docs/backbones.md: `make backbones`."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from renaissance.api import BackboneEntry, Unknown
from renaissance.builtin.described import TABLE, made_with, text_row, vision_row
from renaissance.components import checked_options, described
from renaissance.errors import RenaissanceError, SpecError
from renaissance.registry import default_registry, load_factory
from renaissance.testing.backbones import CHECKS
from tests.sweep.cases import Case, run
from tests.sweep.describing import VERSIONS, Described, Job, as_json, jobs, on_meta, row_of

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "backbones.md"
SECTIONS = {
    ("timm", "vision"): "Vision: timm",
    ("transformers", "vision"): "Vision: transformers",
    ("open-clip", "vision"): "Vision: open_clip",
    ("transformers", "text"): "Text: transformers",
    ("open-clip", "text"): "Text: open_clip",
}
DISTRIBUTIONS = {"open-clip": "open_clip_torch"}
HEADER = """# Backbones

Each row is an architecture that was built at a small size, from config alone and with random weights, and checked;
`make backbones` runs the checks and writes this page.

| check | what must hold |
|---|---|
{checks}

Checks that do not apply are left out: only vision backbones have a grid, only layered ones have layers.

A one-tower model can be based on a backbone whose blocks take tokens of the other modality: plain transformers do.
Windowed and down-sampling networks (Swin, PVT, every CNN) are refused, since a text has no place in their grid. So the
arm of arXiv 2411.06657 that is based on Swin **cannot be reproduced**: its blocks attend within windows of a grid of
patches and merge patches between stages, and the paper does not say where in that grid the tokens of a text stand.

Built with {versions}. {outcome}
"""
SHIPPED = """
## What `renaissance check` knows

The wheel has a table of what library models are at their own sizes, so that `check` and `resolve` need no library to
say that a width, a depth, an image size or a base does not fit. It was measured on models built on the meta device:

| library | version | tower | described | refused, with the reason |
|---|---|---|---|---|
{rows}

Another version of a library may be installed: what is built is compared with what the table says, and a difference is
an error that names the fact. What the table does not hold is shown as *checked at build*; `renaissance check SPEC
--deep` builds it on the meta device.

```bash
renaissance check "timm:vit_small_patch16_224 + bert-base, frozen vision[:6]"
renaissance check "timm:test_vit + tiny-bert, random both" --task itm --deep
```

```text
$ renaissance check "timm:resnet50, one-tower"
renaissance: 'timm:resnet50' cannot be the base of a one-tower model: it down-samples a grid of image features ...
```
"""

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case. failure: what went wrong, where something did."""

    case: Case
    passed: tuple[str, ...]
    failure: str = ""
    positions: str = ""
    base: str = ""


def all_cases() -> tuple[Case, ...]:
    """Return the cases of all files of cases."""
    files = sorted(HERE.glob("*_cases.py"))
    return tuple(case for file in files for case in import_module(f"tests.sweep.{file.stem}").CASES)


def outcome(case: Case) -> Outcome:
    """Run a case."""
    try:
        passed = run(case)
        if case.refused is not None:
            return Outcome(case, passed)
        return Outcome(case, passed, "", *_joint(case))
    except (RenaissanceError, AssertionError) as error:
        return Outcome(case, (), " ".join(str(error).split()))
    except Exception as error:  # one that breaks must not hide the others
        return Outcome(case, (), f"{type(error).__name__}: {' '.join(str(error).split())}")


def _joint(case: Case) -> tuple[str, str]:
    """Return how a backbone tells its tokens apart, and whether one-tower models can be based on it."""
    library, _, model = case.name.partition(":")
    component = default_registry().find("backbone", library, case.modality)
    entry = cast(BackboneEntry, component.entry)
    named = {"model": model, "revision": None} if entry.library else {}
    options = checked_options(entry, {**case.options, **named}, of=case.name)
    facts = described(component, options)
    factory: Any = load_factory(entry)
    try:
        with on_meta():
            backbone = factory(options, weights="random", saved=None)
    except (RenaissanceError, RuntimeError, NotImplementedError):  # it reads a tensor while it is built
        backbone = factory(options, weights="random", saved=None)
    joins = facts.base is not False and hasattr(backbone, "join") and len(backbone.blocks) > 0
    declared = "" if isinstance(facts.positions, Unknown) else facts.positions
    return str(getattr(backbone, "positions", declared)), "yes" if joins else "no"


# --- the page ---------------------------------------------------------------------------------------------------------


def page(outcomes: Sequence[Outcome]) -> str:
    """Return docs/backbones.md."""
    libraries = sorted({library_of(one.case) for one in outcomes})
    versions = [f"{name} {version(DISTRIBUTIONS.get(name, name))}" for name in libraries]
    checks = "\n".join(f"| {name} | {_first_line(check)} |" for name, check in CHECKS.items())
    text = HEADER.format(
        checks=checks, versions=_listed([*versions, f"torch {torch.__version__}"]), outcome=_sum(outcomes)
    )
    for (library, modality), title in SECTIONS.items():
        rows = [one for one in outcomes if (library_of(one.case), one.case.modality) == (library, modality)]
        if rows:
            text += f"\n## {title}\n\n| backbone | family | built at | checks passed | positions | one-tower base |\n"
            text += "|---|---|---|---|---|---|\n" + "".join(map(_row, rows))
    return text + SHIPPED.format(rows="\n".join(_shipped_rows()))


def library_of(case: Case) -> str:
    """Return the library of a case."""
    return case.name.partition(":")[0]


def key_of(case: Case) -> str:
    """Return how the row of a case begins."""
    return f"| `{case.name}` | {case.family} | {built_at(case)} |"


def built_at(case: Case) -> str:
    """Return the sizes that a case is built at, in words."""
    given = {**case.options, **cast(dict[str, Any], case.options.get("overrides", {}))}
    shown = (f"{key}={json.dumps(value)}" for key, value in given.items() if key not in ("overrides", "tokenizer"))
    return ", ".join(shown).replace("|", "\\|").replace('"', "") or "its own size"


def _row(one: Outcome) -> str:
    if one.case.refused is not None and not one.failure:
        return f"{key_of(one.case)} refused: {one.case.refused} | | |\n"
    checks = f"**fails**: {one.failure.replace('|', BAR)}" if one.failure else ", ".join(one.passed)
    return f"{key_of(one.case)} {checks} | {one.positions} | {one.base} |\n"


BAR = "\\|"


def _sum(outcomes: Sequence[Outcome]) -> str:
    families = {(one.case.modality, library_of(one.case), one.case.family) for one in outcomes if one.passed}
    refused = sum(one.case.refused is not None for one in outcomes)
    counts = Counter((library, modality) for modality, library, _ in families)
    told = _listed([f"{count} of {library} ({modality})" for (library, modality), count in sorted(counts.items())])
    return f"{len(families)} families pass: {told}; {refused} of {len(outcomes)} rows are refused."


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _first_line(check: Callable[..., Any]) -> str:
    return (check.__doc__ or "").strip().splitlines()[0]


def _shipped_rows() -> Iterable[str]:
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    for library, modality in SECTIONS:
        rows = table.get(library, {}).get(modality)
        if rows is not None:
            refused = sum(isinstance(row, str) for row in rows.values())
            yield f"| {library} | {table[library]['version']} | {modality} | {len(rows) - refused} | {refused} |"


# --- running ----------------------------------------------------------------------------------------------------------


def each(function: Callable[[JobT], ResultT], given: Sequence[JobT], workers: int) -> list[ResultT]:
    """Return what a function makes of each, in order, computed by several processes of one thread each."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        return list(pool.map(function, given, chunksize=4))


def _one_thread() -> None:
    torch.set_num_threads(1)


def write_table(workers: int, rows: Mapping[Job, Described]) -> None:
    """Write the table of descriptions: these rows, and those of all other models."""
    models = [job for job in jobs() if job not in rows]
    made = dict(zip(models, each(row_of, models, workers), strict=True))
    TABLE.write_text(as_json({**rows, **made}), encoding="utf-8")


def held() -> dict[Job, Described]:
    """Return the rows of the table as it is, of libraries whose version has not changed."""
    return {job: row for job in jobs() if (row := shipped(job)) is not None and made_with(job[0]) == VERSIONS[job[0]]}


def shipped(job: Job) -> Described | None:
    """Return the row of a model in the table as it is; None: it has none."""
    library, modality, name = job
    try:
        return vision_row(library, name) if modality == "vision" else text_row(library, name)
    except SpecError as error:
        return str(error)


def main() -> int:
    """Write the two files; return 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--page-alone", action="store_true", help="keep the table of descriptions as it is")
    parser.add_argument("--missing", action="store_true", help="keep the rows that the table has, and add the others")
    given = parser.parse_args()
    if not given.page_alone:
        write_table(given.workers, held() if given.missing else {})
    outcomes = each(outcome, all_cases(), given.workers)
    PAGE.write_text(page(outcomes), encoding="utf-8")
    failed = [one for one in outcomes if one.failure]
    for one in failed:
        print(f"{one.case.name} ({one.case.family}): {one.failure}", file=sys.stderr)
    print(_sum(outcomes))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
