"""Benchmarks that go on in a folder refuse one that was made with other options."""

import sys

import numpy as np
import pytest

from benchmarks import search, stamps


def test_inputs_of_other_options_are_not_searched(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(search, "print_table", lambda *_: None)

    def run(*options):
        monkeypatch.setattr(
            sys, "argv", ["search.py", "--keep", str(tmp_path), "--width", "8", "--asked", "3", *options]
        )
        return search.main()

    assert run("--rows", "50") == run("--rows", "50") == run() == 0
    assert np.load(tmp_path / "rows.npy").shape == (50, 8)
    for option in ("--rows", "--asked"):
        with pytest.raises(SystemExit):
            run("--rows", "50", option, "1")
        assert f"{option} 1" in capsys.readouterr().err


def test_scores_of_another_start_are_not_mixed(tmp_path):
    stamps.Study("runs/emoji", tmp_path)
    stamps.Study("runs/emoji", tmp_path)
    with pytest.raises(SystemExit, match="another --start"):
        stamps.Study("runs/mine", tmp_path)
