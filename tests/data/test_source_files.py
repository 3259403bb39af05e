"""Files of data sets on a local disk."""

import os
from pathlib import Path

import pytest

from ernie_vil2.data.source_files import list_image_files, open_embeddings
from tests.hostile.bad_input.case import bounded_time


def test_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"")
    open_folder = os.scandir

    def refuse_b(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", path)
        return open_folder(path)

    monkeypatch.setattr(os, "scandir", refuse_b)  # root may read everything
    assert list_image_files(tmp_path) == [tmp_path / "a" / "1.jpg"]
    assert str(tmp_path / "b") in capsys.readouterr().err
    assert list_image_files(tmp_path / "c") == [] and not capsys.readouterr().err


def test_pipe_of_embeddings_is_refused(tmp_path):
    path = tmp_path / "image_embeddings.npy"
    os.mkfifo(path)
    with bounded_time(5), pytest.raises(ValueError, match=r"image_embeddings\.npy.*not an ordinary file"):
        open_embeddings(path)
