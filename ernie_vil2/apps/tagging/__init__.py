"""Object tags for the samples of any source; tools/tag.py is the command line, docs/tags.md the guide."""
