"""The one comparison of parity tests, which notes what it saw for the table of `make parity`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

# The greatest difference that is still the same number, in fp32.
TOLERANCE = 1e-5
DISTRIBUTIONS = {"open_clip": "open_clip_torch"}


class Parity:
    """Compares what is ours with one reference: "library.Class", or "identity: ..." where no library has it."""

    def __init__(self, reference: str, test: str) -> None:
        self.reference = reference
        self._test = test

    def close(self, what: str, found: Tensor, expected: Tensor, mask: Tensor | None = None) -> None:
        """Assert that two tensors differ by 1e-5 at most: everywhere, or where `mask` [of the first axes] is True."""
        assert found.shape == expected.shape, f"{what}: {list(found.shape)} is not {list(expected.shape)}"
        difference = (found.detach() - expected.detach()).abs()
        assert bool(difference.isfinite().all())
        largest = float((difference if mask is None else difference[mask]).max())
        scale = float((expected.detach() if mask is None else expected.detach()[mask]).abs().max())
        assert scale > 1e-3, f"{what}: the reference is all but zero, so equality with it says nothing"
        self._note(what, largest)
        assert largest <= TOLERANCE, f"{what}: {largest:.2e} from {self.reference}"

    def _note(self, what: str, largest: float) -> None:
        folder = os.environ.get("RENAISSANCE_PARITY_NOTES")
        if folder is None:
            return
        library = self.reference.partition(".")[0]
        installed = "" if self.reference.startswith("identity") else version(DISTRIBUTIONS.get(library, library))
        row = {"reference": self.reference, "version": installed, "compared": what, "difference": largest}
        with (Path(folder) / f"{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row | {"test": self._test, "torch": torch.__version__}) + "\n")


@pytest.fixture
def parity(request: pytest.FixtureRequest) -> Callable[[str], Any]:
    """Return `Parity` of a reference by its name."""
    return lambda reference: Parity(reference, request.node.name)
