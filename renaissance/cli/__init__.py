"""The command line: one file a command group, each command a thin call of the public surface."""

from __future__ import annotations

from renaissance.cli.app import main

__all__ = ["main"]
