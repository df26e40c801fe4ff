"""The conformance kit on every component of this plugin, and a model with it that is saved and loaded."""

from __future__ import annotations

from pathlib import Path

import renaissance
from renaissance.testing import Case, conformance

SPEC = "tiny-vit + tiny-bert, random both, example:gated(width=32)"


@conformance("renaissance_plugin_example")
def test_conforms(rule: Case) -> None:
    rule()


def test_a_model_with_it_is_saved_and_loaded(tmp_path: Path) -> None:
    model = renaissance.build(SPEC, tasks=["itm", "mlm"])
    model.save(tmp_path / "model")
    assert renaissance.from_pretrained(tmp_path / "model").spec == model.spec
