"""What every entry must hold: importable names, documented options, and descriptions that cost and change nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from renaissance.api import Entry
from renaissance.components import described
from renaissance.registry import BUILTIN_MODULE, load_factory
from renaissance.spec import SHORT_NAME
from renaissance.testing.benches import Bench
from renaissance.testing.subjects import NotApplicable, failure

HEAVY = ("torch", "torchvision", "transformers", "timm", "open_clip", "datasets", "huggingface_hub", "accelerate")
LONGEST_SUMMARY = 160
LONGEST_SECONDS = 600
_DESCRIBE = """
import sys
sys.path[:0] = {path!r}
from renaissance.testing import describing
describing.main({module!r}, {heavy!r})
"""


def _names(bench: Bench) -> None:
    """Its name can be said in a spec, its summary is one line, and its factory can be imported and called."""
    entry: Entry = bench.entry
    if not re.fullmatch(SHORT_NAME, entry.name):
        raise failure("names", f"the name {entry.name!r}", "one that a spec can say")
    if not entry.summary.strip() or "\n" in entry.summary or len(entry.summary) > LONGEST_SUMMARY:
        raise failure("names", f"the summary {entry.summary!r}", f"one line of at most {LONGEST_SUMMARY} characters")
    factory = load_factory(entry)
    if not callable(factory):
        raise failure("names", f"the factory {entry.factory!r} is {type(factory).__name__}", "something to call")


def _options(bench: Bench) -> None:
    """Each option is described, defaults are valid, and options survive JSON."""
    kind = bench.entry.options
    bare = [name for name, field in kind.model_fields.items() if not (field.description or "").strip()]
    if bare:
        raise failure("options", f"{', '.join(bare)} without a description", "one for each option")
    _check_defaults(kind)
    try:
        json.dumps(bench.entry.tiny)
        json.dumps(kind.model_json_schema())
        written = bench.options.model_dump(mode="json")
        again = kind.model_validate(json.loads(json.dumps(written)), strict=None)
    except (TypeError, ValueError) as error:
        raise failure("options", f"{type(error).__name__}: {error}", "options that JSON can hold") from None
    if again != bench.options:
        raise failure("options", f"{again!r} after a round trip through JSON", repr(bench.options))


def _check_defaults(kind: Any) -> None:
    defaults = {name: field.get_default(call_default_factory=True) for name, field in kind.model_fields.items()}
    given = {name: value for name, value in defaults.items() if value is not PydanticUndefined}
    for name, value in given.items():
        try:
            kind.__pydantic_validator__.validate_assignment(kind.model_construct(**given), name, value)
        except ValidationError as error:
            if any(part["loc"][:1] == (name,) for part in error.errors()):
                raise failure("options", f"the default {value!r} of {name}", "one that the option allows") from None


def _describing(bench: Bench) -> None:
    """What it says of itself is of the right kind, and the same each time."""
    first, second = (described(bench.component, bench.options) for _ in range(2))
    if first != second:
        raise failure("describing", f"{second!r} the second time", repr(first))


def _listing(bench: Bench) -> None:
    """Listing and describing it imports no heavy library, in a fresh interpreter."""
    imported = _seen(_module(bench))["imported"]
    if imported:
        raise failure("listing", f"describing it imports {', '.join(imported)}", "none of these before the first build")


def _global_state(bench: Bench) -> None:
    """Hooks and descriptions leave alone what all share: environment, folders, filters, loggers, random states."""
    changed = _seen(_module(bench))["changed"]
    if changed:
        raise failure("global state", f"its hooks change {', '.join(changed)}", "nothing that all share")


def _module(bench: Bench) -> str:
    if bench.component.plugin == bench.registry.builtin.name:
        return BUILTIN_MODULE
    plugin = bench.registry.plugin(bench.component.plugin)
    if plugin is None or not plugin.module:
        raise NotApplicable("the entry is given without the module of a plugin")
    return plugin.module


@cache
def _seen(module: str) -> dict[str, list[str]]:
    """Return what describing the entries of a module imports and changes, in an interpreter of its own."""
    script = _DESCRIBE.format(path=sys.path, module=module, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=LONGEST_SECONDS)
    if done.returncode:
        raise failure("listing", done.stderr.strip().splitlines()[-1], "a description of each entry")
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    if found["failures"]:
        raise failure("listing", found["failures"][0], "hooks that can be called")
    return found


RULES: dict[str, Callable[[Bench], None]] = {
    "names": _names,
    "options": _options,
    "listing": _listing,
    "global state": _global_state,
}
BACKBONE_RULES: dict[str, Callable[[Bench], None]] = {"describing": _describing}
