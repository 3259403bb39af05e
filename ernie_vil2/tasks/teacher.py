"""A teacher whose embeddings lie in a folder: as rows of a batch, and as one more term of the loss.

The folder is as `ernie-vil2 embed` writes it (format numpy): `image_embeddings.npy` `[N, W]` with
`images.jsonl` (`{"image_id"}`), `text_embeddings.npy` `[M, W]` with `texts.jsonl` (`{"text"}`), rows in the same order.
Any model may have made them.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ernie_vil2.config import TeacherConfig
from ernie_vil2.data.decoding import ImageRemark
from ernie_vil2.data.samples import as_object
from ernie_vil2.data.source_files import check_widths, numbered_lines, open_embeddings
from ernie_vil2.losses import MultiViewLoss
from ernie_vil2.losses.multi_view import teacher_distance, teacher_loss
from ernie_vil2.losses.tiles import Scalars
from ernie_vil2.parallel import gather_rows
from ernie_vil2.tasks.contrastive_step import Losses, Views

UNKNOWN = "image or text without the teacher's embedding"
"""Remark on a sample."""


class Teacher:
    """Embeddings by image id and by text, `width` (W) wide; both sides are read when they are asked for.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the files are damaged or do not belong together.
    """

    def __init__(self, folder: str):
        self._images, self._image_rows = _side(Path(folder), "image", "image_id")
        self._texts, self._text_rows = _side(Path(folder), "text", "text")
        self.width = self._images.shape[1]
        check_widths(folder, self._images, self._texts)

    def row(self, image_id: str, text: str) -> np.ndarray:
        """`[2 W]`, the two embeddings, L2-normalised; zeros, with a remark, where one is unknown."""
        found = np.zeros(2 * self.width, np.float32)
        rows = self._image_rows.get(image_id), self._text_rows.get(text)
        if None in rows:
            warnings.warn(UNKNOWN, ImageRemark, stacklevel=1)
            return found
        for part, table, row in zip(np.split(found, 2), (self._images, self._texts), rows, strict=True):
            part[:] = table[row] / max(float(np.linalg.norm(table[row])), 1e-12)
        return found


class TaughtLoss:
    """A multi-view loss with the teacher's as one more term; see `MultiViewLoss`."""

    def __init__(self, loss: MultiViewLoss, config: TeacherConfig):
        self.views, self.weights = loss.views, loss.weights
        self._loss, self._config = loss, config

    def __call__(self, local: Views, gathered: Views, scalars: Scalars, *others: Any, teacher: paddle.Tensor) -> Losses:
        """Return the losses of `MultiViewLoss`, and "teacher" as one more of them. A collective.

        Args:
            local, gathered, scalars, others: as for `MultiViewLoss`.
            teacher: `[b, 2 W]`, the teacher's embeddings of this rank's rows, see `Teacher.row`.
        """
        total, losses = self._loss(local, gathered, scalars, *others)
        images = local["image_1"], gathered["image_1"]
        texts = local["text_1"], gathered["text_1"]
        teacher_rows = teacher, gather_rows(teacher)[0]
        divergence = teacher_loss(images, texts, teacher_rows, scalars["logit_scale"], self._config.logit_scale)
        total, losses = total + self._config.weight * divergence, {**losses, "teacher": divergence}
        if self._config.distance:
            embeddings = paddle.concat([images[0], texts[0]], axis=1)
            losses["teacher_distance"] = teacher_distance(embeddings, teacher_rows)
            total = total + self._config.distance * losses["teacher_distance"]
        return total, losses


def _side(folder: Path, kind: str, key: str) -> tuple[np.ndarray, dict[str, int]]:
    """The embeddings, as a memory map, and the row of each name; of equal names the first."""
    path, names = folder / f"{kind}_embeddings.npy", folder / f"{kind}s.jsonl"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; ernie-vil2 embed writes a teacher's embeddings")
    table, rows, count = open_embeddings(path), dict[str, int](), 0
    for where, line in numbered_lines(names):
        name = as_object(line, where).get(key)
        if name is None:
            raise ValueError(f"{where}: no {key}")
        rows.setdefault(str(name), count)
        count += 1
    if count != len(table):
        raise ValueError(f"{names}: {count} rows for {len(table)} embeddings; the folder mixes two runs, extract again")
    return table, rows
