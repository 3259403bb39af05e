"""Weights in every format, in and out."""
