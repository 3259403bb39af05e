"""Screenshots of the pages of results, for a phone and a desk, light and dark; and what is wrong with these pages.

    python -m docs.screenshots docs/images/pages report=runs/emoji/report.html study=docs/ablation/study.html \
        search=http://127.0.0.1:8000/?q=red+apple

Each page is opened by Debian's chromium at 390 and 1,280 pixels, in light and dark; Chinese needs a font, such as that
of fonts-wqy-microhei. The exit code is 1 if one scrolls sideways, has text of too little contrast for WCAG AA, a
control that the keyboard does not reach, or an error on its console. FOLDER gets NAME-phone.png and NAME-desk.png in
light, NAME-dark.png in dark.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from docs.browser import CHROMIUM, Browser

SHOTS = {(390, False): "phone", (390, True): "", (1280, False): "desk", (1280, True): "dark"}
"""The end of a screenshot's name by width and darkness; "": the page is looked at alone."""
CONTRAST = """(() => {
  const parts = (colour) => {
    const numbers = colour.match(/[\\d.]+/g).map(Number)
    const scale = colour.startsWith("color(") ? 255 : 1
    return [numbers[0] * scale, numbers[1] * scale, numbers[2] * scale, numbers[3] ?? 1]
  }
  const light = (colour) => colour.slice(0, 3).map((level) => level / 255)
    .map((level) => level <= .03928 ? level / 12.92 : ((level + .055) / 1.055) ** 2.4)
    .reduce((sum, level, row) => sum + level * [.2126, .7152, .0722][row], 0)
  const over = (top, below) => [0, 1, 2].map((row) => top[row] * top[3] + below[row] * (1 - top[3])).concat(1)
  const behind = (node) => node
    ? over(parts(getComputedStyle(node).backgroundColor), behind(node.parentElement)) : [255, 255, 255, 1]
  const faults = []
  for (const node of document.querySelectorAll("body *")) {
    const style = getComputedStyle(node)
    const hasText = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim())
    if (!hasText || node.closest("svg, noscript, script, style, [hidden], option, :disabled")
        || !node.getClientRects().length) continue
    const [lighter, darker] = [light(over(parts(style.color), behind(node))), light(behind(node))].sort().reverse()
    const large = parseFloat(style.fontSize) >= 24 || parseFloat(style.fontSize) >= 18.6 && style.fontWeight >= 700
    const ratio = (lighter + .05) / (darker + .05)
    if (ratio < (large ? 3 : 4.5)) faults.push(`${ratio.toFixed(2)}: ${node.textContent.trim().slice(0, 30)}`)
  }
  return [...new Set(faults)]
})()"""
WIDER = "Math.max(0, document.documentElement.scrollWidth - document.documentElement.clientWidth)"
UNREACHED = """[...document.querySelectorAll("a[href], button, input, select, textarea, .scroll")]
  .filter((node) => node.getClientRects().length && node.tabIndex < 0 && !node.disabled)
  .filter((node) => !node.classList.contains("scroll") || node.scrollWidth > node.clientWidth)
  .filter((node) => !node.closest("[data-roving], #hits, dialog")).map((node) => node.outerHTML.slice(0, 80))"""


def look(browser: Browser) -> list[str]:
    """Return what is wrong with the page that a browser shows."""
    faults = []
    num_pixels = browser.run(WIDER)
    if num_pixels:
        faults.append(f"is {num_pixels} pixels wider than the screen")
    faults += [f"contrast {text}" for text in browser.run(CONTRAST)]
    faults += [f"cannot be reached by the keyboard: {element}" for element in browser.run(UNREACHED)]
    faults += [f"console: {message}" for message in browser.errors]
    return faults


def open_page(browser: Browser, address: str) -> None:
    """Open a page and wait until it is whole, with its images."""
    browser.open(address)
    is_whole = "document.readyState === 'complete' && document.title"
    is_whole += " && (!document.getElementById('hits') || document.querySelector('#hits li img'))"
    visible = "[...document.images].filter((image) => image.src && image.getBoundingClientRect().top < innerHeight)"
    browser.wait_for(f"{is_whole} && {visible}.every((image) => image.complete || !image.getClientRects().length)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("pages", nargs="+", metavar="NAME=PAGE", help="a file or an address")
    args = parser.parse_args()
    if not CHROMIUM:
        parser.error("chromium is missing: apt-get install chromium")
    args.folder.mkdir(parents=True, exist_ok=True)
    num_faults = 0
    for (width, dark), ending in SHOTS.items():
        for argument in args.pages:
            name, _, page = argument.partition("=")
            with (
                tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
                Browser(profile, width=width, dark=dark) as browser,
            ):
                open_page(browser, page if "://" in page else Path(page).resolve().as_uri())
                for fault in look(browser):
                    print(f"{name}, {width} pixels, {'dark' if dark else 'light'}: {fault}")
                    num_faults += 1
                if ending:
                    browser.screenshot(args.folder / f"{name}-{ending}.png")
    return int(num_faults > 0)


if __name__ == "__main__":
    sys.exit(main())
