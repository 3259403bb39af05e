"""Use of an ONNX export without Paddle: only NumPy, OpenCV, Pillow, simplejpeg and onnxruntime are needed.

    from ernie_vil2.runtime_onnx import OnnxModel

    model = OnnxModel("exports/emoji")
    scores = model.encode_texts(["一个红苹果"]) @ model.encode_images(["apple.jpg"]).T * model.logit_scale

Images are decoded by the same code as in `ErnieViL2`.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ernie_vil2.data.preprocessing import (
    PendingEmbeddings,
    Preprocessing,
    encode_batches,
    make_start_function,
    start_by_shape,
)
from ernie_vil2.data.source_files import read_file
from ernie_vil2.data.tokenizer import TextTokenizer, open_tokenizer
from ernie_vil2.device import runtime
from ernie_vil2.device.extras import require
from ernie_vil2.io.export_folder import (
    EXPORT_AGAIN,
    INPUTS,
    OUTPUTS,
    BadExport,
    read_export,
    utf8_path,
    vocabulary_file,
)

# Largest difference of the squared length of an embedding from 1. It leaves room for the rounding of bfloat16 and int8;
# without normalisation, lengths are not near 1.
MAX_LENGTH_ERROR = 0.05

Encoder = Callable[[np.ndarray], np.ndarray]


class OnnxGraph:
    """Graph of one tower; a call takes a batch and returns its embeddings.

    Args:
        folder: exported folder.
        tower: `image` or `text`.
        precision: not used, since the graph has its precision; other backends need it.
        device: `cpu`, or a GPU that the installed onnxruntime is built for.
        threads: threads on a CPU.

    Raises:
        MissingPackage: onnxruntime is not installed.
        BadExport: it is not built for the device, or it cannot load the graph.
    """

    def __init__(self, folder: Path, tower: str, precision: str, device: str, threads: int):
        require(str(folder), "onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that spin between two calls would keep cores from decoding, searching and answering.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors only
        provider: str | tuple[str, dict[str, int]] = "CPUExecutionProvider"
        if device != "cpu":
            provider = ("CUDAExecutionProvider", {"device_id": int(device.partition(":")[2] or 0)})
            if provider[0] not in onnxruntime.get_available_providers():
                raise BadExport(f"{folder}: the installed onnxruntime is not built for {device}; name cpu, or "
                                "install onnxruntime-gpu instead")  # fmt: skip
        try:
            self._session = onnxruntime.InferenceSession(str(folder / f"{tower}.onnx"), options, providers=[provider])
        except Exception as error:  # onnxruntime raises classes of its C++ library
            version = onnxruntime.__version__
            raise BadExport(f"{folder}: onnxruntime {version} cannot load {tower}.onnx: {last_line(error)}") from None
        self._input, self._outputs = INPUTS[tower], [OUTPUTS[tower]]

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return self._session.run(self._outputs, {self._input: rows})[0]


def check_outputs(graph: Encoder, name: str, width: int) -> Encoder:
    """Return a function that runs a graph and checks its embeddings, as a damaged or foreign graph may give anything.

    The function raises BadExport if the graph does not run, or does not return `[B, width]` float32 of length 1 for B
    rows.

    Args:
        graph: the graph.
        name: folder and tower, for the message.
        width: width of the embeddings.
    """

    def run_checked(rows: np.ndarray) -> np.ndarray:
        try:
            embeddings = graph(rows)
        except MemoryError:
            raise
        except Exception as error:  # classes of a C++ library
            raise BadExport(f"{name} tower's graph does not run ({last_line(error)}); {EXPORT_AGAIN}") from error
        if embeddings.shape != (len(rows), width) or embeddings.dtype != np.float32:
            output = f"{embeddings.dtype} {list(embeddings.shape)}"
            raise BadExport(f"{name} tower's graph gives {output}, not float32 {[len(rows), width]}; {EXPORT_AGAIN}")
        squared_lengths = np.einsum("bd,bd->b", embeddings, embeddings)
        # Written so that NaN fails, too.
        if not (np.abs(squared_lengths - 1) < MAX_LENGTH_ERROR).all():
            raise BadExport(
                f"{name} tower's graph gives embeddings that are not finite or not of length 1; {EXPORT_AGAIN}"
            )
        return embeddings

    return run_checked


def check_vocabulary(folder: Path, about: dict[str, Any], tokenizer: TextTokenizer) -> None:
    """Raise BadExport if the vocabulary does not have as many entries as the exported one.

    A shorter vocabulary gives the ids of other words. A longer one gives ids beyond the word embedding, for which
    Paddle Inference reads whatever lies in memory.
    """
    exported = about["tokenizer"].get("entries")  # None if it is missing or null
    if exported is not None and tokenizer.num_tokens != exported:
        raise BadExport(
            f"{folder}: {vocabulary_file(tokenizer.rules)} has {tokenizer.num_tokens:,} entries, but {exported:,} were "
            f"exported: it is damaged; {EXPORT_AGAIN}"
        )


def refuse_single_value(values: Any, method: str, kind: str) -> None:
    """Raise TypeError if `values` is one image or text: a method that takes several would iterate over its parts."""
    is_array_of_image = isinstance(values, np.ndarray) and kind == "image" and values.ndim == 3
    if is_array_of_image or isinstance(values, str | os.PathLike | bytes | Image.Image):
        raise TypeError(f"{method} takes a list; for a single {kind} write {method}([{kind}])")


def check_texts(texts: Iterable[str]) -> Iterator[str]:
    """Yield the texts; TypeError with the row of one that is no string, such as NaN for a missing cell of a table."""
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {row} is a {type(text).__name__}, not a string")
        yield text


def last_line(error: Exception | str) -> str:
    """Return the last line of a library's long message, which says what is wrong."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()


class OnnxModel:
    """Model that encodes images and texts like the exported one; see `ErnieViL2` for more methods.

    Args:
        folder: folder of an ONNX export.
        batch_size: rows encoded at once.
        device: `cpu`, or a GPU that the installed onnxruntime is built for.
        threads: threads on a CPU; None: one for each usable core.

    Attributes:
        embed_dim: width D of the embeddings.
        logit_scale: factor from cosine similarity to score.
        logit_bias: added to a score; 0 unless the model was trained with the sigmoid loss.

    Raises:
        MissingPackage: onnxruntime is not installed.
        BadExport: the folder is damaged or not an ONNX export. The encoding methods raise it if a graph does not run or
            does not return embeddings.
    """

    def __init__(self, folder: str | Path, batch_size: int = 64, device: str = "cpu", threads: int | None = None):
        folder = Path(folder)
        about = read_export(folder)
        if about["backend"] != "onnx":
            raise BadExport(f"{folder} is an export for {about['backend']}; export the checkpoint with --to onnx")
        self.batch_size = batch_size
        self.embed_dim = about["embed_dim"]
        self.logit_scale = about["scalars"]["logit_scale"]
        self.logit_bias = about["scalars"].get("logit_bias", 0.0)

        threads = threads or runtime.num_threads()
        with utf8_path(folder) as utf8_folder:
            image_graph = OnnxGraph(utf8_folder, "image", about["precision"], device, threads)
            text_graph = OnnxGraph(utf8_folder, "text", about["precision"], device, threads)
        self._start_pixels = make_start_function(check_outputs(image_graph, f"{folder}: the image", self.embed_dim))
        self._start_ids = make_start_function(check_outputs(text_graph, f"{folder}: the text", self.embed_dim))

        rules, max_length = about["tokenizer"]["rules"], about["tokenizer"]["max_length"]
        self.tokenizer = open_tokenizer(folder / vocabulary_file(rules), max_length, rules)
        check_vocabulary(folder, about, self.tokenizer)
        self._preprocess = Preprocessing.from_dict(about["preprocessing"])

    def encode_images(self, images: Iterable[str | os.PathLike | bytes | np.ndarray]) -> np.ndarray:
        """Return the embeddings of N images, `[N, D]` float32 of length 1.

        Args:
            images: paths, contents of files, or arrays `[H, W, 3]` uint8 RGB.

        Raises:
            ValueError: a file cannot be read, or an image cannot be used, see `data.decoding.EncodedImage`.
            FileNotFoundError: there is no such file.
            TypeError: `images` is a single image, or holds something else than images.
        """
        refuse_single_value(images, "encode_images", "image")
        start = partial(start_by_shape, self._start_pixels)
        return encode_batches(start, map(self.preprocess, images), self.batch_size, self.embed_dim)

    def encode_texts(self, texts: Iterable[str]) -> np.ndarray:
        """Return the embeddings of N texts, `[N, D]` float32 of length 1.

        Raises:
            TypeError: `texts` is a single text, or holds something else than texts.
        """
        refuse_single_value(texts, "encode_texts", "text")

        def start(batch: list[str]) -> PendingEmbeddings:
            return self._start_ids(self.tokenizer(batch))

        return encode_batches(start, check_texts(texts), self.batch_size, self.embed_dim)

    def preprocess(self, image: str | os.PathLike | bytes | np.ndarray) -> np.ndarray:
        """Return the input of the image graph for an image, `[H, W, 3]` uint8 RGB; errors: see `encode_images`."""
        name = "an image"
        if isinstance(image, str | os.PathLike):
            name, image = str(image), read_file(Path(image))
        return self._preprocess(image, name)
