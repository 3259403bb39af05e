"""A folder for Immich, fed as its container does it, gives the model's embeddings; others are refused by name."""

import json
import string

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from tokenizers import Tokenizer

import ernie_vil2
from ernie_vil2.cli.export import read_inputs
from ernie_vil2.data.preprocessing import Geometry, Preprocessing
from ernie_vil2.data.spec import DataSpec
from ernie_vil2.data.tokenizer import LibraryTokenizer, WordPieceTokenizer, open_tokenizer
from ernie_vil2.export.graphs import NotExportable
from ernie_vil2.export.immich import describe_preprocessing, export_for_immich, make_library
from tests.support.entailment_data import write_entailment_folder
from tests.support.exported_models import IMAGES, TEXTS
from tests.support.other_families import FOLDERS, list_inputs
from tests.support.paths import ROOT
from tests.support.shapes import encode_png, write_tar, write_tsv

CAPTIONS = (ROOT / "tests/fixtures/good_captions.txt").read_text(encoding="utf-8").splitlines()
TOKENIZATION = json.loads((ROOT / "tests/fixtures/tokenization_official.json").read_text(encoding="utf-8"))


class Container:
    """The steps of Immich's container for models that it knows as open_clip's."""

    def __init__(self, folder):
        self.folder = folder
        self.preprocessing = json.loads((folder / "visual/preprocess_cfg.json").read_text())
        self.text = json.loads((folder / "config.json").read_text())["text_cfg"]
        pad_token = json.loads((folder / "textual/tokenizer_config.json").read_text())["pad_token"]
        self.tokenizer = Tokenizer.from_file(str(folder / "textual/tokenizer.json"))
        length = self.text["context_length"]
        pad_id = self.tokenizer.token_to_id(pad_token)
        self.tokenizer.enable_padding(length=length, pad_token=pad_token, pad_id=pad_id)
        self.tokenizer.enable_truncation(max_length=length)

    def run(self, tower, feed):
        session = onnxruntime.InferenceSession(str(self.folder / tower / "model.onnx"))
        return session.run(None, feed)[0][0]

    def encode_text(self, text):
        text = " ".join(text.split())
        if self.text.get("tokenizer_kwargs", {}).get("clean") == "canonicalize":
            text = text.translate(str.maketrans("", "", string.punctuation)).lower()
        return self.run("textual", {"text": np.array([self.tokenizer.encode(text).ids], np.int32)})

    def encode_image(self, image):
        size = self.preprocessing["size"][0]
        resample = Image.Resampling[self.preprocessing["interpolation"].upper()]
        image = image.convert("RGB")
        if self.preprocessing["resize_mode"] == "squash":
            image = image.resize((size, size), resample)
        else:
            short = min(image.size)
            image = image.resize([int(side / short * size) for side in image.size], resample)
            left, top = (int(side / 2 - size / 2) for side in image.size)
            image = image.crop((left, top, left + size, top + size))
        pixels = np.asarray(image, np.float32) / 255
        pixels = (pixels - np.float32(self.preprocessing["mean"])) / np.float32(self.preprocessing["std"])
        return self.run("visual", {"image": pixels.transpose(2, 0, 1)[None]})


def test_container_gives_the_embeddings_of_ernie_towers(model, tmp_path):
    # Images of the model's size are not resized, in which Pillow and OpenCV differ.
    images = [Image.fromarray(model.preprocess(image)) for image in IMAGES]
    report = export_for_immich(model, tmp_path / "photos", inputs=(images, TEXTS))
    assert report == json.loads((tmp_path / "photos/parity.json").read_text())
    container = Container(tmp_path / "photos")
    texts = np.stack([container.encode_text(text) for text in TEXTS])
    np.testing.assert_allclose(texts, model.encode_texts(TEXTS), atol=2e-6)
    pixels = np.stack([container.encode_image(image) for image in images])
    np.testing.assert_allclose(pixels, model.encode_images(images), atol=2e-6)
    assert report["texts"]["max_difference"] < 2e-6 and report["images"]["max_difference"] < 2e-6


def test_container_gives_the_embeddings_of_siglip(tmp_path):
    # Its texts lose their punctuation and are padded to the full length, and its images are squashed.
    files, texts = list_inputs("hf_siglip")
    model = ernie_vil2.load_model(FOLDERS["hf_siglip"], device="cpu")
    export_for_immich(model, tmp_path / "photos")
    container = Container(tmp_path / "photos")
    assert container.text["tokenizer_kwargs"] == {"clean": "canonicalize"}
    embeddings = np.stack([container.encode_text(text) for text in texts])
    np.testing.assert_allclose(embeddings, model.encode_texts(texts), atol=5e-6)
    embeddings = np.stack([container.encode_image(Image.open(file)) for file in files])
    np.testing.assert_allclose(embeddings, model.encode_images(files), atol=5e-6)


@pytest.mark.parametrize("rules", ["official", "paddlenlp", "cn_clip"])
def test_word_pieces_in_the_library_have_equal_ids(rules):
    tokenizer = WordPieceTokenizer(None, 48, rules)
    library = Tokenizer.from_str(tokenizer.make_library().to_str())
    library.enable_truncation(48)
    texts = [*CAPTIONS, *(entry["text"] for entry in TOKENIZATION), "©®² [MASK] soft\u00adhyphen", "", "x" * 150]
    for text in texts:
        assert library.encode(text).ids == tokenizer.encode(text), text


def test_tokenizer_that_no_file_expresses_is_refused():
    content = open_tokenizer(FOLDERS["hf_siglip"], 16, "siglip").files()["tokenizer.json"]
    with pytest.raises(NotExportable, match="open_clip_without_sep"):
        make_library(LibraryTokenizer(content, 16, "open_clip_without_sep"))


@pytest.mark.parametrize(
    ("geometry", "name"), [(Geometry("longest"), "resize: longest"), (Geometry(resized=40), "resized: 40")]
)
def test_resize_that_immich_does_not_know_is_refused(geometry, name):
    with pytest.raises(NotExportable, match=name):
        describe_preprocessing(Preprocessing("open_clip", 32, (0.5,) * 3, (0.5,) * 3, geometry=geometry))


def test_ids_that_differ_in_immich_are_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr(model.tokenizer, "encode", lambda text: [2, 3])
    with pytest.raises(NotExportable, match="official"):
        export_for_immich(model, tmp_path / "photos")
    assert not (tmp_path / "photos").exists()


@pytest.mark.parametrize("keeps_files", [False, True])
def test_broken_images_are_not_compared_on(tmp_path, keeps_files):
    image = encode_png(np.zeros([8, 8, 3], np.uint8))
    data = DataSpec([str(write_tsv(tmp_path / "a.tsv", [("a disc", "1", image), ("a bar", "2", image[:40])]))])
    preprocess = Preprocessing("ernie_vil2", 8, mean=(0, 0, 0), std=(1, 1, 1))
    (result,), texts = read_inputs(data, 10, preprocess, keeps_files)
    assert texts == ["a disc"] and (result == image if keeps_files else result.shape == (8, 8, 3))


def test_samples_are_compared_on_with_the_captions_that_they_have(tmp_path):
    image = encode_png(np.zeros([8, 8, 3], np.uint8))
    fields = json.dumps({"caption_zh": "红色的圆", "caption_en": ""}).encode()
    shard = write_tar(tmp_path / "a.tar", [("1.png", image), ("1.json", fields)])
    assert read_inputs(DataSpec([str(shard)]), 10, lambda content, name: name) == (["1"], ["红色的圆"])
    statements = write_entailment_folder(tmp_path / "snli-ve", splits=("test",))
    with pytest.raises(ValueError, match="statement with a label, no caption: 48"):
        read_inputs(DataSpec([str(statements)]), 10, lambda content, name: name)
