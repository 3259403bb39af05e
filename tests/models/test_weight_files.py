"""Weight files: files of Paddle and NumPy are read exactly; anything but plain data is refused, and never run."""

import collections
import io
import pickle
import tarfile

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ernie_vil2.models.weights.files import (
    WeightFileError,
    WeightMismatch,
    compare_weights,
    load_weights,
    read_weights,
    save_weights,
    set_weights,
    write_weights,
)
from tests.support.towers import assert_same_bits
from tests.support.weight_files import describe_tensor, make_safetensors

EXAMPLES = settings(max_examples=30)
ARRAYS = {
    "matrix": np.arange(6, dtype="float32").reshape(2, 3),
    "scalar": np.array(2.5, "float32"),
    "none": np.zeros([0, 4], "float32"),
    "ids": np.array([[1, -2]], "int64"),
    "half": np.array([0.1], "float16"),
    "flags": np.array([True, False]),
}


@pytest.mark.parametrize("suffix", ["pdparams", "safetensors"])
@EXAMPLES
@given(
    arrays=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
        hnp.arrays(
            st.sampled_from(["float32", "float64", "float16", "int64", "int8", "uint8", "bool"]),
            hnp.array_shapes(min_dims=0, min_side=0, max_side=3),
            elements={"allow_nan": False},
        ),
        min_size=1,
        max_size=4,
    )
)
def test_written_arrays_are_read_back(tmp_path_factory, suffix, arrays):
    path = tmp_path_factory.mktemp("weights") / f"w.{suffix}"
    write_weights(path, arrays)
    assert_same_bits(read_weights(path), arrays)


def test_views_and_column_order_are_written_by_value(tmp_path):
    base = np.arange(12, dtype="float32").reshape(3, 4)
    arrays = {"columns": np.asfortranarray(base), "view": base[:, ::2], "turned": base.T}
    for name in ("w.pdparams", "w.safetensors"):
        write_weights(tmp_path / name, arrays)
        assert_same_bits(read_weights(tmp_path / name), arrays)
    with pytest.raises(ValueError, match=r"must end in \.pdparams or \.safetensors"):
        write_weights(tmp_path / "w.bin", arrays)


@pytest.mark.parametrize("protocol", [2, 4])
def test_paddle_and_this_package_read_each_others_files(tmp_path, protocol):
    layer = paddle.nn.Sequential(paddle.nn.Linear(3, 2), paddle.nn.BatchNorm1D(2))
    state = {name: value.numpy() for name, value in layer.state_dict().items()}
    paddle.save(layer.state_dict(), str(tmp_path / "theirs.pdparams"), protocol=protocol)
    assert_same_bits(read_weights(tmp_path / "theirs.pdparams"), state)
    write_weights(tmp_path / "ours.pdparams", state)
    loaded = paddle.load(str(tmp_path / "ours.pdparams"))
    assert all(isinstance(value, paddle.Tensor) for value in loaded.values())
    assert_same_bits({name: value.numpy() for name, value in loaded.items()}, state)


@pytest.mark.parametrize(("protocol", "kind"), [(2, dict), (3, collections.OrderedDict), (4, dict)])
def test_arrays_that_numpy_pickled_are_read(tmp_path, protocol, kind):
    columns = np.asfortranarray(np.arange(6, dtype=">f8").reshape(2, 3))
    content = kind({**ARRAYS, "columns": columns, "step": 3, "lr": np.float64(0.1), "names": ["a", ("b", None, 2.5)]})
    path = tmp_path / "w.pdparams"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    assert_same_bits(read_weights(path), {**ARRAYS, "columns": columns})
    path.write_bytes(pickle.dumps(content, protocol=2).replace(b"numpy.core.", b"numpy._core."))  # of NumPy 2
    assert_same_bits(read_weights(path), {**ARRAYS, "columns": columns})


def test_arrays_that_paddle_cut_into_pieces_are_joined(tmp_path):
    whole = np.arange(12, dtype="float32").reshape(3, 4)
    content = {
        "w@@.0": whole.ravel()[:7],
        "w@@.1": whole.ravel()[7:],
        "b": ARRAYS["half"],
        "UnpackBigParamInfor@@": {"w": {"OriginShape": (3, 4), "slices": ["w@@.0", "w@@.1"]}},
    }
    path = tmp_path / "w.pdparams"
    path.write_bytes(pickle.dumps(content, protocol=2))
    assert_same_bits(read_weights(path), {"w": whole, "b": ARRAYS["half"]})


def make_tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("data.pkl"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", "PyTorch before 1.6"),
        (make_tar(), "tar archive"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<html>404</html>", "web page"),
        (b"cos\nsystem\n(S'touch canary'\ntR.", "neither a .pdparams nor a .safetensors"),
    ],
)
def test_file_of_another_kind_is_named(tmp_path, content, reason):
    path = tmp_path / "w.pdparams"
    path.write_bytes(content)
    with pytest.raises(WeightFileError, match=f"w.pdparams: .*{reason}"):
        read_weights(path)


@pytest.mark.parametrize(("kind", "count"), [("F8_E4M3", 8), ("F8_E8M0", 8), ("F4", 16), ("C64", 1)])
def test_number_type_unknown_to_numpy_is_named(tmp_path, kind, count):
    # ml_dtypes, which may be installed, knows some of them.
    path = tmp_path / "w.safetensors"
    path.write_bytes(
        make_safetensors({"a": describe_tensor(0, 4), "b": describe_tensor(4, 12, [count], kind)}, bytes(12))
    )
    with pytest.raises(WeightFileError, match=f"w.safetensors: b is {kind}"):
        read_weights(path)


def test_bfloat16_becomes_float32_exactly(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(
        make_safetensors({"a": describe_tensor(0, 8, [2, 2], "BF16")}, bytes.fromhex("803f 00c0 0000 4940"))
    )
    (values,) = read_weights(path).values()
    assert values.dtype == np.float32 and values.tolist() == [[1.0, -2.0], [0.0, 3.140625]]


def test_bfloat16_that_paddle_saved_is_read(tmp_path):
    tensors = {"matrix": paddle.to_tensor([[1.0, -2.0], [0.0, 3.140625]]), "scalar": paddle.to_tensor(0.5)}
    paddle.save({name: value.astype("bfloat16") for name, value in tensors.items()}, str(tmp_path / "w.pdparams"))
    assert_same_bits(read_weights(tmp_path / "w.pdparams"), {name: value.numpy() for name, value in tensors.items()})


def make_layer():
    paddle.seed(0)
    return paddle.nn.Sequential(paddle.nn.Linear(3, 2), paddle.nn.BatchNorm1D(2))


def make_arrays(**changes):
    """Return the layer's arrays plus 1, perhaps with changes; None removes an array."""
    arrays = {name: value.numpy() + 1 for name, value in make_layer().state_dict().items()} | changes
    return {name: array for name, array in arrays.items() if array is not None}


# An array of another shape, a missing one, an additional one and one of another type.
MISMATCHES = {
    "0.weight": np.zeros([3, 4], "float32"),
    "0.bias": None,
    "extra": np.zeros(1),
    "1.weight": np.zeros(2, "int64"),
}


def test_report_names_all_differences():
    report = compare_weights(make_layer(), make_arrays(**MISMATCHES), ["from there"])
    assert set(report.matched) == {"1.bias", "1._mean", "1._variance"}
    assert report.missing == ("0.bias",) and report.unexpected == ("extra",)
    assert report.differing == {
        "0.weight": "array [3, 4], model [3, 2]",
        "1.weight": "array int64 [2], model float32 [2]",
    }
    lines = str(report).splitlines()
    assert lines[0] == "  from there" and "0.bias" in lines[2] and "extra" in lines[3] and "1.weight" in lines[4]


def test_mismatch_is_refused_and_sets_nothing():
    model = make_layer()
    initial_arrays = {name: value.numpy() for name, value in model.state_dict().items()}
    with pytest.raises(WeightMismatch, match=r"1 unexpected \(extra\), 2 of another shape \(0.weight"):
        set_weights(model, make_arrays(**MISMATCHES), allow=["0.bias"])
    for name, value in model.state_dict().items():
        assert np.array_equal(value.numpy(), initial_arrays[name])


def test_allowed_mismatches_keep_their_values():
    model = make_layer()
    set_weights(model, make_arrays(**MISMATCHES), allow=["0.*", "extra", "1.w?ight"])
    initial_arrays = {name: value.numpy() for name, value in make_layer().state_dict().items()}
    for name, value in model.state_dict().items():
        if name in ("0.weight", "0.bias", "1.weight"):
            np.testing.assert_array_equal(value.numpy(), initial_arrays[name])
        else:
            np.testing.assert_array_equal(value.numpy(), initial_arrays[name] + 1)


def test_other_precisions_are_converted():
    model = make_layer()
    set_weights(model, make_arrays(**{"0.bias": np.array([0.5, 2]), "1.bias": np.array([0.25, 4], "float16")}))
    assert model[0].bias.numpy().tolist() == [0.5, 2] and model[1].bias.numpy().tolist() == [0.25, 4]
    assert model[0].bias.dtype == paddle.float32


def test_transposed_arrays_of_one_shape_and_two_types_are_set():
    model = paddle.nn.Layer()
    model.register_buffer("numbers", paddle.zeros([3, 4], "float32"))
    model.register_buffer("ids", paddle.zeros([3, 4], "int64"))
    numbers = np.arange(12, dtype="float32").reshape(4, 3) + 0.5
    ids = np.arange(12).reshape(4, 3) + 2**40
    set_weights(model, {"numbers": numbers.T, "ids": ids.T})
    np.testing.assert_array_equal(model.numbers.numpy(), numbers.T)
    np.testing.assert_array_equal(model.ids.numpy(), ids.T)


@pytest.mark.parametrize("mode", ["r", "c", "r+"])
def test_mapped_arrays_of_the_caller_stay_as_they_are(tmp_path, mode):
    np.ones(8192, "float32").tofile(tmp_path / "numbers")
    array = np.memmap(tmp_path / "numbers", "float32", mode)
    if mode != "r":
        array[:] = 2
    expected = array.copy()
    model = paddle.nn.Layer()
    model.register_buffer("numbers", paddle.zeros([8192]))
    set_weights(model, {"numbers": array})
    np.testing.assert_array_equal(model.numbers.numpy(), expected)
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pdparams"])
def test_saved_weights_load_only_into_their_model(tmp_path, name):
    model, loaded_model = make_layer(), make_layer()
    set_weights(model, make_arrays())
    save_weights(model, tmp_path / name)
    load_weights(loaded_model, tmp_path / name)
    for key, value in loaded_model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), model.state_dict()[key].numpy())
    with pytest.raises(WeightMismatch, match=f"{name}: not the weights of this model"):
        load_weights(paddle.nn.Linear(3, 2), tmp_path / name)


def test_report_of_many_long_names_stays_short():
    long_names = {f"{number:07d}" + "x" * 10_000: np.zeros(1) for number in range(3000)}
    report = compare_weights(make_layer(), make_arrays(**MISMATCHES) | long_names)
    assert len(report.unexpected) == 3001 and len(str(report)) < 15_000
    with pytest.raises(WeightMismatch, match=r"3001 unexpected \(extra, 0000000xxx") as error:
        set_weights(make_layer(), make_arrays(**MISMATCHES) | long_names)
    assert len(str(error.value)) < 2000
