"""Pages for people, made from plain data: each is one HTML file with its styles, charts and images inside.

Pages load nothing from elsewhere. The templates escape all text. The caller decides what a page shows; this package
knows nothing of the rest of the library.
"""

from ernie_vil2.pages.charts import (
    Axis,
    Chart,
    Series,
    list_borders,
    make_comparison_charts,
    make_line_chart,
    make_speed_charts,
    make_training_charts,
)
from ernie_vil2.pages.page import Answer, Card, Table, format_percent, render, write_page

__all__ = [
    "Answer",
    "Axis",
    "Card",
    "Chart",
    "Series",
    "Table",
    "format_percent",
    "list_borders",
    "make_comparison_charts",
    "make_line_chart",
    "make_speed_charts",
    "make_training_charts",
    "render",
    "write_page",
]
