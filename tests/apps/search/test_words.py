"""Words next to meaning: what they find, in step with the items, and how both rankings are fused."""

import os
import signal
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.apps.search import words
from ernie_vil2.apps.search.checking import check_index
from ernie_vil2.apps.search.collection import Item, WordQueries
from ernie_vil2.apps.search.fusion import FUSION_DEPTH, fuse_rankings
from ernie_vil2.apps.search.items import ItemsFile
from ernie_vil2.apps.search.local_collection import LocalCollection
from tests.support.limits import limit_examples
from tests.support.small_index import WIDTH, draw_unit_rows, open_number_index

TITLES = [
    "猫", "熊猫和狗", "狗", "苹果", "红苹果汁", "苹 果", "果苹", "iPhone 手机壳", "手机", "手机的壳", "机壳 手机",
    "A1-B", "蓝色A1-B型", "a1-b", "Ａ１－Ｂ", "A1 B", "A1-BC", "XA1-B", "B-A1", "A1_B",
]  # fmt: skip
# By hand: the numbers of the titles that contain the query.
EXPECTED = {
    "猫": {0, 1},
    "苹果": {3, 4},
    "手机壳": {7},
    "手机": {7, 8, 9, 10},
    "手机 壳": {7, 9, 10},
    "iphone手机壳": {7},
    "A1-B": {11, 12, 13, 14},
    "a1": {11, 12, 13, 14, 15, 16, 18, 19},
    "猫 苹果": set(),
    "鱼": set(),
    "!": set(),
}


def add_titles(collection, titles, first=0):
    """Add items with ids of no words, one for each title, with embeddings of their own."""
    numbers = range(first, first + len(titles))
    items = [Item(f"<{number}>", b"%d" % number, {"title": titles[number - first]}) for number in numbers]
    collection.add(items, draw_unit_rows(np.random.default_rng(first), len(titles)))


def find_numbers(collection, text, where=None, count=100):
    """Return the numbers of the items that a collection finds by words."""
    words_of_query = WordQueries([text], 1.0)
    (hits,) = collection.search(draw_unit_rows(np.random.default_rng(9), 1), count, where, words=words_of_query)
    return {int(hit.id.strip("<>")) for hit in hits if hit.has_words}


@pytest.fixture
def collection(tmp_path):
    with closing(LocalCollection(tmp_path / "images", WIDTH, writable=True)) as collection:
        yield collection


@pytest.mark.parametrize("query", EXPECTED)
def test_words_find_what_contains_them_and_nothing_else(collection, query):
    add_titles(collection, TITLES)
    numbers = EXPECTED[query]
    # The ids hold digits, which are words too; no query here consists of digits alone.
    assert find_numbers(collection, query) == numbers


@limit_examples(200)
@given(st.lists(st.text('手机壳a1- ，"', max_size=12), max_size=6), st.text("手机壳", min_size=1, max_size=4))
def test_chinese_words_are_found_wherever_texts_contain_them(texts, query):
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(words.SCHEMA)
        table = words.WordTable(connection)
        table.add((row, words.split_item("", {"title": text})) for row, text in enumerate(texts))
        assert set(table.find(query).rows.tolist()) == {row for row, text in enumerate(texts) if query in text}


@limit_examples(200)
@given(st.text(max_size=40), st.text("ab\"'*:^()-+{}|~ ORNEAT", max_size=40))
def test_text_of_a_query_is_no_syntax(title, query):
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(words.SCHEMA)
        table = words.WordTable(connection)
        table.add([(0, words.split_item("", {"title": title})), (1, words.split_item("", {"title": query}))])
        for text in (title, query):
            table.find(text)
        if words.make_match(query):
            assert 1 in table.find(query).rows


def test_fields_of_all_kinds_and_the_id_have_words(collection):
    fields = {"title": "红色", "tags": ["苹果", "水果"], "number": 4711, "price": 2.5, "sold": True}
    item = Item("shoes/A1-B.jpg", b"", fields)
    collection.add([item], draw_unit_rows(np.random.default_rng(0), 1))
    queries = ["红色", "水果", "4711", "A1-B", "shoes", "A1-B 苹果", "2.5", "true"]
    answers = collection.search(np.ones([len(queries), WIDTH]), 1, words=WordQueries(queries))
    assert [hits[0].has_words for hits in answers] == [True] * 6 + [False] * 2


def test_no_other_read_waits_for_a_filter_or_words(collection):
    add_titles(collection, ["苹果"] * 2000)
    embeddings = draw_unit_rows(np.random.default_rng(9), 1)
    steps_of_reads = []
    collection.items._connection.set_progress_handler(lambda: steps_of_reads.append(1), 1000)
    (hits,) = collection.search(embeddings, 10, {"title": "香蕉"}, words=WordQueries(["苹果"], 1.0))
    assert hits == [] and steps_of_reads == []
    assert collection.field_names() == ["title"] and steps_of_reads == []


def test_updates_and_removals_keep_words_in_step(tmp_path, collection):
    add_titles(collection, ["红苹果", "绿苹果", "红鞋", "蓝鞋"])
    collection.update([Item("<0>", b"", {"title": "香蕉"}), Item("<2>", b"2", {"title": "红鞋"}, [["moved", "", 0]])])
    collection.add([Item("<1>", b"new", {"title": "红帽"})], draw_unit_rows(np.random.default_rng(1), 1))
    collection.remove(["<3>"])

    with closing(LocalCollection(tmp_path / "images", WIDTH)) as reader:
        for titles in (collection, reader):
            assert find_numbers(titles, "苹果") == set()
            assert find_numbers(titles, "香蕉") == {0}
            assert find_numbers(titles, "红") == {1, 2}
            assert find_numbers(titles, "蓝") == set()
    copy = LocalCollection(tmp_path / "copy", WIDTH, writable=True)
    with closing(copy):
        collection.copy_to(copy)
        assert find_numbers(copy, "红") == {1, 2} and len(copy.rows) == 3


def test_change_that_is_killed_leaves_words_and_items_in_step(tmp_path):
    def change_and_die(action):
        """Make a change in a process that is killed when items and words are written and not yet committed."""
        process = os.fork()
        if not process:
            ItemsFile.update_state = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
            with open_number_index(tmp_path) as index:
                action(index.collection("images"))
        _, status = os.waitpid(process, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL

    with open_number_index(tmp_path) as index:
        add_titles(index.collection("images"), ["红苹果", "绿苹果", "红鞋"])
    for action in (
        lambda images: add_titles(images, ["红帽"], first=3),
        lambda images: add_titles(images, ["香蕉"]),
        lambda images: images.update([Item("<0>", b"", {"title": "香蕉"})]),
        lambda images: images.remove(["<1>"]),
    ):
        change_and_die(action)
        with open_number_index(tmp_path) as index:
            images = index.collection("images")
            assert find_numbers(images, "苹果") == {0, 1} and find_numbers(images, "红") == {0, 2}
            assert find_numbers(images, "香蕉") == set()
        assert check_index(tmp_path / "index").faults == []


def test_filter_admits_only_matching_items_with_the_words(collection):
    items = [Item(str(number), b"", {"title": "红鞋", "size": number % 3}) for number in range(60)]
    collection.add(items, draw_unit_rows(np.random.default_rng(0), 60))
    collection.remove(["4"])
    assert find_numbers(collection, "红鞋", {"size": 1}) == {*range(1, 60, 3)} - {4}


def test_shorter_items_come_first_and_then_the_closer_ones(collection, monkeypatch):
    add_titles(collection, ["红鞋 女 春季 新款", "红鞋", "红鞋 女", "红鞋 男", "帽"])
    queries = draw_unit_rows(np.random.default_rng(3), 1)
    scores = (collection.rows.astype(np.float32) @ queries[0]).tolist()
    expected = [1, *sorted([2, 3], key=lambda row: -scores[row]), 0]
    (hits,) = collection.search(queries, 4, words=WordQueries(["红鞋"], 1000.0))
    assert [int(hit.id.strip("<>")) for hit in hits] == expected
    assert [hit.score for hit in hits] == pytest.approx([scores[row] for row in expected], abs=1e-6)

    monkeypatch.setattr(words, "MAX_MATCHES", 3)
    assert find_numbers(collection, "红鞋") == set() and find_numbers(collection, "红鞋 女") == {0, 2}


def test_words_that_take_too_long_are_ignored(collection, monkeypatch):
    # Each item has all tokens of the phrase, in another order, so that all items are compared with it.
    add_titles(collection, ["果苹的色红" * 20] * 500)
    assert find_numbers(collection, "红a色") == set()
    assert len(find_numbers(collection, "苹的", count=500)) == FUSION_DEPTH
    monkeypatch.setattr(words, "MAX_SECONDS", -1.0)
    monkeypatch.setattr(words, "STEPS_BETWEEN_CHECKS", 1)
    assert find_numbers(collection, "苹的") == set()
    assert len(collection.search(np.ones([1, WIDTH]), 3, words=WordQueries(["苹的"]))[0]) == 3


def test_pages_of_an_answer_fit_together(collection):
    rng = np.random.default_rng(0)
    titles = ["红鞋" if number % 3 else f"鞋 {number}" for number in range(3 * FUSION_DEPTH)]
    add_titles(collection, titles)
    query = draw_unit_rows(rng, 1)
    answers = [collection.search(query, count, words=WordQueries(["红鞋"]))[0] for count in (10, 250, len(titles))]
    ids = [hit.id for hit in answers[-1]]
    assert sorted(ids) == sorted(f"<{number}>" for number in range(len(titles)))
    for hits in answers:
        assert [hit.id for hit in hits] == ids[: len(hits)]


def test_items_below_the_threshold_take_no_places_of_words(tmp_path):
    with open_number_index(tmp_path) as index:
        add_titles(index.collection("images"), ["鞋", *["红鞋"] * 40, *["帽子"] * 200])
        query = draw_unit_rows(np.random.default_rng(9), 1)
        (hits,) = index.search_embeddings(query, 60, threshold=0.99, words=WordQueries(["红鞋"]))
        assert len(hits) == 40 and all(hit.has_words for hit in hits)
        (first_hits,) = index.search_embeddings(query, 10, threshold=0.99, words=WordQueries(["红鞋"]))
        assert first_hits == hits[:10]


def test_words_of_one_query_do_not_change_the_answer_to_another(collection):
    add_titles(collection, ["红鞋", "红帽", "鞋"] * 50)
    queries = draw_unit_rows(np.random.default_rng(1), 3).astype(np.float32)
    texts = ["蓝", "红鞋", ""]
    together = collection.search(queries, 20, words=WordQueries(texts))
    alone = [collection.search(queries[[number]], 20, words=WordQueries([texts[number]]))[0] for number in range(3)]
    assert together == alone
    by_meaning = collection.search(queries, 20)
    assert [together[0], together[2]] == [by_meaning[0], by_meaning[2]] and together[1] != by_meaning[1]


def test_names_and_meaning_are_fused_by_reciprocal_ranks():
    # 1/61 + 1/63 > 1/62 + 1/64 > 1/61 > 1/62; then what only the first ranking has.
    assert fuse_rankings([7, 8, 5, 6], [5, 6], [], 1.0) == [5, 6, 7, 8]
    assert fuse_rankings([7, 8, 5], [9], [], 1.0) == [9, 7, 8, 5]  # of equal sums, the name comes first
    assert fuse_rankings([7, 8], [9], [], 0.5) == [7, 8, 9]
    assert fuse_rankings([7, 8], [], [], 1.0) == [7, 8]


def test_words_alone_leave_the_first_hits_by_meaning():
    # 0.93/61 lies between 1/65 and 1/66, 0.93/62 between 1/66 and 1/67. Item 3 is found by its words, too.
    meaning = [0, 1, 2, 3, 4, 5, 6, 7]
    assert fuse_rankings(meaning, [], [20, 3, 21], 1.0) == [0, 1, 2, 3, 4, 20, 5, 6, 21, 7]
    # Twice of it is more than 1/61 for all of them.
    assert fuse_rankings(meaning, [], [20, 3, 21], 2.0) == [20, 3, 21, 0, 1, 2, 4, 5, 6, 7]
    assert fuse_rankings(meaning, [21], [20], 1.0)[:2] == [21, 0]


@pytest.mark.parametrize("meanings", [5, FUSION_DEPTH + 50])
@pytest.mark.parametrize("weight", [0.3, 1.0, 5.0])
def test_fused_order_is_that_of_the_scores_of_all_items(meanings, weight):
    rng = np.random.default_rng(meanings)
    for _ in range(20):
        by_meaning = rng.permutation(300)[:meanings].tolist()
        with_words = rng.permutation(300).tolist()
        by_name, by_words = with_words[: rng.integers(3)], with_words[3 : 3 + rng.integers(30)]
        scores = np.zeros(300)
        for rank, item in enumerate(by_meaning[:FUSION_DEPTH]):
            scores[item] += 1 / (61 + rank)
        for rank, item in enumerate(by_name):
            scores[item] += weight / (61 + rank)
        for rank, item in enumerate(by_words):
            scores[item] = max(scores[item], 0.93 * weight / (61 + rank))
        fused = fuse_rankings(by_meaning, by_name, by_words, weight)
        num_scored = np.count_nonzero(scores)
        np.testing.assert_allclose(scores[fused[:num_scored]], -np.sort(-scores)[:num_scored])
        assert fused[num_scored:] == [item for item in by_meaning[FUSION_DEPTH:] if scores[item] == 0]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("苹果", {1}), ("红 苹果", {2, 3}), ("手机壳", set()), ("iphone 手机壳", {6}), ("红", {11}), ("水果", set()),
        ("A1-B", {7, 8}), ("a1-b 蓝色", {8}), ("4711", {9, 10}), ("77", {12}), ("mug 4711", {10}), ("x.png", {13}),
    ],
)  # fmt: skip
def test_query_names_items_by_a_whole_text_or_a_code(collection, query, names):
    # By hand: the whole of a text, of a number or of the id, or a word with a digit of at least four characters.
    fields = [
        {}, {"title": "苹果"}, {"title": "红苹果"}, {"title": "红，苹果！", "tags": ["水果"]}, {"title": "红苹果汁"},
        {"tags": ["苹果", "手机壳"]}, {"title": "iPhone手机壳", "other": "手机壳套装"}, {"title": "A1-B"},
        {"title": "蓝色A1-B型"}, {"number": 4711}, {"title": "Mug 4711"}, {"colour": "红", "title": "鞋"},
        {"number": 77, "title": "a 77 b"}, {}, {"title": "77 balloons"},
    ]  # fmt: skip
    items = [Item(f"x{number}", b"%d" % number, field) for number, field in enumerate(fields)]
    items[13] = Item("x.png", b"", {"tags": ["x.png", "picture"]})
    collection.add(items, draw_unit_rows(np.random.default_rng(0), len(items)))
    matches = collection.items.find_words(query)
    assert set(matches.rows[matches.are_named].tolist()) == names


@limit_examples(200)
@given(st.lists(st.text("猫a1- ，", max_size=6), max_size=4), st.lists(st.text("猫a1-", max_size=4), max_size=3))
def test_whole_texts_are_names_and_elements_of_lists_are_not(texts, tags):
    def join_tokens(text):
        return words.split_item(text, {}).tokens

    fields = {str(number): text for number, text in enumerate(texts)} | {"tags": tags}
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(words.SCHEMA)
        table = words.WordTable(connection)
        table.add([(0, words.split_item("id", fields))])
        for query in (*texts, *tags):
            matches = table.find(query)
            if len(matches.rows):
                is_named = any(join_tokens(text) == join_tokens(query) for text in texts)
                assert matches.are_named.tolist() == [is_named or words.contains_code(query)]


def test_article_comes_before_others_with_its_number(collection):
    titles = ["Case for A1-B", "A1-B"]
    items = [Item(f"x{number}", b"%d" % number, {"title": title}) for number, title in enumerate(titles)]
    items.append(Item("x2", b"2", {"number": "A1-B", "title": "a phone with a large screen, in blue or in green"}))
    rows = draw_unit_rows(np.random.default_rng(0), 3)
    collection.add(items, rows)
    (hits,) = collection.search(rows[:1].astype(np.float32), 3, words=WordQueries(["a1-b"], 100.0))
    assert [hit.id for hit in hits] == ["x1", "x2", "x0"]


def test_query_for_a_common_thing_keeps_its_first_hit_by_meaning(collection):
    # Images 0 to 9 have no texts; the closest one to the query is among them. Others have the word among their tags.
    titles = [{}] * 10 + [{"title": "虎", "tags": ["猫", "动物"]}] * 3 + [{"title": "猫"}]
    items = [Item(f"x{number}", b"%d" % number, fields) for number, fields in enumerate(titles)]
    rows = draw_unit_rows(np.random.default_rng(0), len(items))
    scores = rows.astype(np.float32) @ rows[4].astype(np.float32)
    scores[10:] = -2  # as if no image with texts was close
    expected = np.argsort(-scores)[:5].tolist()
    rows[10:] = -rows[4]
    collection.add(items, rows)
    query = rows[4:5].astype(np.float32)
    (hits,) = collection.search(query, 10, words=WordQueries(["动物"]))
    assert [hit.id for hit in hits[:6]] == [*(f"x{number}" for number in expected), "x10"]
    (hits,) = collection.search(query, 10, words=WordQueries(["猫"]))
    assert [hit.id for hit in hits[:2]] == ["x13", "x4"]


def test_order_of_fields_is_no_damage(tmp_path):
    # A source gives fields in its own order; the file of items sorts them.
    item = Item("apple", b"", {"title": "红苹果", "caption": "一个红苹果", "kind": "水果"})
    with open_number_index(tmp_path) as index:
        index.collection("images").add([item], draw_unit_rows(np.random.default_rng(0), 1))
    assert not check_index(tmp_path / "index").faults


def test_lost_words_are_damage(tmp_path):
    with open_number_index(tmp_path) as index:
        add_titles(index.collection("images"), ["红苹果", "绿苹果"])
    for statement in ("UPDATE words SET tokens = 'x' WHERE rowid = 0", "DELETE FROM words WHERE rowid = 1"):
        with closing(sqlite3.connect(tmp_path / "index/images/items.sqlite")) as connection, connection:
            connection.execute(statement)
        assert check_index(tmp_path / "index").faults


def test_python_without_full_text_search_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(words, "SCHEMA", "CREATE VIRTUAL TABLE words USING absent(a)")
    words.check_full_text_search.cache_clear()
    with pytest.raises(words.NoFullTextSearch, match="FTS5"):
        LocalCollection(tmp_path / "images", WIDTH, writable=True)
