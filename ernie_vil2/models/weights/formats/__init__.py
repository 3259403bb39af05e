"""Formats of ERNIE-ViL 2.0 on disk: a folder of ours, and the two releases."""
