"""A study of two tiny models on coloured shapes: configurations, definition and file."""

import yaml

from experiments.ablation.definition import read_study

BASE = """
Model:
  image: {name: ViT, image_size: 32, patch_size: 8, width: 32, depth: 1, heads: 2}
  text: {name: ernie, width: 32, depth: 1, heads: 2, max_positions: 24}
Views: {languages: {zh: 1.0, en: 1.0}, tag_probability: 0.5}
Loss: {duplicates: positives}
Data: {train: [TRAIN], val: [VAL], text_id: id, max_length: 24, workers: 0}
Schedule: {warmup_steps: 1}
Training: {steps: 4, global_batch: 16, log_every: 1, checkpoint_every: 2}
Evaluation: {every: 2}
"""


def write_definition(folder, shapes):
    """Write the configurations of a study into a folder, and return the definition for its file."""
    (folder / "base.yaml").write_text(BASE.replace("TRAIN", str(shapes["train"])).replace("VAL", str(shapes["val"])))
    (folder / "A.yaml").write_text("Views: {tag_probability: 0}\nLoss: {weights: {image_image: 0, text_text: 0}}")
    (folder / "E.yaml").write_text("Training: {log_every: 2}")
    return {
        "title": "Shapes",
        "output": str(folder / "runs"),
        "base": "base.yaml",
        "baseline": "A",
        "models": {
            "A": {"config": "A.yaml", "description": "captions alone", "published": {"mR": 86.8}},
            "E": {"config": "E.yaml", "description": "all pairs", "published": {"mR": 89.1}},
        },
        "seeds": [0, 1],
        "groups": [
            {"name": "main", "models": ["A", "E"]},
            {"name": "large-batch", "description": "batch 32", "models": ["E"], "seeds": [1],
             "overrides": {"Training": {"global_batch": 32}}},
        ],
        "tests": {"val": {"data": [str(shapes["val"])], "kind": "colour"}},
        "further_captions": {"chinese": "zh"},
        "drawings": str(shapes["train"]),
        "small": {"groups": ["main"], "seeds": [0], "overrides": {"Training": {"steps": 2}}},
    }  # fmt: skip


def write_study(folder, definition, **options):
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(definition))
    return read_study(path, **options)
