"""An index: images and texts of one model, found by sentences, by images, or by each other.

    index.json     the model that it is of, and the version of this layout
    images/        a collection of images (`search.collection`)
    texts/         a collection of texts, such as tags
    .lock          locked by the one process that writes

Anything that a model encodes may be asked for: a sentence, an image, an item of the index, or a signed sum of them
("like this image, but at night").
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
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
    check_field_names,
    check_filter,
)
from ernie_vil2.apps.search.locations import INDEX_FOLDER_PREFIX, is_address
from ernie_vil2.apps.search.store import Store, open_store
from ernie_vil2.config.sections import without_implementation
from ernie_vil2.device import runtime
from ernie_vil2.encoder import ErnieViL2, ImageLike, find_export, load_model
from ernie_vil2.io.export_folder import ABOUT
from ernie_vil2.io.run_folder import run_of, step_of
from ernie_vil2.section import Precision

LONGEST_QUERY = 10_000  # characters of a query; only what fits into the model's text length counts


class OtherModel(ValueError):  # noqa: N818  -- named by what has happened
    """The index is of another model than the one given; the message names both."""


class Index:
    """Images and texts of one model; `open_index` makes one.

    Args:
        model: that encodes the queries.
        store: where the collections lie.
        name: of the model, for people.
        new: whether it was made just now; it is not kept if nothing comes into it.
        images_only: whether only images of the index are the model's, as another text tower encoded its texts.
        width: numbers of the embeddings by which items are found, to be ranked by all; None: all.
    """

    def __init__(
        self,
        model: ErnieViL2,
        store: Store,
        name: str,
        new: bool = False,
        images_only: bool = False,
        width: int | None = None,
    ):
        self.model, self.name, self._store, self._new = model, name, store, new
        self._images_only, self._width = images_only, width
        self._collections: dict[str, Collection] = {}
        self._fingerprint = store.about["fingerprint"]
        self._opening = threading.Lock()

    @property
    def title(self) -> str:
        """What the model is called where its path is nobody's business: of a run its name and the step."""
        run = run_of(Path(self.name))
        return f"{run.name}, step {step_of(Path(self.name)):,}" if run else Path(self.name).name

    @property
    def folder(self) -> Path | None:
        """The index's own folder; None of one in a Milvus."""
        return self._store.folder

    def stored_path(self, path: str) -> str:
        """A path as this index keeps it: relative to its own folder, then it begins with `./`, or to its root.

        So that a server on another machine finds the file. A path that lies in neither stays absolute, an address and a
        path that is kept already as they are.
        """
        if is_address(path) or path.startswith(INDEX_FOLDER_PREFIX):
            return path
        path = self.absolute_path(path)
        for folder, start in ((self.folder, INDEX_FOLDER_PREFIX), (self._store.about["root"], "")):
            if folder is not None and Path(path).is_relative_to(os.path.abspath(folder)):  # noqa: PTH100  -- resolve() would follow links
                return start + os.path.relpath(path, folder)
        return path

    def absolute_path(self, path: str) -> str:
        """Filter a path that this index keeps leads to; an address as it is."""
        if is_address(path):
            return path
        own = self.folder if path.startswith(INDEX_FOLDER_PREFIX) else None
        return os.path.abspath(os.path.join(own or self._store.about["root"], path))  # noqa: PTH100, PTH118  -- resolve() would follow links

    def collection(self, kind: str) -> Collection:
        """The collection of `images` or `texts`, as it is now.

        Raises:
            ValueError: the index has none of this kind.
            DamagedIndex, OtherModel: as `open_index`, of an index that has replaced the one opened.
        """
        found = self._collection(kind)
        if found is None and self._images_only and kind in KINDS:
            about = self._store.about
            raise OtherModel(
                f"{self._store} is an index of {about['model']} ({about['fingerprint'][:12]}), of which {self.name} "
                "has the image tower alone: texts are encoded otherwise. Build an index of its own for them"
            )
        if found is None:
            raise ValueError(f"this index has no {kind}")
        return found

    def has(self, kind: str) -> bool:
        """Whether there is a collection of `images` or `texts` with items."""
        found = self._collection(kind)
        return found is not None and len(found) > 0

    def _collection(self, kind: str) -> Collection | None:
        with self._opening:
            if self._store.detect_replacement():
                self._collections.clear()  # searches of other threads go on with what they began with
            _check_model(self._store, self._fingerprint, self.name, self.model.embed_dim)
            if kind not in self._collections:
                kinds = KINDS[:1] if self._images_only else KINDS
                found = self._store.collection(kind) if kind in kinds else None
                if found is None:
                    return None
                self._collections[kind] = found
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
    ) -> list[list[Hit]]:
        """For each text and then each image, the closest items.

        Args:
            count: of items for each query; all there are where there are fewer.
            among: `images` or `texts`.
            where: filter, as {"license": "MIT", "set": ["mdi", "tabler"]}.
            threshold: least cosine of an item that is an answer; None: any.

        Raises:
            BadSample: an image cannot be read.
            ValueError: a count below 1, an unknown kind, a field that no item has, no items at all, or a query that is
                too long.
        """
        return self.closest(np.concatenate([self.encode_texts(texts), self.model.encode_images(images)]), count, among,
                            where, threshold)  # fmt: skip

    def tags(self, images: Sequence[ImageLike], count: int = 5) -> list[list[Hit]]:
        """For each image the texts that name it; none where no text is as close as the model's calibration asks for."""
        return self.search(images=images, count=count, among="texts", threshold=self.threshold("image_to_text"))

    def threshold(self, direction: str) -> float | None:
        """The least cosine of an answer by the model's calibration; None without one."""
        calibration = self.model.calibration
        return calibration.thresholds[direction].cosine if calibration else None

    def combined(self, parts: Sequence[tuple[float, str | ImageLike]], **options: Any) -> list[Hit]:
        """The items closest to a weighted sum of texts and images, as [(1, image), (1, "at night"), (-1, "people")].

        A text is a str; an image is anything else that `encode_images` takes. `options` as for `search`.
        """
        return self.closest(self.weighted(parts)[None], **options)[0]

    def weighted(self, parts: Sequence[tuple[float, str | ImageLike]]) -> np.ndarray:
        """`[D]`: the sum of texts and images, for `closest`; see `combined`."""
        vectors = [
            weight * (self.encode_texts([part]) if isinstance(part, str) else self.model.encode_images([part]))[0]
            for weight, part in parts
        ]
        return np.sum(vectors, axis=0) if vectors else np.zeros(self.model.embed_dim, np.float32)

    def similar(self, item: str, kind: str = "images", among: str = "images", **options: Any) -> list[Hit]:
        """The items closest to one of the index, itself left out; KeyError if there is none of this id."""
        vector = self.collection(kind).get_embedding(item)
        if vector is None:
            raise KeyError(item)
        count = options.pop("count", 10)
        hits = self.closest(vector[None], count + (kind == among), among, **options)[0]
        return [hit for hit in hits if kind != among or hit.id != item][:count]

    def closest(
        self,
        queries: np.ndarray,
        count: int = 10,
        among: str = "images",
        where: Filter | None = None,
        threshold: float | None = None,
    ) -> list[list[Hit]]:
        """As `search`, for embeddings `[Q, D]` of any length."""
        if count < 1:
            raise ValueError(f"{count} answers cannot be given; ask for 1 or more")
        check_filter(where or {})
        collection = self.collection(among)
        if not len(collection):
            raise ValueError(f"there are no {among} in this index; add some (ernie-vil2 search add)")
        norms = np.linalg.norm(queries, axis=1, keepdims=True)
        found = collection.search(queries / np.maximum(norms, 1e-12), count, where, self._width)
        if where and not any(found):
            check_field_names(where, collection.field_names())
        return [[hit for hit in hits if threshold is None or hit.score >= threshold] for hits in found]

    def encode_texts(self, texts: Sequence[str], batch_size: int | None = None) -> np.ndarray:
        """`[N, D]` of texts, of which each may have `LONGEST_QUERY` characters."""
        check_queries(texts)
        return self.model.encode_texts(texts, batch_size)

    @contextmanager
    def compact(self, kind: str) -> Iterator[Collection]:
        """A copy of a collection without rows of removed items; it replaces the collection when the block succeeds."""
        collection = self.collection(kind)
        with self._store.compact(kind, collection) as copy:
            yield copy
        del self._collections[kind]
        collection.close()

    def writer(self) -> Index:
        """This index, opened to be changed, with the same model; close it at once.

        Raises:
            BusyIndex: another process changes it.
            DamagedIndex, OtherModel: as `open_index`.
        """
        with ExitStack() as undo:
            store = open_store(str(self._store), writable=True)
            undo.callback(store.close)
            _check_model(store, self._fingerprint, self.name, self.model.embed_dim)
            undo.pop_all()
            return Index(self.model, store, self.name, images_only=self._images_only, width=self._width)

    def close(self) -> None:
        empty = self._new and not any(map(len, self._collections.values()))
        for collection in self._collections.values():
            collection.close()
        if empty:
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
    """Opens an index, or makes an empty one.

    Args:
        path: a folder; `http://host:port` of a Milvus, with `/name` of the index; or a `.db` folder of milvus-lite.
        model: the model, or what `load_model` takes; None: the one that the index was built with, from where it was.
        writable: whether it will be changed; a folder that is not there is made then, and removed if nothing comes into
            it.
        device, precision: of a model that is loaded, as for `load_model`; an index is of one precision.
        root: of an index to be changed, the folder from which it counts the paths of images; None: the one that it
            has, of a new one the working directory.
        width: one of the model's `widths`. A new index holds embeddings of this width, and remains of it. In one that
            is there, and holds wider ones, items are found by their first numbers and ranked by all. None: all.

    Raises:
        FileNotFoundError: there is no such index, and it is not to be written.
        OtherModel: the index is of another model, which also encodes images otherwise; with a model that has another
            text tower alone, its images are searched and added to, its texts are not.
        DamagedIndex: its files do not fit together.
        BusyIndex: another process writes to it.
        ValueError: the model or the index does not have this width.
    """
    with ExitStack() as undo:
        store = open_store(path, writable)
        undo.callback(store.close)
        about, new, named = store.about, not store.about, model is None
        if new:
            undo.callback(store.discard)
        if model is None:
            if new:
                raise ValueError(f"{store} is new: name the model that it shall be of (--checkpoint)")
            model = about["model"]
        if not isinstance(model, ErnieViL2):
            try:
                model, source = _loaded(model, None if new else about["fingerprint"], device, precision)
            except FileNotFoundError as error:
                if not named:
                    raise
                raise FileNotFoundError(
                    f"{store} names its model {model}, which is not there any more ({error}); name where it is now: "
                    "--checkpoint MODEL (model= in Python)"
                ) from error
            # By its path, as another folder may be current then.
            name = os.path.abspath(source) if os.path.exists(source) else str(source)  # noqa: PTH100, PTH110  -- Path raises where this says no
        else:
            name = "the model given" if new else about["model"]
        model = model.with_width(width) if new else _of_width(model, about["width"])
        fingerprint, images_only = model.fingerprint, False
        if new:
            about = {
                "version": VERSION,
                "model": name,
                "fingerprint": fingerprint,
                "width": model.embed_dim,
                "image_fingerprint": image_fingerprint(model),
            }
        else:
            if fingerprint != about["fingerprint"] and not named:
                images_only = image_fingerprint(model) == about["image_fingerprint"]
            _check_model(store, about["fingerprint"] if images_only else fingerprint, name, model.embed_dim)
            if width is not None:
                model.with_width(width)
        if writable and (root is not None or new):
            store.describe(about | {"root": os.path.abspath(root or os.curdir)})  # noqa: PTH100  -- resolve() would follow links
        undo.pop_all()
        return Index(model, store, name, new, images_only, None if width == model.embed_dim else width)


def image_fingerprint(model: ErnieViL2) -> str:
    """Return what `ErnieViL2.fingerprint` is, of what embeddings of images follow from."""
    config = without_implementation(model.config.Model)
    parts = {
        "preprocessing": model.preprocessing.as_dict(),
        "precision": model.precision,
        "image": config.image.model_dump(exclude={"weights"}, exclude_defaults=True),
        "weights": model.backend.digest("image"),
    }
    return blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def _of_width(model: ErnieViL2, width: int) -> ErnieViL2:
    """The model with embeddings of the width of an index, where it has it."""
    return model.with_width(width) if width in model.widths else model


def _loaded(
    source: str | os.PathLike, fingerprint: str | None, device: str | None, precision: Precision
) -> tuple[ErnieViL2, str | os.PathLike]:
    """A model, and from where: of a run the checkpoint, as its newest will be another one later.

    Paddle is not imported for an ONNX export, nor for a checkpoint that has one with the fingerprint of an index.
    """
    if not Path(source, ABOUT).is_file():
        can_use_export = precision == "float32" and runtime.surely_cpu(device)
        export = find_export(Path(source), fingerprint, backends=["onnx"]) if fingerprint and can_use_export else None
        if export:
            return export, source
        from ernie_vil2.models.weights.format import find_weights

        folder = find_weights(source).parent
        source = folder if run_of(folder) else source
    return load_model(source, device=device, precision=precision, backend="fastest"), source


def check_queries(texts: Iterable[str]) -> None:
    """ValueError for a text that is too long."""
    long = next((text for text in texts if len(text) > LONGEST_QUERY), None)
    if long is not None:
        raise ValueError(f"a query of {len(long):,} characters; at most {LONGEST_QUERY:,} are taken")


def _check_model(store: Store, fingerprint: str, name: str, width: int) -> None:
    about = store.about
    if about["fingerprint"] != fingerprint:
        raise OtherModel(
            f"{store} is an index of {about['model']} ({about['fingerprint'][:12]}), not of {name} "
            f"({fingerprint[:12]}): embeddings of two models cannot be compared. Build an index of its own for it"
        )
    if about["width"] != width:
        raise DamagedIndex(
            f"{store}: index.json has the width {about['width']}, its model {width}; "
            f"remove {store} and build the index again"
        )
