"""Small data under the names that the pages use: MODEL, runs, published folders, and the user's files."""

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import yaml

from ernie_vil2 import cli as commands
from ernie_vil2.models.weights.format import read_model, write_model
from tests.support import entailment_data
from tests.support import published_folders as published
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.paths import FIXTURES, ROOT
from tests.support.published_files import pickle_pairs, write_files, write_lmdb
from tests.support.published_folders import ROWS_BY_SPLIT, TOKENS
from tests.support.shapes import draw_shape_members, write_tar, write_tsv


def make_checkout(folder):
    """Link the repository's folders, copy its configurations, and write an untrained MODEL."""
    for name in ("benchmarks", "demo_data", "docs", "ernie_vil2", "tests", "tools", "Makefile", "pyproject.toml",
                 "requirements.txt", "setup.py"):  # fmt: skip
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "configs", folder / "configs")
    write_untrained_checkpoint(folder / "MODEL", TOKENS)


def shorten(path, **settings):
    """Change sections of a configuration, such as "Data" or "Model.image", to few steps and small towers."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    for section, values in settings.items():
        target = config
        for name in section.split("."):
            target = target.setdefault(name, {})
        target.update(values)
    path.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")


def lay_out_training_sets(folder):
    published.write_coco_cn(folder / "coco-cn")
    published.write_muge(folder / "MUGE")
    published.write_tables(folder / "my-images")
    published.write_karpathy(folder / "flickr30k", "flickr30k", "flickr30k-images")
    published.write_karpathy(folder / "mscoco", "coco", "")


def lay_out_benchmarks(folder):
    """Lay out the folders of docs/benchmarks.md."""
    lay_out_training_sets(folder)
    published.write_flickr30k_cn(folder / "flickr30k-cn")
    published.write_muge(folder / "chinese-clip" / "Flickr30k-CN")
    published.write_aic_icc(folder)
    for kind in ("imgs.tsv", "texts.jsonl"):
        content = (folder / "MUGE" / f"valid_{kind}").read_text(encoding="utf-8")
        queries = content  # the competition's files differ from Chinese-CLIP's in the names of the keys
        for key, competition_key in (("text_id", "query_id"), ('"text"', '"query_text"'), ("image_ids", "item_ids")):
            queries = queries.replace(key, competition_key)
        write_files(folder, {
            f"chinese-clip/Flickr30k-CN/test_{kind}": content,
            f"MUGE/test_{kind}": re.sub(r'"image_ids": \[\d+\]', '"image_ids": []', content),
            f"Multimodal_Retrieval/MR_valid_{kind.replace('texts', 'queries')}": queries,
        })  # fmt: skip
    rows = ROWS_BY_SPLIT["test"]
    annotations = [{"id": n, "image_id": n, "caption": row.english[0]} for n, row in enumerate(rows)]
    images = [{"id": n, "file_name": f"{n:012}.jpg"} for n in range(len(rows))]
    captions = {"images": images, "annotations": annotations}
    write_files(folder / "mscoco", {"annotations/captions_val2017.json": captions})
    write_files(folder / "mscoco", {f"val2017/{n:012}.jpg": row.image for n, row in enumerate(rows)})
    write_tsv(folder / "pairs.tsv", [(row.chinese[0], str(n), row.image) for n, row in enumerate(rows)])
    for name in ("shards", "wds_flickr30k/test"):
        (folder / name).mkdir(parents=True)
    write_tar(folder / "shards" / "test-00.tar", draw_shape_members(1, seed=3))
    members = []
    for n, row in enumerate(rows):
        members += [(f"{n}.png", row.image), (f"{n}.txt", "\n".join(row.english).encode())]
    write_tar(folder / "wds_flickr30k" / "test" / "0.tar", members)
    published.write_caption_lists(folder)
    published.write_sugar_crepe(folder)


def lay_out_finetuning(folder):
    """Lay out every data set and model that docs/finetuning.md trains on, and make its small student tiny."""
    lay_out_training_sets(folder)
    published.write_flickr30k_cn(folder / "Flickr30k-CN")
    published.write_aic_icc(folder / "aic-icc")
    shutil.copytree(FIXTURES / "others" / "hf_chinese_clip_bin", folder / "chinese-clip-vit-base-patch16")
    shutil.copytree(FIXTURES / "others" / "hf_siglip2_naflex", folder / "siglip2-base-patch16-256")
    write_tar(folder / "other.tar", draw_shape_members(1, seed=9))
    write_tar(folder / "other-val.tar", draw_shape_members(1, seed=10))
    sizes = {"Model": {"embed_dim": 32}, "Model.image": {"image_size": 32, "depth": 1}, "Model.text": {"depth": 1}}
    shorten(folder / "configs/finetune/small_student.yaml", Training={"epochs": 2}, **sizes)


def lay_out_ratings(folder):
    published.write_karpathy(folder / "mscoco", "coco", "")
    for split in ("val", "test"):
        published.write_cxc(folder / "mscoco", split)


def shorten_pretraining(folder):
    """Give the configuration of the paper's Chinese model small towers, a small batch and four steps on a CPU."""
    model = yaml.safe_load((folder / "MODEL" / "config.yaml").read_text(encoding="utf-8"))["Model"]
    towers = {"image": model["image"], "text": model["text"]}
    shorten(folder / "configs/pretrain/vit_b16_ernie_base_zh.yaml", Model=towers, Data={"max_length": 16},
            Schedule={"warmup_steps": 1},
            Training={"steps": 4, "global_batch": 8, "checkpoint_every": 2, "precision": "float32"})  # fmt: skip


def lay_out_sources(folder):
    """Lay out the data that docs/data.md trains on and prepares: 100 shards, a table and Chinese-CLIP's files."""
    shorten_pretraining(folder)
    (folder / "data").mkdir()
    for shard in range(100):
        members = list(draw_shape_members(1, seed=shard))[:4]
        write_tar(folder / "data" / f"{shard:05}.tar", members)
    published.write_tables(folder / "data" / "train")
    published.write_muge(folder / "muge")
    lmdb = folder / "muge" / "lmdb" / "train"
    lmdb.mkdir(parents=True)
    rows = ROWS_BY_SPLIT["train"]
    pairs = pickle_pairs([(row.name, row.chinese[0], [row.name]) for row in rows])
    write_lmdb(lmdb, pairs, {row.name: row.image for row in rows})


def lay_out_release(folder):
    """Lay out an official file with its vocabulary, rows in the official TSV, and a run from Chinese-CLIP."""
    official = FIXTURES / "released" / "official_tiny"
    shutil.copytree(official, folder / "official")
    shutil.copy(official / "coco_rows.tsv", folder / "coco_cn.tsv")
    shutil.copytree(folder / "MODEL", folder / "runs" / "emoji")
    origin, run = folder / "chinese-clip-vit-base-patch16", folder / "runs" / "chinese_clip"
    shutil.copytree(FIXTURES / "others" / "hf_chinese_clip_bin", origin)
    stored = read_model(origin)
    model_config = stored.config.Model.model_copy(update={"weights": str(origin)})
    write_model(replace(stored, config=stored.config.model_copy(update={"Model": model_config})), run, "ernie_vil2")


def link_environment(folder):
    """Link `.venv` as `make setup` leaves it to the packages of this interpreter, so that nothing is installed."""
    (folder / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (folder / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    (folder / ".venv" / ".installed").touch()


def shorten_demo(folder):
    """Shorten the demo, by all view pairs and by `faster.yaml`, to 8 steps of 32 rows; data and towers stay."""
    link_environment(folder)
    for name in ("emoji", "faster"):
        shorten(folder / f"configs/demo/{name}.yaml", Schedule={"warmup_steps": 2}, Evaluation={"every": 8},
                Training={"steps": 8, "global_batch": 32, "checkpoint_every": 8})  # fmt: skip


def train_demo(folder):
    assert commands.run("train", ["-c", "configs/demo/faster.yaml"]) == 0


def copy_run(*names):
    """Return a function that copies the demo's run to these names."""

    def copy(folder):
        for name in names:
            shutil.copytree(folder / "runs" / "emoji", folder / "runs" / name)

    return copy


def lay_out_shards(folder):
    shorten_pretraining(folder)
    (folder / "my").mkdir()
    for name, seed in (("train-0", 1), ("train-1", 2), ("val", 3), ("test", 4)):
        write_tar(folder / "my" / f"{name}.tar", draw_shape_members(1, seed=seed))


def lay_out_search(folder):
    for name, split in (("my-images", "train"), ("more-images", "val")):
        write_files(folder / name, {f"{row.name}.png": row.image for row in ROWS_BY_SPLIT[split]})
    for home in (folder, folder / "my-images"):
        (home / "cat.jpg").write_bytes(ROWS_BY_SPLIT["test"][0].image)
    (folder / "queries.txt").write_text("a red apple\n红苹果\n", encoding="utf-8")
    text = {"input_path": "my-images/cat.jpg", "rec_texts": ["A1-B"], "rec_scores": [0.98]}
    write_files(folder / "my-images-ocr", {"cat_res.json": text})


def lay_out_export(folder):
    (folder / "apple.jpg").write_bytes(ROWS_BY_SPLIT["test"][0].image)


def lay_out_entailment(folder):
    write_untrained_checkpoint(folder / "ENGLISH_MODEL", entailment_data.TOKENS)
    entailment_data.write_entailment_folder(folder / "data" / "snli-ve")
    entailment_data.write_nlvr2_folder(folder / "data" / "nlvr2")
    for name in ("entailment", "nlvr2"):
        shorten(folder / f"configs/entailment/demo_{name}.yaml", Schedule={"warmup_steps": 1}, Evaluation={"every": 4},
                Training={"steps": 4, "checkpoint_every": 4})  # fmt: skip


LAYOUTS = {
    "benchmarks.md": [lay_out_benchmarks],
    "compare.md": [shorten_demo, train_demo, copy_run("scratch")],
    "cxc.md": [lay_out_ratings],
    "data.md": [lay_out_sources],
    "entailment.md": [lay_out_entailment],
    "entailment_demo.md": [shorten_demo, lay_out_entailment],
    "export.md": [lay_out_release, lay_out_export],
    "faq.md": [lay_out_benchmarks],
    "finetuning.md": [lay_out_finetuning],
    "guide.md": [
        shorten_demo,
        train_demo,
        lay_out_benchmarks,
        lay_out_shards,
        copy_run("coco_cn", "vit_b16_ernie_base_zh"),
    ],
    "installation.md": [link_environment],
    "launch.md": [lay_out_shards],
    "README.md": [shorten_demo, train_demo, lay_out_search],
    "reproduce.md": [lay_out_benchmarks, lay_out_ratings],
    "runs.md": [shorten_demo, train_demo, copy_run("first", "second"), lay_out_shards],
    "search.md": [shorten_demo, train_demo, lay_out_search],
    "tags.md": [shorten_demo, train_demo],
    "weights.md": [lay_out_release],
} | {f"{name}.md": [shorten_demo] for name in ("curate", "demo", "index", "loss", "memory", "ranks", "streaming")}
"""Page -> functions that lay out, after `make_checkout`, the files that its commands need."""
