"""Readers: one file a layout."""
