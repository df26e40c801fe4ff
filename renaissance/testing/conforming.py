"""Every rule of the kit on every entry of a plugin: as a decorated test, as a report, and as `renaissance conform`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, TypeVar

from renaissance.api import Entry
from renaissance.errors import MissingPackageError, PluginError, UnknownComponentError
from renaissance.registry import BUILTIN_MODULE, GROUP, Component, Plugin, Registry, default_registry, key_of
from renaissance.spec import did_you_mean, shown
from renaissance.testing.benches import Bench
from renaissance.testing.describing import TRIED
from renaissance.testing.items import Example
from renaissance.testing.rules import Rule, bench_of, rules_for
from renaissance.testing.subjects import ConformanceError, NotApplicable, NotTried, failure

Test = TypeVar("Test", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one rule on one entry; the reason says why it does not apply, what it lacks, or how it failed."""

    entry: str
    rule: str
    outcome: Literal["held", "not applicable", "not tried", "failed"]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of all rules."""

    findings: tuple[Finding, ...]

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The rules that were broken."""
        return tuple(finding for finding in self.findings if finding.outcome == "failed")

    def check(self) -> None:
        """Raise if a rule was broken.

        Raises:
            ConformanceError: naming the rules, and the components that break them.
        """
        if self.failures:
            told = ", ".join(f"'{found.rule}' by '{found.entry}'" for found in self.failures)
            raise ConformanceError(f"{len(self.failures)} of {len(self.findings)} rules are broken: {told}.")


@dataclass(frozen=True, slots=True)
class Case:
    """One rule on one entry; calling it checks, and skips the test where the rule does not apply.

    It is also skipped where a package is missing that the entry needs. A rule that needs other items than the kit can
    make up fails, as a test can give them: else a task that refuses everything would hold every rule.
    """

    bench: Bench
    rule: Rule

    def __call__(self) -> None:
        """Check the rule in a test.

        Raises:
            ConformanceError: the entry breaks it, or items must be given to try it.
        """
        import pytest

        try:
            self.rule.check(self.bench)
        except (NotApplicable, MissingPackageError) as reason:
            pytest.skip(str(reason))
        except NotTried as reason:
            raise failure(self.rule.name, f"it was not tried: {reason}", "conformance(examples=...)") from None

    def finding(self) -> Finding:
        """Check the rule, and tell what came of it."""
        entry, rule = self.bench.component.qualified, self.rule.name
        try:
            self.rule.check(self.bench)
        except NotApplicable as reason:
            return Finding(entry, rule, "not applicable", str(reason))
        except (NotTried, MissingPackageError) as reason:
            return Finding(entry, rule, "not tried", str(reason))
        except ConformanceError as error:
            return Finding(entry, rule, "failed", str(error))
        except Exception as error:  # a plugin's own code: anything can come of it
            return Finding(entry, rule, "failed", f"{type(error).__name__}: {shown(error, 300)}")
        return Finding(entry, rule, "held")


def conformance(
    plugin: str | ModuleType,
    *,
    components: Collection[str] | None = None,
    examples: Mapping[str, Example] | None = None,
) -> Callable[[Test], Test]:
    """Return the decorator that gives a test each rule for each entry of a plugin's module, as the argument `rule`.

    components: only those of these names. examples: by the names of tasks, the items that these are tried on, in place
    of made-up ones.

    Raises:
        PluginError: the module cannot be imported, or its hooks return nonsense.
        ValueError: it offers no component of such a name.
    """
    import pytest

    module = plugin if isinstance(plugin, str) else plugin.__name__
    found, registry = offered(module)
    unknown = {*(components or ()), *(examples or ())} - {component.entry.name for component in found}
    if unknown:
        raise ValueError(f"'{module}' offers no component called '{min(unknown)}'")
    chosen = [component for component in found if components is None or component.entry.name in components]
    cases = [pytest.param(case, id=case_id(case)) for case in cases_of(chosen, registry, examples)]
    return pytest.mark.parametrize("rule", cases)


def conform(what: str | Entry, *, rules: Collection[str] | None = None, registry: Registry | None = None) -> Report:
    """Check every rule that applies to a component, or to all components of a plugin.

    what: the name of a component or of a plugin, or an entry. rules: only those of these names. Components are built
    at their tiny size, with random weights.

    Raises:
        UnknownComponentError: nothing installed has this name.
        PluginError: the plugin failed.
        ValueError: there is no such rule.
    """
    if isinstance(what, Entry):
        components, registry = alone(what)
    else:
        registry = registry or default_registry()
        components = named(what, registry)
    cases = list(cases_of(components, registry))
    unknown = set(rules or ()) - {case.rule.name for case in cases}
    if unknown:
        raise ValueError(f"no rule is called '{min(unknown)}', or none for this component")
    return Report(tuple(case.finding() for case in cases if rules is None or case.rule.name in rules))


def alone(entry: Entry) -> tuple[list[Component], Registry]:
    """Return the component of an entry that is given by itself, and a registry of it and the built-ins."""
    plugin = Plugin(TRIED, "", "none", "0", GROUP, entries={key_of(entry): entry}, imported=True)
    return [Component(entry, TRIED)], Registry([plugin])


def named(name: str, registry: Registry) -> list[Component]:
    """Return the component of this name (a vision and a text backbone may share one), or all of a plugin's.

    Raises:
        UnknownComponentError: nothing installed has this name.
        PluginError: the plugin failed.
    """
    if name == registry.builtin.name:
        return [component for component in registry.components() if component.plugin == name]
    plugin = registry.plugin(name)
    components = list(registry.components())
    if plugin is not None and plugin.failure is not None:
        raise PluginError(f"The plugin '{name}' ({plugin.distribution}) failed: {plugin.failure}")
    owned = [component for component in components if component.plugin == name]
    found = owned or [c for c in components if name in (c.qualified, c.entry.name)]
    if not found:
        names = {c.qualified for c in components} | {plugin.name for plugin in registry.plugins()}
        hint = did_you_mean(name, names)
        raise UnknownComponentError(f"Nothing installed is called '{shown(name)}'.{hint} See 'renaissance list'.")
    return found


def offered(module: str) -> tuple[list[Component], Registry]:
    """Return what a plugin's module offers, and a registry of it and the built-ins.

    Raises:
        PluginError: the module cannot be imported, or its hooks return nonsense.
    """
    if module == BUILTIN_MODULE:
        registry = Registry()
        return list(registry.components()), registry
    name = module.removeprefix("renaissance_plugin_").replace("_", "-")
    registry = Registry([Plugin(name, module, module, "0")])
    (plugin,) = registry.plugins()
    if plugin.failure is not None:
        raise PluginError(f"The plugin '{module}' failed: {plugin.failure}")
    return [component for component in registry.components() if component.plugin == name], registry


def cases_of(
    components: list[Component], registry: Registry, examples: Mapping[str, Example] | None = None
) -> Iterator[Case]:
    """Yield each rule for each component; what a component builds is shared among its rules."""
    for component in components:
        bench = bench_of(component, registry, (examples or {}).get(component.entry.name))
        for rule in rules_for(component.entry):
            yield Case(bench, rule)


def case_id(case: Case) -> str:
    """Return what a test of the case is called: 'minilm (text): padding'."""
    entry = case.bench.component.entry
    modality = getattr(entry, "modality", None)
    return f"{entry.name}{f' ({modality})' if modality else ''}: {case.rule.name}"
