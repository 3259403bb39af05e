"""Thumbnails of many images, as they are read from the measures."""

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from ernie_vil2.apps.curation import likeness
from ernie_vil2.apps.curation.joins import Joins, MeasuresFile
from ernie_vil2.apps.curation.local_features import FEATURE, MAX_FEATURES
from ernie_vil2.apps.curation.measures import arrow_type
from ernie_vil2.apps.curation.thumbnails import read_thumbnails

NUM_PAIRS = 5000  # in each of two files


def write_measures(path, seed):
    """Write measures of pairs with one to three thumbnails of random bytes; every tenth pair is unreadable."""
    rng = np.random.default_rng(seed)
    columns = {"row": "int32", "error": "string"} | likeness.COLUMNS
    schema = pa.schema([(name, arrow_type(type_name)) for name, type_name in columns.items()])
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, NUM_PAIRS, 500):
            rows = []
            for row in range(start, start + 500):
                if row % 10 == 9:
                    rows.append({"row": row, "error": "broken image"})
                    continue
                count = 1 + row % 3
                thumbnails = []
                for number in range(count):
                    features = b"" if number else rng.bytes(MAX_FEATURES * FEATURE.itemsize)
                    detail = b"" if number else rng.bytes(1000 + row % 7)
                    box = np.full(4, number, np.float32).tobytes()
                    thumbnails.append(
                        likeness.Thumbnail(rng.bytes(likeness.BYTES), 1.0 + row, 0.5, features, box, detail)
                    )
                rows.append({"row": row} | likeness.make_columns(thumbnails))
            writer.write_table(pa.Table.from_pylist(rows, schema))


def test_thumbnails_are_read_in_order_in_less_memory_than_they_take(tmp_path):
    files = []
    for seed in range(2):
        write_measures(tmp_path / f"{seed}.parquet", seed)
        files.append(MeasuresFile(tmp_path / f"{seed}.parquet", seed * NUM_PAIRS))
    joins = Joins(files, tmp_path, memory=0.08)
    joins.database.execute("set threads = 1")
    images = read_thumbnails(joins)
    joins.close()
    assert images.thumbnails.nbytes > 80e6

    samples, first_byte, row = [], 0, 0
    for file in files:
        for pair in parquet.read_table(file.path).to_pylist():
            if pair["error"] is not None:
                continue
            end = first_byte + len(pair["detail"][0])
            for number, content in enumerate(pair["thumbnail"]):
                samples.append(file.first_sample + pair["row"])
                assert images.thumbnails[row].tobytes() == content
                assert images.features[row].tobytes()[: len(pair["features"][number])] == pair["features"][number]
                assert images.num_features[row] == (0 if number else MAX_FEATURES)
                assert (images.boxes[row] == number).all() and images.shapes[row] == 1 + pair["row"]
                assert images.detail_bounds[row].tolist() == [first_byte, end]
                row += 1
            assert images.details[first_byte:end].tobytes() == pair["detail"][0]
            first_byte = end
    assert images.samples.tolist() == samples


def test_no_readable_pair_has_no_thumbnails(tmp_path):
    columns = {"row": "int32", "error": "string"} | likeness.COLUMNS
    schema = pa.schema([(name, arrow_type(type_name)) for name, type_name in columns.items()])
    parquet.write_table(pa.Table.from_pylist([{"row": 0, "error": "broken image"}], schema), tmp_path / "0.parquet")
    joins = Joins([MeasuresFile(tmp_path / "0.parquet", 0)], tmp_path)
    images = read_thumbnails(joins)
    joins.close()
    assert images.thumbnails.shape == (0, likeness.BYTES) and images.details.shape == (0,)
