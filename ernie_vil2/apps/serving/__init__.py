"""Serving: embeddings, ranking and classification by models over HTTP, and what every server of the package shares."""
