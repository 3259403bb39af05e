"""The training run: its parts and their assembly, the loop, optimiser, schedule, checkpoints and log."""
