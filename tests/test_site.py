"""The site of the guide: it builds without a warning, holds every public name, and loads nothing from elsewhere."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

import renaissance
from renaissance import api, errors, testing, toolkit

ROOT = Path(__file__).parent.parent
LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "video": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site; a warning is an error: a dead link or anchor, a page in no menu, a docstring without form."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_of_the_repository_becomes_one_of_the_site(site: Path) -> None:
    pages = [path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")]
    pages += [path.parent.relative_to(ROOT) for path in (ROOT / "plugins").glob("renaissance-plugin-*/README.md")]
    for page in pages:
        assert (site / (page.parent if page.name == "index" else page) / "index.html").is_file(), page


def test_every_public_name_stands_in_the_reference(site: Path) -> None:
    reference = "".join(path.read_text() for path in (site / "reference").rglob("*.html"))
    anchors = {anchor.rpartition(".")[2] for anchor in re.findall(r'id="renaissance\.([\w.]+)"', reference)}
    classes = {name for name, _ in inspect.getmembers(errors, inspect.isclass)}
    assert {*renaissance.__all__, *api.__all__, *testing.__all__, *classes} - anchors == set()
    assert set(_toolkit()) - anchors == set()


def test_what_the_guide_imports_stands_in_the_reference(site: Path) -> None:
    pages = [ROOT / "README.md", ROOT / "plugins" / "README.md", *(ROOT / "docs").glob("*.md")]
    imported = {
        f"{module}.{name.strip()}"
        for page in pages
        for module, names in re.findall(r"^ *from (renaissance[\w.]*) import ([\w, ]+)", page.read_text(), re.M)
        for name in names.split(",")
    }
    assert imported
    reference = "".join(path.read_text() for path in (site / "reference").rglob("*.html"))
    assert {path for path in imported if f'id="{path}"' not in reference} == set()


def _toolkit() -> Iterator[str]:
    """Yield the functions and classes that the modules of the toolkit define for others."""
    for found in iter_modules(toolkit.__path__, f"{toolkit.__name__}."):
        for name, value in vars(import_module(found.name)).items():
            own = (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == found.name
            if own and not name.startswith("_"):
                yield name


def test_each_extra_stands_where_installing_is_told() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    page = (ROOT / "docs" / "install.md").read_text()
    assert [extra for extra in extras if not re.search(rf"^\|.*`{extra}`.*\|.*\|$", page, re.M)] == []


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages, sheets = list(site.rglob("*.html")), list(site.rglob("*.css"))
    assert pages
    assert sheets
    loaded = [url for page in pages for url in _loaded(page.read_text())]
    loaded += [url for sheet in sheets for url in _loaded(f"<style>{sheet.read_text()}</style>")]
    assert any(url.endswith("site.css") for url in loaded)
    assert [url for url in loaded if re.match(r"(https?:)?//", url)] == []


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://elsewhere.org/a.js"></script>',
        '<link rel="stylesheet" href="https://elsewhere.org/a.css">',
        '<style>@import "https://elsewhere.org/a.css";</style>',
        "<style>a { background: url('https://elsewhere.org/a.png') }</style>",
    ],
)
def test_what_a_page_would_load_is_seen(html: str) -> None:
    assert any(url.startswith("https://elsewhere.org/a.") for url in _loaded(html))


def _loaded(html: str) -> list[str]:
    """Return what a browser loads to show a page, as the page says it."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    return parser.loaded


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        url = dict(attrs).get(LOADED.get(tag, ""))
        if url is not None:
            self.loaded.append(url)

    def handle_data(self, data: str) -> None:
        self.loaded += re.findall(r"""(?:url\(\s*|@import\s+)["']?([^"')\s]+)""", data)
