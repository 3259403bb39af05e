"""A teacher on a server: its embeddings of the training data are asked for before the first step."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ernie_vil2.config import Config, ViewsConfig
from ernie_vil2.data.preprocessing import wait_in_turn
from ernie_vil2.data.samples import BadSample, Sample
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.device import runtime
from ernie_vil2.encoder import Encoder, open_encoder
from ernie_vil2.evaluation.report import write_json_lines
from ernie_vil2.io.files import atomic_folder, cache_folder
from ernie_vil2.io.locks import lock_exclusive
from ernie_vil2.io.model_address import is_address
from ernie_vil2.io.progress import progress_bar

FOLDER = "teachers"  # in the cache folder
CHUNK_SIZE = 128  # samples that are read and sent at once; their images are in memory


class _EmbeddedChunk(NamedTuple):
    """Embeddings of the images and texts that no earlier chunk has: images by their names, texts by themselves."""

    images: dict[str, np.ndarray]
    texts: dict[str, np.ndarray]
    num_samples: int


def with_local_teacher(config: Config) -> Config:
    """Return the configuration with a folder in place of a teacher's address; embed the training data if necessary.

    Raises:
        ServerError: the server cannot be used.
        OSError, ValueError: the training data cannot be read.
    """
    teacher = config.Tuning.teacher
    if teacher is None or not is_address(teacher.embeddings):
        return config
    folder = _embed_training_data(config, open_encoder(teacher.embeddings))
    teacher = teacher.model_copy(update={"embeddings": str(folder)})
    tuning = config.Tuning.model_copy(update={"teacher": teacher})
    return config.model_copy(update={"Tuning": tuning})


def _embed_training_data(config: Config, encoder: Encoder) -> Path:
    """Return a folder of embeddings, as `ernie-vil2 embed` writes it, of all images and captions of `Data.train`."""
    stream = SampleStream(config)
    views = [view.model_dump(include={"languages", "caption_lines", "long_caption"}) for view in stream.views]
    identity = json.dumps([encoder.fingerprint, stream.state(0), views])
    folder = cache_folder() / FOLDER / blake2b(identity.encode(), digest_size=12).hexdigest()
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Of several trainings that begin together one asks the server, and the others wait for the embeddings.
    with folder.with_suffix(".lock").open("a") as lock_file:
        lock_exclusive(lock_file, wait=True)
        if not folder.is_dir():
            _write_embeddings(stream, encoder, folder)
    return folder


def _write_embeddings(stream: SampleStream, encoder: Encoder, folder: Path) -> None:
    images: dict[str, np.ndarray] = {}
    texts: dict[str, np.ndarray] = {}
    with progress_bar(description="teacher", unit="sample", total=stream.num_samples) as bar:
        for chunk in _embed_chunks(stream, encoder):
            images |= chunk.images
            texts |= chunk.texts
            bar.update(chunk.num_samples)
    if not images or not texts:
        raise ValueError("Tuning.teacher.embeddings: no pair of Data.train can be used")

    with atomic_folder(folder) as draft:
        for kind, key, embeddings in (("image", "image_id", images), ("text", "text", texts)):
            np.save(draft / f"{kind}_embeddings.npy", np.stack(list(embeddings.values())))
            write_json_lines(draft / f"{kind}s.jsonl", [{key: name} for name in embeddings])


def _embed_chunks(stream: SampleStream, encoder: Encoder) -> Iterator[_EmbeddedChunk]:
    known_images, known_texts = set[str](), set[str]()

    def start_chunks(readers: ThreadPoolExecutor) -> Iterator[Callable[[], _EmbeddedChunk]]:
        samples = stream.iterate_samples()
        while chunk := list(islice(samples, CHUNK_SIZE)):
            # As in training, the first of several images of one name counts; equal texts are embedded once.
            new_images: dict[str, bytes] = {}
            new_texts: dict[str, None] = {}
            for source_number, sample in chunk:
                if sample.image_name not in known_images:
                    new_images.setdefault(sample.image_name, sample.image)
                for text in _list_captions(sample, stream.views[source_number]):
                    if text not in known_texts:
                        new_texts[text] = None
            known_images.update(new_images)
            known_texts.update(new_texts)
            yield _start_chunk(encoder, readers, new_images, list(new_texts), len(chunk))

    with ThreadPoolExecutor(runtime.num_usable_cores()) as readers:
        # The server computes a chunk while the next one is read.
        yield from wait_in_turn(start_chunks(readers))


def _start_chunk(
    encoder: Encoder, readers: ThreadPoolExecutor, images: dict[str, bytes], texts: list[str], num_samples: int
) -> Callable[[], _EmbeddedChunk]:
    def prepare(name: str) -> object:
        with suppress(BadSample):  # training reports it, if it cannot be used there either
            return encoder.preprocess(images[name], name)
        return None

    prepared_images = dict(zip(images, readers.map(prepare, images), strict=True))
    usable_images = {name: image for name, image in prepared_images.items() if image is not None}
    wait_for_images = encoder.start_pixels(list(usable_images.values()))
    wait_for_texts = encoder.start_texts(texts)

    def finish() -> _EmbeddedChunk:
        image_embeddings = dict(zip(usable_images, wait_for_images(), strict=True))
        text_embeddings = dict(zip(texts, wait_for_texts(), strict=True))
        return _EmbeddedChunk(image_embeddings, text_embeddings, num_samples)

    return finish


def _list_captions(sample: Sample, views: ViewsConfig) -> list[str]:
    """Return the captions that training may draw of a sample."""
    captions: list[str] = []
    for language in views.languages:
        with suppress(BadSample):
            captions += sample.caption_lines(language) if views.caption_lines else [sample.caption(language)]
        long_caption = sample.long_caption(views.long_caption, language) if views.long_caption else None
        if long_caption is not None:
            captions.append(long_caption)
    return captions
