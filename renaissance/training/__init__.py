"""The loop, the train step, the optimiser and checkpoints."""
