"""The conformance kit on the packaged towers."""

from __future__ import annotations

import pytest

from renaissance.testing import Case, conformance


@conformance("renaissance_plugin_packaged", components=["efficientnet-lite0", "minilm"])
def test_conforms(rule: Case) -> None:
    rule()


@pytest.mark.slow  # an embedding of 250,002 word pieces
@conformance("renaissance_plugin_packaged", components=["multilingual-e5-small"])
def test_the_multilingual_tower_conforms(rule: Case) -> None:
    rule()
