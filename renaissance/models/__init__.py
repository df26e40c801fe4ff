"""The closed set of architectures, and freezing."""
