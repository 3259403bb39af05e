"""What is scored: a benchmark and its metric in each file, which `evaluation.scorer.SCORERS` names."""
