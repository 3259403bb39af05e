"""Finds words that the field does not use, in code, messages and pages, and counts the words of the pages: `make lint`.

    python tests/words.py                # every use, with the words that say it, and how long the pages are
    python tests/words.py --count        # how often each is used, by file

A word is listed with what is written instead, and with the uses that are ordinary English or others' names.
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
READ = {".py", ".md", ".html", ".yaml", ".yml", ".toml", ".css", ".js", ".slurm", ".sh", ".cff", ".ipynb"}
NAMED = ("Makefile", ".ci/run")  # files without a suffix that are read too
SKIPPED = (
    "tests/golden/",
    "tests/fixtures/",
    "docs/zh/",
    "docs/ablation/",
    "tests/words.py",
    "CHANGELOG.md",
    "README.zh.md",
)

MOST_WORDS = 40_000
"""Of README.md and docs/ with docs/notes/, without the Chinese pages and the API reference: whoever adds, shortens."""
WORDS: dict[str, tuple[str, str, str]] = {
    "places?": (
        "position, index, location, file or source",
        "in(to)?[ _]place(?! of)|decimal places?|place=|"
        r"food and places|[.]place\b|is_[cg]pu_place|"  # Paddle's
        r"\[\"places?\"\]|get\(\"places\"\)",  # earlier keys, where they are read
        "an array in the place of another, which takes its place",
    ),
    "plac(ed|ing)": ("put, written, ranked", "", "the best placed"),
    "signs": ("characters", "traffic signs|road signs|comparisons, signs", "eight signs of text"),
    "told": ("reported, printed, given", "", "what the user is told"),
    "tell(s|ing)?": ("show, report, distinguish", r"[.]tell\b", "which no shape tells"),  # a file's position
    "said": ("reported, printed, stated", "", "as was said"),
    r"(is|are|was|were)[ _]no[ _]"
    r"(?!(longer|more|less|larger|smaller|faster|better|need|way|other|reason|use)(?![a-z]))[a-z]+": (
        "is not a",
        "(there|where|here)( |_)(is|are|was|were)( |_)no",
        "def test_a_file_that_is_no_folder",
    ),
    "beside": ("next to, besides, with", '"beside the', "beside the model"),  # a heading of earlier studies
    "anew": ("again", "", "built anew"),
    "mend(s|ed|ing)?": ("fix", "", "a mended file"),
    "wish(es|ed|ing)?": ("stop request", "", "a wish to stop"),
    "grant(s|ed|ing)?": ("allow, stop request", "", "a stop is granted"),
    "me(et|ets|eting|t)": ("barrier, connect, raise, fit", "van en met op", "a rank that has met an error"),
    "held": ("kept, in memory, compared", "held[ _-]out", "towers are held against formulas"),
    "engines?": (
        "trainer, backend, index type",
        r"[\"`/]engine(?=[\"`/.])|--engine|container engine",  # names of earlier versions
        "the engine that computes",
    ),
    "crews?": ("workers", "", "a crew of four"),
    "census": ("activation profile", "", "a census of tensors"),
    "pass(ed|es|ing)? over": ("skipped", "one pass over", "rows are passed over"),
    "st(ands?|anding|ood)": ("is, means, denotes, exists, has", "stands? out|stand.ins?", "what a name stands for"),
    "pictures?": (
        "an image, of images",
        r"[\"']([a-z]+ )?(an?|the|no) picture|script> a picture|the picture (contains|shows)|in the picture\"|"
        r"picture of \{\}|[|(]picture[|)]|picture photo|\"pictures\"|--pictures\"|[\"`]/picture[\"`]|"
        'framed picture|free pictures of the|colourful picture of|"of", "picture"|picture.nnumber',
        "the shards of pictures",  # the paper's prompt, captions, and earlier names
    ),
    "that is of": ("write the sentence", "", "a model that is of two towers"),
    "instead of ending the work": ("reported and skipped", "", "skipped instead of ending the work"),
    "there and so": ("on that device in that precision", "", "computed there and so"),
    "eval_retrieval": (
        "eval",
        r'"eval_retrieval": "eval"|`tools/eval_retrieval[.]py` and',
        "python tools/eval_retrieval.py",
    ),
    "a row short": ("with one row fewer", "", "a table a row short"),
}
"""A word as a pattern: what is written instead, the uses that stay, as a pattern around the word, and an example."""
FOUND = re.compile("|".join(rf"(?<![a-z])(?:{word})(?![a-z])" for word in WORDS), re.IGNORECASE)  # also within a name


def uses(text: str) -> list[tuple[int, str]]:
    """The line numbers and words of a text that are in the list."""
    text = text.replace("\n", " \n")
    line = re.sub(r"\n *#?", lambda end: " " * len(end.group()), text)
    found = []
    for use in FOUND.finditer(line):
        word = next(
            word for word in WORDS if re.match(rf"(?:{word})(?![a-z])", use.group() + line[use.end() :], re.IGNORECASE)
        )
        around, start = line[max(use.start() - 40, 0) : use.end() + 40], min(use.start(), 40)
        stays = re.finditer(re.sub(" (?!$)", " +", WORDS[word][1]), around, re.IGNORECASE) if WORDS[word][1] else ()
        if not any(one.start() <= start < one.end() for one in stays):
            found.append((text.count("\n", 0, use.start()) + 1, use.group()))
    return found


def instead(use: str) -> str:
    """What is written in place of a use."""
    return next(other for word, (other, *_) in WORDS.items() if re.fullmatch(f"(?:{word}).*", use, re.IGNORECASE))


def length() -> int:
    """How many words the README and the pages have: whatever is between spaces and holds a letter or a digit."""
    pages = [ROOT / "README.md", *(path for path in (ROOT / "docs").rglob("*.md") if "zh" not in path.parts)]
    return sum(len(re.findall(r"\S*\w\S*", page.read_text(encoding="utf-8"))) for page in pages)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", action="store_true", help="how often each word is used, by file")
    options = parser.parse_args()
    if unseen := [word for word, (*_, example) in WORDS.items() if not uses(example)]:
        sys.exit(f"these patterns do not find their own examples: {unseen}")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    count = Counter()
    for file in listed:
        read = Path(file).suffix in READ or file in NAMED
        if not read or file.startswith(SKIPPED) or not (ROOT / file).exists():
            continue
        for number, word in uses((ROOT / file).read_text(encoding="utf-8")):
            count[file, word] += 1
            if not options.count:
                print(f"{file}:{number}: {word}: write {instead(word)}")
    if options.count:
        for (file, word), times in sorted(count.items()):
            print(f"{times:4d} {word:20.20} {file}")
    print(
        f"{sum(count.values())} uses of words that the field does not use"
        if count
        else "words: none of the list is used"
    )
    print(f"pages: {length():,} words of at most {MOST_WORDS:,}")
    return bool(count) or length() > MOST_WORDS


if __name__ == "__main__":
    sys.exit(main())
