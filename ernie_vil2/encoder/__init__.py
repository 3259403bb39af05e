"""`load_model`, and what it gives: a dual encoder with its tokenizer and preprocessing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import closing
from functools import partial
from hashlib import blake2b
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np
from PIL import Image
from tqdm import tqdm

from ernie_vil2.config import Config
from ernie_vil2.config.sections import without_implementation
from ernie_vil2.data.preprocessing import Preprocessing, ahead, encode_by_shape, in_batches
from ernie_vil2.data.samples import BadSample, Reason
from ernie_vil2.data.source_files import read_file
from ernie_vil2.data.tokenizer import TextTokenizer
from ernie_vil2.data.tokenizer_files import open_tokenizer
from ernie_vil2.device import runtime
from ernie_vil2.device.extras import MissingPackage
from ernie_vil2.encoder.backends import Backend, Eager, Narrowed, open_export
from ernie_vil2.io.calibration import FILE as CALIBRATION
from ernie_vil2.io.calibration import Calibration, read_calibration
from ernie_vil2.io.export_folder import ABOUT, PARITY, BadExport, vocabulary_name
from ernie_vil2.io.files import load_json
from ernie_vil2.runtime_onnx import check_vocabulary
from ernie_vil2.section import Precision

if TYPE_CHECKING:  # an export runs without Paddle
    from ernie_vil2.models import DualEncoder
    from ernie_vil2.models.weights.format import StoredModel

ImageLike = str | os.PathLike | bytes | Image.Image | np.ndarray
"""An image file's path or bytes, a Pillow image, or `[H, W, 3]` uint8 RGB."""
Images = Iterable[ImageLike]
OnError = Literal["raise", "skip"]
Source = str | os.PathLike  # a path, or the name of a published model


class EncodedImages(NamedTuple):
    """N images of which M could be used.

    embeddings: `[M, D]` float32, L2-normalised, in the order of the images.
    rows: `[M]` int64, the number of each among the N.
    skipped: why the others could not be used, by their number.
    """

    embeddings: np.ndarray
    rows: np.ndarray
    skipped: dict[int, BadSample]


class Ranking(NamedTuple):
    """How N images and M texts match.

    scores: `[N, M]` float32, `logit_scale` times the cosine of the embeddings, and `logit_bias` where there is one.
    probabilities: `[N, M]` float32, softmax of an image's scores over the texts; of a model trained by the sigmoid loss
        the sigmoid of each score, so that an image may match several texts or none. Of a calibrated model the softmax
        has the calibration's logit scale, and a text whose cosine is below its threshold has probability 0: a row of
        zeros says that nothing matches.
    """

    scores: np.ndarray
    probabilities: np.ndarray


class ErnieViL2:
    """Encodes images and texts in batches.

    `load_model` makes one from a file, a folder or a known name. During training it uses the live model.

    Args:
        backend: computes the two towers.
        tokenizer: the one they were trained with.
        config: theirs; `Model.image` says how images are preprocessed.
        batch_size: rows encoded at once.

    Attributes:
        calibration: what the scores mean, where `ernie-vil2 calibrate` has left it next to the weights; else None.
    """

    def __init__(self, backend: Backend, tokenizer: TextTokenizer, config: Config, batch_size: int = 64):
        self.calibration: Calibration | None = None
        self.labels: tuple[str, ...] = ()
        self.backend, self.tokenizer, self.config, self.batch_size = backend, tokenizer, config, batch_size
        self.preprocessing = Preprocessing.of(config.Model.image)

    def __repr__(self) -> str:
        image, text = self.config.Model.image, self.config.Model.text
        return (
            f"<ErnieViL2: images of {image.image_size} pixels by {image.name}, texts of {self.tokenizer.max_length} "
            f"tokens by {text.name}, embeddings of {' or '.join(map(str, self.widths))} numbers; {self.backend}>"
        )

    @property
    def embed_dim(self) -> int:
        """D, the width of the embeddings."""
        return self.backend.embed_dim

    @property
    def widths(self) -> tuple[int, ...]:
        """To what embeddings may be cut (`Loss.widths` of the training), the narrowest first; the last is D."""
        return tuple(self.config.Loss.widths) or (self.embed_dim,)

    def narrowed(self, width: int | None) -> ErnieViL2:
        """This model with embeddings cut to one of its `widths`, and no calibration; ValueError for another width."""
        if width is None or width == self.embed_dim:
            return self
        config = self.config.narrowed(width, self.embed_dim)
        return ErnieViL2(Narrowed(self.backend, width), self.tokenizer, config, self.batch_size)

    @property
    def logit_scale(self) -> float:
        """By which the cosine of two embeddings is multiplied to a score, 1 / tau of equation 1."""
        return self.backend.scalars["logit_scale"]

    @property
    def device(self) -> str:
        """Where the weights are and rows are encoded: `cpu`, `gpu:0`, ..."""
        return self.backend.device

    @property
    def precision(self) -> str:
        """In which the towers compute: float32, bfloat16, ...; embeddings are float32."""
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
        """N images to `[N, D]` float32, L2-normalised. They are decoded on threads while others are encoded.

        Args:
            images: paths, bytes, Pillow images or arrays; see `ImageLike`.
            batch_size: rows encoded at once; None: the model's own `batch_size`.
            progress: show a bar.
            on_error: what becomes of an image that cannot be used: "raise" its error, or "skip" it.
            width: of the embeddings, one of `widths`: the first numbers alone, normalised again; None: D.

        Returns:
            The embeddings; with on_error="skip" an `EncodedImages` with those of the images that could be used.

        Raises:
            BadSample: a file or its bytes are not an image; the message names it. Only with on_error="raise".
            ValueError: the model was not trained with this width.
        """
        model = self.narrowed(width)
        _no_single(images, "encode_images", "image")
        if on_error not in ("raise", "skip"):
            raise ValueError(f'on_error is {on_error!r}; "raise" and "skip" are known')
        size = batch_size or self.batch_size
        rows: list[int] = []
        skipped: dict[int, BadSample] = {}

        def usable(bar: tqdm) -> Iterator[np.ndarray]:
            with closing(ahead(self.preprocess, images, 2 * size)) as decoded:
                for row, found in enumerate(decoded):
                    bar.update()
                    if not isinstance(found, BadSample):
                        rows.append(row)
                        yield found
                    elif on_error == "raise":
                        raise found
                    else:
                        skipped[row] = found

        total = len(images) if isinstance(images, Sized) else None
        encode = partial(encode_by_shape, model.backend.encode_pixels)
        with tqdm(total=total, unit="image", disable=not progress) as bar:
            embeddings = in_batches(encode, usable(bar), size, model.embed_dim)
        return embeddings if on_error == "raise" else EncodedImages(embeddings, np.array(rows, np.int64), skipped)

    def encode_texts(
        self, texts: Iterable[str], batch_size: int | None = None, *, progress: bool = False, width: int | None = None
    ) -> np.ndarray:
        """N texts to `[N, D]` float32, L2-normalised; see `encode_images`."""
        model = self.narrowed(width)
        _no_single(texts, "encode_texts", "text")
        with tqdm(texts, unit="text", disable=not progress) as rows:
            return in_batches(
                lambda batch: model.backend.encode_ids(self.tokenizer(batch)),
                rows,
                batch_size or self.batch_size,
                model.embed_dim,
            )

    def encode_pixels(
        self, pixels: np.ndarray | Sequence[np.ndarray], batch_size: int | None = None, width: int | None = None
    ) -> np.ndarray:
        """What `preprocess` gave, N times `[H, W, 3]` uint8, to `[N, D]` float32, L2-normalised."""
        model = self.narrowed(width)
        encode = partial(encode_by_shape, model.backend.encode_pixels)
        return in_batches(encode, pixels, batch_size or self.batch_size, model.embed_dim)

    def preprocess(self, image: ImageLike, name: str = "image") -> np.ndarray:
        """An image as the model sees it, before normalisation: `[H, W, 3]` uint8 RGB.

        Args:
            name: the image's in the error; a file is named by its path.

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
        """Scores every image against every text; see `Ranking`."""
        scalars, calibration = self.backend.scalars, self.calibration
        cosines = self.encode_images(images) @ self.encode_texts(texts).T
        scores = cosines * scalars["logit_scale"]
        if "logit_bias" in scalars:
            scores += scalars["logit_bias"]
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

        An export in float32 has that of its checkpoint.
        """
        # Where vocabulary and initial weights came from says nothing that their content does not. What is as by default
        # is left out, so that settings of later versions change no fingerprint of today. Nor does it matter who builds
        # the towers: numbers are the same to rounding.
        skip: dict[str, Any] = {"image": {"weights"}, "text": {"weights", "vocabulary"}}
        skip |= dict.fromkeys(("weights", "like", "dialect"), True)
        parts = {
            **self.tokenizer.identity(),
            "preprocessing": self.preprocessing.described(),
            "precision": self.precision,
            "model": without_implementation(self.config.Model).model_dump(exclude=skip, exclude_defaults=True),
            "weights": self.backend.digest(),
        }
        return blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def _no_single(values: Any, method: str, kind: str) -> None:
    if isinstance(values, str | os.PathLike | bytes | Image.Image):
        raise TypeError(f"{method} takes a list; for a single {kind} write {method}([{kind}])")


def load_model(
    source: Source,
    vocab: Source | None = None,
    device: str | None = None,
    heads: tuple[int, int] | None = None,
    max_length: int | None = None,
    batch_size: int = 64,
    allow: Sequence[str] = (),
    precision: Precision = "float32",
    backend: Literal["auto", "fastest", "paddle", "paddle_inference", "onnx"] = "auto",
    dialect: Mapping[str, str] | None = None,
    verify: bool = False,
) -> ErnieViL2:
    """A model with the tokenizer and the preprocessing that it was trained with, and its calibration if it has one.

    Args:
        source: one of

            - an official weight file, `.pdparams`; the sizes of the towers follow from its shapes,
            - a folder that PaddleNLP's `save_pretrained` wrote, with model, tokenizer and image processor,
            - a run folder of this package, whose newest checkpoint is meant, or with `RUN@best` that of the best
              evaluation; or a checkpoint, or a converted folder,
            - a folder that `ernie-vil2 export` wrote: its graphs are run as they are, so that `vocab`, `heads`,
              `max_length` and `allow` do not apply, nor a reduced `precision` unless it is the export's,
            - the folder of another dual encoder (docs/models.md); standard error then says what decides its embeddings,
            - a known name, see `hub.MODELS`, or OWNER/NAME of the Hugging Face Hub or of ModelScope, from the local
              cache or downloaded, where `huggingface_hub` or `modelscope` is installed.
        vocab: vocabulary file. None: the one next to the weights, else what the run's configuration names, else the
            packaged ERNIE 3.0 vocabulary if it has the size of the weights.
        device: auto, cpu, gpu, gpu:0, ... (or cuda), which becomes Paddle's device; auto: GPU where Paddle has one;
            None: Paddle's current device.
        heads: attention heads of the image and of the text tower. None: what the folder says; width / 64 for an
            official file, which does not say.
        max_length: tokens of a text with [CLS] and [SEP]; longer ones are cut. None: as in the configuration; 48 for an
            official file; for a PaddleNLP folder what its tokenizer or else its positions allow.
        batch_size: rows encoded at once unless a call says otherwise.
        allow: glob patterns of the weights that may be missing, unexpected or of another shape.
        precision: in which the towers compute; embeddings are float32. Paddle reduces it on GPUs only.
        backend: what computes: `paddle` for a checkpoint, `paddle_inference` or `onnx` for an exported folder, whose
            own it must be; auto: recognised from `source`; fastest: for a checkpoint on CPU that has a float32 export
            next to its weights, ranking alike, that export; else as auto.
        dialect: for another dual encoder, how it does what is done in more than one way with its weights, such as
            {"activation": "gelu"}; the default is the authors' way.
        verify: compute the golden inputs of the folder's `integrity.json`, and compare their embeddings.

    Raises:
        FileNotFoundError: there is nothing at `source`, or a known model cannot be downloaded.
        ValueError: weights, vocabulary, configuration, calibration and integrity file are damaged or do not fit each
            other, or are of no kind known here; or there is no such device, or it lacks the precision.
        BadExport: an exported folder is damaged or for another backend.
        MissingPackage: its library is not installed.
    """
    folder = Path(source).parent if Path(source).name == ABOUT else Path(source)
    if verify and (dialect or (folder / ABOUT).is_file()):
        raise ValueError(f"{source}: golden embeddings are of weights in their own dialect, not of exports")
    if (folder / ABOUT).is_file():
        made = _load_export(folder, device, batch_size, backend)
        if precision not in ("float32", made.precision):
            raise BadExport(f"{source} is an export in {made.precision}; export the checkpoint again for {precision}")
        return _calibrated(made, folder)
    if backend not in ("auto", "fastest", "paddle"):
        raise ValueError(f"{source} is not an export for {backend}: make one, ernie-vil2 export {source} FOLDER --to "
                         f"{backend.replace('_', '-')}")  # fmt: skip
    stored = stored_model(source, vocab, device, precision, heads, dialect)
    from ernie_vil2.models.weights.format import weights_path
    from ernie_vil2.models.weights.integrity import check_golden

    config = stored.config
    if max_length is not None:
        if not 3 <= max_length <= (longest := config.Model.text.longest):
            raise ValueError(f"max_length is {max_length}; this model takes 3 to {longest}: a training with "
                             "Model.text.max_positions stretches its positions")  # fmt: skip
        config = config.model_copy(update={"Data": config.Data.model_copy(update={"max_length": max_length})})
    try:
        model, _ = stored.build(allow)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    made = encoder_of(model, stored, config, precision, batch_size)
    folder = weights_path(source).parent
    if verify:
        check_golden(folder, encoder_of(model, stored, stored.config, precision, batch_size))
    if backend == "fastest" and precision == "float32" and made.device == "cpu":
        made = export_in(folder, made.fingerprint, batch_size) or made
    return _calibrated(made, folder)


def export_in(
    folder: Path, fingerprint: str, batch_size: int = 64, backends: Sequence[str] = ("onnx", "paddle_inference")
) -> ErnieViL2 | None:
    """An export for CPU in a folder of weights that ranks as these: same fingerprint, same order on real inputs; for
    the first of the backends that has one."""
    found = sorted(about.parent for about in folder.glob(f"*/{ABOUT}"))
    for backend, export in product(backends, found):
        try:
            made = _load_export(export, "cpu", batch_size, backend)
            alike = load_json(export / PARITY)["top_10"]["same_order"] == 1
        except (MissingPackage, OSError, ValueError, KeyError, TypeError):  # not to be run here, or not compared
            continue
        if alike and made.fingerprint == fingerprint:
            return _calibrated(made, folder)
    return None


def _calibrated(model: ErnieViL2, folder: Path) -> ErnieViL2:
    if (folder / CALIBRATION).exists():  # else the fingerprint, for which all weights are read, is of no use
        model.calibration = read_calibration(folder, model.fingerprint)
    return model


def stored_model(
    source: Source,
    vocab: Source | None,
    device: str | None,
    precision: Precision,
    heads: tuple[int, int] | None = None,
    dialect: Mapping[str, str] | None = None,
) -> StoredModel:
    runtime.set_device(device, str(source))
    from ernie_vil2.models.weights.format import read_model

    runtime.check_precision(precision, "precision")
    stored = read_model(source, vocab, heads, dialect)
    if stored.family is not None:
        print(f"{source}: {stored.family}", file=sys.stderr)
    if widths := stored.config.Loss.widths:
        print(f"{source}: embeddings of {' or '.join(map(str, widths))} numbers", file=sys.stderr)
    if stored.tokens is None:
        raise ValueError(f"{source}: no vocab.txt or tokenizer.json next to it; give the vocabulary file as vocab=...")
    return stored


def encoder_of(model: DualEncoder, stored: StoredModel, config: Config, precision: Precision, rows: int) -> ErnieViL2:
    """The encoder of a model that was built from stored weights."""
    model.eval()
    backend = Eager(model, Preprocessing.of(config.Model.image), precision)
    return ErnieViL2(backend, stored.tokenizer(config.Data.max_length), config, rows)


def _load_export(folder: Path, device: str | None, batch_size: int, backend: str) -> ErnieViL2:
    made, config, about = open_export(folder, device, backend)
    rules = config.Model.text.tokenizer
    tokenizer = open_tokenizer(folder / vocabulary_name(rules), config.Data.max_length, rules)
    check_vocabulary(folder, about, tokenizer)
    return ErnieViL2(made, tokenizer, config, batch_size)
