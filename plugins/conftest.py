"""What the tests of the plugins share with those of renaissance."""

from __future__ import annotations

from tests.parity.conftest import parity as parity
