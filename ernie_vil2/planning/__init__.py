"""What a run needs before it is run: memory, traffic, loader rates and days, from its configuration alone."""
