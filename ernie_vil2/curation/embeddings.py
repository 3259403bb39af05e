"""The second pass: embeddings of the pairs that the rules leave, by one model or by one for each fold.

It runs in the process that has the model, shard by shard. Like the measures, a part depends on its shard alone.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from ernie_vil2.curation.joins import Measured
from ernie_vil2.curation.languages import language_of
from ernie_vil2.curation.measures import Maps
from ernie_vil2.curation.step import Pair
from ernie_vil2.data.augment import tags_text
from ernie_vil2.encoder import ErnieViL2
from ernie_vil2.io.files import atomic_write

LANGUAGES = ("zh", "en", "other")
BATCH = 512  # pairs that are read at once


@dataclass(frozen=True)
class Embedder:
    """What embeds.

    Args:
        models: a pair of fold k, which is its id modulo their number, is embedded by the k-th.
        tags: whether tags are embedded, too, as training has them as a text.
    """

    models: Sequence[ErnieViL2]
    tags: bool = False

    @property
    def texts(self) -> list[str]:
        """Columns of embedded texts; a pair need not have all of them."""
        return [f"{kind}_{language}" for kind in ("text", "tags")[: 1 + self.tags] for language in LANGUAGES]

    def part(self, maps: Maps, shard: int) -> Measured:
        """Where the embeddings of a shard are, whether they are there already or not."""
        measured = maps.part(shard)
        made_by = [measured.path.name, [model.fingerprint for model in self.models], _conditions(maps)]
        made_by += ["tags"] * self.tags
        digest = blake2b(json.dumps(made_by).encode(), digest_size=12).hexdigest()
        return Measured(measured.path.with_name(f"{digest}-embeddings.parquet"), measured.first)

    def embed_shard(self, maps: Maps, shard: int) -> Path:
        """Embeds the pairs of a shard that no rule removes, and writes the part when it is whole.

        Of a pair it has the row, embeddings as float16 (of its image, and of caption and tags in each language), and
        the cosine of image and caption by language.
        """
        part, measured = self.part(maps, shard), maps.part(shard)
        schema = pa.schema(
            [("row", pa.int32()), ("fold", pa.int32()), ("image", pa.binary())]
            + [(name, pa.binary()) for name in self.texts]
            + [(f"cosine_{language}", pa.float32()) for language in LANGUAGES]
        )
        rules = "".join(f" and not coalesce({condition}, false)" for condition in _conditions(maps))
        chosen = duckdb.execute(
            f"select row, id % {len(self.models)} as fold from read_parquet(?) where bad is null{rules} order by row",
            [str(measured.path)],
        ).fetchall()
        with (
            atomic_write(part.path) as aside,
            aside.open("wb") as file,
            parquet.ParquetWriter(file, schema, compression="zstd") as writer,
        ):
            for start in range(0, len(chosen), BATCH):
                rows = chosen[start : start + BATCH]
                pairs = [Pair(maps.source[measured.first + row]) for row, _ in rows]
                embedded: list[dict[str, Any]] = [{"row": row, "fold": fold} for row, fold in rows]
                for fold, model in enumerate(self.models):
                    own = [number for number, (_, of) in enumerate(rows) if of == fold]
                    self._embed(model, [pairs[number] for number in own], [embedded[number] for number in own])
                writer.write_table(pa.Table.from_pylist(embedded, schema))
        return part.path

    def _embed(self, model: ErnieViL2, pairs: Sequence[Pair], into: Sequence[dict[str, Any]]) -> None:
        if not pairs:
            return
        images = model.encode_images([pair.sample.image for pair in pairs])
        texts = [(number, *named) for number, pair in enumerate(pairs) for named in self._texts(pair, model)]
        encoded = model.encode_texts([text for *_, text in texts])
        for row, image in zip(into, images, strict=True):
            row["image"] = image.astype(np.float16).tobytes()
        for (number, kind, language, _), text in zip(texts, encoded, strict=True):
            if f"{kind}_{language}" not in into[number]:  # of several captions in a language the first
                into[number][f"{kind}_{language}"] = text.astype(np.float16).tobytes()
                if kind == "text":
                    into[number][f"cosine_{language}"] = float(images[number] @ text)

    def _texts(self, pair: Pair, model: ErnieViL2) -> Iterator[tuple[str, str, str]]:
        """Kind, language and text of its captions and tags."""
        for text in pair.captions.values():
            yield "text", language_of(text), text
        for named, tags in pair.sample.tags.items() if self.tags else ():
            language = named or language_of(" ".join(tags))
            if tags and language in LANGUAGES and language in model.config.Views.prompts:
                yield "tags", language, tags_text(tags, language, model.config.Views)


def _conditions(maps: Maps) -> list[str]:
    return [f"({condition})" for step in maps.steps for _, condition in step.rules()]
