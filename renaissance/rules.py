"""The rules of a spec: which weights a tower starts from, which parts hold still, and which layers are meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from renaissance.api import Capabilities, Unknown, Weights
from renaissance.errors import SpecError
from renaissance.spec import AdapterRule, Layers, Part, PartRule, Rule


def supported_in_one_tower(rules: Iterable[Rule], donor: str) -> list[PartRule]:
    """Return the rules of a one-tower model: on its 'encoder', or on the embeddings of the modality `donor`.

    Raises:
        SpecError: naming what is no part of this model, or is not built yet.
    """
    checked: list[PartRule] = []
    for rule in rules:
        part = rule.part
        if isinstance(rule, AdapterRule):
            raise SpecError(f"Adapters ('{rule.action} {part}') cannot be built yet; freeze or train '{part}' whole.")
        if part.name not in ("encoder", donor):
            raise SpecError(
                f"'{part}' is no part of this one-tower model; it has 'encoder', and '{donor}': the embeddings that "
                "its base lacks."
            )
        if part.name == donor and (part.group or part.layers):
            raise SpecError(f"'{part}': these are embeddings alone; write '{rule.action} {donor}'.")
        checked.append(_checked(rule))
    return checked


def supported(rules: Iterable[Rule]) -> list[PartRule]:
    """Return the rules with 'both' taken apart.

    Raises:
        SpecError: naming what is no part of a two-tower model, or is not built yet.
    """
    simple: list[PartRule] = []
    for rule in rules:
        if isinstance(rule, AdapterRule):
            raise SpecError(
                f"Adapters ('{rule.action} {rule.part}') cannot be built yet; freeze or train '{rule.part}' whole."
            )
        if rule.part.name == "encoder":
            raise SpecError(
                f"'{rule.part}' is a part of one-tower models; a two-tower model has vision, text, fusion, both."
            )
        names = ("vision", "text") if rule.part.name == "both" else (rule.part.name,)
        simple += [_checked(rule.model_copy(update={"part": rule.part.model_copy(update={"name": n})})) for n in names]
    return simple


def _checked(rule: PartRule) -> PartRule:
    part = rule.part
    if rule.action in ("random", "pretrained"):
        if part.group or part.layers:
            raise SpecError(
                f"'{rule.action} {part}': weights are chosen for whole towers; write '{rule.action} {part.name}'."
            )
        if part.name == "fusion" and rule.action == "pretrained":
            raise SpecError("A fusion head has no pretrained weights of its own; start from a saved model to keep one.")
    elif part.group in ("norms", "biases"):
        raise SpecError(
            f"'{rule.action} {part}' cannot be built yet; freeze a part, its embeddings or its first layers."
        )
    elif part.name == "fusion" and (part.layers or part.group):
        raise SpecError(f"'{rule.action} {part}' cannot be built yet; write '{rule.action} fusion'.")
    elif part.group and part.layers:
        raise SpecError(
            f"'{rule.action} {part}': embeddings have no layers; write '{rule.action} {part.name}.{part.group}', "
            f"or '{rule.action} {part.name}{part.layers}'."
        )
    elif part.layers and part.layers.start not in (None, 0):
        raise SpecError(
            f"'{rule.action} {part}' cannot be built yet: only first layers can be held, as '{part.name}[:6]'."
        )
    return rule


def chosen_weights(rules: Iterable[PartRule], tower: str) -> Weights:
    """Return what a tower starts from; the last rule that says so wins."""
    chosen: Weights = "pretrained"
    for rule in rules:
        if rule.part.name == tower and rule.action in ("random", "pretrained"):
            chosen = "random" if rule.action == "random" else "pretrained"
    return chosen


def frozen_parts(rules: Iterable[PartRule], towers: Mapping[str, tuple[str, Capabilities]]) -> tuple[Part, ...]:
    """Apply freezing rules in order and return what holds still; `towers` are (name, facts) by part.

    A part comes back more than once only where its depth is known at build alone: '[:3]' and '[:-2]' of it.

    Raises:
        SpecError: a range is empty or reaches beyond a tower, or a rule thaws a piece of what another froze.
    """
    held: dict[str, list[Part]] = {**{name: [] for name in towers}, "fusion": []}
    for rule in rules:
        if rule.action not in ("frozen", "trainable"):
            continue
        part = _bounded(rule.part, towers)
        before = held[part.name]
        if rule.action == "frozen":
            held[part.name] = _with(before, part)
        elif part.layers is None and part.group is None:
            held[part.name] = []
        elif before:
            raise SpecError(
                f"'trainable {rule.part}' under a frozen '{before[0]}' cannot be built yet; "
                "freeze the first layers alone."
            )
    return tuple(part for parts in held.values() for part in parts)


def _bounded(part: Part, towers: Mapping[str, tuple[str, Capabilities]]) -> Part:
    """Return the part with its range counted from the start, where the tower's depth is known."""
    if part.name not in towers or (part.layers is None and part.group is None):
        return part
    name, facts = towers[part.name]
    if facts.layered is False:
        raise SpecError(f"'{name}' does not list its layers; write 'frozen {part.name}'.")
    if part.layers is None or isinstance(facts.depth, Unknown):
        return part
    _, last = layer_range(part.layers, facts.depth, name)
    return part.model_copy(update={"layers": Layers(start=None, stop=last)})


def _with(held: list[Part], new: Part) -> list[Part]:
    """Add a frozen part, and keep none that another one holds already."""
    if any(_covers(old, new) for old in held):
        return held
    return [*(old for old in held if not _covers(new, old)), new]


def _covers(wide: Part, narrow: Part) -> bool:
    """Return whether freezing `wide` freezes `narrow` too: embeddings < [:n] < [0:] < the whole part."""
    if wide.group is None and wide.layers is None:
        return True
    if narrow.group == "embeddings":
        return True
    if wide.layers is None or narrow.layers is None:
        return False
    reach, wanted = wide.layers.stop, narrow.layers.stop
    if reach is None or wanted is None:
        return reach is None
    return (reach < 0) == (wanted < 0) and reach >= wanted  # from the start and from the end do not compare


def layer_range(layers: Layers, depth: int, name: str) -> tuple[int, int]:
    """Return the first layer of a range, and the one after its last.

    Raises:
        SpecError: the range is empty, or reaches beyond the tower.
    """
    for end in (layers.start, layers.stop):
        if end is not None and not -depth <= end <= depth:
            raise SpecError(f"'{name}' has {depth} layers, so '{layers}' reaches beyond it; at most '[:{depth}]'.")
    start, stop, _ = slice(layers.start, layers.stop).indices(depth)
    if start >= stop:
        raise SpecError(
            f"'{layers}' of the {depth} layers of '{name}' is empty; write for example '[:{depth // 2 or 1}]'."
        )
    return start, stop
