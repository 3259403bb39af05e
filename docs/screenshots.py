"""Screenshots of the pages of results, for a phone and a desk, light and dark; and what is wrong with these pages.

    python -m docs.screenshots docs/images/pages report=runs/emoji/report.html study=docs/ablation/study.html \
        search=http://127.0.0.1:8000/?q=red+apple

Each page is opened by Debian's chromium at 390 and 1,280 pixels, in light and dark. The exit code is 1 if one scrolls
sideways, has text of too little contrast for WCAG AA, a control that the keyboard does not reach, or an error on its
console. FOLDER gets NAME-phone.png and NAME-desk.png in light, NAME-dark.png in dark.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.support.browser import Browser

SHOTS = {(390, False): "phone", (390, True): "", (1280, False): "desk", (1280, True): "dark"}
"""The end of a screenshot's name by width and darkness; "": the page is looked at alone."""
CONTRAST = """(() => {
  const parts = (colour) => {
    const found = colour.match(/[\\d.]+/g).map(Number)
    const scale = colour.startsWith("color(") ? 255 : 1
    return [found[0] * scale, found[1] * scale, found[2] * scale, found[3] ?? 1]
  }
  const light = (colour) => colour.slice(0, 3).map((one) => one / 255)
    .map((one) => one <= .03928 ? one / 12.92 : ((one + .055) / 1.055) ** 2.4)
    .reduce((sum, one, row) => sum + one * [.2126, .7152, .0722][row], 0)
  const over = (top, below) => [0, 1, 2].map((row) => top[row] * top[3] + below[row] * (1 - top[3])).concat(1)
  const behind = (node) => node
    ? over(parts(getComputedStyle(node).backgroundColor), behind(node.parentElement)) : [255, 255, 255, 1]
  const found = []
  for (const node of document.querySelectorAll("body *")) {
    const style = getComputedStyle(node)
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim())
    if (!own || node.closest("svg, noscript, script, style, [hidden], option, :disabled")
        || !node.getClientRects().length) continue
    const [one, other] = [light(over(parts(style.color), behind(node))), light(behind(node))].sort().reverse()
    const large = parseFloat(style.fontSize) >= 24 || parseFloat(style.fontSize) >= 18.6 && style.fontWeight >= 700
    const ratio = (one + .05) / (other + .05)
    if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)}: ${node.textContent.trim().slice(0, 30)}`)
  }
  return [...new Set(found)]
})()"""
WIDER = "Math.max(0, document.documentElement.scrollWidth - document.documentElement.clientWidth)"
UNREACHED = """[...document.querySelectorAll("a[href], button, input, select, textarea, .scroll")]
  .filter((node) => node.getClientRects().length && node.tabIndex < 0 && !node.disabled)
  .filter((node) => !node.classList.contains("scroll") || node.scrollWidth > node.clientWidth)
  .filter((node) => !node.closest("[data-roving], #hits, dialog")).map((node) => node.outerHTML.slice(0, 80))"""


def look(browser: Browser) -> list[str]:
    """What is wrong with the page that a browser shows."""
    found = [f"is {wider} pixels wider than the screen" for wider in [browser.run(WIDER)] if wider]
    found += [f"contrast {one}" for one in browser.run(CONTRAST)]
    found += [f"cannot be reached by the keyboard: {one}" for one in browser.run(UNREACHED)]
    return [*found, *(f"console: {one}" for one in browser.errors)]


def open_page(browser: Browser, address: str) -> None:
    """Opens a page and waits until it is whole, with its images."""
    browser.open(address)
    whole = "document.readyState === 'complete' && document.title"
    whole += " && (!document.getElementById('hits') || document.querySelector('#hits li img'))"
    seen = "[...document.images].filter((image) => image.src && image.getBoundingClientRect().top < innerHeight)"
    browser.wait_for(f"{whole} && {seen}.every((image) => image.complete || !image.getClientRects().length)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("pages", nargs="+", metavar="NAME=PAGE", help="a file or an address")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    wrong = 0
    for (width, dark), ending in SHOTS.items():
        for name, _, page in (one.partition("=") for one in args.pages):
            with (
                tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
                Browser(profile, width=width, dark=dark) as browser,
            ):
                open_page(browser, page if "://" in page else Path(page).resolve().as_uri())
                for line in (found := look(browser)):
                    print(f"{name}, {width} pixels, {'dark' if dark else 'light'}: {line}")
                wrong += len(found)
                if ending:
                    browser.screenshot(args.folder / f"{name}-{ending}.png")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
