"""The stored pages of results fit and can be read in a real browser: on a phone and a desktop, light and dark."""

import pytest

from docs.browser import CHROMIUM, Browser
from docs.screenshots import SHOTS, look, open_page
from tests.support.paths import ROOT

PAGES = [ROOT / "docs" / "ablation" / "study.html", ROOT / "docs" / "compare" / "demo.html"]
pytestmark = [pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="needs chromium: apt-get install chromium")]


@pytest.mark.parametrize(("width", "dark"), SHOTS)
def test_pages_fit_and_can_be_read(tmp_path, width, dark):
    with Browser(tmp_path / "profile", width=width, dark=dark) as browser:
        for page in PAGES:
            open_page(browser, page.as_uri())
            assert look(browser) == [], page.name
            assert browser.run("document.querySelector('.lead').textContent")


def test_faults_of_a_page_are_reported(tmp_path):
    page = tmp_path / "page.html"
    head = "<meta name=viewport content='width=device-width'><title>x</title><body style='width: 900px'>"
    body = "<p style='color: #aaa'>pale<button tabindex=-1>b</button><script>console.error('wrong')</script>"
    page.write_text(head + body, encoding="utf-8")
    with Browser(tmp_path / "profile", width=390) as browser:
        open_page(browser, page.as_uri())
        faults = " ".join(look(browser))
    assert all(fault in faults for fault in ("wider than the screen", "pale", "keyboard", "console"))
