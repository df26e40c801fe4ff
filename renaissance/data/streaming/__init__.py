"""Shards of streams: files of many samples, any part of which can be read without the rest."""
