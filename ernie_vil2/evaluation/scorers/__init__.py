"""Scorers: each file holds a benchmark and its metric; `evaluation.scorer.SCORERS` gives them their names."""
