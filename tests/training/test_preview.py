from statistics import fmean

import numpy as np
import pytest

from ernie_vil2.config import load_config
from ernie_vil2.data.loader import read_batch, training_batches
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.data.tokenizer import PAD_ID, Tokenizer, open_tokenizer
from ernie_vil2.tasks.multi_view import MultiViewRows
from ernie_vil2.training.dry_run import SHOWN, preview
from tests.support.other_families import FOLDERS
from tests.support.shapes import draw, png, write_tsv

VIEWS = ("image_1", "image_2", "text_1", "text_2")


@pytest.fixture
def settings(shapes, tmp_path):
    """Three quarters coloured shapes with tags, a quarter a TSV of which every third image is broken."""
    image = png(draw((200, 0, 0), "disc", np.random.default_rng(0)))
    rows = [(f"a disc {number}", str(number), b"\xff\xd8" if number % 3 == 0 else image) for number in range(30)]
    write_tsv(tmp_path / "discs.tsv", rows)
    sources = (
        f"{{data: [{shapes['train']}], weight: 3, languages: {{zh: 1.0}}}}, "
        f"{{data: [{tmp_path}/discs.tsv], weight: 1, languages: {{en: 1.0}}}}"
    )
    return load_config(None, [
        "Model.image.image_size=32", "Views.crop_area=[0.5, 1.0]", "Views.languages={zh: 1.0, en: 1.0}",
        "Training.global_batch=32", "Data.workers=1", f"Data.train=[{sources}]",
    ])  # fmt: skip


def test_a_preview_shows_what_training_will_see(settings):
    tokenizer = Tokenizer(max_length=16)
    stream = SampleStream(settings)
    batch = next(training_batches(MultiViewRows(stream, settings, tokenizer, VIEWS), settings))
    expected = {}  # by source, in order
    for row, position in enumerate(batch["positions"]):
        ids = [number for number in batch["text"][row].tolist() if number != PAD_ID]
        views = {view: batch[view][row].numpy() for view in ("image_1", "image_2")}
        expected.setdefault(stream[position][0], []).append((batch["names"][row], views, ids))
    for source, rows in expected.items():
        found = preview(MultiViewRows(stream, settings, tokenizer, VIEWS), settings, source, 8)
        assert found.read == 8 and found.seconds > 0
        compared = list(zip(found.samples, rows, strict=False))
        assert len(compared) >= 4, "too few to compare"
        for sample, (name, views, ids) in compared:
            assert sample.texts["sample"] == name
            assert sample.texts["text, as tokens"] == " ".join(tokenizer.tokens[number] for number in ids)
            assert sample.images.keys() == views.keys()
            assert all(np.array_equal(sample.images[view], views[view]) for view in views)


def test_it_counts_and_names_what_is_wrong(settings):
    tokenizer = Tokenizer(max_length=7)  # [CLS] a disc 2 9 [SEP] or shorter; tags are longer
    rows = MultiViewRows(SampleStream(settings), settings, tokenizer, VIEWS)
    found = preview(rows, settings, 1, 30)  # an epoch of the TSV
    assert sorted(found.bad) == [("broken image", str(number)) for number in sorted(map(str, range(0, 30, 3)))]
    mean = fmean(len(tokenizer.encode(f"a disc {number}")) for number in range(30) if number % 3)
    assert found.notes == [f"texts of {mean:.1f} tokens, 0 of them cut at 7, 0.0% of the tokens unknown"]
    assert len(found.samples) == len(found.stored_bytes) == min(SHOWN, 20)  # that can be used
    for sample in found.samples:
        others = {name: text for name, text in sample.texts.items() if name != "text, as tokens"}
        assert others == {"sample": others["sample"], "caption, en": f"a disc {others['sample']}"}

    rows = MultiViewRows(SampleStream(settings), settings, tokenizer, VIEWS)
    shapes = preview(rows, settings, 0, 32)
    # "图片中包含绿色、方块" is cut, "绿色的方块" fills the seven tokens exactly or stays below.
    text = read_batch(rows, settings, rows.stream.first_positions(0, 32))["text"].numpy()
    full = int((text[:, 6] != PAD_ID).sum())
    assert full > 0 and f", {full} of them cut at 7, " in shapes.notes[0]
    texts = shapes.samples[0].texts
    assert texts.keys() == {"sample", "text, as tokens", "caption, zh", "tags, zh"}
    assert texts["tags, zh"].startswith("图片中包含")


def test_tokens_that_the_vocabulary_lacks_are_counted(settings):
    tokenizer = Tokenizer(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a"], max_length=16)
    found = preview(MultiViewRows(SampleStream(settings), settings, tokenizer, {"text_1"}), settings, 1, 30)
    assert found.samples[0].texts["text, as tokens"] == "[CLS] a [UNK] [UNK] [SEP]"
    assert found.notes == ["texts of 5.0 tokens, 0 of them cut at 16, 40.0% of the tokens unknown"]
    assert not found.bad and found.samples[0].images == {}  # a broken image is not looked at


@pytest.mark.parametrize(
    ("name", "rules"), [("hf_clip", "clip"), ("hf_siglip", "siglip"), ("hf_siglip2_naflex", "siglip2")]
)
def test_texts_of_other_tokenizers_lose_their_padding(settings, name, rules):
    """CLIP fills up with its end token, SigLIP always to the full length, with that or with a token of its own."""
    tokenizer = open_tokenizer(FOLDERS[name], 24, rules)
    rows = MultiViewRows(SampleStream(settings), settings, tokenizer, {"text_1"})
    batch = next(training_batches(rows, settings))
    assert batch["text"].shape[1] == 24 or not tokenizer.to_full_length
    end = tokenizer.encode("")[-1]
    for position, row in enumerate(batch["text"].tolist()):
        shown = rows.shown(batch, position, position).texts["text, as tokens"]
        ids = row[: row.index(end) + 1]
        assert set(row[len(ids) :]) <= {tokenizer.pad_id} and len(ids) > 1
        assert shown == " ".join(tokenizer.tokens[number] for number in ids)
