"""Words of a lexicon: by hand with a model of colours, and by an untrained model against NumPy."""

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


def unit(*vector):
    return np.array(vector, np.float32) / np.linalg.norm(vector)


class Colours:
    """A model whose image embedding is the image's colour, and whose texts are colours."""

    fingerprint = "colours"
    texts: ClassVar = {
        "red": unit(1, 0, 0), "green": unit(0, 1, 0), "blue": unit(0, 0, 1), "红": unit(1, 0, 0),
    }  # fmt: skip

    def preprocess(self, image, name):
        return np.frombuffer(image, np.uint8)

    def encode_pixels(self, pixels):
        return np.stack([unit(*pixel) for pixel in pixels])

    def encode_texts(self, texts):
        return np.stack([self.texts[text] for text in texts])


def tags_of(tagger, *colours):
    return tagger.tag([tagger.prepare(Sample("x", "x", bytes(colour), {}), "x") for colour in colours])


def test_the_nearest_words_by_hand():
    """(4, 3, 0) has cosines 0.8, 0.6 and 0 with the three colours."""
    words = {"en": ["blue", "green", "red", "green "], "zh": ["红"]}
    assert tags_of(LexiconTagger(Colours(), words, top=2), (4, 3, 0), (0, 0, 1)) == [
        {"en": ("red", "green"), "zh": ("红",)},
        {"en": ("blue", "green"), "zh": ("红",)},
    ]
    assert tags_of(LexiconTagger(Colours(), words, top=9, threshold=0.7), (4, 3, 0), (0, 0, 1), (1, 1, 1)) == [
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
def test_what_cannot_be_searched_is_an_error(words, templates, top, error):
    with pytest.raises(ValueError, match=error):
        LexiconTagger(Colours(), words, templates, top)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_untrained_checkpoint(tmp_path_factory.mktemp("checkpoint"), TOKENS)


def test_drawings_and_photographs_against_numpy(run_tool, checkpoint, tmp_path, capsys):
    rng = np.random.default_rng(0)
    images = {f"{colour} disc": encode_png(draw(rgb, "disc", rng)) for colour, (rgb, _) in COLOURS.items()}
    images |= {f"{colour} bar": encode_png(draw(rgb, "bar", rng)) for colour, (rgb, _) in COLOURS.items()}
    images |= {name: (PHOTOGRAPHS / f"{name}.jpg").read_bytes() for name in ("china", "flower")}
    rows = [(name, name, image) for name, image in images.items()]
    data = write_tsv(tmp_path / "a.tsv", [*rows, ("broken", "broken", b"GIF89a"), rows[0]])
    (tmp_path / "words.txt").write_text("\n".join(WORDS) + "\n")
    (tmp_path / "templates.txt").write_text("a picture of the {}\nthe {} drawing\n")

    model = ernie_vil2.load_model(checkpoint, device="cpu")
    texts = sum(model.encode_texts([template.format(word) for word in WORDS])
                for template in ("a picture of the {}", "the {} drawing"))  # fmt: skip
    cosines = model.encode_images(images.values()) @ (texts / np.linalg.norm(texts, axis=1, keepdims=True)).T
    threshold = float(np.sort(cosines.ravel())[-25:-23].mean())  # 24 are above it, none close to it
    expected = {}
    for name, row in zip(images, cosines, strict=True):
        best = np.argsort(-row)[:4]
        if words := tuple(WORDS[word] for word in best if row[word] >= threshold):
            expected[name] = {"en": words}
    assert any(len(tags["en"]) < 4 for tags in expected.values()), "the threshold cuts"

    assert run_tool("lexicon", data, "--checkpoint", checkpoint, "--words", f"en={tmp_path / 'words.txt'}",
                    "--templates", f"en={tmp_path / 'templates.txt'}", "--top", 4, "--threshold", threshold,
                    "--batch-size", 3, "--device", "cpu", "--output", tmp_path / "tags.jsonl") == 0  # fmt: skip
    file = TagsFile(tmp_path / "tags.jsonl")
    assert {name: tags for name in images if (tags := file[name])} == expected and len(file) == len(expected)
    printed = capsys.readouterr().out
    assert f"{len(expected)} of 10 ids have tags" in printed and "broken image: 1 (broken)" in printed
