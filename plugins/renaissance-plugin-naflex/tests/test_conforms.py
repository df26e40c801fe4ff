"""The conformance kit of renaissance on everything that this plugin offers."""

from __future__ import annotations

from collections.abc import Callable

from renaissance.testing import conformance


@conformance("renaissance_plugin_naflex")
def test_conforms(rule: Callable[[], None]) -> None:
    rule()
