"""Finds words that the field does not use, in code, messages and pages: `make lint` runs it.

    python tests/words.py                # every use, with the words that say it
    python tests/words.py --count        # how often each is used, by file

A word is listed with what is written instead, and with the uses of it that are ordinary English or somebody else's name.
Chinese pages, released files, golden files and the CHANGELOG, which names what was renamed, are not read.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
READ = {".py", ".md", ".html", ".yaml", ".toml", ".css", ".js"}
SKIPPED = (
    "tests/golden/",
    "tests/fixtures/",
    "docs/zh/",
    "docs/ablation/",
    "tests/words.py",
    "CHANGELOG.md",
    "README_zh.md",
)

WORDS: dict[str, tuple[str, str]] = {
    r"places?": (
        "position, index, location, file or source",
        r"(in|into) place\b|(take|takes|taken|took|taking|in) (the|its|their) place|in place of|decimal places?|[._]place\b|place=|is \w+ place\b|"
        r"other places?(?= than)",
    ),
    r"placed": ("put, written", r"best placed|has to be placed"),
    r"signs": ("characters", r"traffic signs|road signs|signs of|plus and minus signs|operators?, signs|comparisons, signs"),
    r"told": ("reported, printed, given", r"to be told apart"),
    r"said": ("reported, printed, stated", r"that being said"),
    r"(is|are|was|were) no (?!longer\b|more\b|less\b|need\b|such\b|way\b|other\b|better\b|reason\b|use\b|\w+er\b)": (
        "is not a", r"(?i)(there|which|where|here) (is|are|was|were) no |if there (is|are) no ",
    ),
    r"beside": ("next to, besides, with", ""),
    r"anew": ("again", ""),
    r"mend(s|ed|ing)?": ("fix", ""),
    r"wish(es)?|wished": ("stop request", ""),
    r"crews?": ("workers", ""),
    r"census": ("activation profile", ""),
    r"passed over": ("skipped", ""),
    r"told apart": ("distinguished", ""),
    r"stands?": ("is, exists, has", r"stands? (for|out)\b|stand-?in|under ?stands?"),
    r"that is of": ("write the sentence", ""),
}  # fmt: skip
"""A word as a pattern: what is written instead, and the uses that stay, as a pattern around the word."""


def uses(text: str) -> list[tuple[int, str]]:
    """The line numbers and words of a text that are in the list."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        spaced = re.sub(r"(?<=[a-z])_|_(?=[a-z])", " ", line)  # the words of a name in code
        for word, (_, stays) in WORDS.items():
            allowed = [use.span() for use in re.finditer(stays, spaced, re.IGNORECASE)] if stays else []
            for use in re.finditer(rf"\b(?:{word})(?:\b|(?<= ))", spaced, re.IGNORECASE):
                if not any(start <= use.start() and use.end() <= end for start, end in allowed):
                    found.append((number, word))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", action="store_true", help="how often each word is used, by file")
    options = parser.parse_args()
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    count = Counter()
    for file in listed:
        if Path(file).suffix not in READ or file.startswith(SKIPPED) or not (ROOT / file).exists():
            continue
        for number, word in uses((ROOT / file).read_text(encoding="utf-8")):
            count[file, word] += 1
            if not options.count:
                print(f"{file}:{number}: {word!r}: write {WORDS[word][0]}")
    if options.count:
        for (file, word), times in sorted(count.items()):
            print(f"{times:4d} {word:20.20} {file}")
    print(
        f"{sum(count.values())} uses of words that the field does not use"
        if count
        else "words: none of the list is used"
    )
    return bool(count)


if __name__ == "__main__":
    sys.exit(main())
