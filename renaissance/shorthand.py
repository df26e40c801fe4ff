"""The one-line form of a spec: `"vit-base + bert-base, two-tower, frozen text"`.

spec    = tower [ "+" tower ] { "," clause }
tower   = name [ slice ] [ "(" key "=" json { "," key "=" json } ")" ]
name    = short | plugin ":" short | library ":" model [ "@" revision ]
clause  = "one-tower" [ "(" options ")" ] | "two-tower" | rule part | adapter part | fusion head | faults
faults  = "as-published" "(" key "=" true { "," key "=" true } ")"
rule    = "frozen" | "trainable" | "random" | "shuffled" | "pretrained"
adapter = ("lora" | "bitfit") [ "(" options ")" ]
part    = ("vision" | "text" | "fusion" | "encoder" | "both") [ "." group ] [ slice ] [ names ]
group   = "embeddings" | "norms" | "biases"
names   = "(" pattern in double quotes ")"          parameters by name, as in a shell: text("*.attention.*")
slice   = "[" [int] ":" [int] "]"
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import ValidationError

from renaissance.errors import SpecError
from renaissance.spec import (
    ADAPTERS,
    COMPONENT_NAME,
    GROUPS,
    PARTS,
    VERBS,
    AdapterRule,
    AsPublished,
    FusionSpec,
    OneTowerSpec,
    Part,
    TowerSpec,
    TwoTowerSpec,
    did_you_mean,
    explain,
    parse_json,
    shown,
    validate_spec,
)

MAX_LENGTH = 16_384
_ARCHITECTURES = ("one-tower", "two-tower")
# what a one-tower model has to choose beside its parts
ONE_TOWER = ("pooling", "modality", "image_size", "patch_size", "max_tokens", "tokenizer")
FAULTS = tuple(AsPublished.model_fields)
_NAME = re.compile(COMPONENT_NAME)
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]*")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INTEGER = re.compile(r"-?[0-9]{1,10}(?![0-9])")
_DECODER = json.JSONDecoder()


def parse_spec(text: str) -> OneTowerSpec | TwoTowerSpec:
    """Return the spec that one line of shorthand stands for.

    Raises:
        SpecError: the line breaks the grammar; the message shows where, and what could stand there.
    """
    if len(text) > MAX_LENGTH:
        raise SpecError(f"A spec has at most {MAX_LENGTH} characters, and this one has {len(text)}.")
    return _Parser(text).spec()


def parse_part(text: str) -> Part:
    """Return the part of a model that a text names, as 'text[-2:]'.

    Raises:
        SpecError: it breaks the grammar.
    """
    if len(text) > MAX_LENGTH:
        raise SpecError(f"A part has at most {MAX_LENGTH} characters, and this one has {len(text)}.")
    return _Parser(text).whole_part()


def format_spec(spec: OneTowerSpec | TwoTowerSpec) -> str:
    """Return the one line from which `parse_spec` gives this spec back."""
    if isinstance(spec, TwoTowerSpec):
        towers, fusion = [spec.vision, spec.text], [_component(spec.fusion)]
    else:
        towers, fusion = [spec.base, *([spec.donor] if spec.donor else [])], []
    rules = [
        f"{rule.action}{_options(rule.options) if isinstance(rule, AdapterRule) else ''} {rule.part}"
        for rule in spec.rules
    ]
    faults = spec.as_published.model_dump(exclude_defaults=True)
    published = [f"as-published{_options(faults)}"] if faults else []
    chosen = spec.model_dump(exclude_defaults=True, include=set(ONE_TOWER)) if isinstance(spec, OneTowerSpec) else {}
    return ", ".join(
        [" + ".join(map(_component, towers)), spec.architecture + _options(chosen), *rules, *fusion, *published]
    )


def _component(component: TowerSpec | FusionSpec) -> str:
    layers = component.layers if isinstance(component, TowerSpec) else None
    return f"{component.name}{layers or ''}{_options(component.options)}"


def _options(options: dict[str, Any]) -> str:
    return f"({', '.join(f'{key}={json.dumps(value)}' for key, value in options.items())})" if options else ""


class _Parser:
    """A recursive-descent parser; `at` is the position of the next character."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def spec(self) -> OneTowerSpec | TwoTowerSpec:
        towers = [self.tower()]
        if self.take("+"):
            towers.append(self.tower())
        if self.peek("+"):
            raise self.fault("a model has at most two towers; clauses are divided by ','")
        clauses: dict[str, Any] = {"rules": []}
        while self.take(","):
            self.clause(clauses)
        if self.rest():
            raise self.fault("expected ',' and a clause, or the end")
        return validate_spec(_with_towers(towers, clauses, self.text))

    def tower(self) -> dict[str, Any]:
        name = self.match(_NAME)
        if name is None:
            raise self.fault("expected the name of a backbone, such as 'vit-base' or 'timm:resnet18'")
        tower: dict[str, Any] = {"name": name}
        if self.peek("["):
            tower["layers"] = self.slice()
        if self.peek("("):
            tower["options"] = self.options()
        return tower

    def clause(self, clauses: dict[str, Any]) -> None:
        start = self.skip()
        name = self.match(_NAME)
        if name is None:
            raise self.fault("expected a clause, such as 'two-tower', 'frozen text' or 'lxmert'")
        if name in _ARCHITECTURES:
            self.once(clauses, "architecture", name, start)
            if self.peek("("):
                clauses["chosen"] = self.options()
        elif name == "as-published":
            self.once(clauses, "as_published", self.faults(start), start)
        elif name in VERBS:
            clauses["rules"].append({"action": name, "part": self.part(name)})
        elif name in ADAPTERS:
            options = self.options() if self.peek("(") else {}
            clauses["rules"].append({"action": name, "options": options, "part": self.part(name)})
        else:
            self.fusion(clauses, name, start)

    def fusion(self, clauses: dict[str, Any], name: str, start: int) -> None:
        options = self.options() if self.peek("(") else {}
        if (word := _WORD.match(self.text, self.skip())) is not None:
            hint = did_you_mean(name, (*VERBS, *ADAPTERS))
            raise self.fault(f"'{shown(name)} {shown(word[0])}' is no clause.{hint}", at=start)
        if "[" in self.text[self.at : self.at + 1]:
            raise self.fault("a fusion head takes options in '( )', not a slice")
        self.once(clauses, "fusion", {"name": name, "options": options}, start)

    def faults(self, start: int) -> dict[str, Any]:
        """Return the faults that are asked for; each by its name, and none by default."""
        faults = self.options() if self.peek("(") else {}
        odd = next((name for name, value in faults.items() if name not in FAULTS or value is not True), None)
        if odd is not None or not faults:
            hint = did_you_mean(odd, FAULTS) if odd else ""
            raise self.fault(
                f"'as-published' needs the faults by name, {', '.join(FAULTS)}: {FAULTS[1]}=true{hint}", at=start
            )
        return faults

    def once(self, clauses: dict[str, Any], key: str, value: Any, start: int) -> None:
        if key in clauses:
            word = {"architecture": "architecture", "fusion": "fusion head"}.get(key, "'as-published'")
            raise self.fault(f"a second {word}; keep one", at=start)
        clauses[key] = value

    def part(self, verb: str) -> dict[str, Any]:
        self.skip()
        word = self.match(_WORD)
        if word is None:
            raise self.fault(f"'{verb}' needs a part: '{verb} vision', '{verb} text' or '{verb} both'")
        name, _, group = word.partition(".")
        if name not in PARTS:
            raise self.fault(f"'{shown(name)}' is no part of a model: {', '.join(PARTS)}.{did_you_mean(name, PARTS)}")
        part: dict[str, Any] = {"name": name}
        if "." in word:
            if group not in GROUPS:
                raise self.fault(f"'.{shown(group)}' is unknown: .{', .'.join(GROUPS)}.{did_you_mean(group, GROUPS)}")
            part["group"] = group
        if self.peek("["):
            start = self.skip()
            part["layers"] = self.slice()
            layers = self.text[start : self.at]
            if self.take("."):
                group = self.match(_WORD) or "norms"
                raise self.fault(f"the layers come last: '{name}.{shown(group)}{shown(layers)}'", at=start)
        if self.peek("("):
            part["pattern"] = self.pattern()
        return part

    def pattern(self) -> str:
        """Return the pattern of names in '("...")'."""
        self.take("(")
        pattern = self.value("names") if self.peek('"') else None
        if not isinstance(pattern, str) or not self.take(")"):
            raise self.fault("names of parameters stand in double quotes: 'frozen text(\"*.attention.*\")'")
        return pattern

    def whole_part(self) -> Part:
        """Return the one part that the text names."""
        if _WORD.match(self.text, self.skip()) is None:
            raise self.fault("expected a part, such as 'vision' or 'text[-2:]'")
        part = self.part("part")
        if self.rest():
            raise self.fault("expected the end of the part")
        try:
            return Part.model_validate(part)
        except ValidationError as error:
            raise SpecError(explain(error, Part.model_json_schema(), what=f"part '{shown(self.text)}'")) from None

    def slice(self) -> dict[str, Any]:
        self.take("[")
        start = self.integer()
        if not self.take(":"):
            raise self.fault("a slice is '[start:stop]' with whole numbers, such as '[:6]'")
        stop = self.integer()
        if not self.take("]"):
            raise self.fault("a slice is '[start:stop]' with whole numbers, such as '[:6]'")
        return {"start": start, "stop": stop}

    def integer(self) -> int | None:
        self.skip()
        digits = self.match(_INTEGER)
        return None if digits is None else int(digits)

    def options(self) -> dict[str, Any]:
        self.take("(")
        options: dict[str, Any] = {}
        while not self.take(")"):
            if options and not self.take(","):
                raise self.fault("expected ',' or ')' after an option")
            self.skip()
            key = self.match(_KEY)
            if key is None or not self.take("="):
                raise self.fault("an option is 'key=value'")
            if key in options:
                raise self.fault(f"the option '{shown(key)}' stands twice; keep one")
            options[key] = self.value(key)
        return options

    def value(self, key: str) -> Any:
        start = self.skip()
        try:
            _, end = _DECODER.raw_decode(self.text, start)
        except (ValueError, RecursionError):
            hint = "strings need double quotes, truth values are true and false"
            raise self.fault(f"the value of '{shown(key)}' is no JSON: {hint}") from None
        self.at = end
        return parse_json(self.text[start:end], what=f"option '{shown(key)}'")

    # --- characters ---------------------------------------------------------------------------------------------

    def skip(self) -> int:
        while self.at < len(self.text) and self.text[self.at] in " \t\n":
            self.at += 1
        return self.at

    def rest(self) -> str:
        return self.text[self.skip() :]

    def peek(self, character: str) -> bool:
        return self.text.startswith(character, self.skip())

    def take(self, character: str) -> bool:
        found = self.peek(character)
        self.at += len(character) if found else 0
        return found

    def match(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self.text, self.skip())
        if found is None:
            return None
        self.at = found.end()
        return found[0]

    def fault(self, message: str, *, at: int | None = None) -> SpecError:
        at = self.at if at is None else at
        here = shown(self.text[at : at + 30]) or "the end"
        return SpecError(f"{message[:1].upper()}{message[1:]} (at character {at + 1}: '{here}').".replace(".).", ".)"))


def _with_towers(towers: list[dict[str, Any]], clauses: dict[str, Any], text: str) -> dict[str, Any]:
    """Put the towers where the architecture has them; two towers are a two-tower model unless the line says one."""
    architecture = clauses.setdefault("architecture", _ARCHITECTURES[len(towers) - 1])
    chosen = clauses.pop("chosen", {})
    known = ONE_TOWER if architecture == "one-tower" else ()
    if (odd := next((key for key in chosen if key not in known), None)) is not None:
        listed = f"it has: {', '.join(known)}" if known else "it has none"
        raise SpecError(f"'{architecture}' has no option '{shown(odd)}'; {listed}.{did_you_mean(odd, known)}")
    if architecture == "two-tower":
        if len(towers) < 2:
            raise SpecError(
                f"A two-tower model needs two backbones: '{shown(towers[0]['name'])} + bert-base, two-tower'."
            )
        return {**clauses, "vision": towers[0], "text": towers[1]}
    if "fusion" in clauses:
        name = clauses["fusion"]["name"]
        raise SpecError(f"A one-tower model has no fusion head; leave out '{shown(name)}', or say 'two-tower'.")
    return {**clauses, **chosen, "base": towers[0], **({"donor": towers[1]} if len(towers) > 1 else {})}
