"""`python -m renaissance` is the command line."""

from __future__ import annotations

import sys

from renaissance.cli import main

sys.exit(main())
