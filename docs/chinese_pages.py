"""The Chinese pages in the site: a section called by its language, whose words can be searched (hooks of mkdocs)."""

import contextlib
import logging
import re


def on_startup(command, dirty):
    """Keeps the library that cuts Chinese words, where there is one, from reporting how long it took to load."""
    with contextlib.suppress(ImportError):
        import jieba

        jieba.setLogLevel(logging.WARNING)


def on_page_markdown(markdown, page, config, files):
    """Joins the lines of a Chinese paragraph, whose break would be shown as a blank between two characters."""
    if page.file.src_uri.startswith("zh/"):
        return re.sub(r"(?<=[\u3000-\u9fff\uff00-\uffef])\n(?=[\u4e00-\u9fff\uff08\[]|`(?!``))", "", markdown)
    return markdown


def on_nav(nav, config, files):
    """Names the section, which mkdocs calls as the folder."""
    for item in nav.items:
        if item.title == "Zh":
            item.title = "简体中文"
    return nav
