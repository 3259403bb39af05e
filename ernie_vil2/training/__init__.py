"""The training run: its loop, optimiser, schedule, checkpoints and log."""
