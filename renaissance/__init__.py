"""renaissance: vision-language transformer encoders from one line of spec.

    import renaissance

    model = renaissance.build("vit-base + bert-base, two-tower, frozen text", tasks=("mlm", "itm", "itc"))
    run = renaissance.run("recipes/demo.yaml")
    renaissance.publish(run, "org/name")
    model = renaissance.from_pretrained("org/name")

Importing renaissance loads no torch: each name below is loaded at its first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from renaissance.api import hookimpl
    from renaissance.evaluation.evaluate import evaluate
    from renaissance.explaining import explain
    from renaissance.exporting import export
    from renaissance.pretrained import Model, build, from_pretrained
    from renaissance.publishing import publish
    from renaissance.recipe import Recipe
    from renaissance.spec import ModelSpec
    from renaissance.studies.session import study
    from renaissance.training.run import Run, run

_LAZY = {
    "ModelSpec": "renaissance.spec",
    "Recipe": "renaissance.recipe",
    "hookimpl": "renaissance.api",
    "build": "renaissance.pretrained",
    "from_pretrained": "renaissance.pretrained",
    "Model": "renaissance.pretrained",
    "publish": "renaissance.publishing",
    "evaluate": "renaissance.evaluation.evaluate",
    "explain": "renaissance.explaining",
    "export": "renaissance.exporting",
    "study": "renaissance.studies.session",
    "run": "renaissance.training.run",
    "Run": "renaissance.training.run",
}

__all__ = [
    "Model",
    "ModelSpec",
    "Recipe",
    "Run",
    "build",
    "evaluate",
    "explain",
    "export",
    "from_pretrained",
    "hookimpl",
    "publish",
    "run",
    "study",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'renaissance' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
