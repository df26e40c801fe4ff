"""The conformance kit: what every component must hold, checked in the tests of renaissance and of its plugins.

    from renaissance.testing import conformance


    @conformance("renaissance_plugin_xyz")
    def test_conforms(rule):
        rule()

The decorated test is one for each rule and each component of the plugin's module.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from renaissance.testing.conforming import Case, Finding, Report, conform, conformance
    from renaissance.testing.items import Example
    from renaissance.testing.subjects import ConformanceError

_LAZY = {
    "Case": "renaissance.testing.conforming",
    "ConformanceError": "renaissance.testing.subjects",
    "Example": "renaissance.testing.items",
    "Finding": "renaissance.testing.conforming",
    "Report": "renaissance.testing.conforming",
    "conform": "renaissance.testing.conforming",
    "conformance": "renaissance.testing.conforming",
}

__all__ = ["Case", "ConformanceError", "Example", "Finding", "Report", "conform", "conformance"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'renaissance.testing' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
