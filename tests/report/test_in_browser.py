"""The report in a real browser: from disk, on a desk and on a phone, with a mouse and with keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from renaissance.report import write, write_collection
from tests.report import cases
from tests.report.browser import CHROMIUM, DRIVER, ENTER, Browser, browser

pytestmark = pytest.mark.skipif(None in (CHROMIUM, DRIVER), reason="chromium and chromedriver are not installed")

TABLE = "#scores > details[open] > .table table"
COLUMN = f"[...document.querySelectorAll('{TABLE} tbody tr')].map(row => row.cells[1].textContent)"
OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(cases.study_in(tmp_path_factory.mktemp("study"))).html


@pytest.fixture
def opened(window: Browser, page: Path) -> Iterator[Browser]:
    """Open the report anew; whatever a test does, the console stays silent and nothing is fetched."""
    window.requested()
    window.be(1280)
    window.open(page)
    yield window
    assert window.errors() == []
    assert {address for address in window.requested() if not address.startswith("data:")} == {page.as_uri()}


def test_all_of_it_shows_in_a_page_that_asks_nothing_of_a_network(opened: Browser) -> None:
    pictures = opened.run("return [...document.images].map(image => image.complete && image.naturalWidth > 0)")
    assert pictures == [True] * 10
    seen = opened.run(
        "return [...document.querySelectorAll('figure')].map(figure => [...figure.children]"
        ".filter(child => child.matches('svg') && child.getBoundingClientRect().height > 100).length)"
    )
    assert seen == [1] * 5


@pytest.mark.parametrize("key", ["a click", "Enter"])
def test_a_table_sorts_by_a_column_and_back(opened: Browser, key: str) -> None:
    button = f"{TABLE} th:nth-child(2) button"

    def go() -> None:
        if key == "Enter":
            opened.press(button, ENTER)
        else:
            opened.click(button)

    def order() -> tuple[list[float], str]:
        state = f"return [{COLUMN}, document.querySelector('{TABLE} th:nth-child(2)').ariaSort]"
        values, sorted_by = opened.run(state)
        return [float(value) for value in values], sorted_by

    before, _ = order()
    go()
    assert order() == (sorted(before, reverse=True), "descending")
    go()
    assert order() == (sorted(before), "ascending")
    assert before not in (sorted(before), sorted(before, reverse=True))


@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_is_no_wider_than_the_window_and_wide_tables_scroll_in_their_box(opened: Browser, width: int) -> None:
    opened.be(width)
    opened.run("for (const part of document.querySelectorAll('details')) part.open = true")
    assert opened.run(OVERFLOW) == 0
    scrolled = (
        "return [...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth).length"
    )
    assert opened.run(scrolled) > 0
    small = "return [...document.querySelectorAll('svg text')].map(text => text.getBoundingClientRect().height)"
    assert min(height for height in opened.run(small) if height) > 9


def test_the_theme_is_the_reader_s_until_they_choose_another(opened: Browser) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = opened.run(ground)
    opened.be(1280, dark=True)
    dark = opened.run(ground)
    assert light != dark
    opened.click("button.theme")
    assert opened.run(ground) == light
    opened.run("localStorage.clear()")


def test_the_first_key_leads_past_the_contents(opened: Browser) -> None:
    opened.press("body", "\ue004")
    assert opened.run("return document.activeElement.className") == "skip"
    opened.press(".skip", ENTER)
    assert opened.run("return document.activeElement.id") == "content"


def test_on_paper_everything_is_unfolded_and_nothing_can_be_pressed(opened: Browser) -> None:
    opened.run("dispatchEvent(new Event('beforeprint'))")
    assert opened.run("return document.querySelectorAll('details:not([open])').length") == 0
    opened.run("dispatchEvent(new Event('afterprint'))")
    assert opened.run("return document.querySelectorAll('details:not([open])').length") > 0


def test_a_script_in_a_result_file_does_not_run(window: Browser, tmp_path: Path) -> None:
    facts = cases.small()
    facts["study"]["question"] = "</title><script>document.title = 'taken'</script><img src=x onerror=alert(1)>"
    facts["arms"][0]["about"] = "<script>document.title = 'taken'</script>"
    window.open(write(cases.study_in(tmp_path, facts)).html)
    assert window.run("return document.title") == "freezing – report of a study"
    assert window.run("return document.querySelector('.asked').textContent") == facts["study"]["question"]
    assert window.errors() == []


def test_a_collection_is_one_page_too(window: Browser, tmp_path: Path) -> None:
    facts = cases.small()
    window.be(390)
    window.open(write_collection({"freezing": facts, "second": facts}, facts["claims"], tmp_path).html)
    assert window.run(OVERFLOW) == 0
    assert window.run("return [...document.querySelectorAll('nav a')].map(link => link.hash)") == [
        "#claims",
        "#study-freezing",
        "#study-second",
    ]
    names = window.run("return [...document.querySelectorAll('[id]')].map(element => element.id)")
    assert len(set(names)) == len(names)
    assert window.errors() == []
