"""A parser of HTML pages for tests: tags, text, and the lines of charts."""

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Tags with their attributes, and the text of a page; tags that do not nest fail the test."""

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

    def find_all(self, tag, **values):
        """Return the attributes of all tags of a name whose attributes have these values; `class_` means class."""
        tags = []
        for name, attributes in self.tags:
            if name == tag and all(attributes.get(key.rstrip("_")) == value for key, value in values.items()):
                tags.append(attributes)
        return tags


def read_chart_lines(html, chart):
    """Return the points of every line of a chart, in the chart's units."""
    svg = re.search(rf'<svg[^>]*aria-label="{chart}".*?</svg>', html, re.DOTALL).group()
    lines = []
    for path in re.findall(r'<path class="line[^"]*" d="([^"]*)"', svg):
        points = re.findall(r"[ML]([\d.]+) ([\d.]+)", path)
        lines.append([(float(x), float(y)) for x, y in points])
    return lines
