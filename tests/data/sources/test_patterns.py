import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.readers.shard_files import expand_braces, find
from tests.support.limits import examples
from tests.support.processes import run_process

number = st.integers(-3, 12).flatmap(lambda n: st.sampled_from([str(n), f"{n:04d}"]))
ranges = st.builds("{{{}..{}}}".format, number, number) | st.builds(
    "{{{}..{}..{}}}".format, number, number, st.integers(-7, 7)
)
words = st.text("abz09._-", max_size=4)
pieces = st.recursive(
    words | ranges,
    lambda inner: st.lists(inner, min_size=2, max_size=3).map(lambda options: "{" + ",".join(options) + "}"),
    max_leaves=3,
)
patterns = st.lists(pieces | st.sampled_from([",", "{}", "{a}", "{a..c}"]), max_size=3).map("".join)


@examples(60)
@given(patterns)
@example("{{0..2},{a,b}{1..3}}{}")
def test_braces_are_expanded_as_bash_does(pattern):
    printed = run_process(["bash", "-c", f"printf '%s\\n' x{pattern}"], capture_output=True, text=True, check=True)
    assert expand_braces(f"x{pattern}") == printed.stdout.splitlines()


@pytest.mark.parametrize("pattern", ["a{b", "a}{1..2}", "{1{2,3}"])
def test_braces_that_are_not_in_pairs_mean_themselves(pattern):
    assert expand_braces(pattern) == [pattern]


def test_a_command_keeps_braces_that_are_not_a_range():
    command = "awk '{print $1, $2}' ${HOME}/{000..002}.tar"
    assert expand_braces(command, lists=False) == [
        f"awk '{{print $1, $2}}' ${{HOME}}/{number}.tar" for number in ("000", "001", "002")
    ]


@pytest.mark.parametrize(("pattern", "message"), [
    ("{0..99999999999}", "names more than 1,000,000 files"),
    ("{0..9999}{0..9999}", "names more than 1,000,000 files"),
    ("{{0..9999}{0..9999},b}", "names more than 1,000,000 files"),
    ("{a,b}" * 800, "names more than 67,108 files"),
    ("\x000\x00{0..9999}{0..9999}", "names more than 1,000,000 files"),
    ("{a..z}" * 5, "names more than 1,000,000 files"),
    ("{0..900000}" + "x" * 4000, "names more than 66,92"),
    (f"{{{'0' * 4000}..900000}}", "names more than 66,9"),
    ("{a," * 1000 + "}" * 1000, "hundreds of braces"),
    ("x" * 5000, "more than 4,096 characters; is this a path"),
])  # fmt: skip
def test_a_pattern_of_too_many_files_is_refused(pattern, message):
    with pytest.raises(ValueError, match=message) as caught:
        expand_braces(pattern)
    assert len(str(caught.value)) < 250


def test_a_list_of_too_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("ernie_vil2.data.readers.shard_files.MOST", 1000)
    (tmp_path / "list.txt").write_text("memory://{0..899}.tar\n" * 2)
    with pytest.raises(ValueError, match="memory://0.tar, ...: more than 1,000 files"):
        find(str(tmp_path / "list.txt"))
    with pytest.raises(ValueError, match="memory://0.tar, ...: more than 1,000 files"):
        open_sources(["memory://{0..899}.tar"] * 2)


@pytest.mark.parametrize("allowed", [False, True])
def test_a_command_in_a_list_is_only_taken_when_commands_are_allowed(tmp_path, monkeypatch, allowed):
    monkeypatch.setattr("ernie_vil2.data.readers.shard_files._allowed", allowed)
    (tmp_path / "list.txt").write_text("pipe:cat {1..2}\n")
    if allowed:
        assert names(tmp_path / "list.txt") == ["pipe:cat 1", "pipe:cat 2"]
        return
    with pytest.raises(ValueError, match=r"pipe:cat \{1..2\}: a command is run only with --allow-pipes"):
        find(str(tmp_path / "list.txt"))


def names(pattern):
    return [location.name for location in find(str(pattern))]


def test_files_come_in_the_order_of_the_pattern_and_sorted_where_it_is_open(tmp_path):
    for name in ("b1", "b2", "a1", "a2"):
        (tmp_path / f"{name}.tar").touch()
    expected = [str(tmp_path / f"{name}.tar") for name in ("b1", "b2", "a1", "a2")]
    assert names(tmp_path / "{b,a}*.tar") == names(tmp_path / "{b,a}{1..2}.tar") == expected


def test_a_name_with_the_characters_of_a_pattern_is_found_as_it_is(tmp_path):
    (tmp_path / "a[1]{x}.tar").touch()
    assert names(tmp_path / "a[1]{x}.tar") == [str(tmp_path / "a[1]{x}.tar")]


def test_a_missing_file_of_a_range_is_named(tmp_path):
    (tmp_path / "0.tar").touch()
    with pytest.raises(FileNotFoundError, match="no file matches .*1.tar"):
        find(str(tmp_path / "{0..1}.tar"))


def test_a_list_names_files_next_to_it_and_anywhere(tmp_path):
    (tmp_path / "a.tar").touch()
    (tmp_path / "list.txt").write_text(f"# shards\na.tar\n\n{tmp_path / 'a.tar'}\n")
    assert names(tmp_path / "list.txt") == [str(tmp_path / "a.tar")] * 2
    (tmp_path / "list.txt").write_text("# none yet\n")
    with pytest.raises(FileNotFoundError, match="list.txt: names no file"):
        find(str(tmp_path / "list.txt"))
