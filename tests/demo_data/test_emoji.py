"""The shipped demo shards hold what demo_data/README.md says."""

import json
import re
import tarfile
from collections import Counter

import cv2
import numpy as np
import pytest

from tests.support.paths import DEMO_DATA

STYLES = {
    "train": {"noto": 1555, "noto-v1": 1185, "fluent-emoji": 1561, "fluent-emoji-flat": 1549, "fxemoji": 467},
    "val": {"emojione": 1058},
    "test": {"twemoji": 1555},
}
CONCEPTS = {"train": 1567, "val": 1058, "test": 1555}
KINDS = {"train": {"object": 3608, "symbol": 2709}, "val": {"object": 625, "symbol": 433},
         "test": {"object": 872, "symbol": 683}}  # fmt: skip
LICENSES = {"noto": "Apache-2.0", "noto-v1": "Apache-2.0", "fluent-emoji": "MIT", "fluent-emoji-flat": "MIT",
            "fxemoji": "Apache-2.0", "emojione": "CC-BY-4.0", "twemoji": "CC-BY-4.0"}  # fmt: skip


@pytest.fixture(scope="module")
def members():
    """By split (member name, content), in the file's order."""
    by_split = {}
    for split in STYLES:
        with tarfile.open(DEMO_DATA / f"emoji-{split}.tar") as tar:
            by_split[split] = [(member.name, tar.extractfile(member).read()) for member in tar]
    return by_split


@pytest.fixture(scope="module")
def samples(members):
    """By split the JSON member of each sample."""
    return {
        split: [json.loads(content) for name, content in files if name.endswith(".json")]
        for split, files in members.items()
    }


def test_the_readme_table_agrees_with_these_counts():
    pattern = r"^\| (train|val|test) \| ([a-z0-9, -]+) \| ([\d,]+) \| ([\d,]+) \|$"
    table = {}
    for split, styles, images, concepts in re.findall(pattern, (DEMO_DATA / "README.md").read_text("utf-8"), re.M):
        table[split] = (set(styles.split(", ")), int(images.replace(",", "")), int(concepts.replace(",", "")))
    assert table == {split: (set(styles), sum(styles.values()), CONCEPTS[split]) for split, styles in STYLES.items()}


@pytest.mark.parametrize("split", STYLES)
def test_every_sample_is_whole(members, samples, split):
    assert Counter(sample["style"] for sample in samples[split]) == STYLES[split]
    assert Counter(sample["kind"] for sample in samples[split]) == KINDS[split]
    assert len({sample["id"] for sample in samples[split]}) == CONCEPTS[split]

    # A drawing and its texts lie side by side, each pair once.
    stems = [f"{sample['id']}_{sample['style']}" for sample in samples[split]]
    names = [f"{stem}.{suffix}" for stem in stems for suffix in ("webp", "json")]
    assert [name for name, _ in members[split]] == names
    assert len(set(names)) == len(names)

    for sample in samples[split]:
        texts = [sample["caption_zh"], sample["caption_en"], *sample["tags_zh"], *sample["tags_en"]]
        assert sample["tags_zh"] and sample["tags_en"] and all(text.strip() for text in texts), sample
        assert sample["license"] == LICENSES[sample["style"]], sample


def test_concepts_have_the_same_texts_in_every_drawing(samples):
    first = {}
    for split in STYLES:
        for sample in samples[split]:
            about = {key: value for key, value in sample.items() if key not in ("style", "license")}
            assert first.setdefault(sample["id"], about) == about


@pytest.mark.parametrize("split", ["val", "test"])
def test_held_out_styles_are_not_trained_but_their_concepts_are(samples, split):
    assert not STYLES["train"].keys() & STYLES[split].keys()
    assert {sample["id"] for sample in samples[split]} <= {sample["id"] for sample in samples["train"]}


@pytest.mark.parametrize("split", STYLES)
def test_every_drawing_is_64_by_64_rgb_and_not_blank(members, split):
    for name, content in members[split]:
        if name.endswith(".webp"):
            drawing = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
            assert drawing is not None and drawing.shape == (64, 64, 3) and drawing.dtype == np.uint8, name
            assert drawing.std() > 1, name
