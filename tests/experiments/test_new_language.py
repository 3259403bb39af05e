"""Chinese for models of icons: recalls worked out by hand, what is learnt and held out, and the table."""

import csv

import numpy as np
import pytest

from experiments import new_language
from experiments.new_language import FORMS, LEARNT, STUDENTS, is_held_out, recalls, tables, write_texts
from tests.support.embedded_pairs import normalised_pairs


class Encoder:
    """Gives each text the row that it has here: `[N, D]`."""

    def __init__(self, rows):
        self.rows = rows

    def encode_texts(self, texts):
        return np.array([self.rows[text] for text in texts], np.float32)


def test_a_third_of_the_words_is_held_out(tmp_path):
    words = [f"word {number}" for number in range(3000)]
    assert 0.3 < np.mean([is_held_out(word) for word in words]) < 0.37
    write_texts(tmp_path / "texts.csv", {"alarm clock": "闹钟"})
    with (tmp_path / "texts.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[:3] == [["caption_en", "caption_zh"], ["alarm clock", "闹钟"], ["the alarm clock", "这个闹钟"]]
    assert len(rows) == 2 + len(LEARNT) and not set(FORMS.values()) & set(LEARNT)


def test_recalls_are_by_kind_of_word_and_language(monkeypatch):
    monkeypatch.setattr(new_language, "is_held_out", lambda word: word == "key")
    monkeypatch.setattr(new_language, "FORMS", {"word": ("{}", "{}")})
    eye = np.eye(24)
    # The first test has twelve images of other things before a cup and a key, the second a cup alone.
    one = normalised_pairs(eye[:14], eye[:14], [(row, row) for row in range(14)],
                  [*(f"thing {row}" for row in range(12)), "Cup", "key"])  # fmt: skip
    two = normalised_pairs(eye[12:13], eye[12:13], [(0, 0)], ["cup"])
    far = eye[:12].sum(axis=0) / 12**0.5
    encoder = Encoder({"cup": eye[12], "key": eye[13], "杯": far, "钥匙": eye[13]})
    found = recalls(encoder, [one, two], {"cup": "杯", "key": "钥匙", "tree": "树"})
    assert found == {
        "en/learnt/word": 100, "en/held out/word": 100, "en/all/word": 100,
        # Twelve images are nearer to the Chinese cup in the first test; in the second there is no other image.
        "zh/learnt/word": 50, "zh/held out/word": 100, "zh/all/word": pytest.approx(200 / 3),
    }  # fmt: skip


def test_a_table_has_differences_to_the_teacher_by_seed():
    keys = [
        f"{language}/{kind}/{form}"
        for language in ("zh", "en")
        for kind in ("learnt", "held out", "all")
        for form in FORMS
    ]
    base = {seed: dict.fromkeys(keys, 5.0 + seed) for seed in (0, 1, 2)}
    found = {seed: {"E": of, **{name: {key: value + 3 for key, value in of.items()} for name in STUDENTS}}
             for seed, of in base.items()}  # fmt: skip
    word, sentence = tables(found)
    assert [row[0] for row in word.rows] == ["E", *STUDENTS] and word.rows[0][1:4] == ["6.0", "6.0", "–"]
    assert word.rows[1][1:4] == ["9.0", "9.0", "+3.0 [+3.0, +3.0] *"] and sentence.rows == word.rows
