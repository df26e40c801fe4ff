"""What an encoder is made of, as data: `ModelSpec` is a one- or two-tower spec, checked in form but not in meaning.

Whether a named component exists, and whether the parts fit, is for `renaissance.resolve` to say.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from renaissance.errors import SpecError

LIBRARIES = ("transformers", "timm", "open-clip")
# what a part can start from
Start = Literal["random", "shuffled", "pretrained"]
STARTS = get_args(Start)
VERBS = ("frozen", "trainable", *STARTS)
ADAPTERS = ("lora", "bitfit")
PARTS = ("vision", "text", "fusion", "encoder", "both")
GROUPS = ("embeddings", "norms", "biases")

SHORT_NAME = r"[A-Za-z][A-Za-z0-9_.\-]*"
_MODEL = r"[A-Za-z0-9_][A-Za-z0-9_.\-]*(?:/[A-Za-z0-9_.\-]+)*"
_REVISION = r"[A-Za-z0-9_][A-Za-z0-9_.\-/]*"
_LIBRARY_NAMES = "|".join(LIBRARIES)
COMPONENT_NAME = rf"(?:(?:{_LIBRARY_NAMES}):{_MODEL}(?:@{_REVISION})?|(?:{SHORT_NAME}:)?{SHORT_NAME})"

# Layer numbers and other integers of a spec stay within what any library can index.
_MAX_INTEGER = 2**31 - 1
_MAX_NAME = 200

ComponentName = Annotated[str, StringConstraints(pattern=rf"^{COMPONENT_NAME}$", max_length=_MAX_NAME)]
LayerNumber = Annotated[int, Field(ge=-_MAX_INTEGER, le=_MAX_INTEGER)]
OptionName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
NamePattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.*?\[\]!\-]+$", max_length=_MAX_NAME)]


def _plain(options: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Refuse values that JSON can write and nothing can use: half surrogate pairs, and integers past 64 bits."""
    waiting: list[JsonValue] = [options]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("a text is not valid Unicode")
        elif isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError("a whole number has more than 64 bits")
    return options


JsonOptions = Annotated[dict[OptionName, JsonValue], AfterValidator(_plain)]


class Strict(BaseModel):
    """Frozen data with no unknown keys, no coerced types and no NaN."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Layers(Strict):
    """A range of layers, as Python slices it: `[:6]`, `[-4:]`, `[2:5]`."""

    start: LayerNumber | None = Field(None, description="First layer, counted from 0; negative: from the end.")
    stop: LayerNumber | None = Field(None, description="The layer after the last one; negative: from the end.")

    @model_validator(mode="after")
    def _bounded(self) -> Layers:
        if self.start is None and self.stop is None:
            raise ValueError("a slice needs a number: '[:6]', '[6:]' or '[2:6]'")
        return self

    def __str__(self) -> str:
        return f"[{'' if self.start is None else self.start}:{'' if self.stop is None else self.stop}]"


class TowerSpec(Strict):
    """A backbone by name, with its options; `layers` builds only that range of its layers."""

    name: ComponentName = Field(
        description="'vit-base', 'plugin:name', 'timm:model' or 'transformers:org/model@revision'."
    )
    layers: Layers | None = Field(None, description="Build these layers only; 'bert-base[:6]' builds six.")
    options: JsonOptions = Field(default_factory=dict, description="Options of this backbone; see `renaissance show`.")


class FusionSpec(Strict):
    """A fusion head by name, with its options."""

    name: Annotated[str, StringConstraints(pattern=rf"^(?:{SHORT_NAME}:)?{SHORT_NAME}$", max_length=_MAX_NAME)] = Field(
        "lxmert", description="'lxmert', or another fusion head that `renaissance list` shows."
    )
    options: JsonOptions = Field(default_factory=dict, description="Options of this head; see `renaissance show`.")

    @model_validator(mode="after")
    def _not_an_adapter(self) -> FusionSpec:
        if self.name in ADAPTERS:
            raise ValueError(f"'{self.name}' is an adapter, and needs the part that it adapts: '{self.name} text'")
        if self.name in (*VERBS, "one-tower", "two-tower", "as-published"):
            raise ValueError(f"'{self.name}' is a word of the shorthand, and names no fusion head")
        return self


class Part(Strict):
    """Part of a model: a tower, the fusion, or some of their layers or parameters."""

    name: Literal["vision", "text", "fusion", "encoder", "both"] = Field(description="'both' is vision and text.")
    group: Literal["embeddings", "norms", "biases"] | None = Field(None, description="Only these parameters of it.")
    layers: Layers | None = Field(
        None,
        description="Only these layers; '[:6]' takes along what comes before the first, '[6:]' what follows the last.",
    )
    pattern: NamePattern | None = Field(
        None, description="Only parameters with such names, as '*.attention.*'; '*', '?' and '[...]' stand for others."
    )

    def __str__(self) -> str:
        group = f".{self.group}" if self.group else ""
        pattern = f"({json.dumps(self.pattern)})" if self.pattern else ""
        return f"{self.name}{group}{self.layers or ''}{pattern}"

    @property
    def whole(self) -> bool:
        """Whether all of it is meant."""
        return self.group is None and self.layers is None and self.pattern is None


class PartRule(Strict):
    """What is done with a part: frozen or trainable, started from random, shuffled or pretrained weights."""

    action: Literal["frozen", "trainable", "random", "shuffled", "pretrained"]
    part: Part

    def __str__(self) -> str:
        return f"{self.action} {self.part}"


class AdapterRule(Strict):
    """A part that is frozen but for a little: matrices of low rank beside its own (LoRA), or its biases (BitFit)."""

    action: Literal["lora", "bitfit"]
    part: Part
    options: JsonOptions = Field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.action} {self.part}"


Rule = Annotated[PartRule | AdapterRule, Field(discriminator="action")]


class AsPublished(Strict):
    """Faults of the published code (arXiv 2411.06657), one by one, for studies that ask what each of them does."""

    inner_layers_only: bool = Field(
        False, description="One tower: only the blocks of the base are kept; its embeddings and final norm are new."
    )
    no_padding_mask: bool = Field(False, description="Padding of texts is attended to as if it were real.")
    ids_embedded_twice: bool = Field(
        False, description="Two towers: the text passes through the embedding block of its tower twice."
    )
    frozen_in_train_mode: bool = Field(False, description="Frozen parts keep their dropout in training.")

    @property
    def any(self) -> bool:
        """Whether there is any fault."""
        return self != AsPublished()


class TwoTowerSpec(Strict):
    """A vision tower, a text tower, and a head that fuses their streams."""

    architecture: Literal["two-tower"] = "two-tower"
    vision: TowerSpec
    text: TowerSpec
    fusion: FusionSpec = FusionSpec()
    rules: tuple[Rule, ...] = Field((), description="Later rules win.", strict=False)
    as_published: AsPublished = AsPublished()


class OneTowerSpec(Strict):
    """One stack of blocks for both modalities; `donor` gives the embeddings of the modality that `base` lacks.

    Without a donor these are new: of patches, or of the words of a tokenizer.
    """

    architecture: Literal["one-tower"] = "one-tower"
    base: TowerSpec
    donor: TowerSpec | None = None
    pooling: Literal["first", "mean", "both"] = Field(
        "first",
        description="What stands for a pair: the text's first token, the mean of all real ones, or both together.",
    )
    modality: Literal["vision", "text"] | None = Field(
        None, description="What the base encodes, where its name does not tell and there is no donor."
    )
    image_size: Annotated[int, Field(ge=1, le=65_536)] | None = Field(
        None, description="Side of the images in pixels, for new patch embeddings; null: 224."
    )
    patch_size: Annotated[int, Field(ge=1, le=65_536)] | None = Field(
        None, description="Side of a patch in pixels, for new patch embeddings; null: 16."
    )
    max_tokens: Annotated[int, Field(ge=3, le=1_000_000)] | None = Field(
        None, description="Longest text in tokens, for new word embeddings; null: 64."
    )
    tokenizer: str | None = Field(
        None, description="A folder with a tokenizer.json, for new word embeddings; null: the one that ships."
    )
    rules: tuple[Rule, ...] = Field((), description="Later rules win.", strict=False)
    as_published: AsPublished = AsPublished()


ModelSpec = Annotated[OneTowerSpec | TwoTowerSpec, Field(discriminator="architecture")]
_MODEL_SPEC: TypeAdapter[OneTowerSpec | TwoTowerSpec] = TypeAdapter(ModelSpec)


def validate_spec(data: object) -> OneTowerSpec | TwoTowerSpec:
    """Return the spec that JSON-like `data` describes.

    Raises:
        SpecError: with the path of the first fault and the nearest valid key.
    """
    try:
        return _MODEL_SPEC.validate_python(data)
    except ValidationError as error:
        raise SpecError(explain(error, _MODEL_SPEC.json_schema(), what="spec")) from None
    except ValueError as error:  # whole numbers of thousands of digits, before pydantic can say where
        raise SpecError(f"spec: {shown(error)}.") from None


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a spec."""
    return _MODEL_SPEC.json_schema()


# --- explaining what pydantic found ---------------------------------------------------------------------------------


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known word, or "" where none is near."""
    close = difflib.get_close_matches(word.lower(), sorted(set(known)), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def explain(error: ValidationError, schema: dict[str, Any], *, what: str) -> str:
    """Return one line: where the first fault of a validation is (an unknown key before others), and what."""
    faults = error.errors(include_url=False, include_context=False)
    # a key that is misspelt is missing too: the misspelling says more
    fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    steps, beside = _followed(schema, fault["loc"])
    path = shown(".".join(steps))
    if fault["type"] == "extra_forbidden":
        known = sorted(
            {key for node in beside for option in _options(schema, node) for key in option.get("properties", {})}
        )
        listed = f" Known keys: {', '.join(known)}." if known and len(known) <= 40 else ""
        return f"{what}: unknown key '{path}'.{did_you_mean(str(fault['loc'][-1]), known)}{listed}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "string_pattern_mismatch":
        message = f"'{shown(fault['input'])}' is no name; names are letters, digits, '.', '_' and '-'"
    more = len(faults) - 1
    where = f" '{path}':" if path else ""
    return f"{what}:{where} {message[:1].lower()}{message[1:]}{f' (and {more} more)' if more else ''}."


def shown(text: object, limit: int = 80) -> str:
    """Return text as it can be printed in an error: control and bidirectional characters escaped, not too long."""
    plain = str(text)[: limit + 1]
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in plain)
    return safe if len(safe) <= limit else safe[:limit] + "..."


def _followed(schema: dict[str, Any], location: tuple[int | str, ...]) -> tuple[list[str], list[dict[str, Any]]]:
    """Follow a fault's location: the steps that stand in the data, and what the schema allows beside the last one.

    pydantic's locations also hold tags of discriminated unions, and "[key]" after a key that is wrong itself.
    """
    steps: list[str] = []
    nodes, beside = [schema], [schema]
    for step in location:
        tagged = [{"$ref": node["discriminator"]["mapping"][step]} for node in nodes if step in _tags(node)]
        if tagged:
            nodes = tagged
        elif step != "[key]":
            steps.append(str(step))
            beside, nodes = nodes, [child for node in nodes for child in _children(schema, node, step)]
    return steps, beside


def _tags(node: dict[str, Any]) -> dict[str, str]:
    mapping = node.get("discriminator", {}).get("mapping", {})
    return mapping if isinstance(mapping, dict) else {}


def _options(schema: dict[str, Any], node: dict[str, Any]) -> list[dict[str, Any]]:
    if "$ref" in node:
        node = schema.get("$defs", {}).get(node["$ref"].rsplit("/", 1)[-1], {})
    alternatives = node.get("anyOf") or node.get("oneOf")
    return [leaf for option in alternatives for leaf in _options(schema, option)] if alternatives else [node]


def _children(schema: dict[str, Any], node: dict[str, Any], step: int | str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for option in _options(schema, node):
        if isinstance(step, int):
            found.append(option.get("items", {}))
        elif step in option.get("properties", {}):
            found.append(option["properties"][step])
        elif isinstance(option.get("additionalProperties"), dict):
            found.append(option["additionalProperties"])
        else:  # a mapping whose keys have a pattern, as the tasks of a recipe
            found += option.get("patternProperties", {}).values()
    return found


def parse_json(text: str, *, what: str) -> Any:
    """Parse JSON, refusing duplicate keys, NaN and infinities.

    Raises:
        SpecError: naming `what` and the fault.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in items:
            if key in seen:
                raise SpecError(f"{what}: the key '{shown(key)}' stands twice; keep one.")
            seen[key] = value
        return seen

    def constant(name: str) -> Any:
        raise SpecError(f"{what}: {name} is not a number that can be used.")

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{what}: not valid JSON ({shown(error)}).") from None
