"""The command line: one file a command group, each command a thin call of the public surface."""
