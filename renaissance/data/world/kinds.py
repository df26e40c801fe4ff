"""Worlds of fewer kinds of things: which may be named, and how few are too few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import product

from renaissance.data.world.scene import ALL, Kinds, is_compositional
from renaissance.errors import SpecError
from renaissance.spec import did_you_mean, shown

# three things of a picture may be of three pairs, and a text names one that is not there
FEWEST_PAIRS = 4
FEWEST = {"shapes": 2, "colours": 2, "textures": 1, "backgrounds": 1}


def choose_kinds(
    *,
    shapes: Sequence[str] | None = None,
    colours: Sequence[str] | None = None,
    textures: Sequence[str] | None = None,
    backgrounds: Sequence[str] | None = None,
) -> Kinds:
    """Return the kinds of which a world is drawn: those named, in whatever order, and all where none are.

    Raises:
        SpecError: there is no such shape, colour, texture or background, or too few of them.
    """
    given = {"shapes": shapes, "colours": colours, "textures": textures, "backgrounds": backgrounds}
    return Kinds(**{name: _chosen(name, values) for name, values in given.items()})  # type: ignore[arg-type]  # no name is 'withheld'


def _chosen(name: str, values: Sequence[str] | None) -> tuple[str, ...]:
    known: tuple[str, ...] = getattr(ALL, name)
    if values is None:
        return known
    for value in values:
        if value not in known:
            told = did_you_mean(value, known)
            raise SpecError(f"No world has '{shown(value)}' among its {name}.{told} Known: {', '.join(known)}.")
    if len(set(values)) < FEWEST[name]:
        raise SpecError(f"A world has at least {FEWEST[name]} {name}, and {len(set(values))} is named. Name more.")
    return tuple(value for value in known if value in values)


def check_compositional(kinds: Kinds) -> None:
    """Check that these kinds have pairs of shape and colour to hold out, and enough others.

    Raises:
        SpecError: they have not.
    """
    pairs = list(product(kinds.shapes, kinds.colours))
    trained = [pair for pair in pairs if not is_compositional(*pair)]
    held = len(pairs) - len(trained)
    alone = sorted({*kinds.shapes, *kinds.colours} - {value for pair in trained for value in pair})
    if not held or alone or len(trained) < FEWEST_PAIRS:
        fault = f"it holds out {held} of {len(pairs)} pairs"
        if alone:
            fault = f"'{alone[0]}' would not be trained on at all"
        raise SpecError(
            f"There is no compositional split of {', '.join(kinds.shapes)} in {', '.join(kinds.colours)}: {fault}. "
            "Name more shapes or colours."
        )


def narrowed(kinds: Kinds) -> dict[str, list[str]]:
    """Return the kinds of a world where it has not all, by name."""
    names = [field.name for field in fields(kinds) if field.name != "withheld"]
    return {name: list(getattr(kinds, name)) for name in names if getattr(kinds, name) != getattr(ALL, name)}
