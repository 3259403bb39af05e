"""The API reference is built from the docstrings, without network: every package has its page."""

import sys
from pathlib import Path

import pytest

from tests.support.processes import run_process

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_pages_and_the_reference_are_built(tmp_path):
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = run_process(command, cwd=ROOT)
    assert done.returncode == 0
    packages = [path.parent.name for path in (ROOT / "ernie_vil2").glob("*/__init__.py")]
    for package in packages:
        assert (tmp_path / "site" / "reference" / f"ernie_vil2.{package}.html").is_file()
    reference = (tmp_path / "site" / "reference" / "ernie_vil2.html").read_text(encoding="utf-8")
    assert "encode_images" in reference
    pages = [path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if not (tmp_path / "site" / page).is_file()] == []
    start = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "简体中文" in start and all(f'href="{page}"' in start for page in pages if page.name != "index.html")
