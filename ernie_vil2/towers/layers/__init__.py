"""Layers of the towers. They need Paddle; the configurations of towers, which build them, do not."""
