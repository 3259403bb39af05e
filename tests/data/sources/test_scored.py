"""Whatever can be trained on can be scored, and validated on: the same pairs, with the same images."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ernie_vil2.config import load_config
from ernie_vil2.data.readers import open_benchmark, open_sources
from ernie_vil2.evaluation.scorers.retrieval import Retrieval
from tests.support.published_files import make_image, pickle_pairs, read_all, write_clip_files, write_files, write_lmdb
from tests.support.shapes import write_tar, write_tsv

ROWS = [("1", "一只猫", make_image(1)), ("2", "两只狗", make_image(2)), ("1", "猫", make_image(1))]


def tar(folder):
    members = [
        (f"{n}.{kind}", content)
        for n, (name, text, image) in enumerate(ROWS)
        for kind, content in (("png", image), ("json", f'{{"caption_zh": "{text}", "image_id": {name}}}'.encode()))
    ]
    return write_tar(folder / "a.tar", members)


def tsv(folder):
    return write_tsv(folder / "a.tsv", [(text, name, image) for name, text, image in ROWS])


def chinese_clip(folder):
    texts = [(str(n), text, [name]) for n, (name, text, _) in enumerate(ROWS)]
    return write_clip_files(folder / "muge", "valid", {name: image for name, _, image in ROWS}, texts)


def chinese_clip_lmdb(folder):
    (folder / "lmdb" / "valid").mkdir(parents=True)
    texts = [(str(n), text, [name]) for n, (name, text, _) in enumerate(ROWS)]
    write_lmdb(folder / "lmdb" / "valid", pickle_pairs(texts), {name: image for name, _, image in ROWS})
    return folder / "lmdb"


def csv(folder):
    lines = "".join(f"{name}.png,{text},{name}\n" for name, text, _ in ROWS)
    files = {f"images/{name}.png": image for name, _, image in ROWS}
    return write_files(folder / "table", {"val.csv": f"image,caption_zh,image_id\n{lines}", **files})


def parquet(folder):
    rows = [
        {"image": {"bytes": data, "path": f"{name}.png"}, "text": text, "image_id": name} for name, text, data in ROWS
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "validation-00000-of-00001.parquet")
    return folder


def samples(source):
    return [(sample.image_name, sample.caption("zh"), sample.image) for sample in read_all(source)]


@pytest.mark.parametrize("make", [tar, tsv, chinese_clip, chinese_clip_lmdb, csv, parquet])
def test_pairs_are_the_same_for_training_scoring_and_validation(tmp_path, make):
    position = str(make(tmp_path))
    trained = samples(open_sources([position], split="val" if make in (chinese_clip_lmdb, csv, parquet) else None))
    assert trained == [(name, text, image) for name, text, image in ROWS]
    config = load_config(None, [f"Data.val=['{position}']", "Views.languages={zh: 1.0}"])
    scorer, data = Retrieval.from_config(config, config.Data.validation, "val")
    validated = scorer.open(data).benchmarks["zh"]
    for benchmark in (open_benchmark(position, language="zh"), validated):
        pairs = [(benchmark.images[i], benchmark.texts[t]) for i, t in benchmark.pairs.tolist()]
        assert sorted((image.id, text.text, image.read()) for image, text in pairs) == sorted(trained)
        assert len(benchmark.images) == 2 and len(benchmark.texts) == 3
