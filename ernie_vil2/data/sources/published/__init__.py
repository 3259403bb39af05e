"""Retrieval benchmarks as their authors publish them, one layout a file; docs/benchmarks.md shows each on disk."""
