"""Families of dual encoders that others have published: a file for each of those that are spelt alike."""
