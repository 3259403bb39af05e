"""demo_data/icons.py renders the sets that are missing or of another size."""

import io
import json
import sys
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.paths import import_demo_script
from tests.support.shapes import encode_png, read_fields, read_tar


def draw_square(width, **_):
    return encode_png(np.zeros([width, width, 3], np.uint8))


@pytest.fixture
def script(monkeypatch):
    """Return the script with a stand-in for the renderer."""
    monkeypatch.setitem(sys.modules, "resvg_py", SimpleNamespace(svg_to_bytes=draw_square))
    for name in ("icons", "rebuild"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield import_demo_script("icons")
    for name in ("icons", "rebuild"):
        sys.modules.pop(name, None)


@pytest.fixture
def package(tmp_path):
    icon_set = {
        "info": {"name": "Set", "author": {"name": "A"}, "license": {"spdx": "MIT"}},
        "icons": {"red-apple-outline": {"body": "<g/>"}, "cat": {"body": "<g/>"}},
    }
    path = tmp_path / "icons.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name in ("one", "two"):
            content = json.dumps(icon_set).encode()
            member = tarfile.TarInfo(f"package/json/{name}.json")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_sets_of_another_size_are_rendered_again(script, package, tmp_path, monkeypatch):
    output = tmp_path / "icons"

    def render(*options):
        arguments = ["--package", str(package), "--output", str(output), "--processes", "1", *options]
        monkeypatch.setattr(sys, "argv", ["icons.py", *arguments])
        assert script.main() == 0
        return {path.name: path.stat().st_mtime_ns for path in output.glob("*.tar")}

    first = render("--sets", "one")
    assert [fields["caption_en"] for fields in read_fields(output / "one.tar")] == ["red apple", "cat"]
    both = render()
    assert both["one.tar"] == first["one.tar"] and len(both) == 2
    assert all(render("--size", "32")[name] != time for name, time in both.items())
    assert read_tar(output / "one.tar")["one--cat.png"] == draw_square(32)
