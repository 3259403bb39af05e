"""What tests look at in a page."""

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Reads a page into (tag, attributes) and text, and notices tags that do not nest."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(html)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag, **wanted):
        found = [attributes for name, attributes in self.tags if name == tag]
        return [a for a in found if all(a.get(key.rstrip("_")) == value for key, value in wanted.items())]


def read_chart_lines(html, chart):
    """The points of every line of one chart, in the chart's own units."""
    svg = re.search(rf'<svg[^>]*aria-label="{chart}".*?</svg>', html, re.DOTALL).group()
    paths = re.findall(r'<path class="line[^"]*" d="([^"]*)"', svg)
    points = [re.findall(r"[ML]([\d.]+) ([\d.]+)", path) for path in paths]
    return [[(float(x), float(y)) for x, y in line] for line in points]
