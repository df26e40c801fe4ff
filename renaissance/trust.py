"""Which plugins a model of the Hub may use: those that the user names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from renaissance.errors import PluginError
from renaissance.registry import Plugin, Registry
from renaissance.saved_config import needed_plugins, read_config
from renaissance.spec import shown


def trusted(folder: Path, trust: Sequence[str], registry: Registry) -> Registry:
    """Return a registry of the built-ins and of the plugins that a model of the Hub needs, if all are trusted.

    No other plugin is imported, whatever names the model's spec holds.

    Raises:
        PluginError: one is not named in `trust`, or another version of it is installed than is trusted.
    """
    given = [trust] if isinstance(trust, str) else list(trust)
    trusted_as = {item.partition("==")[0]: item for item in given}
    names = needed_plugins(read_config(folder))
    _check_named(list(names), trusted_as)
    needed: list[Plugin] = []
    for name in names:
        plugin, version = registry.plugin(name), trusted_as[name].partition("==")[2]
        if plugin is not None and version not in ("", plugin.version):
            raise PluginError(
                f"'{name}=={version}' is trusted, and version {plugin.version} is installed. "
                f"Try: pip install {plugin.distribution}=={version}"
            )
        if plugin is not None:
            needed.append(plugin)
    return Registry(needed)


def _check_named(needed: Sequence[str], trusted_as: Mapping[str, str]) -> None:
    """Refuse a model that needs plugins which the user did not name; all of them are told at once."""
    if any(name not in trusted_as for name in needed):
        wanted = [shown(trusted_as.get(name, name)) for name in needed]  # all of them, so that it can be copied
        raise PluginError(
            f"This model of the Hub runs code of plugins: {', '.join(map(shown, needed))}. If you trust "
            f"{'it' if len(needed) == 1 else 'them'}, pass trust=[{', '.join(map(repr, wanted))}], or "
            f"{' '.join(f'--trust {name}' for name in wanted)} to a command."
        )
