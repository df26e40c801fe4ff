"""A tower of a model as users hold it: what it is, and its form in the library that it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from renaissance.api import Modality
from renaissance.errors import CapabilityError

Form = Literal["transformers", "timm"]


@dataclass(frozen=True, slots=True)
class Tower:
    """What encodes one modality of a model. module: the backbone itself, whose parameters are the model's."""

    modality: Modality
    module: Any

    @property
    def width(self) -> int:
        """Channels of its tokens."""
        width: int = self.module.width
        return width

    @property
    def processor(self) -> Any:
        """What makes its inputs: of PIL pictures, or of strings."""
        return self.module.processor

    def to_transformers(self) -> nn.Module:
        """Return a copy as a plain `transformers.PreTrainedModel`, in evaluation mode.

        What the library's class has beside the tower (a pooler that it does not use) is as newly initialised.

        Raises:
            CapabilityError: the tower has no such form; the message says what it is.
        """
        return self._form("transformers")

    def to_timm(self) -> nn.Module:
        """Return a copy as a plain model of timm, without a classifier, in evaluation mode.

        Raises:
            CapabilityError: the tower has no such form; the message says what it is.
        """
        return self._form("timm")

    def _form(self, library: Form) -> nn.Module:
        make = getattr(self.module, f"to_{library}", None)
        if make is None:
            what = type(self.module).__name__
            forms = [form for form in ("transformers", "timm") if hasattr(self.module, f"to_{form}")]
            way_out = f"Take it out by to_{forms[0]}()." if forms else "Save the whole model, and load it as it is."
            raise CapabilityError(f"The {self.modality} tower is {what}, which {library} has no form of. {way_out}")
        taken: nn.Module = make()
        return taken.eval()
