"""Protocols, the scoring interface and intervals."""
