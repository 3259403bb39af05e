"""Experiments with the library, which are run in a checkout and are not part of the wheel."""
