"""An ONNX export in use with NumPy, OpenCV, Pillow, simplejpeg and onnxruntime alone: Paddle is not imported.

    from ernie_vil2.runtime_onnx import OnnxModel

    model = OnnxModel("exports/emoji")
    scores = model.encode_texts(["一个红苹果"]) @ model.encode_images(["apple.jpg"]).T * model.logit_scale

Files are decoded as `ErnieViL2` decodes them.
"""

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.data.decoding import check_image_size
from ernie_vil2.data.preprocessing import Preprocessing, encode_batches, encode_by_shape
from ernie_vil2.data.tokenizer import TextTokenizer
from ernie_vil2.data.tokenizer_files import open_tokenizer
from ernie_vil2.device import runtime
from ernie_vil2.device.extras import require
from ernie_vil2.io.export_folder import AGAIN, INPUTS, OUTPUTS, BadExport, named_in_utf8, read_export, vocabulary_name

UNIT = 0.05  # how far from 1 the squared length of an embedding may be: bfloat16 and int8 round


class OnnxGraph:
    """One tower, `image` or `text`; a call takes the rows of a batch and returns their embeddings.

    Args:
        precision: as exported; the graph has it.
        device: `cpu`, or a GPU that the installed onnxruntime is built for.
        threads: on CPU.

    Raises:
        MissingPackage: onnxruntime is not installed.
        BadExport: it is too old or not built for the device, or it refuses the graph.
    """

    def __init__(self, folder: Path, tower: str, precision: str, device: str, threads: int):
        require(str(folder), "onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that spin for work between two calls take the processor from whoever decodes, searches and answers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        provider: str | tuple[str, dict[str, int]] = "CPUExecutionProvider"
        if device != "cpu":
            provider = ("CUDAExecutionProvider", {"device_id": int(device.partition(":")[2] or 0)})
            if provider[0] not in onnxruntime.get_available_providers():
                raise BadExport(f"{folder}: the installed onnxruntime is not built for {device}; name cpu, or "
                                "install onnxruntime-gpu instead")  # fmt: skip
        try:
            self._session = onnxruntime.InferenceSession(str(folder / f"{tower}.onnx"), options, providers=[provider])
        except Exception as error:  # its classes are those of its C++
            version = onnxruntime.__version__
            raise BadExport(f"{folder}: onnxruntime {version} refuses {tower}.onnx: {reason(error)}") from None
        self._input, self._outputs = INPUTS[tower], [OUTPUTS[tower]]

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return self._session.run(self._outputs, {self._input: rows})[0]


def checked(graph: Callable[[np.ndarray], np.ndarray], name: str, width: int) -> Callable[[np.ndarray], np.ndarray]:
    """A graph whose embeddings are checked: a stranger's may give NaN, or those of another model.

    A call raises BadExport, which names the export's folder and the tower, where the graph does not run, or gives
    anything but `[B, width]` float32 of unit length for B rows.
    """

    def run(rows: np.ndarray) -> np.ndarray:
        try:
            found = graph(rows)
        except MemoryError:
            raise
        except Exception as error:  # of the classes of a library in C++
            raise BadExport(f"{name} tower's graph does not run ({reason(error)}); {AGAIN}") from error
        if found.shape != (len(rows), width) or found.dtype != np.float32:
            given = f"{found.dtype} {list(found.shape)}"
            raise BadExport(f"{name} tower's graph gives {given}, not float32 {[len(rows), width]}; {AGAIN}")
        if not (np.abs(np.einsum("bd,bd->b", found, found) - 1) < UNIT).all():
            raise BadExport(f"{name} tower's graph gives embeddings that are not finite, of unit length; {AGAIN}")
        return found

    return run


def check_vocabulary(folder: Path, about: dict[str, Any], tokenizer: TextTokenizer) -> None:
    """Raise BadExport if the vocabulary has fewer or more entries than the one that was exported.

    A shorter one gives other words' ids, and a longer one ids beyond the embedding, where Paddle Inference reads
    whatever lies in memory.
    """
    exported = about["tokenizer"].get("entries", tokenizer.entries)
    if tokenizer.entries != exported:
        raise BadExport(
            f"{folder}: {vocabulary_name(tokenizer.rules)} has {tokenizer.entries:,} entries, and {exported:,} were "
            f"exported: it is damaged; {AGAIN}"
        )


def reason(error: Exception | str) -> str:
    """The line of a library's long message that says what is wrong: the last one."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


class OnnxModel:
    """Encodes images and texts like the exported model; see `ErnieViL2` for more methods.

    Args:
        folder: of an ONNX export.
        batch_size: rows encoded at once.
        device: `cpu`, or a GPU that the installed onnxruntime is built for.
        threads: on CPU; None: as many as there are usable cores.

    Attributes:
        embed_dim: D.
        logit_scale: by which a cosine is multiplied to a score.
        logit_bias: what is added then; 0 unless the model was trained by the sigmoid loss.

    Raises:
        BadExport: the folder is damaged or no ONNX export, or onnxruntime is not installed; and of the two methods, if
            a graph does not run or gives no embeddings.
    """

    def __init__(self, folder: str | Path, batch_size: int = 64, device: str = "cpu", threads: int | None = None):
        folder = Path(folder)
        about = read_export(folder)
        if about["backend"] != "onnx":
            raise BadExport(f"{folder} is an export for {about['backend']}; export the checkpoint with --to onnx")
        threads = threads or runtime.threads()
        with named_in_utf8(folder) as plain:
            self._image, self._text = (
                checked(OnnxGraph(plain, tower, about["precision"], device, threads), f"{folder}: the {tower}",
                        about["embed_dim"])
                for tower in ("image", "text")
            )  # fmt: skip
        rules, longest = about["tokenizer"]["rules"], about["tokenizer"]["max_length"]
        self.tokenizer = open_tokenizer(folder / vocabulary_name(rules), longest, rules)
        check_vocabulary(folder, about, self.tokenizer)
        self.batch_size = batch_size
        self.embed_dim = about["embed_dim"]
        self.logit_scale = about["scalars"]["logit_scale"]
        self.logit_bias = about["scalars"].get("logit_bias", 0.0)
        self._preprocess = Preprocessing.from_dict(about["preprocessing"])

    def encode_images(self, images: Iterable[str | os.PathLike | bytes | np.ndarray]) -> np.ndarray:
        """N images to `[N, D]` float32, L2-normalised.

        Args:
            images: paths, bytes of files, or `[H, W, 3]` uint8 RGB.

        Raises:
            ValueError: one of them is not an image that can be used, as of `data.decoding.EncodedImage`.
            OSError: a file cannot be read.
        """
        encode = partial(encode_by_shape, self._image)
        return encode_batches(encode, map(self.preprocess, images), self.batch_size, self.embed_dim)

    def encode_texts(self, texts: Iterable[str]) -> np.ndarray:
        """N texts to `[N, D]` float32, L2-normalised."""
        return encode_batches(lambda batch: self._text(self.tokenizer(batch)), texts, self.batch_size, self.embed_dim)

    def preprocess(self, image: str | os.PathLike | bytes | np.ndarray) -> np.ndarray:
        """An image as the model sees it, before normalisation: `[H, W, 3]` uint8 RGB; errors as of `encode_images`."""
        name = "an image"
        if isinstance(image, str | os.PathLike):
            name, image = str(image), Path(image).read_bytes()
        if isinstance(image, np.ndarray) and image.ndim == 3:
            check_image_size(image.shape[1], image.shape[0], name)
        return self._preprocess(image, name)
