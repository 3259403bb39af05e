"""Retrieval benchmarks as their authors publish them, one file per layout; docs/benchmarks.md shows each on disk."""
