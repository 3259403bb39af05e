"""Templates to files, and what the templates can do beyond jinja2."""

import base64
import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ernie_vil2.io.files import write_text

# Chinese characters, and the punctuation and digits between them.
_HAN = "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
_CHINESE = re.compile(f"{_HAN}(?:[\\d\u3000-\u303f\uff00-\uffef]*{_HAN})*")
_JAPANESE_KOREAN = re.compile("[\u3040-\u30ff\uac00-\ud7af]")
_SIGNATURES = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png"}


def write_page(path: str | Path, template: str | Path, **data: Any) -> None:
    """Writes the page that a template makes of the data, see `render`; whole or not at all."""
    write_text(path, render(template, **data))


def render(template: str | Path, **data: Any) -> str:
    """The HTML that a template makes of the data.

    Args:
        template: the name of a file in `templates/`, or the path of one elsewhere, which may extend these.

    Raises:
        jinja2.UndefinedError: the template needs what the data lack.
    """
    if isinstance(template, Path):
        return _environment().from_string(template.read_text(encoding="utf-8")).render(data)
    return _environment().get_template(template).render(data)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ernie_vil2.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Path(__file__).with_name("templates") / "style.css"
    environment.globals["style"] = Markup(style.read_text(encoding="utf-8").rstrip("\n"))  # noqa: S704 - our own
    environment.filters |= {"marked": marked, "data_uri": data_uri}
    return environment


def marked(text: str, language: str = "") -> Markup:
    """A text with its language, for fonts, line breaks and readers' voices; Chinese is recognised by itself."""
    text = str(text)
    if language:
        return Markup('<span lang="{}">{}</span>').format(language, text)
    if _JAPANESE_KOREAN.search(text):
        return escape(text)
    return Markup(_CHINESE.sub(r'<span lang="zh">\g<0></span>', str(escape(text))))  # noqa: S704 - escaped


def data_uri(image: bytes) -> str:
    """An encoded PNG or JPEG as the address of an image inside the page."""
    kind = next(kind for start, kind in _SIGNATURES.items() if image.startswith(start))
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"
