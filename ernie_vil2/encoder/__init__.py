"""`load_model` and what it returns, `ErnieViL2`: a dual encoder with its tokenizer and preprocessing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import closing, contextmanager
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, get_args, overload

import numpy as np
from tqdm import tqdm

from ernie_vil2.config import Config
from ernie_vil2.config.sections import ViewsConfig, with_native_towers
from ernie_vil2.data.preprocessing import (
    PendingEmbeddings,
    Preprocessing,
    encode_batches,
    normalize_images,
    preprocess_ahead,
    split_into_batches,
    start_by_shape,
)
from ernie_vil2.data.samples import BadSample, Reason
from ernie_vil2.data.source_files import read_file
from ernie_vil2.data.tokenizer import TextTokenizer, open_tokenizer
from ernie_vil2.device import runtime
from ernie_vil2.device.extras import MissingPackage
from ernie_vil2.encoder.exports import open_export
from ernie_vil2.encoder.interface import Encoder, ImageLike, Images
from ernie_vil2.encoder.remote import RemoteEncoder
from ernie_vil2.io.calibration import CALIBRATION, Calibration, read_calibration
from ernie_vil2.io.export_folder import EXPORT_INFO, PARITY, BadExport, vocabulary_file
from ernie_vil2.io.files import load_json
from ernie_vil2.io.model_address import is_address
from ernie_vil2.io.progress import progress_bar
from ernie_vil2.runtime_onnx import check_texts, check_vocabulary, refuse_single_value
from ernie_vil2.section import Precision

if TYPE_CHECKING:  # an export runs without Paddle
    import paddle

    from ernie_vil2.device.transfers import Sender
    from ernie_vil2.encoder.pretrained import SavedFormat
    from ernie_vil2.models import DualEncoder
    from ernie_vil2.models.weights.format import StoredModel

BackendChoice = Literal["auto", "fastest", "paddle", "paddle_inference", "onnx"]
OnError = Literal["raise", "skip"]
Source = str | os.PathLike  # a path, or the name of a published model


class Backend(Protocol):
    """Two towers that compute embeddings; the backend of an `ErnieViL2`."""

    name: str
    """paddle, paddle_inference or onnx."""

    @property
    def precision(self) -> str:
        """Precision of the computation; embeddings are always float32."""

    @property
    def device(self) -> str:
        """Device of the computation: `cpu`, `gpu:0`, ..."""

    @property
    def embed_dim(self) -> int:
        """D, the width of the embeddings."""

    @property
    def scalars(self) -> Mapping[str, float]:
        """`logit_scale`, and `logit_bias` of a model that has one."""

    def start_pixels(self, pixels: np.ndarray) -> PendingEmbeddings:
        """Start to encode `[B, H, W, 3]` uint8 RGB, preprocessed, to `[B, D]` float32, L2-normalised."""

    def start_ids(self, ids: np.ndarray) -> PendingEmbeddings:
        """Start to encode `[B, L]` int64 token ids, padded with 0, to `[B, D]` float32, L2-normalised."""

    def digest(self, tower: str | None = None) -> str | None:
        """Return hexadecimal digits that change with the weights of a tower, or of the model; None if not known."""


class EncodedImages(NamedTuple):
    """Embeddings of those M of N images that could be used.

    Attributes:
        embeddings: `[M, D]` float32, L2-normalised, in the order of the images.
        rows: `[M]` int64, the position of each of these images among all N.
        skipped: the error of each image that could not be used, by its position.
    """

    embeddings: np.ndarray
    rows: np.ndarray
    skipped: dict[int, BadSample]


class Ranking(NamedTuple):
    """Scores of N images against M texts.

    Attributes:
        scores: `[N, M]` float32, `logit_scale` times the cosine of the embeddings, plus `logit_bias` if the model has
            one.
        probabilities: `[N, M]` float32, softmax of an image's scores over the texts. A model with `logit_bias`, trained
            by the sigmoid loss, gives the sigmoid of each score instead, so that an image may match several texts or
            none. With a calibration, the softmax uses its logit scale, and texts whose cosine is below its threshold
            get 0: a row of zeros says that nothing matches.
    """

    scores: np.ndarray
    probabilities: np.ndarray


class ErnieViL2:
    """Encoder of images and texts, in batches.

    `load_model` makes one from a file, a folder or the name of a published model. Evaluation during training wraps the
    model that is being trained.

    Args:
        backend: the two towers.
        tokenizer: the tokenizer that the towers were trained with.
        config: configuration of the training; `Model.image` says how images are preprocessed.
        batch_size: rows encoded at once.

    Attributes:
        calibration: smallest cosine of a match and logit scale for probabilities, if `ernie-vil2 calibrate` has written
            them next to the weights; else None.
        labels: labels that the model gives to statements; empty: it gives none.
    """

    def __init__(self, backend: Backend, tokenizer: TextTokenizer, config: Config, batch_size: int = 64):
        self.backend = backend
        self.tokenizer = tokenizer
        self.config = config
        self.batch_size = batch_size
        self.preprocessing = Preprocessing.from_config(config.Model.image)
        self.calibration: Calibration | None = None
        self.labels: tuple[str, ...] = ()

    def __repr__(self) -> str:
        image, text = self.config.Model.image, self.config.Model.text
        widths = " or ".join(map(str, self.widths))
        return (
            f"<ErnieViL2: images of {image.image_size} pixels by {image.name}, texts of {self.tokenizer.max_length} "
            f"tokens by {text.name}, embeddings of {widths} numbers; {self.backend}>"
        )

    @classmethod
    def from_pretrained(cls, source: Source, **options: Any) -> ErnieViL2:
        """Load a model, as `load_model` does; it takes the same options."""
        return load_model(source, **options)

    def save_pretrained(self, folder: str | os.PathLike, format: SavedFormat = "ernie_vil2") -> list[str]:
        """Write the model into a new folder, with its tokenizer and preprocessing.

        Args:
            folder: folder to make.
            format: "ernie_vil2", which `load_model` and every command read; or "paddlenlp", which `from_pretrained` of
                PaddleNLP's ErnieViLModel and ErnieViLProcessor read as well.

        Returns:
            Notes, a line each, on what differs in the format of PaddleNLP.

        Raises:
            FileExistsError: the folder holds files already.
            ValueError: PaddleNLP's class has no such towers, or the model is an export.
        """
        from ernie_vil2.encoder.pretrained import save_encoder

        return save_encoder(self, Path(folder), format)

    def get_image_features(self, pixel_values: paddle.Tensor) -> paddle.Tensor:
        """Return embeddings `[B, D]` of normalised pixels `[B, 3, H, W]`, not L2-normalised, as PaddleNLP's class does.

        Gradients flow to the weights; `encode_images` decodes, normalises and works in batches.

        Raises:
            ValueError: the model is an export.
        """
        from ernie_vil2.encoder.pretrained import compute_image_features

        return compute_image_features(self, pixel_values)

    def get_text_features(self, input_ids: paddle.Tensor) -> paddle.Tensor:
        """Return embeddings `[B, D]` of token ids `[B, L]` int64, padded with 0; otherwise as `get_image_features`."""
        from ernie_vil2.encoder.pretrained import compute_text_features

        return compute_text_features(self, input_ids)

    @property
    def embed_dim(self) -> int:
        """D, the width of the embeddings."""
        return self.backend.embed_dim

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths to which embeddings may be cut (`Loss.widths` of the training), ascending; the last one is D."""
        return tuple(self.config.Loss.widths) or (self.embed_dim,)

    def with_width(self, width: int | None) -> ErnieViL2:
        """Return this model with embeddings cut to one of its `widths`, without calibration.

        Args:
            width: a number of `widths`; None or D returns the model itself.

        Raises:
            ValueError: the model was not trained with this width.
        """
        if width is None or width == self.embed_dim:
            return self
        config = self.config.with_width(width, self.embed_dim)
        return ErnieViL2(TruncatedBackend(self.backend, width), self.tokenizer, config, self.batch_size)

    @property
    def logit_scale(self) -> float:
        """Factor from cosine similarity to score: 1 / tau in equation 1 of the ERNIE-ViL 2.0 paper."""
        return self.backend.scalars["logit_scale"]

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages of the texts that the model was trained on."""
        return tuple(self.config.Views.languages)

    @property
    def views(self) -> ViewsConfig:
        """Settings by which the training made views of a sample."""
        return self.config.Views

    @property
    def device(self) -> str:
        """Device of the weights, on which rows are encoded: `cpu`, `gpu:0`, ..."""
        return self.backend.device

    @property
    def precision(self) -> str:
        """Precision in which the towers compute: float32, bfloat16, ...; embeddings are always float32."""
        return self.backend.precision

    @overload
    def encode_images(
        self,
        images: Images,
        batch_size: int | None = None,
        *,
        progress: bool = False,
        on_error: Literal["raise"] = ...,
        width: int | None = None,
    ) -> np.ndarray: ...

    @overload
    def encode_images(
        self,
        images: Images,
        batch_size: int | None = None,
        *,
        progress: bool = False,
        on_error: Literal["skip"],
        width: int | None = None,
    ) -> EncodedImages: ...

    def encode_images(
        self,
        images: Images,
        batch_size: int | None = None,
        *,
        progress: bool = False,
        on_error: OnError = "raise",
        width: int | None = None,
    ) -> np.ndarray | EncodedImages:
        """Encode N images to `[N, D]` float32, L2-normalised; images are decoded on threads while others are encoded.

        Args:
            images: paths, bytes, Pillow images or arrays; see `ImageLike`.
            batch_size: rows encoded at once; None: the model's own `batch_size`.
            progress: show a bar.
            on_error: "raise" the error of an image that cannot be used, or "skip" the image.
            width: width of the embeddings, one of `widths`: the first numbers, normalised again; None: D.

        Returns:
            The embeddings; with on_error="skip" an `EncodedImages` for the images that could be used.

        Raises:
            BadSample: a file or bytes are not an image; the message names it. Only with on_error="raise".
            TypeError: `images` is a single image, or holds something else than images.
            ValueError: the model was not trained with this width.
        """
        model = self.with_width(width)
        refuse_single_value(images, "encode_images", "image")
        if on_error not in ("raise", "skip"):
            raise ValueError(f'on_error is {on_error!r}; "raise" and "skip" are known')
        size = self._choose_batch_size(batch_size)
        rows: list[int] = []
        skipped: dict[int, BadSample] = {}

        def decode_usable(bar: tqdm) -> Generator[np.ndarray]:
            # Two batches ahead: one waits for the towers while the next one is decoded.
            with closing(preprocess_ahead(self.preprocess, images, 2 * size)) as decoded_images:
                for row, pixels_or_error in enumerate(decoded_images):
                    bar.update()
                    if not isinstance(pixels_or_error, BadSample):
                        rows.append(row)
                        yield pixels_or_error
                    elif on_error == "raise":
                        raise pixels_or_error
                    else:
                        skipped[row] = pixels_or_error

        total = len(images) if isinstance(images, Sized) else None
        with (
            progress_bar(unit="image", total=total, is_shown=progress, stream=sys.stderr) as bar,
            # Closing ends the threads. After an error of the backend, its traceback would keep the generator alive.
            closing(decode_usable(bar)) as usable_images,
        ):
            embeddings = encode_batches(model._start_pixel_batch, usable_images, size, model.embed_dim)
        if on_error == "raise":
            return embeddings
        return EncodedImages(embeddings, np.array(rows, np.int64), skipped)

    def encode_texts(
        self, texts: Iterable[str], batch_size: int | None = None, *, progress: bool = False, width: int | None = None
    ) -> np.ndarray:
        """Encode N texts to `[N, D]` float32, L2-normalised; arguments as in `encode_images`."""
        model = self.with_width(width)
        refuse_single_value(texts, "encode_texts", "text")
        with progress_bar(texts, unit="text", is_shown=progress, stream=sys.stderr) as rows:
            size = self._choose_batch_size(batch_size)
            return encode_batches(model._start_text_batch, check_texts(rows), size, model.embed_dim)

    def encode_pixels(
        self, pixels: np.ndarray | Sequence[np.ndarray], batch_size: int | None = None, width: int | None = None
    ) -> np.ndarray:
        """Encode N outputs of `preprocess`, `[H, W, 3]` uint8 each, to `[N, D]` float32, L2-normalised."""
        model = self.with_width(width)
        return encode_batches(model._start_pixel_batch, pixels, self._choose_batch_size(batch_size), model.embed_dim)

    def encode_tokens(self, rows: Sequence[Sequence[int]], batch_size: int | None = None) -> np.ndarray:
        """Encode N outputs of `tokenizer.encode` to `[N, D]` float32, L2-normalised."""

        def start(batch: Sequence[Sequence[int]]) -> PendingEmbeddings:
            return self.backend.start_ids(self.tokenizer.pad(batch))

        return encode_batches(start, rows, self._choose_batch_size(batch_size), self.embed_dim)

    def start_pixels(self, pixels: Sequence[np.ndarray] | np.ndarray) -> PendingEmbeddings:
        """Start to encode pixels as in `encode_pixels`.

        Returns:
            Function that waits for the embeddings. A GPU computes meanwhile; other devices have computed already.
        """
        batches = split_into_batches(pixels, self.batch_size)
        return self._concatenate([self._start_pixel_batch(batch) for batch in batches])

    def start_texts(self, texts: Sequence[str]) -> PendingEmbeddings:
        """Start to encode texts as in `encode_texts`; see `start_pixels`."""
        batches = split_into_batches(texts, self.batch_size)
        return self._concatenate([self._start_text_batch(batch) for batch in batches])

    def _choose_batch_size(self, batch_size: int | None) -> int:
        return self.batch_size if batch_size is None else batch_size

    def _start_pixel_batch(self, pixels: list[np.ndarray]) -> PendingEmbeddings:
        return start_by_shape(self.backend.start_pixels, pixels)

    def _start_text_batch(self, texts: list[str]) -> PendingEmbeddings:
        return self.backend.start_ids(self.tokenizer(texts))

    def _concatenate(self, pending: Sequence[PendingEmbeddings]) -> PendingEmbeddings:
        empty = np.empty([0, self.embed_dim], np.float32)  # the result if there is no batch
        return lambda: np.concatenate([empty, *(wait() for wait in pending)])

    def preprocess(self, image: ImageLike, name: str = "image") -> np.ndarray:
        """Return an image as the model sees it, before normalisation: `[H, W, 3]` uint8 RGB.

        Args:
            image: the image; see `ImageLike`.
            name: name of the image in errors; a file is named by its path.

        Raises:
            BadSample: it is not an image, or there is no such file.
        """
        if isinstance(image, str | os.PathLike):
            name = str(image)
            try:
                image = read_file(Path(image))
            except FileNotFoundError as error:
                raise BadSample(Reason.MISSING_IMAGE, name) from error
        return self.preprocessing(image, name)

    def rank(self, images: Images, texts: Iterable[str]) -> Ranking:
        """Score every image against every text; see `Ranking`."""
        return self.rank_embeddings(self.encode_images(images), self.encode_texts(texts))

    def rank_embeddings(self, images: np.ndarray, texts: np.ndarray) -> Ranking:
        """Score embeddings `[N, D]` of images against `[M, D]` of texts; see `Ranking`."""
        scalars, calibration = self.backend.scalars, self.calibration
        cosines = images @ texts.T  # [N, M]
        scores = cosines * scalars["logit_scale"]
        if "logit_bias" in scalars:
            scores += scalars["logit_bias"]
            with np.errstate(over="ignore"):  # exp overflows for a score below -88; the probability is then 0
                probabilities = 1 / (1 + np.exp(-scores))
        else:
            logits = cosines * calibration.logit_scale if calibration else scores
            weights = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
            probabilities = weights / weights.sum(axis=1, keepdims=True)
        if calibration:
            probabilities[cosines < calibration.thresholds["image_to_text"].cosine] = 0
        return Ranking(scores, probabilities)

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that change with the weights, the tokenizer or the preprocessing; for caches.

        A float32 export has the fingerprint of its checkpoint.
        """
        # Weights and vocabulary count by their content. The settings that say where they came from are ignored: files,
        # the model that `Model.like` names, and the dialect of another library's weights. Fields with default values
        # are left out, so that a field that a later version adds changes no fingerprint. Towers of this package and of
        # Paddle's suites count as equal, because their embeddings are equal up to rounding.
        ignored_fields: dict[str, Any] = {
            "weights": True,
            "like": True,
            "dialect": True,
            "image": {"weights"},
            "text": {"weights", "vocabulary"},
        }
        model = with_native_towers(self.config.Model)
        identity = {
            **self.tokenizer.identity(),
            "preprocessing": self.preprocessing.as_dict(),
            "precision": self.precision,
            "model": model.model_dump(exclude=ignored_fields, exclude_defaults=True),
            "weights": self.backend.digest(),
        }
        return blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=16).hexdigest()


class PaddleBackend:
    """A Paddle model as backend: without dropout and gradient, whatever mode the model is in.

    Pixels are normalised with the mean and standard deviation of the preprocessing.
    """

    name = "paddle"

    def __init__(self, model: DualEncoder, preprocessing: Preprocessing, precision: Precision = "float32"):
        self.model, self.precision = model, precision
        self._mean, self._std = preprocessing.mean, preprocessing.std

    def __str__(self) -> str:
        num_parameters = sum(parameter.size for parameter in self.model.parameters())
        return f"{num_parameters:,} parameters, {self.precision} on {self.device}"

    @property
    def embed_dim(self) -> int:
        return self.model.embed_dim

    @property
    def device(self) -> str:
        place = self._place
        return f"gpu:{place.gpu_device_id()}" if place.is_gpu_place() else "cpu"

    @property
    def scalars(self) -> dict[str, float]:
        from ernie_vil2.device.transfers import copy_to_host

        return {name: copy_to_host(value).item() for name, value in self.model.scalars.items()}

    def start_pixels(self, pixels: np.ndarray) -> PendingEmbeddings:
        from ernie_vil2.device.transfers import start_host_copy

        with self._inference_mode():
            images = normalize_images(self._send_pixels(pixels), self._mean, self._std)
            return start_host_copy(self.model.encode_image(images))

    def start_ids(self, ids: np.ndarray) -> PendingEmbeddings:
        from ernie_vil2.device.transfers import start_host_copy

        with self._inference_mode():
            return start_host_copy(self.model.encode_text(self._send_ids(ids)))

    def digest(self, tower: str | None = None) -> str:
        from ernie_vil2.device.transfers import copy_to_host

        # Computed from the weights at every call, since training changes them: about a second for 200 M parameters.
        digest = blake2b(digest_size=16)
        for name, value in sorted(self.model.state_dict().items()):
            if tower is None or name.startswith(tower):
                digest.update(f"{name} {value.dtype} {value.shape}".encode())
                digest.update(np.ascontiguousarray(copy_to_host(value)).data)
        return digest.hexdigest()

    @property
    def _place(self) -> Any:
        return self.model.log_logit_scale.place

    # Made at their first use, because they take Paddle's current device and, on a GPU, pinned memory.
    @cached_property
    def _send_pixels(self) -> Sender:
        from ernie_vil2.device.transfers import Sender

        return Sender()

    @cached_property
    def _send_ids(self) -> Sender:
        from ernie_vil2.device.transfers import Sender

        return Sender()

    @contextmanager
    def _inference_mode(self) -> Iterator[None]:
        import paddle

        was_training = self.model.training
        is_mixed = self.precision != "float32"
        dtype = self.precision if is_mixed else "float16"  # auto_cast refuses float32, even if it is disabled
        self.model.eval()
        try:
            with paddle.no_grad(), paddle.amp.auto_cast(enable=is_mixed, dtype=dtype):
                yield
        finally:
            if was_training:
                self.model.train()


class TruncatedBackend:
    """Backend that cuts the embeddings of another one to their first `width` numbers and L2-normalises them again."""

    def __init__(self, backend: Backend, width: int):
        self.whole, self.embed_dim = backend, width
        self.name, self.digest = backend.name, backend.digest

    def __str__(self) -> str:
        return str(self.whole)

    @property
    def precision(self) -> str:
        return self.whole.precision

    @property
    def device(self) -> str:
        return self.whole.device

    @property
    def scalars(self) -> Mapping[str, float]:
        return self.whole.scalars

    def start_pixels(self, pixels: np.ndarray) -> PendingEmbeddings:
        return self._truncate(self.whole.start_pixels(pixels))

    def start_ids(self, ids: np.ndarray) -> PendingEmbeddings:
        return self._truncate(self.whole.start_ids(ids))

    def _truncate(self, wait: PendingEmbeddings) -> PendingEmbeddings:
        return lambda: truncate_embeddings(wait(), self.embed_dim)


def truncate_embeddings(embeddings: np.ndarray, width: int) -> np.ndarray:
    """Return the first numbers of embeddings `[N, D]`, L2-normalised again: `[N, width]`."""
    prefixes = embeddings[:, :width]
    return prefixes / np.maximum(np.linalg.norm(prefixes, axis=1, keepdims=True), 1e-12)


def describe_backend(backend: Backend) -> str:
    """Return a backend in words: paddle, float32 on cpu."""
    return f"{backend.name}, {backend.precision} on {backend.device}"


def load_model(
    source: Source,
    vocab: Source | None = None,
    device: str | None = None,
    heads: tuple[int, int] | None = None,
    max_length: int | None = None,
    batch_size: int = 64,
    allow: Sequence[str] = (),
    precision: Precision = "float32",
    backend: BackendChoice = "auto",
    dialect: Mapping[str, str] | None = None,
    verify: bool = False,
) -> ErnieViL2:
    """Load a model with the tokenizer and the preprocessing that it was trained with, and its calibration if any.

    Args:
        source: one of

            - an official weight file, `.pdparams`; the sizes of the towers follow from its shapes,
            - a folder that PaddleNLP's `save_pretrained` wrote, with model, tokenizer and image processor,
            - a run folder of this package: its newest checkpoint, or the best evaluated one as `RUN@best`; or a
              checkpoint, or a converted folder,
            - a folder that `ernie-vil2 export` wrote; its graphs run as they are, so `vocab`, `heads`, `max_length`,
              `allow` and `dialect` do not apply, and `precision` must be float32 or the export's,
            - the folder of another dual encoder (docs/models.md); its family and conventions are then printed to
              standard error,
            - a known name, see `hub.MODELS`, or OWNER/NAME of the Hugging Face Hub or of ModelScope, from the local
              cache or downloaded, where `huggingface_hub` or `modelscope` is installed.
        vocab: vocabulary file. None: the one next to the weights, else the one that the run's configuration names, else
            the packaged ERNIE 3.0 vocabulary if it has the size of the weights.
        device: auto, cpu, gpu, gpu:0, ... (or cuda), which becomes Paddle's device; auto: GPU where Paddle has one;
            None: Paddle's current device.
        heads: attention heads of the image and of the text tower. None: as the folder says; width / 64 for an official
            file, which does not say.
        max_length: tokens of a text with [CLS] and [SEP]; longer texts are cut. None: as in the configuration; 48 for
            an official file; for a PaddleNLP folder the limit of its tokenizer, or its number of positions if the
            tokenizer has no limit.
        batch_size: rows encoded at once unless a call says otherwise.
        allow: glob patterns of weights that may be missing, unexpected or of another shape.
        precision: precision of the towers; embeddings are float32. Paddle reduces it on GPUs only.
        backend: library that computes: `paddle` for a checkpoint, `paddle_inference` or `onnx` for an export, which
            must be made for it; auto: recognised from `source`; fastest: like auto, but for a float32 checkpoint on
            CPU an export next to its weights, if its parity report says that it ranks as the checkpoint does.
        dialect: for another dual encoder, variants of how its weights are used, such as {"activation": "gelu"};
            default: as its authors do.
        verify: encode the golden inputs of the folder's `integrity.json`, and compare the embeddings with those there.

    Raises:
        FileNotFoundError: there is nothing at `source`, or a known model cannot be downloaded.
        ValueError: weights, vocabulary, configuration, calibration or integrity file are damaged, do not fit each
            other, or are of an unknown kind; or there is no such device, or it lacks the precision.
        BadExport: an exported folder is damaged or made for another backend.
        MissingPackage: the library of the backend or of the download is not installed.
    """
    if backend not in get_args(BackendChoice):
        raise ValueError(f"backend is {backend!r}; known are {', '.join(get_args(BackendChoice))}")
    folder = Path(source)
    if folder.name == EXPORT_INFO:
        folder = folder.parent
    is_export = (folder / EXPORT_INFO).is_file()
    if verify and (dialect or is_export):
        raise ValueError(
            f"{source}: verify=True is for a checkpoint without dialect=...; there are no golden embeddings of exports "
            "and other dialects"
        )

    if is_export:
        encoder = _load_export(folder, device, batch_size, backend)
        if precision not in ("float32", encoder.precision):
            raise BadExport(
                f"{source} is an export in {encoder.precision}; export the checkpoint again for {precision}"
            )
        return _add_calibration(encoder, folder)
    if backend in ("paddle_inference", "onnx"):
        raise ValueError(f"{source} is not an export for {backend}: make one, ernie-vil2 export {source} FOLDER --to "
                         f"{backend.replace('_', '-')}")  # fmt: skip

    stored = read_stored_model(source, vocab, device, precision, heads, dialect)
    from ernie_vil2.models.weights.format import find_weights
    from ernie_vil2.models.weights.integrity import check_golden

    config = stored.config
    if max_length is not None:
        max_tokens = config.Model.text.max_tokens
        if not 3 <= max_length <= max_tokens:  # [CLS], a token of the text, [SEP]
            raise ValueError(f"max_length is {max_length}; this model takes 3 to {max_tokens}: for longer texts, train "
                             "it with a larger Model.text.max_positions")  # fmt: skip
        data = config.Data.model_copy(update={"max_length": max_length})
        config = config.model_copy(update={"Data": data})
    try:
        model, _ = stored.build(allow)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    encoder = build_encoder(model, stored, config, precision, batch_size)

    weights_folder = find_weights(source).parent
    if verify:
        # Golden embeddings were computed with the length of the stored configuration.
        check_golden(weights_folder, build_encoder(model, stored, stored.config, precision, batch_size))
    if backend == "fastest" and precision == "float32" and encoder.device == "cpu":
        encoder = find_export(weights_folder, encoder.fingerprint, batch_size) or encoder
    return _add_calibration(encoder, weights_folder)


def open_encoder(source: Source, **options: Any) -> Encoder:
    """Open a model that embeds, here or on a server.

    Args:
        source: as for `load_model`; or the address of an API in OpenAI's form with the name of a model,
            `http://host/v1#model`, see `RemoteEncoder`.
        options: further arguments of `load_model`; for a server they are ignored.

    Raises:
        ServerError: the server cannot be used. Other errors are as for `load_model`.
    """
    if is_address(source):
        return RemoteEncoder(str(source))
    return load_model(source, **options)


def find_export(
    folder: Path, fingerprint: str, batch_size: int = 64, backends: Sequence[str] = ("onnx", "paddle_inference")
) -> ErnieViL2 | None:
    """Return an export for CPU that ranks as the weights do; None if there is none next to them.

    Args:
        folder: folder of the weights; exports are in its sub-folders.
        fingerprint: fingerprint of the weights, which the export must share.
        batch_size: rows encoded at once.
        backends: backends in order of preference.
    """
    export_folders = sorted(path.parent for path in folder.glob(f"*/{EXPORT_INFO}"))
    for backend in backends:
        for export_folder in export_folders:
            try:
                encoder = _load_export(export_folder, "cpu", batch_size, backend)
                parity = load_json(export_folder / PARITY)
                ranks_alike = parity["top_10"]["same_order"] == 1
            except (MissingPackage, OSError, ValueError, KeyError, TypeError):
                continue  # it does not run here, or was not compared with the weights
            if ranks_alike and encoder.fingerprint == fingerprint:
                return _add_calibration(encoder, folder)
    return None


def _add_calibration(encoder: ErnieViL2, folder: Path) -> ErnieViL2:
    # The fingerprint reads all weights, so it is computed only if there is something to compare it with.
    if (folder / CALIBRATION).exists():
        encoder.calibration = read_calibration(folder, encoder.fingerprint)
    return encoder


def read_stored_model(
    source: Source,
    vocab: Source | None,
    device: str | None,
    precision: Precision,
    heads: tuple[int, int] | None = None,
    dialect: Mapping[str, str] | None = None,
) -> StoredModel:
    """Read weights, configuration and vocabulary, and set Paddle's device; arguments and errors as in `load_model`."""
    runtime.set_device(device, str(source))
    from ernie_vil2.models.weights.format import read_model

    runtime.check_precision(precision, "precision")
    stored = read_model(source, vocab, heads, dialect)
    if stored.family is not None:
        print(f"{source}: {stored.family}", file=sys.stderr)
    if stored.config.Loss.widths:
        widths = " or ".join(map(str, stored.config.Loss.widths))
        print(f"{source}: embeddings of {widths} numbers", file=sys.stderr)
    if stored.tokens is None:
        raise ValueError(f"{source}: no vocab.txt or tokenizer.json next to it; give the vocabulary file as vocab=...")
    return stored


def build_encoder(
    model: DualEncoder, stored: StoredModel, config: Config, precision: Precision, batch_size: int
) -> ErnieViL2:
    """Return the encoder of a model that was built from stored weights."""
    model.eval()
    backend = PaddleBackend(model, Preprocessing.from_config(config.Model.image), precision)
    return ErnieViL2(backend, stored.build_tokenizer(config.Data.max_length), config, batch_size)


def _load_export(folder: Path, device: str | None, batch_size: int, backend_name: str) -> ErnieViL2:
    backend, config, about = open_export(folder, device, backend_name)
    tokenizer_kind = config.Model.text.tokenizer
    tokenizer = open_tokenizer(folder / vocabulary_file(tokenizer_kind), config.Data.max_length, tokenizer_kind)
    check_vocabulary(folder, about, tokenizer)
    return ErnieViL2(backend, tokenizer, config, batch_size)
