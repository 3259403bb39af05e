"""Object tags for the samples of any source; docs/tags.md is the guide."""
