"""An override of a whole tower, head or loss keeps of the file what it does not say, and what still holds."""

import pytest

from ernie_vil2.config.load import merged

VIT = {"name": "ViT", "image_size": 32, "patch_size": 8, "width": 64, "depth": 2, "heads": 2, "mean": [0, 0, 0]}
TOWER = "my_towers:X"


@pytest.mark.parametrize(
    ("before", "value", "result", "remark"),
    [
        (VIT, {"width": 128}, VIT | {"width": 128}, "keeps image_size: 32, patch_size: 8, depth: 2, heads: 2, mean"),
        (VIT, {"name": "ViT", "drop_path": 0.1}, VIT | {"drop_path": 0.1}, "Model.image (ViT) keeps"),
        (
            VIT | {"weights": "x"},
            {"name": TOWER, "width": 64},
            {"name": TOWER, "width": 64, "image_size": 32, "mean": [0, 0, 0]},
            "(ViT becomes my_towers:X) keeps image_size: 32, mean: [0, 0, 0] and drops patch_size: 8, depth: 2, "
            "heads: 2, weights: x",
        ),
        # Weights of other sizes do not fit.
        (VIT | {"weights": "x"}, {"width": 128}, VIT | {"width": 128}, "and drops weights: x"),
        (VIT | {"weights": "x"}, {"width": 64, "drop_path": 0.1}, VIT | {"weights": "x", "drop_path": 0.1}, "keeps"),
        # The name that the file leaves open is the default.
        ({"image_size": 32}, {"name": "ViT-B/16"}, {"image_size": 32, "name": "ViT-B/16"}, "(ViT-B/16) keeps"),
        (None, {"name": TOWER}, {"name": TOWER}, None),
        (VIT, dict(VIT), VIT, None),
        (VIT, "paddle", "paddle", None),
    ],
)
def test_a_tower(before, value, result, remark):
    found, printed = merged("Model.image", before, value)
    assert found == result
    assert (printed is None) == (remark is None) and (remark or "") in (printed or "")


def test_a_loss_of_another_kind_starts_from_its_own_temperature():
    before = {"kind": "info_nce", "temperature": 0.05, "duplicates": "positives", "weights": {"image_text": 1}}
    found, printed = merged("Loss", before, {"kind": "sigmoid"})
    assert found == {"kind": "sigmoid", "duplicates": "positives", "weights": {"image_text": 1}}
    assert printed.endswith("and drops temperature: 0.05")
