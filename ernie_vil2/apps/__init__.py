"""Applications of the core: search, curation and tagging, each with its commands. The core imports none of them."""
