"""The page of docs/compare.md in a real browser: Debian's chromium, headless. `python -m pytest -m browser`."""

import pytest

from tests.support.browser import CHROMIUM, Browser
from tests.support.page_commands import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="needs chromium: apt-get install chromium")]
DEMO = ROOT / "docs" / "compare" / "demo.html"
SHOWN = "[...document.querySelectorAll('.found > article')].filter(one => !one.hidden)"


@pytest.fixture(params=[(1280, False), (390, True)], ids=["wide", "phone, dark"])
def page(request, tmp_path):
    width, dark = request.param
    with Browser(tmp_path / "profile", width=width, dark=dark) as browser:
        browser.open(DEMO.as_uri())
        browser.wait_for("document.querySelector('.choice output').value")
        yield browser, width
        assert browser.errors == []


def choose(browser, name, value):
    browser.run(f"document.querySelector('select[name={name}]').value = {value!r}")
    browser.run("document.querySelector('.choice').dispatchEvent(new Event('change'))")


def test_queries_are_chosen_by_kind_language_and_direction(page):
    browser, _ = page
    every = browser.run("document.querySelectorAll('.found > article').length")
    first = browser.run(f"{SHOWN}.length")
    assert 0 < first < every and browser.run(f"{SHOWN}.every(one => one.dataset.kind === 'won')")
    choose(browser, "kind", "lost")
    choose(browser, "result", "zh")
    choose(browser, "direction", "text → image")
    few = browser.run(f"{SHOWN}.length")
    assert 0 < few < every
    assert browser.run(f"{SHOWN}.every(one => one.dataset.result === 'zh' && one.querySelector('.images'))")
    assert browser.run("document.querySelector('.choice output').value") == f"{few} shown"
    choose(browser, "against", "scratch")
    assert 0 < browser.run(f"{SHOWN}.length") <= few
    assert browser.run(f"{SHOWN}.every(one => one.dataset.against === 'scratch')")


def test_it_fits_the_screen_and_shows_its_images(page):
    browser, width = page
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("[...document.images].every(one => one.src.startsWith('data:image/'))")
    browser.run("document.querySelectorAll('.found img').forEach(one => one.loading = 'eager')")
    browser.wait_for(f"{SHOWN}.flatMap(one => [...one.querySelectorAll('img')]).every(one => one.naturalWidth > 0)")
    assert browser.run("document.querySelectorAll('circle.rank').length") > 100
    assert browser.run("document.querySelector('.bars .value').getBoundingClientRect().right") <= width
