"""The shipped demo shards hold what demo_data/README.md says."""

import json
import re

import cv2
import numpy as np
import pytest

from tests.support.paths import DEMO_DATA
from tests.support.shapes import read_tar

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def members():
    """Return (member name, content) in the order of the file, by split."""
    return {split: list(read_tar(DEMO_DATA / f"emoji-{split}.tar").items()) for split in SPLITS}


@pytest.fixture(scope="module")
def samples(members):
    """Return the fields of each sample, by split."""
    samples = {}
    for split in SPLITS:
        samples[split] = [json.loads(content) for name, content in members[split] if name.endswith(".json")]
    return samples


def collect_values(samples, key):
    return {sample[key] for sample in samples}


@pytest.mark.parametrize("split", SPLITS)
def test_readme_has_styles_samples_and_concepts(samples, split):
    row = rf"^\| {split} \| ([a-z0-9, -]+) \| ([\d,]+) \| ([\d,]+) \|$"
    styles, num_samples, num_concepts = re.search(row, (DEMO_DATA / "README.md").read_text("utf-8"), re.M).groups()
    assert set(styles.split(", ")) == collect_values(samples[split], "style")
    assert int(num_samples.replace(",", "")) == len(samples[split])
    assert int(num_concepts.replace(",", "")) == len(collect_values(samples[split], "id"))


@pytest.mark.parametrize("split", SPLITS)
def test_every_sample_is_complete(members, samples, split):
    # A drawing and its texts lie side by side, each pair once.
    names = []
    for sample in samples[split]:
        stem = f"{sample['id']}_{sample['style']}"
        names += [f"{stem}.webp", f"{stem}.json"]
    assert [name for name, _ in members[split]] == names
    assert len(set(names)) == len(names)
    for sample in samples[split]:
        texts = [sample["caption_zh"], sample["caption_en"], *sample["tags_zh"], *sample["tags_en"]]
        assert sample["tags_zh"] and sample["tags_en"] and all(text.strip() for text in texts), sample
    for name, content in members[split][::20]:
        drawing = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        assert drawing.shape == (64, 64, 3) and drawing.std() > 1, name


def test_held_out_styles_share_only_concepts_with_training(samples):
    texts = {}
    for split in SPLITS:
        for sample in samples[split]:
            fields = {key: value for key, value in sample.items() if key not in ("style", "license")}
            assert texts.setdefault(sample["id"], fields) == fields, "a concept has the same texts in every drawing"
    for split in ("val", "test"):
        assert not collect_values(samples["train"], "style") & collect_values(samples[split], "style")
        assert collect_values(samples[split], "id") <= collect_values(samples["train"], "id")
