"""YAML without its traps: the safe loader, with the scalars of JSON, and without aliases, tags and duplicate keys."""

from __future__ import annotations

import re
from typing import Any

import yaml

from renaissance.errors import SpecError
from renaissance.spec import shown

MAX_BYTES = 256 * 1024
_TOO_DEEP = re.compile(rb"(?:[\[{]\s*){64}")


def parse_yaml(raw: bytes, *, what: str) -> Any:
    """Parse YAML with the safe loader: no aliases, no duplicate keys, no tags, no octal or yes/no surprises.

    Raises:
        SpecError: naming `what`, the line and the fault.
    """
    if len(raw) > MAX_BYTES:
        raise SpecError(f"{what}: {len(raw):,} bytes are more than a recipe's {MAX_BYTES:,}.")
    if _TOO_DEEP.search(raw):  # PyYAML takes half a second to find that out itself
        raise SpecError(f"{what}: it is nested too deeply to be a recipe.")
    try:
        return yaml.load(raw.decode("utf-8"), Loader=_PlainLoader)  # _PlainLoader is a SafeLoader
    except UnicodeDecodeError:
        raise SpecError(f"{what}: not UTF-8 text.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}:" if mark else ""
        raise SpecError(f"{what}:{where} {shown(getattr(error, 'problem', None) or error, 200)}.") from None
    except (RecursionError, ValueError) as error:
        raise SpecError(f"{what}: {shown(error, 200)}.") from None


class _PlainLoader(yaml.SafeLoader):
    """The safe loader without aliases and duplicate keys, with the numbers and truth values of JSON."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's stubs leave it untyped
        if getattr(event, "tag", None) is not None:
            raise yaml.composer.ComposerError(None, None, "tags ('!name') are not allowed", event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None,
                None,
                "aliases ('*name') are not allowed; write the value out",
                self.peek_event().start_mark,  # type: ignore[no-untyped-call]
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is not text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{shown(key)}' stands twice; keep one", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _json_scalars(loader: type[_PlainLoader]) -> None:
    """Keep only JSON's null, truth values and numbers, so that no, on, 012 and 1:30 stay text (and are refused)."""
    kept = {"tag:yaml.org,2002:null"}
    loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag in kept]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
    loader.add_implicit_resolver(
        "tag:yaml.org,2002:int", re.compile(r"^-?(?:0|[1-9][0-9]{0,18})$"), list("-0123456789")
    )
    number = re.compile(r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$")
    loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-0123456789"))


_json_scalars(_PlainLoader)
