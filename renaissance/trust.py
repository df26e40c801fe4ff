"""Which plugins a model of the Hub may use: those that the user names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from renaissance.errors import PluginError
from renaissance.registry import Plugin, Registry
from renaissance.saved_config import needed_plugins, read_config
from renaissance.spec import shown


def trusted(folder: Path, trust: Sequence[str], registry: Registry) -> Registry:
    """Return a registry of the built-ins and of the plugins that a model of the Hub needs, if all are trusted.

    No other plugin is imported, whatever names the model's spec holds.
    """
    given = [trust] if isinstance(trust, str) else list(trust)
    versions = {name: version for name, _, version in (item.partition("==") for item in given)}
    needed: list[Plugin] = []
    for name in needed_plugins(read_config(folder)):
        plugin = registry.plugin(name)
        if name not in versions:
            raise PluginError(
                f"This model of the Hub uses the plugin '{shown(name)}', which runs code of its own. "
                f"If you trust it, pass trust=['{shown(name)}'], or --trust {shown(name)} to a command."
            )
        if plugin is not None and versions[name] not in ("", plugin.version):
            raise PluginError(
                f"'{name}=={versions[name]}' is trusted, and version {plugin.version} is installed. "
                f"Try: pip install {plugin.distribution}=={versions[name]}"
            )
        if plugin is not None:
            needed.append(plugin)
    return Registry(needed)
