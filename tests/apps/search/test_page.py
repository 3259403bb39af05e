"""The search page in headless chromium, mostly by the keyboard: `python -m pytest -m browser`."""

import time
from urllib.parse import quote

import numpy as np
import pytest

from docs.browser import CHROMIUM, Browser
from ernie_vil2.apps.search import open_index
from ernie_vil2.apps.search.add_items import optimize_collection
from ernie_vil2.apps.search.collection import Item
from ernie_vil2.apps.search.service import build_app
from ernie_vil2.io.calibration import Calibration, Threshold
from tests.support.small_index import IMAGE, draw_unit_rows, fill_index
from tests.support.sockets import RunningServer

HOSTILE = "<img src=x onerror=\"document.title='run'\">"
FIELDS = {"caption_en": HOSTILE, "price": 3.5, "shop": "https://example.com/a?b=1", "trap": "javascript:alert(1)"}
pytestmark = [pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="needs chromium: apt-get install chromium")]
HITS = "document.querySelectorAll('#hits li').length"
STATUS = "document.getElementById('status').textContent"
FOCUSED = "document.activeElement"
COPIES = '{"copy":1}'
DISCS, BELOW_4, UNKNOWN = '{"kind":"disc"}', '{"price":{"<":4}}', '{"prise":3}'


@pytest.fixture(scope="module")
def address(tmp_path_factory, model, shapes):
    folder = fill_index(tmp_path_factory.mktemp("page") / "index", model, shapes["val"], ["red disc"])
    with open_index(folder, model, writable=True) as index:
        index.collection("images").add([Item("hostile", b"", FIELDS, (), IMAGE)], model.encode_texts(["blue bar"]))
        # 120 more images, so that the hits of a query fill several pages.
        items = []
        for number in range(120):
            fields = {"caption_en": f"more {number}"} | ({"weight": number / 2} if number < 40 else {})
            items.append(Item(f"more {number}", b"", fields, (), IMAGE))
        index.collection("images").add(items, draw_unit_rows(np.random.default_rng(0), 120, model.embed_dim))
        copies = [
            Item(f"copy {number}", digest, {"copy": 1}, (), IMAGE) for number, digest in enumerate((b"a", b"a", b"b"))
        ]
        index.collection("images").add(copies, draw_unit_rows(np.random.default_rng(1), 3, model.embed_dim))
        optimize_collection(index, "images", None, 0.98, lambda line: None)
    with open_index(folder, model) as index:
        thresholds = {"image_to_text": Threshold(-1.0, 9.0, 9.0, 9.0), "text_to_image": Threshold(0.25, 9.0, 9.0, 9.0)}
        # The model is shared with other tests: the calibration is set on an object that passes all else on to it.
        index.model = type("Calibrated", (), {"__getattr__": lambda _, name: getattr(model, name)})()
        index.model.calibration = Calibration("", "", 10.0, thresholds)
        with RunningServer(build_app(index, card_fields=["price"], title="My pictures")) as running:
            yield f"http://127.0.0.1:{running.address[1]}/"


@pytest.fixture
def browser(tmp_path):
    with Browser(tmp_path / "profile") as browser:
        yield browser
        assert browser.errors == []


def test_start_page_shows_images_and_example_queries(browser, address):
    browser.open(address)
    browser.wait_for("document.querySelectorAll('#examples button').length > 3")
    assert browser.run(HITS) == 24 and "Some images of this index" in browser.run(STATUS)
    query = browser.run("document.querySelector('#examples button').textContent")
    browser.run("document.querySelector('#examples button').click()")
    browser.wait_for(f"{HITS} >= 60")
    assert browser.run("new URLSearchParams(location.search).get('q')") == query


def test_page_is_operated_by_the_keyboard(browser, address):
    browser.open(address)
    browser.wait_for(f"{HITS} > 0")
    browser.run("document.activeElement.blur()")
    browser.press("/")
    browser.type("blue bar")
    browser.wait_for(f"{HITS} >= 60")  # the query is sent while it is typed, without Enter
    assert browser.run("location.search") == "?q=blue+bar"
    first = browser.run("document.querySelector('#hits button').textContent")
    assert HOSTILE in first and "price: 3.5" in first
    browser.press("ArrowDown", "ArrowRight", "ArrowLeft")
    assert browser.run(f"{FOCUSED}.hit.id") == "hostile"
    browser.press("Enter")
    browser.wait_for("document.getElementById('detail').open")
    assert browser.run("document.querySelector('#fields a').href") == FIELDS["shop"]
    assert browser.run("document.querySelectorAll('#fields a').length") == 1  # javascript:alert(1) is no link
    assert browser.run("document.getElementById('download').href").endswith("image?id=hostile")
    browser.wait_for("document.querySelectorAll('#tags button').length")
    browser.press("ArrowRight")
    second = browser.run("document.querySelectorAll('#hits button')[1].hit.id")
    assert browser.run("document.querySelector('#fields dd').textContent") == second
    browser.press("Escape")
    browser.wait_for(f"!document.getElementById('detail').open && {FOCUSED}.hit.id === {second!r}")
    browser.press("s")
    browser.wait_for(f"new URLSearchParams(location.search).get('like') === {second!r}")
    browser.wait_for(f"{HITS} >= 60")
    assert browser.run("document.title") == "My pictures"


def test_address_restores_the_query_and_back_returns(browser, address):
    browser.open(f"{address}?q=red&threshold=0&where={quote(DISCS)}")
    browser.wait_for(f"{HITS} && !{STATUS}.includes('searching')")
    inputs = "document.querySelectorAll('#text, #without, #threshold, #filters select')"
    assert browser.run(f"[...{inputs}].map((input) => input.value)") == ["red", "", "0", '"disc"']
    browser.run("document.getElementById('text').value = 'green'; document.getElementById('form').requestSubmit()")
    browser.wait_for("location.search.includes('q=green')")
    browser.run("history.back()")
    browser.wait_for("document.getElementById('text').value === 'red'")
    browser.wait_for("location.search.includes('q=red')")
    browser.open(f"{address}?q=red&where={quote(BELOW_4)}")
    browser.wait_for(f"{HITS} === 1")
    price = "document.querySelector('#filters select[data-field=price]')"
    assert browser.run(f"{price}.selectedOptions[0].textContent") == "< 4"
    browser.run(f"{price}.value = ''; {price}.dispatchEvent(new Event('change'))")
    browser.wait_for(f"{HITS} >= 60 && !location.search.includes('where')")
    browser.open(f"{address}?q=red&where={quote(UNKNOWN)}")
    browser.wait_for(f"{STATUS}.includes('prise')")
    browser.errors.clear()  # the browser itself reports the answer 422 as an error


def test_numbers_are_filtered_by_from_and_to(browser, address):
    browser.open(f"{address}?q=red")
    browser.wait_for(f"{HITS} >= 60")
    lower, upper = (f"document.querySelector('#filters input[data-operator=\"{sign}=\"]')" for sign in "><")
    assert browser.run(f"{lower}.dataset.field") == "weight" and browser.run(f"{upper}.placeholder") == "19.5"
    browser.run(f"{lower}.value = '3.5'; {lower}.dispatchEvent(new Event('change'))")
    browser.wait_for(f"{HITS} === 33")
    browser.run(f"{upper}.value = '5'; {upper}.dispatchEvent(new Event('change'))")
    browser.wait_for(f"{HITS} === 4")
    browser.open(browser.run("location.href"))
    browser.wait_for(f"{HITS} === 4")
    assert [browser.run(f"{bound}.value") for bound in (lower, upper)] == ["3.5", "5"]


def test_exact_words_are_found_until_switched_off(browser, address):
    num_marks = "document.querySelectorAll('#hits .has-words').length"
    browser.open(f"{address}?q=more+77")
    browser.wait_for(f"{HITS} >= 60 && {num_marks} === 1")
    assert browser.run("document.querySelector('#hits button').hit.id") == "more 77"
    browser.run("document.getElementById('words').click()")
    browser.wait_for(f"{num_marks} === 0 && location.search.includes('words=0')")
    browser.open(browser.run("location.href"))
    browser.wait_for(f"{HITS} >= 60")
    assert browser.run(f"{num_marks} === 0 && !document.getElementById('words').checked")
    browser.open(f"{address}?q=more+77&without=red")
    browser.wait_for(f"{HITS} >= 60")
    assert browser.run(num_marks) == 0


def test_address_with_a_password_works(browser, address):
    browser.open(f"{address.replace('//', '//somebody:secret@')}?q=red")
    browser.wait_for(f"{HITS} >= 60")
    browser.wait_for("document.querySelector('#hits img').naturalWidth > 0")
    browser.open(f"{address.replace('//', '//somebody:secret@')}docs")
    browser.wait_for("document.querySelectorAll('form').length > 5")


def test_equal_images_are_shown_once(browser, address):
    browser.open(f"{address}?q=red&where={quote(COPIES)}")
    browser.wait_for(f"{HITS} === 2")
    first, second = browser.run("[...document.querySelectorAll('#hits button')].map((button) => button.hit)")
    assert len(first["copies"]) + len(second["copies"]) == 1
    labels = browser.run("[...document.querySelectorAll('.copies:not([hidden])')].map((label) => label.textContent)")
    assert labels == ["+ 1 equal"]
    assert browser.run(STATUS).startswith("3 images")


def test_scrolling_loads_more_hits(browser, address):
    browser.open(f"{address}?q=red")
    browser.wait_for(f"{HITS} >= 60")
    for _ in range(3):
        browser.run("scrollTo(0, document.body.scrollHeight)")
        time.sleep(0.2)  # for the page to notice that it was scrolled, and to ask for more
    browser.wait_for(f"{HITS} === 139")
    ids = browser.run("[...document.querySelectorAll('#hits button')].map((button) => button.hit.id)")
    assert len(set(ids)) == 139
    assert browser.wait_for(f"{STATUS}.startsWith('140 images') && {STATUS}")


def test_failed_next_page_keeps_the_hits_and_is_asked_for_again(browser, address):
    browser.open(f"{address}?q=red")
    browser.wait_for(f"{HITS} === 60")
    browser.run("window.realFetch = fetch; window.fetch = () => Promise.reject(new TypeError()); 0")
    browser.run("scrollTo(0, document.body.scrollHeight)")
    browser.wait_for("document.getElementById('status').classList.contains('error')")
    assert browser.run(HITS) == 60
    browser.run("window.fetch = realFetch; scrollTo(0, 0)")
    # The page notices within a frame that it was scrolled.
    browser.run("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
    browser.run("scrollTo(0, document.body.scrollHeight)")
    browser.wait_for(f"{HITS} > 60")


def test_scrolling_does_not_append_a_new_query_to_the_former_hits(browser, address):
    browser.open(f"{address}?q=red")
    browser.wait_for(f"{HITS} === 60")
    # The answer to the new query comes late, and meanwhile the end of the former hits is reached.
    browser.run("window.realFetch = fetch; window.fetch = async (url, options) => {"
                "await new Promise((resolve) => setTimeout(resolve, 1000));"
                "return realFetch(url, options); }; 0")  # fmt: skip
    browser.run("document.getElementById('text').value = 'more 77'; document.getElementById('form').requestSubmit()")
    browser.run("scrollTo(0, document.body.scrollHeight)")
    browser.wait_for(f"document.querySelector('#hits button').hit.id === 'more 77' || {HITS} > 60")
    assert browser.run("document.querySelector('#hits button').hit.id") == "more 77"


def test_text_replaces_a_similar_image_at_once(browser, address):
    browser.open(f"{address}?like=hostile")
    browser.wait_for(f"{HITS} >= 60")
    # The threshold is changed before the pause after which a typed query is sent.
    browser.run("document.getElementById('text').value = 'red';"
                "document.getElementById('text').dispatchEvent(new Event('input'));"
                "document.getElementById('threshold').dispatchEvent(new Event('change'))")  # fmt: skip
    browser.wait_for(f"{STATUS}.includes('images in') || {STATUS}.includes('parameter')")
    assert browser.run("location.search") == "?q=red" and "images in" in browser.run(STATUS)


def test_file_can_be_chosen_again(browser, address):
    browser.open(f"{address}?q=red")
    browser.wait_for(f"{HITS} >= 60")
    browser.run("const files = new DataTransfer(), input = document.getElementById('file');"
                "files.items.add(new File(['x'], 'a.png', { type: 'image/png' })); input.files = files.files;"
                "input.dispatchEvent(new Event('change'))")  # fmt: skip
    # Browsers report a choice only if it differs from the value.
    assert browser.run("document.getElementById('file').value") == ""
    assert not browser.run("document.getElementById('query-image').hidden")
    browser.wait_for(f"{STATUS}.includes('image')")
    browser.errors.clear()  # the browser itself reports that this file is no image


def test_keys_and_drags_of_the_browser_stay_its_own(browser, address):
    browser.open(f"{address}?q=red")
    browser.wait_for(f"{HITS} >= 60")
    browser.run("document.querySelector('#hits button').focus()")
    # Alt with an arrow is Forward, Ctrl with s saves the page, and in a composition arrows choose among Chinese words.
    keys = ("key: 'ArrowRight', altKey: true", "key: 's', ctrlKey: true", "key: 'ArrowDown', isComposing: true")
    for options in keys:
        event = f"new KeyboardEvent('keydown', {{ {options}, bubbles: true, cancelable: true }})"
        assert browser.run(f"{FOCUSED}.dispatchEvent({event})"), options
        assert browser.run(f"{FOCUSED} === document.querySelector('#hits button') && location.search") == "?q=red"
    # A dragged text goes into a field.
    for event in ("dragover", "drop"):
        assert browser.run("(() => { const data = new DataTransfer(); data.setData('text/plain', 'blue');"
                           f"return document.getElementById('text').dispatchEvent(new DragEvent('{event}',"
                           "{ dataTransfer: data, bubbles: true, cancelable: true })); })()")  # fmt: skip
    assert not browser.run("document.getElementById('status').classList.contains('error')")


def test_calibrated_threshold_is_shown_and_applied_by_a_click(browser, address):
    browser.open(f"{address}?q=red")
    browser.wait_for("!document.getElementById('calibration').hidden")
    assert browser.run("document.getElementById('calibration').textContent") == "calibrated: 0.25"
    assert browser.run("document.querySelector('#calibrated option').value") == "0.25"
    browser.run("document.getElementById('calibration').click()")
    browser.wait_for("location.search.includes('threshold=0.25')")


@pytest.mark.parametrize(("width", "dark", "language"), [(1280, False, "en-US"), (390, True, "zh-CN")])
def test_page_fits_screen_colour_scheme_and_language(tmp_path, address, width, dark, language):
    with Browser(tmp_path / "profile", width, 844, dark, language) as browser:
        browser.open(f"{address}?q=red")
        browser.wait_for(f"{HITS} >= 60")
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run("document.documentElement.lang") == language[:2]
        assert ("张图片" in browser.run(STATUS)) is (language == "zh-CN")
        colour = browser.run("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, colour[4:-1].split(","))) < 150) is dark
        browser.run("document.querySelector('#hits button').click()")
        browser.wait_for("document.getElementById('large').complete")
        assert browser.run("document.getElementById('detail').getBoundingClientRect().right") <= width
        browser.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 5_000 and browser.errors == []


def test_api_page_lists_every_path_and_calls_it(browser, address):
    browser.open(f"{address}docs")
    browser.wait_for("document.querySelectorAll('form').length > 5")
    text = browser.run("document.body.innerText")
    for path in ("GET /v1/search", "POST /v1/embeddings", "POST /v1/search/batch", "GET /health"):
        assert path in text
    for number in range(browser.run("document.querySelectorAll('form').length")):
        browser.run(f"document.querySelectorAll('form')[{number}].requestSubmit()")
        browser.wait_for(f"document.querySelectorAll('pre')[{number}].textContent.startsWith('200')")
