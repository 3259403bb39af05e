"""Compare the golden files of a revision with the present ones, after renaming keys as renamed_keys.csv says.

    python tests/golden/compare_renamed.py REVISION

Help texts are left out. Prints a diff of each file that differs and exits with 1 if there is one.
"""

import csv
import difflib
import fnmatch
import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent


def run_git(*arguments: str) -> str:
    """Return what a git command prints."""
    command = ["git", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout  # noqa: S603


def read_golden_files(revision: str) -> dict[str, str]:
    """Return the texts of the golden files at a revision, by path below this folder."""
    folder = FOLDER.relative_to(ROOT).as_posix()
    texts = {}
    for path in run_git("ls-tree", "-r", "--name-only", revision, f"{folder}/").split():
        name = path.removeprefix(f"{folder}/")
        if not name.startswith("help/") and not name.endswith(".py") and name != "renamed_keys.csv":
            texts[name] = run_git("show", f"{revision}:{path}")
    return texts


def rename_keys(name: str, text: str, renames: list[dict[str, str]]) -> str:
    """Return the text with the renamed keys that the table lists for a file of this name."""
    for rename in renames:
        if fnmatch.fnmatch(name, rename["file"]):
            # A key stands alone: "count" is renamed, "account" and "count_all" are not.
            text = re.sub(rf"(?<!\w){re.escape(rename['old'])}(?!\w)", rename["new"], text)
    return text


def main(revision: str) -> int:
    """Print how the golden files of a revision differ from the present ones; return the exit status."""
    with (FOLDER / "renamed_keys.csv").open(newline="") as file:
        renames = list(csv.DictReader(file))
    status = 0
    for name, old_text in read_golden_files(revision).items():
        path = FOLDER / name
        new_text = path.read_text() if path.exists() else ""
        expected = rename_keys(name, old_text, renames)
        # Keys are listed in alphabetical order in some files, which a new name changes.
        if sorted(expected.splitlines()) != sorted(new_text.splitlines()):
            sys.stdout.writelines(
                difflib.unified_diff(
                    expected.splitlines(keepends=True), new_text.splitlines(keepends=True), f"{revision}:{name}", name
                )
            )
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
