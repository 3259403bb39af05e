"""The report on weights and what it allows."""

import numpy as np
import paddle
import pytest

from ernie_vil2.models.weights.files import WeightMismatch, compare_weights, load_weights, save_weights, set_weights


def layer():
    paddle.seed(0)
    return paddle.nn.Sequential(paddle.nn.Linear(3, 2), paddle.nn.BatchNorm1D(2))


def arrays(**changes):
    state = {name: value.numpy() + 1 for name, value in layer().state_dict().items()}
    return {name: array for name, array in {**state, **changes}.items() if array is not None}


ODD = {"0.weight": np.zeros([3, 4], "float32"), "0.bias": None, "extra": np.zeros(1), "1.weight": np.zeros(2, "int64")}


def test_the_report_names_everything():
    report = compare_weights(layer(), arrays(**ODD), ["from there"])
    assert set(report.matched) == {"1.bias", "1._mean", "1._variance"}
    assert report.missing == ("0.bias",) and report.unexpected == ("extra",)
    assert report.differing == {
        "0.weight": "array [3, 4], model [3, 2]",
        "1.weight": "array int64 [2], model float32 [2]",
    }
    lines = str(report).splitlines()
    assert lines[0] == "  from there" and "0.bias" in lines[2] and "extra" in lines[3] and "1.weight" in lines[4]


def test_a_mismatch_is_an_error_and_sets_nothing():
    model = layer()
    before = {name: value.numpy() for name, value in model.state_dict().items()}
    with pytest.raises(WeightMismatch, match=r"1 unexpected \(extra\), 2 of another shape \(0.weight"):
        set_weights(model, arrays(**ODD), allow=["0.bias"])
    assert all(np.array_equal(value.numpy(), before[name]) for name, value in model.state_dict().items())


def test_what_is_allowed_by_name_or_pattern_keeps_its_value():
    model = layer()
    set_weights(model, arrays(**ODD), allow=["0.*", "extra", "1.w?ight"])
    fresh = layer().state_dict()
    for name, value in model.state_dict().items():
        same = name in ("0.weight", "0.bias", "1.weight")
        np.testing.assert_array_equal(value.numpy(), fresh[name].numpy() + (0 if same else 1))


def test_other_precisions_are_converted():
    model = layer()
    set_weights(model, arrays(**{"0.bias": np.array([0.5, 2]), "1.bias": np.array([0.25, 4], "float16")}))
    assert model[0].bias.numpy().tolist() == [0.5, 2] and model[1].bias.numpy().tolist() == [0.25, 4]
    assert model[0].bias.dtype == paddle.float32


@pytest.mark.parametrize("name", ["w.safetensors", "w.pdparams"])
def test_saved_weights_come_back_and_others_are_refused_by_file(tmp_path, name):
    model, other = layer(), layer()
    set_weights(model, arrays())
    save_weights(model, tmp_path / name)
    load_weights(other, tmp_path / name)
    for key, value in other.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), model.state_dict()[key].numpy())
    with pytest.raises(WeightMismatch, match=f"{name}: not the weights of this model"):
        load_weights(paddle.nn.Linear(3, 2), tmp_path / name)


def test_a_report_of_a_strangers_names_stays_short():
    names = {f"{number:07d}" + "x" * 10_000: np.zeros(1) for number in range(3000)}
    report = compare_weights(layer(), arrays(**ODD) | names)
    assert len(report.unexpected) == 3001 and len(str(report)) < 15_000
    with pytest.raises(WeightMismatch, match=r"3001 unexpected \(extra, 0000000xxx") as caught:
        set_weights(layer(), arrays(**ODD) | names)
    assert len(str(caught.value)) < 2000
