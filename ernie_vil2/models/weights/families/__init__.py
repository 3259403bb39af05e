"""Families of dual encoders of other projects: one file for each group with similar names of arrays."""
