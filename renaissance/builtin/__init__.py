"""The default plugins: entries (torch-free) and the modules that they name."""
