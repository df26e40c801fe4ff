"""Controlled studies: a design as data, its runs, statistics over them, and verdicts."""
