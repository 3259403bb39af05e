"""Export of a model for Immich, a server for photos: the folder that its machine-learning container reads.

    config.json                    as open_clip writes it: how many tokens a text has, and how texts are cleaned
    textual/model.onnx             `text` `[1, L]` int32, padded to L, to `[1, D]` float32 of length 1
    textual/tokenizer.json, tokenizer_config.json
    visual/model.onnx              `image` `[1, 3, S, S]` float32, normalised, to `[1, D]` float32 of length 1
    visual/preprocess_cfg.json     size, normalisation, resize and filter
    parity.json                    the comparison with the model, for people

Immich prepares texts and images itself. A model that it would prepare them for in another way is refused.
"""

from __future__ import annotations

import errno
import os
import string
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
from paddle import nn
from paddle.static import InputSpec

from ernie_vil2.data.preprocessing import Geometry, Preprocessing
from ernie_vil2.data.tokenizer import LibraryTokenizer, TextTokenizer, WordPieceTokenizer
from ernie_vil2.encoder import ErnieViL2, ImageLike
from ernie_vil2.export.graphs import NotExportable, TowerGraph, convert_to_onnx, get_network, require_onnx, save_graphs
from ernie_vil2.export.parity import compare
from ernie_vil2.io.export_folder import PARITY, PRECISIONS
from ernie_vil2.io.files import atomic_folder, load_json, write_json, write_text
from ernie_vil2.models import DualEncoder
from ernie_vil2.runtime_onnx import last_line

if TYPE_CHECKING:
    import tokenizers

CONFIG, TOKENIZER_CONFIG, PREPROCESSING = "config.json", "tokenizer_config.json", "preprocess_cfg.json"

# Names of models by width. Immich knows models by their names alone: a name gives the width of the embeddings, and the
# library whose preprocessing is followed. For each width this is one name that Immich knows as open_clip's.
NAMES = {
    512: "ViT-B-32__openai",
    640: "RN50x4__openai",
    768: "ViT-L-14__openai",
    1024: "RN50__openai",
    1152: "ViT-SO400M-14-SigLIP-384__webli",
    1536: "ViT-gopt-16-SigLIP2-384__webli",
}

# What replaces a project's own cleaning of texts, by `Model.text.tokenizer`: `canonicalize` of Immich, which removes
# punctuation and lowers the case, or a step of the tokenizer. Immich repairs neither encodings nor HTML entities.
_CANONICALIZED = ("siglip", "open_clip_canonical")
_LOWERED = ("siglip2", "open_clip", "open_clip_lower")
_UNCHANGED = ("bert", "clip", "xlm_roberta", "open_clip_hf")

# Texts on which the tokenizers must agree: both languages, accents, numbers, words that no vocabulary has, and more
# words than fit into a text.
_PROBES = (
    "",
    "A Red apple, 2 pears!",
    "一只猫 on the café's sofa (2024)",
    "\u21165 ABCdef \U0001f600",
    300 * "苹果 pie ",
)


def export_for_immich(
    model: ErnieViL2,
    folder: str | Path,
    precision: str = "float32",
    inputs: tuple[Sequence[ImageLike], Sequence[str]] = ((), ()),
    width: int | None = None,
) -> dict[str, Any]:
    """Write a model in Immich's layout into a new folder, which appears when it is complete.

    Args:
        model: model that runs in Paddle.
        folder: new folder.
        precision: float32, or int8 for 8-bit weights in matrix products.
        inputs: real images, and real texts, on which the export is compared with the model; Immich's steps prepare
            them for the export.
        width: width of the embeddings, one of the model's `widths`; None: all.

    Returns:
        The result of `compare`, which the folder holds as well.

    Raises:
        NotExportable: Immich cannot prepare images or texts for this model, or a tower cannot become a graph.
        ValueError: the model was not trained with this width.
        FileExistsError: `folder` exists.
        OSError: the folder cannot be written.
        MissingPackage: see `require_onnx`.
    """
    require_onnx()
    folder = Path(folder)
    if precision not in PRECISIONS["onnx"]:
        raise NotExportable(f"Immich computes in {' or '.join(PRECISIONS['onnx'])}, not in {precision}")
    network = get_network(model)
    if folder.exists():
        raise FileExistsError(errno.EEXIST, "exists already; name a new folder", str(folder))
    preprocess_config = describe_preprocessing(model.preprocessing)
    library = make_library(model.tokenizer)
    is_canonicalized = model.tokenizer.rules in _CANONICALIZED
    _check_ids(model.tokenizer, library, is_canonicalized)
    pad_token = library.id_to_token(model.tokenizer.pad_id)
    if pad_token is None:
        raise NotExportable(f"the tokenizer pads with the id {model.tokenizer.pad_id}, which has no token")

    graphs = _make_graphs(network, model.preprocessing.size, width)
    model = model.with_width(width)
    text_config: dict[str, Any] = {"context_length": model.tokenizer.max_length, "vocab_size": library.get_vocab_size()}
    if is_canonicalized:
        text_config["tokenizer_kwargs"] = {"clean": "canonicalize"}
    config = {
        "embed_dim": model.embed_dim,
        "vision_cfg": {"image_size": model.preprocessing.size},
        "text_cfg": text_config,
    }
    with atomic_folder(folder) as new_folder:
        save_graphs(network, graphs, new_folder)
        convert_to_onnx(graphs, new_folder, should_quantize=precision == "int8")
        for tower, name in (("image", "visual"), ("text", "textual")):
            (new_folder / name).mkdir()
            (new_folder / f"{tower}.onnx").rename(new_folder / name / "model.onnx")
        write_json(new_folder / CONFIG, config)
        write_json(new_folder / "visual" / PREPROCESSING, preprocess_config)
        write_json(new_folder / "textual" / TOKENIZER_CONFIG, {"pad_token": pad_token})
        write_text(new_folder / "textual" / "tokenizer.json", library.to_str())
        try:
            report = compare(model, _Container(new_folder), *inputs)
        except RuntimeError as error:  # the errors of onnxruntime derive from it
            raise NotExportable(f"the graphs do not run: {last_line(error)}") from error
        write_json(new_folder / PARITY, report)
    return report


def describe_preprocessing(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return the content of `preprocess_cfg.json` for a model.

    The kinds without a geometry resize in ways of their own, which Pillow's bicubic filter comes closest to: on the
    demo's drawings embeddings have a mean cosine of 0.9990 to the model's, with the bilinear filter 0.9919. It is also
    the only filter of Immich up to version 2.5.

    Raises:
        NotExportable: Immich cannot resize and crop as the model needs.
    """
    geometry = preprocessing.geometry
    has_other_crop = geometry.resized not in (None, preprocessing.size)
    if preprocessing.kind == "naflex" or geometry.resize == "longest" or has_other_crop:
        settings = f"preprocessing: {preprocessing.kind}, resize: {geometry.resize}, resized: {geometry.resized}"
        raise NotExportable(
            "Immich makes the short side as long as the model's input and crops the long one, or squashes both; it "
            f"cannot prepare images as this model needs them (Model.image has {settings})"
        )
    return {
        "size": [preprocessing.size, preprocessing.size],
        "mode": "RGB",
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "interpolation": geometry.interpolation,
        "resize_mode": geometry.resize,
    }


def make_library(tokenizer: TextTokenizer) -> tokenizers.Tokenizer:
    """Return a tokenizer of the `tokenizers` library that gives the ids of a model's tokenizer.

    Raises:
        NotExportable: no steps of the library do what the tokenizer does.
    """
    if isinstance(tokenizer, WordPieceTokenizer):
        return tokenizer.make_library()
    if not isinstance(tokenizer, LibraryTokenizer) or tokenizer.rules not in (*_CANONICALIZED, *_LOWERED, *_UNCHANGED):
        raise NotExportable(f"no tokenizer.json does what Model.text.tokenizer: {tokenizer.rules} does with texts")
    library = tokenizer.make_library()
    if tokenizer.rules in _LOWERED:
        from tokenizers import normalizers

        steps = [normalizers.Lowercase()]
        if library.normalizer is not None:
            steps.append(library.normalizer)
        library.normalizer = normalizers.Sequence(steps)
    return library


def _check_ids(tokenizer: TextTokenizer, library: tokenizers.Tokenizer, is_canonicalized: bool) -> None:
    """Raise NotExportable if a probe gets other ids in Immich than from the model's tokenizer."""
    library.enable_truncation(tokenizer.max_length)
    for text in _PROBES:
        ids = library.encode(clean_text(text, is_canonicalized)).ids
        if ids != tokenizer.encode(text):
            raise NotExportable(
                f"no tokenizer.json does what Model.text.tokenizer: {tokenizer.rules} does with texts: the ids of "
                f"{text[:60]!r} differ"
            )
    library.no_truncation()


def clean_text(text: str, is_canonicalized: bool) -> str:
    """Return a text as Immich cleans it before it calls the tokenizer."""
    text = " ".join(text.split())
    if is_canonicalized:
        text = text.translate(str.maketrans("", "", string.punctuation)).lower()
    return text


class _ImageGraph(nn.Layer):
    def __init__(self, model: DualEncoder, embed_dim: int | None):
        super().__init__()
        self.model, self.embed_dim = model, embed_dim

    def forward(self, image: paddle.Tensor) -> paddle.Tensor:
        return self.model.encode_image(image, self.embed_dim)


class _TextGraph(nn.Layer):
    def __init__(self, model: DualEncoder, embed_dim: int | None):
        super().__init__()
        self.model, self.embed_dim = model, embed_dim

    def forward(self, text: paddle.Tensor) -> paddle.Tensor:
        return self.model.encode_text(text.astype("int64"), self.embed_dim)


def _make_graphs(model: DualEncoder, size: int, embed_dim: int | None) -> dict[str, TowerGraph]:
    image_input = InputSpec([None, 3, size, size], "float32", "image")
    text_input = InputSpec([None, None], "int32", "text")
    return {
        "image": TowerGraph(_ImageGraph(model, embed_dim), image_input, ("batch",), "embedding"),
        "text": TowerGraph(_TextGraph(model, embed_dim), text_input, ("batch", "length"), "embedding"),
    }


class _Container:
    """An export in onnxruntime, which gets texts and images as Immich's container prepares them, one at a time."""

    def __init__(self, folder: Path):
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        self._sessions = {}
        for tower in ("visual", "textual"):
            path = str(folder / tower / "model.onnx")
            self._sessions[tower] = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        config = load_json(folder / CONFIG)["text_cfg"]
        self._is_canonicalized = "tokenizer_kwargs" in config
        self._tokenizer = Tokenizer.from_file(str(folder / "textual" / "tokenizer.json"))
        pad_token = load_json(folder / "textual" / TOKENIZER_CONFIG)["pad_token"]
        pad_id = self._tokenizer.token_to_id(pad_token)
        self._tokenizer.enable_padding(length=config["context_length"], pad_token=pad_token, pad_id=pad_id)
        self._tokenizer.enable_truncation(config["context_length"])

        values = load_json(folder / "visual" / PREPROCESSING)
        self._mean, self._std = np.array(values["mean"], np.float32), np.array(values["std"], np.float32)
        # transformers crops the centre as Immich does.
        geometry = Geometry(values["resize_mode"], values["interpolation"])
        self._preprocess = Preprocessing("transformers", values["size"][0], (), (), geometry=geometry)

    def encode_images(self, images: Sequence[ImageLike], /) -> np.ndarray:
        rows = []
        for image in images:
            content = Path(image).read_bytes() if isinstance(image, str | os.PathLike) else image
            pixels = self._preprocess(content, "an image").astype(np.float32) / 255
            normalized = (pixels - self._mean) / self._std
            rows.append(self._run("visual", "image", normalized.transpose(2, 0, 1)))
        return np.stack(rows)

    def encode_texts(self, texts: Sequence[str], /) -> np.ndarray:
        rows = []
        for text in texts:
            ids = self._tokenizer.encode(clean_text(text, self._is_canonicalized)).ids
            rows.append(self._run("textual", "text", np.array(ids, np.int32)))
        return np.stack(rows)

    def _run(self, tower: str, name: str, row: np.ndarray) -> np.ndarray:
        return self._sessions[tower].run(None, {name: row[None]})[0][0]
