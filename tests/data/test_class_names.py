"""Names of classes: whose is which."""

import json

import pytest

from ernie_vil2.data.readers.labelled import named_classes, read_list


def written(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("name", "content", "position", "expected"),
    [
        ("n.txt", "猫\n狗\n", "n.txt", ["猫", "狗"]),
        ("n.txt", "\ufeffa cat \r\na dog\r\n\r\n", "n.txt", ["a cat", "a dog"]),
        ("n.txt", "1\t猫\n0\t狗\n", "n.txt", {"1": "猫", "0": "狗"}),
        ("n.json", ["cat", "dog"], "n.json", ["cat", "dog"]),
        ("n.json", {"0": "cat", "1": "dog"}, "n.json", {"0": "cat", "1": "dog"}),
        ("n.json", {"cifar": ["cat", "dog"], "food": ["pie"]}, "n.json@food", ["pie"]),
        ("a@b.txt", "猫\n狗\n", "a@b.txt", ["猫", "狗"]),
    ],
)
def test_names_are_read_from_what_others_have(tmp_path, name, content, position, expected):
    written(tmp_path / name, content)
    assert read_list(str(tmp_path / position)) == expected


@pytest.mark.parametrize(
    ("name", "content", "position", "error"),
    [
        ("n.txt", "1\t猫\n2\t\n", "n.txt", "class 2 has no name"),
        ("n.json", ["cat", 7], "n.json", "a list of texts is expected"),
        ("n.json", "cat", "n.json", "not a JSON file"),
        ("n.json", {"cifar": ["cat"]}, "n.json@food", "n.json@NAME; it holds cifar"),
        ("n.json", ["cat"], "n.json@food", "it holds none"),
    ],
)  # fmt: skip
def test_what_names_nothing_is_explained(tmp_path, name, content, position, error):
    path = written(tmp_path / name, content)
    with pytest.raises(ValueError, match=error) as caught:
        read_list(str(tmp_path / position))
    assert path in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        (["dog", "cat"], ["猫", "狗"], {"cat": "猫", "dog": "狗"}),  # in the order of the sorted labels
        (["000", "002"], ["猫", "狗", "鸟"], {"000": "猫", "001": "狗", "002": "鸟"}),  # numbers name their line
        (["2", "10"], list("abcdefghijk"), {str(number): name for number, name in enumerate("abcdefghijk")}),
        (["狗"], ["猫", "狗"], {"猫": "猫", "狗": "狗"}),  # labels that are names
        (["dog"], {"dog": "狗", "cat": "猫"}, {"dog": "狗", "cat": "猫"}),
    ],
)
def test_whose_a_name_is(labels, names, expected):
    found = named_classes(labels, names, "n.txt")
    assert found == expected and list(found) == list(expected)


@pytest.mark.parametrize(
    ("labels", "names", "error"),
    [
        (["a", "b", "c"], ["x", "y"], "n.txt: 2 names for 3 classes"),
        (["1", "2"], ["x", "y"], "n.txt: 2 names"),
    ],
)
def test_names_that_do_not_go_up_are_refused(labels, names, error):
    with pytest.raises(ValueError, match=error):
        named_classes(labels, names, "n.txt")
