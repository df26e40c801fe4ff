"""Which components there are: discovery of plugins, their names, conflicts and failures.

Entry points are listed from metadata alone; a plugin is imported when a command needs its entries, and its failure
stays its own: it is kept, shown by `renaissance plugins`, and takes no neighbour down.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, NamedTuple

import pluggy

from renaissance import hookspecs
from renaissance.api import API_VERSION, BackboneEntry, Entry, FusionHeadEntry, Modality, Options, TaskEntry
from renaissance.errors import PluginError, UnknownComponentError
from renaissance.spec import LIBRARIES, SHORT_NAME, did_you_mean, shown

GROUP = f"renaissance.v{API_VERSION}"
BUILTIN = "renaissance"
BUILTIN_MODULE = "renaissance.builtin.plugin"

Kind = Literal["backbone", "fusion-head", "task"]

_HOOKS: dict[str, type[Entry]] = {
    "register_backbones": BackboneEntry,
    "register_fusion_heads": FusionHeadEntry,
    "register_tasks": TaskEntry,
}
_KINDS: dict[type[Entry], Kind] = {BackboneEntry: "backbone", FusionHeadEntry: "fusion-head", TaskEntry: "task"}


class Key(NamedTuple):
    """What names a component: a vision and a text backbone may have one name."""

    kind: Kind
    modality: Modality | None
    name: str


def key_of(entry: Entry) -> Key:
    """Return what names the component of an entry."""
    kind = next(kind for owner, kind in _KINDS.items() if isinstance(entry, owner))
    return Key(kind, getattr(entry, "modality", None), entry.name)


@dataclass(frozen=True, slots=True)
class Component:
    """An entry, the plugin that offers it ("renaissance" for built-ins), and its qualified name."""

    entry: Entry
    plugin: str

    @property
    def qualified(self) -> str:
        """The name that always works: a built-in's own, or 'plugin:name'."""
        return self.entry.name if self.plugin == BUILTIN else f"{self.plugin}:{self.entry.name}"


@dataclass(slots=True)
class Plugin:
    """An installed plugin: where it comes from, and, once imported, what it offers or why it failed."""

    name: str
    module: str
    distribution: str
    version: str
    api: str = GROUP
    failure: str | None = None
    entries: dict[Key, Entry] = field(default_factory=dict)
    imported: bool = False


class Registry:
    """The components of the built-ins and of the given plugins; see `default_registry`."""

    def __init__(self, plugins: Iterable[Plugin] = ()) -> None:
        self.builtin = Plugin(BUILTIN, BUILTIN_MODULE, "renaissance-vl", "built in")
        self._plugins: dict[str, Plugin] = {}
        for plugin in plugins:
            self._admit(plugin)

    def plugins(self) -> tuple[Plugin, ...]:
        """Import every plugin, each isolated, and return them with what they offer or why they failed."""
        return tuple(_imported(plugin) for plugin in self._plugins.values())

    def components(self, kind: Kind | None = None) -> Iterator[Component]:
        """Yield all components, built-ins first."""
        for plugin in (_imported(self.builtin), *self.plugins()):
            for key, entry in plugin.entries.items():
                if kind in (None, key.kind):
                    yield Component(entry, plugin.name)

    def find(self, kind: Kind, name: str, modality: Modality | None = None) -> Component:
        """Return the component of this name; 'plugin:name' imports that plugin alone.

        Raises:
            UnknownComponentError: nobody offers it; the message has the nearest names and the plugins that failed.
            PluginError: two plugins offer the bare name, or the plugin that is named failed.
        """
        qualifier, _, short = name.rpartition(":")
        key = Key(kind, modality, short)
        if qualifier in ("", BUILTIN) and key in _imported(self.builtin).entries:
            return Component(self.builtin.entries[key], BUILTIN)
        if qualifier:
            return self._qualified(qualifier, key)
        found = [plugin for plugin in self.plugins() if key in plugin.entries]
        if len(found) > 1:
            names = " or ".join(f"'{plugin.name}:{short}'" for plugin in found)
            raise PluginError(f"Several plugins offer a {kind} called '{shown(short)}'; say {names}.")
        if not found:
            raise self._unknown(kind, modality, short)
        return Component(found[0].entries[key], found[0].name)

    def clashes(self) -> dict[Key, tuple[str, ...]]:
        """Return the names that several offer: the qualified ones of each; a built-in's, which keeps it, first."""
        offers: dict[Key, tuple[str, ...]] = {}
        for component in self.components():
            key = key_of(component.entry)
            offers[key] = (*offers.get(key, ()), component.qualified)
        return {key: names for key, names in offers.items() if len(names) > 1}

    def plugin(self, name: str) -> Plugin | None:
        """Return the installed plugin of this name, without importing it."""
        return self._plugins.get(name)

    def _qualified(self, qualifier: str, key: Key) -> Component:
        plugin = self._plugins.get(qualifier)
        if qualifier in LIBRARIES:
            raise UnknownComponentError(
                f"'{shown(qualifier)}:{shown(key.name)}' is a backbone of a library, and no {_noun(key.kind, None)}. "
                f"See 'renaissance list --kind {key.kind}'."
            )
        if plugin is None:
            hint = did_you_mean(qualifier, self._plugins)
            raise UnknownComponentError(
                f"'{shown(qualifier)}:{shown(key.name)}' comes from a plugin that is not installed.{hint} "
                f"Try: pip install renaissance-plugin-{shown(qualifier)}"
            )
        if _imported(plugin).failure is not None:
            raise PluginError(f"The plugin '{plugin.name}' ({plugin.distribution}) failed: {plugin.failure}")
        if key not in plugin.entries:
            names = sorted(other.name for other in plugin.entries if other.kind == key.kind)
            raise UnknownComponentError(
                f"The plugin '{plugin.name}' offers no {_noun(key.kind, key.modality)} called '{shown(key.name)}'."
                f"{did_you_mean(key.name, names)}{' It offers: ' + ', '.join(names) + '.' if names else ''}"
            )
        return Component(plugin.entries[key], plugin.name)

    def _unknown(self, kind: Kind, modality: Modality | None, name: str) -> UnknownComponentError:
        noun = _noun(kind, modality)
        same = {c.entry.name for c in self.components(kind) if getattr(c.entry, "modality", None) == modality}
        failed = [plugin.name for plugin in self.plugins() if plugin.failure]
        told = f" Plugins that failed: {', '.join(failed)} (see 'renaissance plugins')." if failed else ""
        hint = did_you_mean(name, same) or " See 'renaissance list'."
        return UnknownComponentError(f"No installed plugin offers a {noun} called '{shown(name)}'.{hint}{told}")

    def _admit(self, plugin: Plugin) -> None:
        twin = self._plugins.get(plugin.name)
        if plugin.name in (BUILTIN, *LIBRARIES) or twin is not None:
            owner = "renaissance itself" if twin is None else twin.distribution
            plugin.failure = f"the name '{plugin.name}' is taken by {owner}; the distribution must choose another."
            plugin.imported = True
            self._plugins[f"{plugin.name} ({plugin.distribution})"] = plugin
        else:
            self._plugins[plugin.name] = plugin


@cache
def default_registry() -> Registry:
    """Return the registry of what is installed; RENAISSANCE_PLUGINS=a,b loads only those plugins."""
    return Registry(installed_plugins(os.environ.get("RENAISSANCE_PLUGINS")))


def installed_plugins(only: str | None = None) -> list[Plugin]:
    """List the plugins that are installed, from metadata alone; `only` is a comma-separated list of names."""
    wanted = None if only is None else {name.strip() for name in only.split(",")}
    points = [point for group in _groups() for point in entry_points(group=group)]
    ours = {(point.name, _distribution(point)) for point in points if point.group == GROUP}
    # a distribution may speak several API versions: then the others do not matter
    usable = [point for point in points if point.group == GROUP or (point.name, _distribution(point)) not in ours]
    found = sorted(map(_from_metadata, usable), key=lambda plugin: (plugin.name, plugin.distribution))
    return [plugin for plugin in found if wanted is None or plugin.name in wanted]


def _groups() -> list[str]:
    return sorted(group for group in entry_points().groups if group.startswith("renaissance.v"))


def _from_metadata(point: EntryPoint) -> Plugin:
    version = point.dist.version if point.dist else "unknown"
    plugin = Plugin(point.name, point.value, _distribution(point), version, api=point.group)
    if point.group != GROUP:
        plugin.failure = f"it is made for {point.group}, and this renaissance speaks {GROUP}; install a version for it."
        plugin.imported = True
    return plugin


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "unknown"


def _imported(plugin: Plugin) -> Plugin:
    """Import a plugin once and collect its entries; whatever goes wrong becomes its `failure`."""
    if plugin.imported:
        return plugin
    plugin.imported = True
    try:
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for what a command prints
            plugin.entries = _collect(plugin)
    except KeyboardInterrupt:
        plugin.imported = False
        raise
    except BaseException as error:  # what ends a program, or skips a test, is no Exception
        if plugin.name == BUILTIN:
            raise
        plugin.failure = f"{type(error).__name__}: {_told(error)}"
    return plugin


def _told(error: BaseException) -> str:
    """Return what an error says; one whose text cannot even be made says that."""
    try:
        return shown(error, 300)
    except Exception:
        return "(it cannot be printed)"


def _collect(plugin: Plugin) -> dict[Key, Entry]:
    module = import_module(plugin.module)
    manager = pluggy.PluginManager("renaissance")
    manager.add_hookspecs(hookspecs)
    manager.register(module)
    manager.check_pending()
    entries: dict[Key, Entry] = {}
    for hook, expected in _HOOKS.items():
        for offered in _call(getattr(manager.hook, hook)):
            entry = _checked(offered, expected, hook)
            key = key_of(entry)
            if key in entries:
                raise PluginError(f"{hook} offers '{entry.name}' twice.")
            entries[key] = entry
    return entries


def _call(hook: Callable[[], list[Any]]) -> Iterator[Any]:
    for offered in hook():
        yield from offered


def _checked(offered: object, expected: type[Entry], hook: str) -> Entry:
    if not isinstance(offered, expected):
        raise PluginError(f"{hook} returned {shown(repr(offered))}, which is no {expected.__name__}.")
    if not (isinstance(offered.name, str) and re.fullmatch(SHORT_NAME, offered.name)):
        raise PluginError(f"{hook} offers {shown(repr(offered.name))}, which is no name that a spec can say.")
    if not (isinstance(offered.options, type) and issubclass(offered.options, Options)):
        raise PluginError(f"The options of '{offered.name}' are no subclass of renaissance.api.Options.")
    if ":" not in offered.factory:
        raise PluginError(f"The factory of '{offered.name}' is '{offered.factory}', and not 'package.module:callable'.")
    return offered


def _noun(kind: Kind, modality: Modality | None) -> str:
    return f"{modality} backbone" if modality else kind.replace("-", " ")


def load_factory(entry: Entry) -> Callable[..., Any]:
    """Import and return the factory of an entry.

    Raises:
        PluginError: the module or the callable is not there, or its import failed.
    """
    module, _, name = entry.factory.partition(":")
    try:
        return getattr(import_module(module), name)  # type: ignore[no-any-return]  # the conformance kit checks the call
    except (ImportError, AttributeError) as error:
        raise PluginError(
            f"The factory '{entry.factory}' of '{entry.name}' cannot be imported: {shown(error, 200)}."
        ) from error
