"""Data in every format give the same pairs for training, scoring and validation."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ernie_vil2.config import load_config
from ernie_vil2.data.readers import open_benchmark, open_sources
from ernie_vil2.evaluation.scorers.retrieval import Retrieval
from tests.support.published_files import make_image, pickle_pairs, read_all, write_clip_files, write_files, write_lmdb
from tests.support.shapes import write_tar, write_tsv

ROWS = [("1", "一只猫", make_image(1)), ("2", "两只狗", make_image(2)), ("1", "猫", make_image(1))]


TEXTS = [(str(number), text, [name]) for number, (name, text, _) in enumerate(ROWS)]
IMAGES = {name: image for name, _, image in ROWS}


def write_shard(folder):
    members = []
    for number, (name, text, image) in enumerate(ROWS):
        fields = f'{{"caption_zh": "{text}", "image_id": {name}}}'
        members += [(f"{number}.png", image), (f"{number}.json", fields.encode())]
    return write_tar(folder / "a.tar", members)


def write_rows(folder):
    return write_tsv(folder / "a.tsv", [(text, name, image) for name, text, image in ROWS])


def write_chinese_clip(folder):
    return write_clip_files(folder / "muge", "valid", IMAGES, TEXTS)


def write_chinese_clip_lmdb(folder):
    (folder / "lmdb" / "valid").mkdir(parents=True)
    write_lmdb(folder / "lmdb" / "valid", pickle_pairs(TEXTS), IMAGES)
    return folder / "lmdb"


def write_csv(folder):
    lines = "".join(f"{name}.png,{text},{name}\n" for name, text, _ in ROWS)
    files = {f"images/{name}.png": image for name, image in IMAGES.items()}
    return write_files(folder / "table", {"val.csv": f"image,caption_zh,image_id\n{lines}", **files})


def write_parquet(folder):
    rows = []
    for name, text, data in ROWS:
        rows.append({"image": {"bytes": data, "path": f"{name}.png"}, "text": text, "image_id": name})
    pq.write_table(pa.Table.from_pylist(rows), folder / "validation-00000-of-00001.parquet")
    return folder


@pytest.mark.parametrize(
    ("write_data", "split"),
    [
        (write_shard, None),
        (write_rows, None),
        (write_chinese_clip, None),
        (write_chinese_clip_lmdb, "val"),
        (write_csv, "val"),
        (write_parquet, "val"),
    ],
)
def test_training_scoring_and_validation_have_the_same_pairs(tmp_path, write_data, split):
    location = str(write_data(tmp_path))
    samples = read_all(open_sources([location], split=split))
    assert [(sample.image_name, sample.caption("zh"), sample.image) for sample in samples] == ROWS

    config = load_config(None, [f"Data.val=['{location}']", "Views.languages={zh: 1.0}"])
    scorer, data = Retrieval.from_config(config, config.Data.val_config, "val")
    validation = scorer.open(data).benchmarks["zh"]
    for benchmark in (open_benchmark(location, language="zh"), validation):
        rows = []
        for image_index, text_index in benchmark.pairs.tolist():
            image, text = benchmark.images[image_index], benchmark.texts[text_index]
            rows.append((image.id, text.text, image.read()))
        assert sorted(rows) == sorted(ROWS)
        assert len(benchmark.images) == 2 and len(benchmark.texts) == 3
