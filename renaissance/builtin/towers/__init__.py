"""Small towers whose pretrained weights ship with renaissance, as safetensors in fp16.

`make zoo` trains them by the recipes of recipes/zoo/towers/ and writes them here.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from renaissance.api import Backbone

FOLDER = Path(__file__).parent


def filled(tower: Backbone, name: str) -> Backbone:
    """Return the tower with the weights that ship for `name`, in fp32; of more blocks than it has, the first ones.

    Raises:
        RuntimeError: a tensor is missing or has another shape: whoever changed the tower must train it anew.
    """
    stored = load_file(FOLDER / f"{name}.safetensors")
    wanted = tower.state_dict()  # type: ignore[attr-defined]  # backbones are modules
    tower.load_state_dict({key: tensor for key, tensor in stored.items() if key in wanted})  # type: ignore[attr-defined]
    return tower
