"""Pages for people, from plain data: one HTML file each, with its styles, charts and images inside.

A page holds no script and loads nothing from elsewhere. The templates escape whatever they are given; what a page shows
is decided by who calls it, and nothing of the library is known here.
"""

from ernie_vil2.pages.charts import Axis, Chart, Series, comparison_charts, line_chart, speed_charts, training_charts
from ernie_vil2.pages.page import Answer, Card, Table, percent, render, write_page

__all__ = [
    "Answer",
    "Axis",
    "Card",
    "Chart",
    "Series",
    "Table",
    "comparison_charts",
    "line_chart",
    "percent",
    "render",
    "speed_charts",
    "training_charts",
    "write_page",
]
