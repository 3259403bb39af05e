"""The shipped demo shards hold what demo_data/README.md says."""

import itertools
import json
import re
import tarfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parent.parent / "demo_data"
STYLES = {
    "train": {"noto": 1555, "noto-v1": 1185, "fluent-emoji": 1561, "fluent-emoji-flat": 1549, "fxemoji": 467},
    "val": {"emojione": 1058},
    "test": {"twemoji": 1555},
}
CONCEPTS = {"train": 1567, "val": 1058, "test": 1555}
KINDS = {
    "train": {"object": 3608, "symbol": 2709},
    "val": {"object": 625, "symbol": 433},
    "test": {"object": 872, "symbol": 683},
}
LICENSES = {
    "noto": "Apache-2.0",
    "noto-v1": "Apache-2.0",
    "fluent-emoji": "MIT",
    "fluent-emoji-flat": "MIT",
    "fxemoji": "Apache-2.0",
    "emojione": "CC-BY-4.0",
    "twemoji": "CC-BY-4.0",
}


@pytest.fixture(scope="module")
def members() -> dict[str, list[tuple[str, bytes]]]:
    """split -> (member name, content), in the file's order."""

    def read(split: str) -> list[tuple[str, bytes]]:
        with tarfile.open(FOLDER / f"emoji-{split}.tar") as tar:
            return [(member.name, tar.extractfile(member).read()) for member in tar]

    return {split: read(split) for split in STYLES}


@pytest.fixture(scope="module")
def samples(members) -> dict[str, list[dict]]:
    """split -> the JSON member of each sample."""
    return {
        split: [json.loads(content) for name, content in files if name.endswith(".json")]
        for split, files in members.items()
    }


@pytest.mark.parametrize("split", STYLES)
def test_counts_are_those_of_the_readme(samples, split):
    assert Counter(sample["style"] for sample in samples[split]) == STYLES[split]
    assert Counter(sample["kind"] for sample in samples[split]) == KINDS[split]
    assert len({sample["id"] for sample in samples[split]}) == CONCEPTS[split]


def test_the_readme_table_agrees_with_these_counts():
    rows = re.findall(
        r"^\| (train|val|test) \| ([a-z0-9, -]+) \| ([\d,]+) \| ([\d,]+) \|$",
        (FOLDER / "README.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    table = {
        split: (set(styles.split(", ")), int(samples.replace(",", "")), int(concepts.replace(",", "")))
        for split, styles, samples, concepts in rows
    }
    assert table == {split: (set(styles), sum(styles.values()), CONCEPTS[split]) for split, styles in STYLES.items()}


@pytest.mark.parametrize("split", STYLES)
def test_every_sample_has_a_drawing_and_its_texts_side_by_side(members, samples, split):
    stems = [f"{sample['id']}_{sample['style']}" for sample in samples[split]]
    names = [f"{stem}.{suffix}" for stem in stems for suffix in ("webp", "json")]
    assert [name for name, _ in members[split]] == names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("split", STYLES)
def test_captions_tags_and_licences_are_filled_in(samples, split):
    for sample in samples[split]:
        texts = [sample["caption_zh"], sample["caption_en"], *sample["tags_zh"], *sample["tags_en"]]
        assert sample["tags_zh"] and sample["tags_en"] and all(text.strip() for text in texts), sample
        assert sample["license"] == LICENSES[sample["style"]], sample


def test_a_concept_has_the_same_texts_and_kind_in_every_drawing(samples):
    first = {}
    for sample in itertools.chain.from_iterable(samples.values()):
        about = {key: value for key, value in sample.items() if key not in ("style", "license")}
        assert first.setdefault(sample["id"], about) == about


def test_styles_of_val_and_test_are_not_in_train_but_their_concepts_are(samples):
    train_styles, train_ids = ({sample[key] for sample in samples["train"]} for key in ("style", "id"))
    for split in ("val", "test"):
        assert not train_styles & {sample["style"] for sample in samples[split]}
        assert {sample["id"] for sample in samples[split]} <= train_ids


@pytest.mark.parametrize("split", STYLES)
def test_every_drawing_is_64_by_64_rgb_and_not_blank(members, split):
    for name, content in members[split]:
        if name.endswith(".webp"):
            drawing = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
            assert drawing is not None and drawing.shape == (64, 64, 3) and drawing.dtype == np.uint8, name
            assert drawing.std() > 1, name
