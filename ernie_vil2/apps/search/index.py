"""An index of images and texts of one model, searched by sentences and by images.

    index.json     the model, and the version of this layout
    images/        a collection of images (`search.collection`)
    texts/         a collection of texts, such as tags
    .lock          locked by the process that writes

A query is anything that the model encodes: a sentence, an image, an item of the index, or a weighted sum of them ("like
this image, but at night").
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.apps.search.collection import (
    KINDS,
    VERSION,
    Collection,
    DamagedIndex,
    Filter,
    Hit,
    WordQueries,
    check_field_names,
    check_filter,
)
from ernie_vil2.apps.search.locations import INDEX_FOLDER_PREFIX, is_address
from ernie_vil2.apps.search.store import Store, open_store
from ernie_vil2.apps.serving.text_length import check_text_lengths
from ernie_vil2.config.sections import with_native_towers
from ernie_vil2.device import runtime
from ernie_vil2.encoder import ErnieViL2, ImageLike, find_export, load_model
from ernie_vil2.io.export_folder import EXPORT_INFO
from ernie_vil2.io.run_folder import checkpoint_step, find_run_folder
from ernie_vil2.section import Precision

SHORT_FINGERPRINT = 12  # digits of a fingerprint in a message
MIN_NORM = 1e-12  # a query of zeros stays zero, and all of its scores are 0


class OtherModel(ValueError):  # noqa: N818  -- named by what has happened
    """The index belongs to another model than the given one; the message names both."""


class Index:
    """Images and texts of one model; `open_index` creates it.

    Args:
        model: encodes the queries.
        store: holds the collections.
        name: path or name of the model, for messages.
        is_new: the index was created just now, and is removed when it is closed without items.
        images_only: the texts of the index were encoded by another text tower, so only its images can be searched.
        width: if set, items are found by the first `width` numbers of their embeddings, and ranked by all.
    """

    def __init__(
        self,
        model: ErnieViL2,
        store: Store,
        name: str,
        is_new: bool = False,
        images_only: bool = False,
        width: int | None = None,
    ):
        self.model, self.name = model, name
        self._store, self._is_new = store, is_new
        self._images_only, self._width = images_only, width
        self._collections: dict[str, Collection] = {}
        self._fingerprint = store.metadata["fingerprint"]
        self._open_lock = threading.Lock()

    @property
    def title(self) -> str:
        """Name of the model without its path, which clients need not know; for a run its name and the step."""
        run = find_run_folder(Path(self.name))
        return f"{run.name}, step {checkpoint_step(Path(self.name)):,}" if run else Path(self.name).name

    @property
    def folder(self) -> Path | None:
        """Folder of the index; None if it lies in Milvus."""
        return self._store.folder

    @property
    def has_words(self) -> bool:
        """Whether items are found by their words; Milvus has none."""
        return self.folder is not None

    def stored_path(self, path: str) -> str:
        """Return a path as the index stores it, so that a server on another machine finds the file.

        A path in the folder of the index becomes relative to it and begins with `./`. Otherwise, a path below the root
        of the index becomes relative to the root. All other paths become absolute. Addresses stay as they are, and so
        do stored paths that begin with `./`.
        """
        if is_address(path) or path.startswith(INDEX_FOLDER_PREFIX):
            return path
        path = self.absolute_path(path)
        for folder, prefix in ((self.folder, INDEX_FOLDER_PREFIX), (self._store.metadata["root"], "")):
            if folder is not None and Path(path).is_relative_to(os.path.abspath(folder)):  # noqa: PTH100  -- resolve() would follow links
                return prefix + os.path.relpath(path, folder)
        return path

    def absolute_path(self, path: str) -> str:
        """Return the absolute form of a path that `stored_path` has returned; an address stays as it is."""
        if is_address(path):
            return path
        folder = self._store.metadata["root"]
        if path.startswith(INDEX_FOLDER_PREFIX) and self.folder is not None:
            folder = self.folder
        return os.path.abspath(os.path.join(folder, path))  # noqa: PTH100, PTH118  -- resolve() would follow links

    def collection(self, kind: str) -> Collection:
        """Return the collection of `images` or `texts` in its current state.

        Raises:
            ValueError: the index has no such collection.
            DamagedIndex, OtherModel: as `open_index`, if another index has replaced the opened one.
        """
        collection = self._open_collection(kind)
        if collection is not None:
            return collection
        if self._images_only and kind in KINDS:
            metadata = self._store.metadata
            raise OtherModel(
                f"{self._store} is an index of {metadata['model']} ({metadata['fingerprint'][:SHORT_FINGERPRINT]}); "
                f"{self.name} has the same image tower but another text tower. Build another index for texts"
            )
        raise ValueError(f"this index has no {kind}")

    def has(self, kind: str) -> bool:
        """Return whether there is a collection of `images` or `texts` with items."""
        collection = self._open_collection(kind)
        return collection is not None and len(collection) > 0

    def _open_collection(self, kind: str) -> Collection | None:
        with self._open_lock:
            if self._store.detect_replacement():
                # Not closed: searches of other threads finish with the collections that they have.
                self._collections.clear()
            _check_model(self._store, self._fingerprint, self.name, self.model.embed_dim)
            if kind not in self._collections:
                usable_kinds = ("images",) if self._images_only else KINDS
                collection = self._store.collection(kind) if kind in usable_kinds else None
                if collection is None:
                    return None
                self._collections[kind] = collection
            self._collections[kind].refresh()
            return self._collections[kind]

    def search(
        self,
        texts: Sequence[str] = (),
        images: Sequence[ImageLike] = (),
        count: int = 10,
        among: str = "images",
        where: Filter | None = None,
        threshold: float | None = None,
        word_weight: float | None = None,
    ) -> list[list[Hit]]:
        """Return the closest items for each text and then for each image, best first.

        Args:
            texts: queries.
            images: queries; paths, bytes, PIL images or arrays.
            count: items for each query; fewer if there are fewer.
            among: `images` or `texts`.
            where: filter, such as {"license": "MIT", "set": ["mdi", "tabler"]}.
            threshold: smallest cosine similarity of a hit; None: any.
            word_weight: if set, items that contain all words of a text are found too, whatever their similarity. With
                1, those that the text names alternate with those by meaning, the best one first, and the first five by
                meaning stay before the others; with 2, all of them come first. None: meaning alone, so that the hits
                are in the order of their scores.

        Raises:
            BadSample: an image cannot be read.
            ValueError: the count is below 1, the collection does not exist or is empty, no item has a field of the
                filter, or a query is too long.
        """
        queries = np.concatenate([self.encode_texts(texts), self.model.encode_images(images)])
        words = None if word_weight is None else WordQueries([*texts, *[""] * len(images)], word_weight)
        return self.search_embeddings(queries, count, among, where, threshold, words)

    def tags(self, images: Sequence[ImageLike], count: int = 5) -> list[list[Hit]]:
        """Return for each image the texts that name it; none below the threshold of the model's calibration."""
        return self.search(images=images, count=count, among="texts", threshold=self.threshold("image_to_text"))

    def threshold(self, direction: str) -> float | None:
        """Return the smallest cosine of a match by the model's calibration; None if the model has none."""
        calibration = self.model.calibration
        return calibration.thresholds[direction].cosine if calibration else None

    def combined(self, parts: Sequence[tuple[float, str | ImageLike]], **options: Any) -> list[Hit]:
        """Return the items closest to a weighted sum of texts and images.

        Args:
            parts: weights, each with a text or an image: [(1, image), (1, "at night"), (-1, "people")].
            options: of `search`.
        """
        return self.search_embeddings(self.combine_embeddings(parts)[None], **options)[0]

    def combine_embeddings(self, terms: Sequence[tuple[float, str | ImageLike]]) -> np.ndarray:
        """Return the weighted sum of embeddings, `[D]`, see `combined`."""
        total = np.zeros(self.model.embed_dim, np.float32)
        for weight, content in terms:
            if isinstance(content, str):
                (embedding,) = self.encode_texts([content])
            else:
                (embedding,) = self.model.encode_images([content])
            total += weight * embedding
        return total

    def similar(self, item_id: str, kind: str = "images", among: str = "images", **options: Any) -> list[Hit]:
        """Return the items closest to an item of the index, without that item.

        Args:
            item_id: of the item.
            kind: the collection of the item.
            among: the collection that is searched.
            options: of `search`.

        Raises:
            KeyError: there is no such item.
        """
        embedding = self.collection(kind).get_embedding(item_id)
        if embedding is None:
            raise KeyError(item_id)
        count = options.pop("count", 10)
        # Among its own kind the item finds itself, so one hit more is needed.
        if kind != among:
            return self.search_embeddings(embedding[None], count, among, **options)[0]
        hits = self.search_embeddings(embedding[None], count + 1, among, **options)[0]
        return [hit for hit in hits if hit.id != item_id][:count]

    def search_embeddings(
        self,
        queries: np.ndarray,
        count: int = 10,
        among: str = "images",
        where: Filter | None = None,
        threshold: float | None = None,
        words: WordQueries | None = None,
    ) -> list[list[Hit]]:
        """Return the same as `search` for embeddings `[Q, D]`, which need not be normalised, and their words.

        Raises:
            ValueError: as `search`, or the embeddings have another shape or are not finite.
        """
        if count < 1:
            raise ValueError(f"the count is {count}; ask for 1 or more items")
        queries = np.asarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.model.embed_dim:
            raise ValueError(f"queries are embeddings [Q, {self.model.embed_dim}], not {list(queries.shape)}")
        if not np.isfinite(queries).all():
            raise ValueError("the embedding of a query is not finite")
        check_filter(where or {})
        collection = self.collection(among)
        if not len(collection):
            raise ValueError(f"there are no {among} in this index; add some (ernie-vil2 search add)")
        if words is not None:
            words = words._replace(threshold=threshold)
        norms = np.linalg.norm(queries, axis=1, keepdims=True)
        answers = collection.search(queries / np.maximum(norms, MIN_NORM), count, where, self._width, words)
        # Listing the field names takes a pass over all items. They are checked only if the filter has matched nothing.
        if where and not any(answers):
            check_field_names(where, collection.field_names())
        if threshold is None:
            return answers
        close_hits = []
        for hits in answers:
            close_hits.append([hit for hit in hits if hit.score >= threshold or hit.has_words])
        return close_hits

    def encode_texts(self, texts: Sequence[str], batch_size: int | None = None) -> np.ndarray:
        """Return embeddings `[N, D]` of texts; ValueError for one of more than `MAX_TEXT_LENGTH` characters."""
        check_text_lengths(texts)
        return self.model.encode_texts(texts, batch_size)

    @contextmanager
    def compact(self, kind: str) -> Iterator[Collection]:
        """Yield a copy of a collection without the rows of removed items; see `Store.compact`."""
        collection = self.collection(kind)
        with self._store.compact(kind, collection) as copy:
            yield copy
        del self._collections[kind]
        collection.close()
        self.collection(kind)  # opened, so that `close` sees that a new index has items

    def open_writer(self) -> Index:
        """Open this index again to change it, with the same model. Close it soon: it keeps out other writers.

        Raises:
            BusyIndex: another process changes it.
            DamagedIndex, OtherModel: as `open_index`.
            FileNotFoundError: it was removed meanwhile.
        """
        open_store(str(self._store), writable=False).close()  # a writer would create a new index in place of a lost one
        with ExitStack() as undo:
            store = open_store(str(self._store), writable=True)
            undo.callback(store.close)
            _check_model(store, self._fingerprint, self.name, self.model.embed_dim)
            undo.pop_all()
            return Index(self.model, store, self.name, images_only=self._images_only, width=self._width)

    def close(self) -> None:
        should_discard = self._is_new and not any(map(len, self._collections.values()))
        for collection in self._collections.values():
            collection.close()
        if should_discard:
            self._store.discard()
        self._store.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def open_index(
    path: str | Path,
    model: ErnieViL2 | str | None = None,
    writable: bool = False,
    device: str | None = None,
    precision: Precision = "float32",
    root: str | Path | None = None,
    width: int | None = None,
) -> Index:
    """Open an index, or create an empty one.

    Args:
        path: a folder; `http://host:port` of Milvus, optionally with `/NAME` of the index; or a `.db` of milvus-lite.
        model: the model, or what `load_model` takes; None: the model that the index was built with.
        writable: whether the index will be changed. A missing folder is then created, and removed again if nothing is
            added.
        device: of a model that is loaded, see `load_model`.
        precision: of a model that is loaded, see `load_model`; all embeddings of an index have one precision.
        root: base folder of the paths that are stored; used only if `writable`. None: the folder that the index has,
            or the working directory for a new index.
        width: one of the model's `widths`. A new index stores embeddings of this width. In an existing index with
            wider embeddings, items are found by their first numbers and ranked by all. None: all numbers.

    Raises:
        FileNotFoundError: there is no such index, and it is not opened to be written.
        OtherModel: the index belongs to a model with another image tower. If only the text tower differs, the index
            opens, but only its images can be searched and added to.
        DamagedIndex: its files do not fit together.
        BusyIndex: another process writes to it.
        ValueError: the model or the index does not have this width.
    """
    with ExitStack() as undo:
        store = open_store(path, writable)
        undo.callback(store.close)
        metadata = store.metadata
        is_new = not metadata
        if is_new:
            undo.callback(store.discard)

        # Find the model: a given one, or the one that the index names.
        uses_stored_model = model is None
        if model is None:
            if is_new:
                raise ValueError(f"{store} is new: name the model to build it with (--checkpoint)")
            model = metadata["model"]
        is_unnamed = isinstance(model, ErnieViL2)
        if isinstance(model, ErnieViL2):
            name = "the model given"
        else:
            try:
                model, source = _load_model(model, None if is_new else metadata["fingerprint"], device, precision)
            except FileNotFoundError as error:
                if not uses_stored_model:
                    raise
                raise FileNotFoundError(
                    f"{store} names its model {model}, which is not there any more ({error}); name its present path: "
                    "--checkpoint MODEL (model= in Python)"
                ) from error
            # An absolute path, since the working directory may be another one when the index is opened again.
            name = os.path.abspath(source) if os.path.exists(source) else str(source)  # noqa: PTH100, PTH110  -- pathlib raises for names that are too long

        # Compare the model with the index, or describe the new index.
        images_only = False
        if is_new:
            model = model.with_width(width)
            metadata = {
                "version": VERSION,
                "model": name,
                "fingerprint": model.fingerprint,
                "width": model.embed_dim,
                "image_fingerprint": fingerprint_image_tower(model),
            }
        else:
            if metadata["width"] in model.widths:
                model = model.with_width(metadata["width"])
            # With another text tower, the embeddings of images are still valid, so images can be searched. Whether the
            # image towers are the same has then been checked here, and `_check_model` compares only the width.
            if model.fingerprint != metadata["fingerprint"] and not uses_stored_model:
                images_only = fingerprint_image_tower(model) == metadata["image_fingerprint"]
            fingerprint = metadata["fingerprint"] if images_only else model.fingerprint
            _check_model(store, fingerprint, name, model.embed_dim)
            if is_unnamed and not images_only:
                name = metadata["model"]  # the fingerprints have shown that it is this model
            model.with_width(width)  # raises if the model does not have this width

        if writable and (root is not None or is_new):
            root = os.path.abspath(root or os.curdir)  # noqa: PTH100  -- resolve() would follow links
            store.write_metadata(metadata | {"root": root})
        undo.pop_all()
        prefix_width = None if width == model.embed_dim else width
        return Index(model, store, name, is_new, images_only, prefix_width)


def fingerprint_image_tower(model: ErnieViL2) -> str:
    """Return a digest of everything that embeddings of images depend on, as `ErnieViL2.fingerprint` of the model."""
    config = with_native_towers(model.config.Model)
    ingredients = {
        "preprocessing": model.preprocessing.as_dict(),
        "precision": model.precision,
        "image": config.image.model_dump(exclude={"weights"}, exclude_defaults=True),
        "weights": model.backend.digest("image"),
    }
    return blake2b(json.dumps(ingredients, sort_keys=True).encode(), digest_size=16).hexdigest()


def _load_model(
    source: str | os.PathLike, fingerprint: str | None, device: str | None, precision: Precision
) -> tuple[ErnieViL2, str | os.PathLike]:
    """Load a model for an index with this fingerprint; None: a new index.

    Returns:
        The model, and the source to store. Of a run it is the checkpoint, because the newest one changes later.
    """
    if not Path(source, EXPORT_INFO).is_file():
        # An ONNX export with the same fingerprint computes the same embeddings, and Paddle need not be imported.
        if fingerprint and precision == "float32" and runtime.is_surely_cpu(device):
            export = find_export(Path(source), fingerprint, backends=["onnx"])
            if export:
                return export, source
        from ernie_vil2.models.weights.format import find_weights

        folder = find_weights(source).parent
        if find_run_folder(folder):
            source = folder
    return load_model(source, device=device, precision=precision, backend="fastest"), source


def _check_model(store: Store, fingerprint: str, name: str, width: int) -> None:
    metadata = store.metadata
    if metadata["fingerprint"] != fingerprint:
        raise OtherModel(
            f"{store} is an index of {metadata['model']} ({metadata['fingerprint'][:SHORT_FINGERPRINT]}), "
            f"not of {name} ({fingerprint[:SHORT_FINGERPRINT]}): embeddings of two models cannot be compared. Build "
            "another index for it"
        )
    if metadata["width"] != width:
        raise DamagedIndex(
            f"{store}: index.json has the width {metadata['width']}, but its model has {width}; "
            f"remove {store} and build the index again"
        )
