from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from renaissance.api import BackboneEntry, FusionHeadEntry, TaskEntry
from renaissance.errors import PluginError, UnknownComponentError
from renaissance.registry import BUILTIN, GROUP, Plugin, Registry, installed_plugins, load_factory
from renaissance.resolve import resolve

GOOD = """
from renaissance.api import BackboneEntry, FusionHeadEntry, TaskEntry, hookimpl

@hookimpl
def register_backbones():
    return [BackboneEntry(name={name!r}, summary="A test", factory="x:y", modality="vision")]

@hookimpl
def register_tasks():
    yield TaskEntry(name={name!r} + "-task", summary="A test", factory="x:y")
"""

BAD = {
    "missing_import": "import a_module_that_is_not_there",
    "exits": "import sys; sys.exit(3)",
    "raises": "raise RuntimeError('on import')",
    "no_exception": "class E(BaseException): pass\nraise E('on import')",
    "bad_syntax": "def broken(:",
    "unprintable": "class E(Exception):\n    def __str__(self): raise ValueError\nraise E()",
    "bad_hook": "from renaissance.api import hookimpl\n@hookimpl\ndef register_tasks():\n    raise OSError('hook')",
    "exits_in_hook": "from renaissance.api import hookimpl\n@hookimpl\ndef register_tasks():\n    raise SystemExit(1)",
    "wrong_type": "from renaissance.api import hookimpl\n@hookimpl\ndef register_tasks():\n    return ['mlm']",
    "no_iterable": "from renaissance.api import hookimpl\n@hookimpl\ndef register_tasks():\n    return 3",
    "wrong_kind": (
        "from renaissance.api import FusionHeadEntry, hookimpl\n@hookimpl\ndef register_tasks():\n"
        "    return [FusionHeadEntry(name='x', summary='', factory='a:b')]"
    ),
    "unknown_hook": "from renaissance.api import hookimpl\n@hookimpl\ndef register_losses():\n    return []",
    "twice": (
        "from renaissance.api import TaskEntry, hookimpl\n@hookimpl\ndef register_tasks():\n"
        "    return [TaskEntry(name='x', summary='', factory='a:b')] * 2"
    ),
    "no_options": (
        "from renaissance.api import TaskEntry, hookimpl\n@hookimpl\ndef register_tasks():\n"
        "    return [TaskEntry(name='x', summary='', factory='a:b', options=dict)]"
    ),
    "no_factory": (
        "from renaissance.api import TaskEntry, hookimpl\n@hookimpl\ndef register_tasks():\n"
        "    return [TaskEntry(name='x', summary='', factory='nowhere')]"
    ),
    "no_name": (
        "from renaissance.api import TaskEntry, hookimpl\n@hookimpl\ndef register_tasks():\n"
        "    return [TaskEntry(name='a name: with spaces', summary='', factory='a:b')]"
    ),
}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Install a distribution with one plugin, as pip would leave it; return the name of its module."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def plugin(
        name: str, source: str, *, distribution: str = "", group: str = GROUP, groups: tuple[str, ...] = ()
    ) -> str:
        distribution = distribution or f"renaissance-plugin-{name}"
        module = f"{distribution.replace('-', '_')}_module"
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        points = "".join(f"[{each}]\n{name} = {module}\n" for each in groups or (group,))
        (info / "entry_points.txt").write_text(points)
        return module

    yield plugin
    for name in set(sys.modules) - before:
        if name.startswith("renaissance_plugin_") or name.endswith("_module"):
            del sys.modules[name]


def installed() -> Registry:
    return Registry(installed_plugins())


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_plugin_takes_no_neighbour_down(fault: str, install: Callable[..., str]) -> None:
    install("bad", BAD[fault])
    install("good", GOOD.format(name="neighbour"))
    registry = installed()
    names = {component.qualified for component in registry.components()}
    assert {"good:neighbour", "good:neighbour-task", "mlm", "lxmert", "vit-base"} <= names
    assert not any(name.startswith("bad:") for name in names)
    (bad,) = [plugin for plugin in registry.plugins() if plugin.name == "bad"]
    assert bad.failure
    assert (bad.distribution, bad.version) == ("renaissance-plugin-bad", "1.2")


def test_a_failed_plugin_that_is_named_tells_its_failure(install: Callable[..., str]) -> None:
    install("bad", BAD["raises"])
    with pytest.raises(PluginError, match=r"'bad' \(renaissance-plugin-bad\) failed: RuntimeError: on import"):
        installed().find("task", "bad:anything")


def test_failed_plugins_are_told_at_the_end_of_an_unknown_name(install: Callable[..., str]) -> None:
    install("bad", BAD["missing_import"])
    with pytest.raises(UnknownComponentError, match=r"Did you mean 'vit-base'\? Plugins that failed: bad \(see"):
        installed().find("backbone", "vit-bse", "vision")


def test_a_hook_that_raises_keeps_the_other_plugins_hooks(install: Callable[..., str]) -> None:
    for number in range(4):
        install(f"good{number}", GOOD.format(name=f"component{number}"))
    install("bad", BAD["bad_hook"])
    registry = installed()
    assert {f"good{n}:component{n}" for n in range(4)} <= {c.qualified for c in registry.components("backbone")}
    assert [plugin.name for plugin in registry.plugins() if plugin.failure] == ["bad"]


def test_what_a_plugin_prints_is_no_output_of_a_command(
    install: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    install("loud", "print('hello')\n" + GOOD.format(name="loud"))
    assert installed().find("backbone", "loud:loud", "vision").plugin == "loud"
    assert capsys.readouterr() == ("", "hello\n")


def test_a_library_has_no_fusion_heads() -> None:
    with pytest.raises(UnknownComponentError, match="'timm:lxmert' is a backbone of a library, and no fusion head"):
        installed().find("fusion-head", "timm:lxmert")


def test_a_built_in_keeps_its_bare_name_always(install: Callable[..., str]) -> None:
    install("thief", GOOD.format(name="vit-base"))
    registry = installed()
    assert registry.find("backbone", "vit-base", "vision").plugin == BUILTIN
    assert registry.find("backbone", "thief:vit-base", "vision").qualified == "thief:vit-base"
    assert registry.find("backbone", "renaissance:vit-base", "vision").qualified == "vit-base"


@pytest.mark.parametrize("name", ["renaissance", "timm", "transformers", "open-clip"])
def test_a_plugin_cannot_take_the_name_of_renaissance_or_of_a_library(name: str, install: Callable[..., str]) -> None:
    install(name, GOOD.format(name="mine"), distribution="a-thief")
    registry = installed()
    (plugin,) = [plugin for plugin in registry.plugins() if plugin.name == name]
    assert plugin.failure is not None
    assert "taken by renaissance itself" in plugin.failure
    assert registry.plugin(name) is None
    assert "a_thief_module" not in sys.modules


def test_two_third_parties_with_one_bare_name_must_be_told_apart(install: Callable[..., str]) -> None:
    install("one", GOOD.format(name="same"))
    install("two", GOOD.format(name="same"))
    registry = installed()
    with pytest.raises(PluginError, match=r"called 'same'; say 'one:same' or 'two:same'"):
        registry.find("backbone", "same", "vision")
    assert registry.find("backbone", "two:same", "vision").plugin == "two"


def test_two_distributions_with_one_plugin_name_leave_the_first_at_work(install: Callable[..., str]) -> None:
    install("same", GOOD.format(name="first"), distribution="a-first")
    install("same", GOOD.format(name="second"), distribution="b-second")
    registry = installed()
    assert registry.find("backbone", "same:first", "vision").qualified == "same:first"
    failures = [plugin.failure for plugin in registry.plugins() if plugin.failure]
    assert failures == ["the name 'same' is taken by a-first; the distribution must choose another."]


def test_a_bare_name_that_one_plugin_offers_is_enough(install: Callable[..., str]) -> None:
    install("good", GOOD.format(name="alone"))
    assert installed().find("backbone", "alone", "vision").qualified == "good:alone"


@pytest.mark.parametrize("group", ["renaissance.v0", "renaissance.v2", "renaissance.v10", "renaissance.vx"])
def test_a_plugin_of_another_api_is_told_so_and_not_imported(group: str, install: Callable[..., str]) -> None:
    module = install("old", GOOD.format(name="old"), group=group)
    registry = installed()
    with pytest.raises(PluginError, match=rf"made for {group}, and this renaissance speaks {GROUP}"):
        registry.find("backbone", "old:old", "vision")
    assert module not in sys.modules


def test_a_plugin_that_speaks_several_apis_works(install: Callable[..., str]) -> None:
    install("many", GOOD.format(name="spoken"), groups=("renaissance.v0", GROUP, "renaissance.v2"))
    registry = installed()
    assert registry.find("backbone", "many:spoken", "vision").plugin == "many"
    assert [plugin.failure for plugin in registry.plugins() if plugin.name == "many"] == [None]


def test_renaissance_plugins_loads_only_those(install: Callable[..., str]) -> None:
    install("one", GOOD.format(name="a"))
    module = install("two", GOOD.format(name="b"))
    assert [plugin.name for plugin in installed_plugins("one, three")] == ["one"]
    assert installed_plugins("") == []
    list(Registry(installed_plugins("one")).components())
    assert module not in sys.modules


def test_an_unknown_plugin_says_the_pip_line_and_the_nearest_installed_name(install: Callable[..., str]) -> None:
    install("einops", GOOD.format(name="a"))
    with pytest.raises(UnknownComponentError) as caught:
        installed().find("backbone", "einop:a", "vision")
    assert "Did you mean 'einops'?" in str(caught.value)
    assert str(caught.value).endswith("Try: pip install renaissance-plugin-einop")


def test_an_unknown_name_of_a_known_plugin_says_what_it_offers(install: Callable[..., str]) -> None:
    install("good", GOOD.format(name="alone"))
    with pytest.raises(UnknownComponentError, match=r"Did you mean 'alone'\? It offers: alone\."):
        installed().find("backbone", "good:alon", "vision")


def test_plugins_are_listed_from_metadata_and_imported_once_needed(install: Callable[..., str]) -> None:
    modules = [install(name, GOOD.format(name=f"from-{name}")) for name in ("one", "two")]
    registry = installed()
    assert registry.plugin("one") is not None
    resolve("vit-base + bert-base", ("mlm", "itm"), registry=registry)
    assert not set(modules) & set(sys.modules)
    registry.find("backbone", "one:from-one", "vision")
    assert [module in sys.modules for module in modules] == [True, False]


def test_a_check_of_built_ins_imports_neither_plugins_nor_torch(tmp_path: Path, install: Callable[..., str]) -> None:
    module = install("one", GOOD.format(name="a"))
    code = (
        "import sys; from renaissance.resolve import resolve; from renaissance.registry import default_registry;"
        "resolve('vit-base + bert-base, frozen text[:6]', ('mlm', 'itm', 'itc', 'retrieval'));"
        "assert default_registry().plugin('one');"
        f"found = {{'torch', 'transformers', 'timm', 'open_clip', 'huggingface_hub', {module!r}}} & set(sys.modules);"
        "sys.exit(str(found) if found else 0)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_vision_and_a_text_backbone_may_have_one_name() -> None:
    registry = Registry()
    kinds = {
        getattr(registry.find("backbone", "transformers", modality).entry, "modality", None)
        for modality in ("vision", "text")
    }
    assert kinds == {"vision", "text"}


def test_built_ins_are_entries_of_three_kinds() -> None:
    kinds = {type(component.entry) for component in Registry().components()}
    assert kinds == {BackboneEntry, FusionHeadEntry, TaskEntry}


@pytest.mark.parametrize("factory", ["a_module_that_is_not_there:x", "json:not_there"])
def test_a_factory_that_is_not_there_is_a_typed_error(factory: str) -> None:
    with pytest.raises(PluginError, match=f"The factory '{factory}' of 'x' cannot be imported"):
        load_factory(TaskEntry(name="x", summary="", factory=factory))


def test_a_plugin_is_known_by_its_metadata_before_it_is_imported() -> None:
    plugin = Plugin("x", "a_module_that_is_not_there", "dist", "1")
    registry = Registry([plugin])
    assert not plugin.imported
    assert registry.plugin("x") is plugin
