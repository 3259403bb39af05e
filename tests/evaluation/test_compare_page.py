"""The page of docs/compare.md works in a real browser: Debian's chromium, headless. `python -m pytest -m browser`."""

import pytest

from docs.browser import CHROMIUM, Browser
from tests.support.page_commands import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="needs chromium: apt-get install chromium")]
DEMO = ROOT / "docs" / "compare" / "demo.html"
VISIBLE = "[...document.querySelectorAll('.found > article')].filter(article => !article.hidden)"


@pytest.fixture(params=[(1280, False), (390, True)], ids=["wide", "phone, dark"])
def page(request, tmp_path):
    width, dark = request.param
    with Browser(tmp_path / "profile", width=width, dark=dark) as browser:
        browser.open(DEMO.as_uri())
        browser.wait_for("document.querySelector('.choice output').value")
        yield browser, width
        assert browser.errors == []


def select_option(browser, name, value):
    browser.run(f"document.querySelector('select[name={name}]').value = {value!r}")
    browser.run("document.querySelector('.choice').dispatchEvent(new Event('change'))")


def test_queries_are_filtered_by_kind_language_and_direction(page):
    browser, _ = page
    num_articles = browser.run("document.querySelectorAll('.found > article').length")
    num_won = browser.run(f"{VISIBLE}.length")
    assert 0 < num_won < num_articles and browser.run(f"{VISIBLE}.every(article => article.dataset.kind === 'won')")
    select_option(browser, "kind", "lost")
    select_option(browser, "result", "zh")
    select_option(browser, "direction", "text → image")
    num_visible = browser.run(f"{VISIBLE}.length")
    assert 0 < num_visible < num_articles
    is_chosen = "article.dataset.result === 'zh' && article.querySelector('.images')"
    assert browser.run(f"{VISIBLE}.every(article => {is_chosen})")
    assert browser.run("document.querySelector('.choice output').value") == f"{num_visible} shown"
    select_option(browser, "against", "scratch")
    assert 0 < browser.run(f"{VISIBLE}.length") <= num_visible
    assert browser.run(f"{VISIBLE}.every(article => article.dataset.against === 'scratch')")


def test_page_fits_the_screen_and_shows_its_images(page):
    browser, width = page
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("[...document.images].every(image => image.src.startsWith('data:image/'))")
    # Images below the screen load lazily: ask for all of them.
    browser.run("document.querySelectorAll('.found img').forEach(image => image.loading = 'eager')")
    images = f"{VISIBLE}.flatMap(article => [...article.querySelectorAll('img')])"
    browser.wait_for(f"{images}.every(image => image.naturalWidth > 0)")
    assert browser.run("document.querySelectorAll('circle.rank').length") > 100
    assert browser.run("document.querySelector('.bars .value').getBoundingClientRect().right") <= width
