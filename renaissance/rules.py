"""The rules of a spec: which weights a tower starts from, which parts hold still, and which layers are meant.

Rules on what is frozen are kept in their order, as later ones win; the canonical form has none that changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, NamedTuple

from pydantic import Field, ValidationError

from renaissance.api import Capabilities, Options, Unknown
from renaissance.errors import SpecError
from renaissance.spec import STARTS, AdapterRule, Layers, Part, PartRule, Rule, Start, explain

# what is known of each part that lists its layers, or might: its name and its facts
Towers = Mapping[str, tuple[str, Capabilities]]
TargetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.*?]+$", max_length=100)]


class LoraOptions(Options):
    """Matrices of low rank beside linear layers: W x becomes W x + alpha / rank * B A x; B starts at zero."""

    rank: int = Field(8, ge=1, le=4096, description="Rank of the update of each matrix.")
    alpha: float = Field(16.0, gt=0, le=1e6, description="Scale of the updates, as a multiple of 1 / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of the inputs of A that training drops.")
    targets: tuple[TargetName, ...] | None = Field(
        None,
        strict=False,
        description="Names of linear layers, such as 'query' or '*.dense'; null: those of attention's query and value.",
    )


# --- which rules a model can have -------------------------------------------------------------------------------------


def supported_in_one_tower(rules: Iterable[Rule], donor: str) -> list[Rule]:
    """Return the rules of a one-tower model: on its 'encoder', or on the embeddings of the modality `donor`.

    Raises:
        SpecError: naming what is no part of this model.
    """
    checked: list[Rule] = []
    for rule in rules:
        part = rule.part
        if part.name not in ("encoder", donor):
            raise SpecError(
                f"'{part}' is no part of this one-tower model; it has 'encoder', and '{donor}': the embeddings that "
                "its base lacks."
            )
        if part.name == donor and (part.group == "embeddings" or part.layers or rule.action == "lora"):
            write = f"'{rule.action} {donor}'" if rule.action in STARTS else f"'frozen {donor}' or 'trainable {donor}'"
            raise SpecError(f"'{rule}': these are embeddings alone; write {write}.")
        checked.append(_checked(rule))
    return checked


def supported(rules: Iterable[Rule]) -> list[Rule]:
    """Return the rules with 'both' taken apart.

    Raises:
        SpecError: naming what is no part of a two-tower model.
    """
    simple: list[Rule] = []
    for rule in rules:
        if rule.part.name == "encoder":
            raise SpecError(
                f"'{rule.part}' is a part of one-tower models; a two-tower model has vision, text, fusion, both."
            )
        names = ("vision", "text") if rule.part.name == "both" else (rule.part.name,)
        simple += [_checked(rule.model_copy(update={"part": rule.part.model_copy(update={"name": n})})) for n in names]
    return simple


def _checked(rule: Rule) -> Rule:
    part = rule.part
    if rule.action in STARTS:
        if not part.whole and part != Part(name=part.name, group="embeddings"):
            raise SpecError(
                f"'{rule}': weights are chosen for whole towers, or for their embeddings; write '{rule.action} "
                f"{part.name}', or '{rule.action} {part.name}.embeddings'."
            )
        if part.name == "fusion" and rule.action != "random":
            raise SpecError("A fusion head has no pretrained weights of its own; start from a saved model to keep one.")
    if part.group == "embeddings" and part.layers:
        raise SpecError(
            f"'{rule}': embeddings have no layers; write '{rule.action} {part.name}.{part.group}', "
            f"or '{rule.action} {part.name}{part.layers}'."
        )
    if part.group == "embeddings" and part.name == "fusion":
        raise SpecError(f"'{rule}': a fusion head has no embeddings; write '{rule.action} fusion', or name its layers.")
    return _checked_adapter(rule) if isinstance(rule, AdapterRule) else rule


def _checked_adapter(rule: AdapterRule) -> AdapterRule:
    part = rule.part
    if rule.action == "bitfit":
        if rule.options:
            raise SpecError("'bitfit' has no options: it trains the biases of a part, and nothing else of it.")
        if part.group:
            raise SpecError(f"'{rule}': bitfit trains the biases of whole layers; write 'bitfit {part.name}'.")
        return rule
    if part.group or part.pattern:
        raise SpecError(
            f"'{rule}': lora takes a part or its layers; write 'lora {part.name}', and name linear layers by targets."
        )
    options = lora_options(rule).model_dump(mode="json", exclude_defaults=True)
    return rule.model_copy(update={"options": options})


def lora_options(rule: AdapterRule) -> LoraOptions:
    """Return the checked options of a 'lora' rule.

    Raises:
        SpecError: one is unknown, or has no such value.
    """
    try:
        return LoraOptions.model_validate(rule.options)
    except ValidationError as error:
        raise SpecError(explain(error, LoraOptions.model_json_schema(), what=f"'{rule}'")) from None


class Starts(NamedTuple):
    """What a tower starts from, and what its embeddings do."""

    weights: Start
    embeddings: Start


def chosen_starts(rules: Iterable[Rule], tower: str) -> Starts:
    """Return what a tower and its embeddings start from; the last rule that says so wins."""
    chosen = Starts("pretrained", "pretrained")
    for rule in rules:
        if isinstance(rule, PartRule) and rule.part.name == tower:
            match rule.action:
                case "random" | "shuffled" | "pretrained" as start:
                    chosen = Starts(start if rule.part.whole else chosen.weights, start)
    return chosen


def starting_rules(towers: Mapping[str, Starts]) -> list[PartRule]:
    """Return the rules that say what towers start from; none where all is pretrained."""
    rules: list[PartRule] = []
    for name, starts in towers.items():
        if starts.weights != "pretrained":
            rules.append(PartRule(action=starts.weights, part=Part.model_validate({"name": name})))
        if starts.embeddings != starts.weights:
            part = Part.model_validate({"name": name, "group": "embeddings"})
            rules.append(PartRule(action=starts.embeddings, part=part))
    return rules


# --- what holds still -------------------------------------------------------------------------------------------------


def holding_rules(rules: Iterable[Rule], towers: Towers) -> tuple[Rule, ...]:
    """Return the rules on what is frozen, trained and adapted, part after part, without those that change nothing.

    Everything trains that no rule names. A range is counted from the start where the depth of its tower is known.

    Raises:
        SpecError: a range is empty or reaches beyond a tower, or rules on an adapted part contradict each other.
    """
    held: dict[str, list[Rule]] = {**{name: [] for name in towers}, "fusion": []}
    for rule in rules:
        if rule.action not in STARTS:
            held[rule.part.name].append(rule.model_copy(update={"part": bounded(rule.part, towers)}))
    for of_part in held.values():
        _check_adapters(of_part)
    return tuple(rule for of_part in held.values() for rule in _simplified(of_part))


def bounded(part: Part, towers: Towers) -> Part:
    """Return the part with its range counted from the start, where its tower's depth is known.

    Raises:
        SpecError: the tower lists no layers, or the range is empty or reaches beyond it.
    """
    if part.name not in towers or (part.layers is None and part.group != "embeddings"):
        return part
    name, facts = towers[part.name]
    if facts.layered is False:
        raise SpecError(f"'{name}' does not list its layers; write 'frozen {part.name}'.")
    if part.layers is None:
        return part
    start, stop = part.layers.start, part.layers.stop
    if not isinstance(facts.depth, Unknown):
        first, last = layer_range(part.layers, facts.depth, name)
        start, stop = first, None if stop is None else last
    layers = None if not start and stop is None else Layers(start=start or None, stop=stop)
    return part.model_copy(update={"layers": layers})


def without_adapters(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return canonical rules without the adapters of LoRA, and without what then changes nothing."""
    kept = [rule for rule in rules if rule.action != "lora"]
    names = dict.fromkeys(rule.part.name for rule in kept)
    return tuple(rule for name in names for rule in _simplified([rule for rule in kept if rule.part.name == name]))


def _check_adapters(rules: Sequence[Rule]) -> None:
    """Refuse a second LoRA of one part, and rules after one that would leave nothing of what it is for."""
    for index, rule in enumerate(rules):
        for later in rules[index + 1 :]:
            if rule.action != "lora":
                continue
            if later.action == "lora":
                raise SpecError(f"'{rule}' and '{later}': one part takes one set of adapters; keep one of them.")
            if _covers(later.part, rule.part):
                fault = "train all that it adapts" if later.action == "trainable" else "freeze the adapters too"
                raise SpecError(f"'{later}' after '{rule}' would {fault}; leave one of them out.")


def _simplified(rules: Sequence[Rule]) -> list[Rule]:
    """Return the rules of one part without those that change nothing."""
    kept = list(rules)
    while (spare := _spare(kept)) is not None:
        del kept[spare]
    return kept


def _spare(rules: Sequence[Rule]) -> int | None:
    """Return which rule changes nothing: it is overruled, says again what holds, or trains what nobody froze."""
    for index, rule in enumerate(rules):
        if rule.action == "lora":
            continue
        overruled = any(_covers(later.part, rule.part) for later in rules[index + 1 :])
        repeated = False
        for earlier in reversed(rules[:index]):
            if earlier.action != rule.action:
                break
            repeated = repeated or _covers(earlier.part, rule.part)
        if overruled or repeated or (rule.action == "trainable" and index == 0):
            return index
    return None


def _covers(wide: Part, narrow: Part) -> bool:
    """Return whether `wide` holds every parameter of `narrow`, another piece of the same part."""
    if wide.pattern not in (None, narrow.pattern) or wide.group not in (None, narrow.group):
        return False
    if wide.layers is None:
        return True
    if narrow.group == "embeddings":
        return wide.layers.start is None
    if narrow.layers is None:
        return False
    (first, last), (start, stop) = _ends(wide.layers), _ends(narrow.layers)
    begins = first is None or (start is not None and (first < 0) == (start < 0) and first <= start)
    reaches = last is None or (stop is not None and (last < 0) == (stop < 0) and last >= stop)
    return begins and reaches  # ends that are counted from either side do not compare


def _ends(layers: Layers) -> tuple[int | None, int | None]:
    return layers.start, layers.stop


def layer_range(layers: Layers, depth: int, name: str) -> tuple[int, int]:
    """Return the first layer of a range, and the one after its last.

    Raises:
        SpecError: the range is empty, or reaches beyond the tower.
    """
    for end in (layers.start, layers.stop):
        if end is not None and not -depth <= end <= depth:
            raise SpecError(
                f"'{name}' has {depth} layers, so '{layers}' reaches beyond it; count from -{depth} to {depth}."
            )
    start, stop, _ = slice(layers.start, layers.stop).indices(depth)
    if start >= stop:
        raise SpecError(
            f"'{layers}' of the {depth} layers of '{name}' is empty; let it begin before it ends, counting from "
            f"-{depth} to {depth}."
        )
    return start, stop
