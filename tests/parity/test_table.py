"""The page of parity names every reference that the tests compare with."""

from __future__ import annotations

import re
from pathlib import Path

from tests.parity.table import PAGE, table


def test_the_page_has_a_row_for_each_reference_of_these_tests() -> None:
    texts = [path.read_text() for path in Path(__file__).parent.glob("test_*.py")]
    references = {name for text in texts for name in re.findall(r'\bparity\(\s*"([^"]+)"', text)}
    rows = set(re.findall(r"^\| ([^|]+) \| [^|]* \| [^|]+ \| \d\.\de[-+]\d+ \|$", PAGE.read_text(), re.M))
    assert len(references) > 5
    assert references - rows == set(), "run `make parity`"


def test_a_row_has_the_largest_difference_of_its_reference() -> None:
    row = {"reference": "library.A", "version": "1.0", "torch": "2.0", "compared": "tokens", "difference": 1e-7}
    page = table([row, row | {"compared": "logits", "difference": 3e-6}, row | {"reference": "library.B"}])
    assert "| library.A | 1.0 | logits, tokens | 3.0e-06 |\n| library.B | 1.0 | tokens | 1.0e-07 |\n" in page
