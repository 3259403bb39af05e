"""Sample sources, tokenisation and batches."""
