"""What crosses ranks."""

from .gather import gather_rows, gather_views

__all__ = ["gather_rows", "gather_views"]
