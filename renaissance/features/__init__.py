"""The store of frozen features."""
