"""Applications of the core: serving, search, curation and tagging. The core imports none of them."""
