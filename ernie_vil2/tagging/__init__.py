"""Object tags for the samples of any source; tools/extract_tags.py is the command line, docs/tags.md the guide."""
