"""Tags from a list of words: with a model of colours, where they are known, and with an untrained model."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import sklearn

import ernie_vil2
from ernie_vil2.apps.tagging.taggers import LexiconTagger
from ernie_vil2.data.samples import Sample
from ernie_vil2.data.tags import TagsFile
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.shapes import COLOURS, SPECIAL_TOKENS, draw, encode_png, write_tsv

PHOTOGRAPHS = Path(sklearn.__file__).parent / "datasets" / "images"
WORDS = ["red", "green", "blue", "yellow", "disc", "square", "bar", "cross"]
TOKENS = [*SPECIAL_TOKENS, "a", "the", "of", "picture", "drawing", *WORDS]


def normalize(*vector):
    return np.array(vector, np.float32) / np.linalg.norm(vector)


class Colours:
    """Model in which the embedding of an image of one pixel is its colour, and the texts are colours."""

    fingerprint = "colours"
    texts: ClassVar = {
        "red": normalize(1, 0, 0), "green": normalize(0, 1, 0), "blue": normalize(0, 0, 1), "红": normalize(1, 0, 0),
    }  # fmt: skip

    def preprocess(self, image, name):
        return np.frombuffer(image, np.uint8)

    def encode_pixels(self, pixels):
        return np.stack([normalize(*pixel) for pixel in pixels])

    def encode_texts(self, texts):
        return np.stack([self.texts[text] for text in texts])


def tag_colours(tagger, *colours):
    return tagger.tag([tagger.prepare(Sample("x", "x", bytes(colour), {}), "x") for colour in colours])


def test_nearest_words_become_tags():
    # (4, 3, 0) has the cosines 0.8, 0.6 and 0 with red, green and blue.
    words = {"en": ["blue", "green", "red", "green "], "zh": ["红"]}
    assert tag_colours(LexiconTagger(Colours(), words, top=2), (4, 3, 0), (0, 0, 1)) == [
        {"en": ("red", "green"), "zh": ("红",)},
        {"en": ("blue", "green"), "zh": ("红",)},
    ]
    assert tag_colours(LexiconTagger(Colours(), words, top=9, threshold=0.7), (4, 3, 0), (0, 0, 1), (1, 1, 1)) == [
        {"en": ("red",), "zh": ("红",)},
        {"en": ("blue",)},
        {},
    ]


@pytest.mark.parametrize(("words", "templates", "top", "error"), [
    ({"en": [" "]}, {}, 1, "at least one word"),
    ({"en": ["a"]}, {"en": ["a picture"]}, 1, "'a picture'"),
    ({"en": ["a"]}, {"zh": ["{}"]}, 1, "templates in zh"),
    ({"en": ["a"]}, {}, 0, "not 0"),
])  # fmt: skip
def test_invalid_words_and_templates_are_refused(words, templates, top, error):
    with pytest.raises(ValueError, match=error):
        LexiconTagger(Colours(), words, templates, top)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_untrained_checkpoint(tmp_path_factory.mktemp("checkpoint"), TOKENS)


def test_tags_agree_with_products_in_numpy(run_tool, checkpoint, tmp_path, capsys):
    rng = np.random.default_rng(0)
    images = {f"{colour} disc": encode_png(draw(rgb, "disc", rng)) for colour, (rgb, _) in COLOURS.items()}
    images |= {f"{colour} bar": encode_png(draw(rgb, "bar", rng)) for colour, (rgb, _) in COLOURS.items()}
    images |= {name: (PHOTOGRAPHS / f"{name}.jpg").read_bytes() for name in ("china", "flower")}
    rows = [(name, name, image) for name, image in images.items()]
    data = write_tsv(tmp_path / "a.tsv", [*rows, ("broken", "broken", b"GIF89a"), rows[0]])
    (tmp_path / "words.txt").write_text("\n".join(WORDS) + "\n")
    (tmp_path / "templates.txt").write_text("a picture of the {}\nthe {} drawing\n")

    model = ernie_vil2.load_model(checkpoint, device="cpu")
    # A word is the direction of the sum of its embeddings in both templates.
    pictures = model.encode_texts([f"a picture of the {word}" for word in WORDS])
    texts = pictures + model.encode_texts([f"the {word} drawing" for word in WORDS])
    cosines = model.encode_images(images.values()) @ (texts / np.linalg.norm(texts, axis=1, keepdims=True)).T
    # Between the 24th and the 25th cosine, so that rounding does not decide.
    threshold = float(np.sort(cosines.ravel())[-25:-23].mean())
    expected = {}
    for name, row in zip(images, cosines, strict=True):
        words = tuple(WORDS[word] for word in np.argsort(-row)[:4] if row[word] >= threshold)
        if words:
            expected[name] = {"en": words}
    assert any(len(tags["en"]) < 4 for tags in expected.values()), "the threshold leaves fewer than four words"

    assert run_tool("lexicon", data, "--checkpoint", checkpoint, "--words", f"en={tmp_path / 'words.txt'}",
                    "--templates", f"en={tmp_path / 'templates.txt'}", "--top", 4, "--threshold", threshold,
                    "--batch-size", 3, "--device", "cpu", "--output", tmp_path / "tags.jsonl") == 0  # fmt: skip
    file = TagsFile(tmp_path / "tags.jsonl")
    assert {name: file[name] for name in images if file[name]} == expected and len(file) == len(expected)
    printed = capsys.readouterr().out
    assert f"{len(expected)} of 10 ids have tags" in printed and "broken image: 1 (broken)" in printed
