"""Memory, traffic, loader rates and days of a run, computed from its configuration before it runs."""
