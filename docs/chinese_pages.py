"""The Chinese pages in the site: their section of the navigation, and paragraphs that read on (hooks of mkdocs)."""

import contextlib
import logging
import re
from pathlib import Path

FOLDER = Path(__file__).parent / "zh"


def on_startup(command, dirty):
    """Keeps the library that cuts Chinese words, where there is one, from reporting how long it took to load."""
    with contextlib.suppress(ImportError):
        import jieba

        jieba.setLogLevel(logging.WARNING)


def on_config(config):
    """Lists the Chinese pages in the order of the English ones, and above them English pages without a section."""
    english = [page for section in config["nav"] for page in pages(section)]
    unlisted = sorted({page.name for page in FOLDER.parent.glob("*.md")} - set(english))
    if unlisted:
        config["nav"].insert(-1, {"More": unlisted})
    rank = {Path(page).name: number for number, page in enumerate(english)}
    chinese = sorted((page.name for page in FOLDER.glob("*.md")), key=lambda name: rank.get(name, len(rank)))
    config["nav"] = [
        {title: [f"zh/{name}" for name in chinese]} if content == "zh" else {title: content}
        for section in config["nav"]
        for title, content in section.items()
    ]
    return config


def pages(entry):
    """The files that an entry of the navigation leads to."""
    if isinstance(entry, str):
        return [entry]
    return [page for one in (entry.values() if isinstance(entry, dict) else entry) for page in pages(one)]


def on_page_markdown(markdown, page, config, files):
    """Joins the lines of a Chinese paragraph, whose break would be shown as a blank between two characters."""
    if page.file.src_uri.startswith("zh/"):
        return re.sub(r"(?<=[\u3000-\u9fff\uff00-\uffef])\n(?=[\u4e00-\u9fff\uff08\[]|`(?!``))", "", markdown)
    return markdown
