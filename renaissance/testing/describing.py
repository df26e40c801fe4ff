"""What importing a plugin's module and describing its entries does, told as JSON. Imports no torch.

It runs in an interpreter of its own, as what is imported and changed can be seen once only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from renaissance.components import checked_options
from renaissance.registry import BUILTIN_MODULE, Plugin, Registry
from renaissance.testing.shared_state import SHARED, changed, seen

TRIED = "tried"  # the plugin of an entry, or of a module, that is given by itself


def main(module: str, heavy: Sequence[str]) -> None:
    """Describe each entry that a module offers; print what failed, which of the `heavy` it imports, what it changes."""
    before = seen(SHARED)
    registry = Registry() if module == BUILTIN_MODULE else Registry([Plugin(TRIED, module, module, "0")])
    failures = [plugin.failure for plugin in registry.plugins() if plugin.failure]
    owner = registry.builtin.name if module == BUILTIN_MODULE else TRIED
    for component in registry.components():
        entry = component.entry
        if component.plugin == owner and hasattr(entry, "describe"):
            entry.describe(checked_options(entry, entry.tiny, of=entry.name))
    moved = changed(before, SHARED)
    if _drawn_from_torch():
        moved.append("the random state of torch")
    imported = [name for name in heavy if name in sys.modules]
    print(json.dumps({"failures": failures, "imported": imported, "changed": moved}))


def _drawn_from_torch() -> bool:
    """Return whether torch was imported here, and its random state is no longer that of its import."""
    torch = sys.modules.get("torch")
    return torch is not None and not torch.equal(torch.get_rng_state(), torch.Generator().get_state())
