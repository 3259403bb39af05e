"""The training run: engine, optimiser, schedule, checkpoints and log."""
