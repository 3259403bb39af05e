"""Names of classes: whose is which."""

import pytest

from ernie_vil2.data.readers.labelled import named_classes, read_list
from tests.support.published_files import write


@pytest.mark.parametrize(
    ("name", "content", "location", "expected"),
    [
        ("n.txt", "\ufeffa cat \r\n狗\r\n\r\n", "n.txt", ["a cat", "狗"]),
        ("n.txt", "1\t猫\n0\t狗\n", "n.txt", {"1": "猫", "0": "狗"}),
        ("n.json", ["cat", "dog"], "n.json", ["cat", "dog"]),
        ("n.json", {"0": "cat", "1": "dog"}, "n.json", {"0": "cat", "1": "dog"}),
        ("n.json", {"cifar": ["cat", "dog"], "food": ["pie"]}, "n.json@food", ["pie"]),
        ("a@b.txt", "猫\n狗\n", "a@b.txt", ["猫", "狗"]),
    ],
)
def test_names_are_read_from_what_others_have(tmp_path, name, content, location, expected):
    write(tmp_path, {name: content})
    assert read_list(str(tmp_path / location)) == expected


@pytest.mark.parametrize(
    ("content", "location", "fault"),
    [
        (["cat", 7], "n.json", "a list of texts"),
        ("cat", "n.json", "not a JSON file"),
        ({"cifar": ["cat"]}, "n.json@food", "it holds cifar"),
        (["cat"], "n.json@food", "it holds none"),
    ],
)
def test_what_names_nothing_is_explained(tmp_path, content, location, fault):
    path = write(tmp_path, {"n.json": content}) / "n.json"
    with pytest.raises(ValueError, match=f"{path}.*{fault}"):
        read_list(str(tmp_path / location))


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
    assert list(named_classes(labels, names, "n.txt").items()) == list(expected.items())


@pytest.mark.parametrize("labels", [["a", "b", "c"], ["1", "2"]])
def test_names_that_do_not_go_up_are_refused(labels):
    with pytest.raises(ValueError, match="n.txt: 2 names"):
        named_classes(labels, ["x", "y"], "n.txt")
