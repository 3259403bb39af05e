"""The folders of other people's models: a few in tests/fixtures/others, all of them in $ERNIE_VIL2_FIXTURES/others."""

import os
from pathlib import Path

_FOLDERS = [Path(__file__).parent / "fixtures" / "others"]
if "ERNIE_VIL2_FIXTURES" in os.environ:
    _FOLDERS.append(Path(os.environ["ERNIE_VIL2_FIXTURES"]) / "others")
_FOUND = {
    path.name: path for folder in _FOLDERS if folder.is_dir() for path in sorted(folder.iterdir()) if path.is_dir()
}
FAMILIES = sorted(_FOUND)
"""Names of those that are there."""


def family_folder(name: str) -> Path:
    """Where one of `FAMILIES` is; it must not be changed."""
    return _FOUND[name]
