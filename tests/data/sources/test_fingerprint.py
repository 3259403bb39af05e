import os

import pytest

from ernie_vil2.data.readers.source import PART, fingerprint

LENGTH = 10 * PART


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(os.urandom(LENGTH))
    return path


@pytest.mark.parametrize("position", [0, PART - 1, LENGTH // 2, LENGTH // 2 + PART - 1, LENGTH - 1])
def test_a_byte_that_differs_in_a_part_makes_another_fingerprint(file, position):
    before, content = fingerprint([file]), bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)
    assert len(before) == 16 and fingerprint([file]) != before


def test_the_size_counts_and_the_name_does_not(file):
    before = fingerprint([file])
    file = file.rename(file.with_name("b.tar"))
    assert fingerprint([file]) == before
    content = file.read_bytes()
    file.write_bytes(content[:PART] + b"+" + content[PART:])
    assert fingerprint([file]) != before


@pytest.mark.parametrize(("name", "content"), [("2.txt", b"B"), ("3.txt", b"bb"), ("4.txt", b"b")])
def test_of_a_folder_names_sizes_and_some_content_count(tmp_path, name, content):
    for number in (1, 2, 3):
        (tmp_path / f"{number}.txt").write_bytes(b"b")
    before = fingerprint([tmp_path])
    (tmp_path / ".hidden").write_bytes(b"left by a file manager")
    assert fingerprint([tmp_path]) == before
    (tmp_path / name).write_bytes(content)
    assert fingerprint([tmp_path]) != before
