"""First-party plugins as wheels in a clean environment, and a plugin of a user's own from its first line to a model.

The environment has renaissance and the plugins from wheels. What these depend on is linked, so that it is not installed
again; of what is installed editable here nothing is seen there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLUGINS = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))
TRANSCRIPT = ROOT / "plugins" / "transcript.md"
OURS = ("renaissance", "__editable__")
NOT_SOURCE = ("build", "dist", "runs", "*.egg-info", "__pycache__", ".*_cache", ".venv", ".git")
LONGEST = 600  # seconds, on a busy machine
# What pip does for a wheel, without its three processes for each.
BUILD_WHEELS = """
import os, sys
from setuptools import build_meta

out, *sources = sys.argv[1:]
for source in sources:
    os.chdir(source)
    build_meta.build_wheel(out)
"""
BUILD = """
import renaissance
from renaissance.shorthand import format_spec

model = renaissance.build("tiny-vit + tiny-bert, random both, xyz:gated(width=32)", tasks=["itm"])
model.save("model")
print(format_spec(renaissance.from_pretrained("model").spec))
"""
pytestmark = pytest.mark.timeout(4 * LONGEST)
LOAD = 'import renaissance; renaissance.from_pretrained("model")'


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and a folder to work in."""

    folder: Path
    work: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def run(self, *words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment."""
        return run([self.folder / "bin" / words[0], *words[1:]], cwd or self.work)

    def pip(self, *words: str | Path) -> None:
        """Run pip on the environment, without a network."""
        pip("--python", self.python, *words)


def run(words: Sequence[str | Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment: Mapping[str, str] = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    hidden = {"PYTHONPATH", "RENAISSANCE_PLUGINS", "COV_CORE_SOURCE"}
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={name: value for name, value in environment.items() if name not in hidden},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONGEST,
    )


def pip(*words: str | Path) -> None:
    done = run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words], ROOT)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Wheels of renaissance and of each plugin, built from copies: a build leaves files beside its sources."""
    folder = tmp_path_factory.mktemp("wheels")
    sources = folder / "sources"
    for source in PLUGINS:
        shutil.copytree(source, sources / source.name, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    own = sources / "renaissance-vl"
    shutil.copytree(ROOT / "renaissance", own / "renaissance", ignore=shutil.ignore_patterns(*NOT_SOURCE))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, own)
    done = run([sys.executable, "-c", BUILD_WHEELS, folder, *sorted(sources.iterdir())], folder)
    assert done.returncode == 0, done.stdout
    return sorted(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A clean environment with the wheels, and what they depend on."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    linked = folder / "dependencies"
    linked.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(OURS):
            (linked / path.name).symlink_to(path)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(f"{linked}\n")
    work = folder / "work"
    work.mkdir()
    made = Environment(folder / "venv", work)
    made.pip("install", "--no-compile", "--no-deps", "--no-index", *wheels)
    return made


def test_each_plugin_is_a_wheel_that_holds_its_package_alone(wheels: list[Path]) -> None:
    from zipfile import ZipFile

    for source in PLUGINS:
        project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
        (module,) = project["entry-points"]["renaissance.v1"].values()
        (wheel,) = (path for path in wheels if path.name.startswith(project["name"].replace("-", "_") + "-"))
        with ZipFile(wheel) as archive:
            names = archive.namelist()
        assert {name.split("/")[0].split("-")[0] for name in names} == {module}
        assert f"{module}/py.typed" in names


def test_all_plugins_are_listed_without_a_failure(environment: Environment) -> None:
    done = environment.run("renaissance", "plugins", "--json")
    found = {plugin["name"]: plugin for plugin in json.loads(done.stdout)["plugins"]}
    assert {name: plugin["failure"] for name, plugin in found.items() if plugin["failure"]} == {}
    for source in PLUGINS:
        project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
        (name,) = project["entry-points"]["renaissance.v1"]
        assert (found[name]["distribution"], found[name]["version"]) == (project["name"], project["version"])
        assert found[name]["entries"]


def test_nothing_is_taken_from_this_checkout(environment: Environment) -> None:
    where = "import renaissance, renaissance_plugin_example as plugin; print(renaissance.__file__, plugin.__file__)"
    places = environment.run("python", "-c", where).stdout.split()
    assert len(places) == 2
    assert all(place.startswith(str(environment.folder)) for place in places)


def test_a_plugin_of_ones_own_goes_from_its_first_line_to_a_model(environment: Environment) -> None:
    """The transcript in plugins/transcript.md is what happens; RENAISSANCE_UPDATE_DOCS=1 writes it anew."""
    steps: list[tuple[str, str, int]] = []

    def step(line: str, *words: str | Path) -> None:
        done = environment.run(*words)
        steps.append((line, done.stdout, done.returncode))

    new = ("new-plugin", "xyz", "--kind", "fusion-head")
    step(f"renaissance {' '.join(new)}", "renaissance", *new)
    environment.pip(
        "install", "--no-deps", "--no-index", "--no-build-isolation", environment.work / "renaissance-plugin-xyz"
    )
    steps.append(("pip install ./renaissance-plugin-xyz", "", 0))
    step("renaissance plugins", "renaissance", "plugins")
    step("renaissance conform xyz", "renaissance", "conform", "xyz")
    (environment.work / "build.py").write_text(BUILD.lstrip())
    step("python build.py", "python", "build.py")
    environment.pip("uninstall", "--yes", "renaissance-plugin-xyz")
    steps.append(("pip uninstall --yes renaissance-plugin-xyz", "", 0))
    step(f"python -c '{LOAD}'", "python", "-c", LOAD)

    assert [code for _, _, code in steps] == [0, 0, 0, 0, 0, 0, 1]
    assert "Try: pip install renaissance-plugin-xyz==0.1.0" in steps[-1][1]
    check_transcript(steps)


def check_transcript(steps: Sequence[tuple[str, str, int]]) -> None:
    text = "".join(f"$ {line}\n{last_lines(said)}" for line, said, _ in steps)
    page = TRANSCRIPT.read_text()
    fresh = re.sub(
        r"(```text\n).*?(```\n)",
        lambda match: f"{match[1]}$ cat build.py\n{BUILD.lstrip()}{text}{match[2]}",
        page,
        count=1,
        flags=re.DOTALL,
    )
    if os.environ.get("RENAISSANCE_UPDATE_DOCS"):
        TRANSCRIPT.write_text(fresh)
    assert fresh == TRANSCRIPT.read_text(), "run this test with RENAISSANCE_UPDATE_DOCS=1 to write the transcript anew"


def last_lines(said: str) -> str:
    """Return what was said, of a traceback the last line alone."""
    if not said.startswith("Traceback"):
        return said
    return f"...\n{said.rstrip().splitlines()[-1]}\n"
