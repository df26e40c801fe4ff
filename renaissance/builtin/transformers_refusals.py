"""What a backbone of `transformers` cannot do, said with the way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from renaissance.builtin.transformers_loading import Source
from renaissance.builtin.transformers_options import has_weights
from renaissance.errors import SpecError


def refuse_without_weights(source: Source, options: Any) -> None:
    """Refuse pretrained weights where there are none.

    Raises:
        SpecError: the model has no pretrained weights, or those that ship have other sizes.
    """
    if source.bundled:
        if not has_weights(options):
            raise SpecError(
                f"{source.name} has pretrained weights of its default sizes alone (or fewer layers). Leave the others "
                f"out, or say 'random {source.modality}'."
            )
    elif source.model is None or source.bare_type:
        raise SpecError(
            f"{source.name} has no pretrained weights. Say 'random {source.modality}' (or 'random both') to start from "
            "random ones."
        )


def refuse_changes(
    source: Source, given: Mapping[str, Any], sizes: Mapping[str, Any], *, fewer: tuple[str, ...] = ()
) -> None:
    """Refuse sizes that the pretrained weights do not have; those in `fewer` may be smaller.

    Raises:
        SpecError: a size differs.
    """
    for name, value in given.items():
        has = sizes.get(name)
        if has is None and name not in fewer:
            raise SpecError(f"{source.name} has no size called {name!r}. Leave {name} out.")
        if has is not None and (value > has if name in fewer else value != has):
            bound = f"Use {name}={has} or less" if name in fewer else f"Leave {name} out"
            raise SpecError(
                f"{source.name}: the pretrained weights have {name}={has}, not {value}. {bound}, or say "
                f"'random {source.modality}'."
            )


def refuse_layers(layers: Sequence[int]) -> None:
    """Refuse to give the layers of a model whose blocks are not listed.

    Raises:
        SpecError: layers are asked for.
    """
    if layers:
        raise SpecError(
            f"Layers {list(layers)} were asked for, but this backbone does not list its blocks. Ask for none."
        )
