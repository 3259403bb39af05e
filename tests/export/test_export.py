"""Exported folders give the embeddings of their checkpoint, with and without Paddle, and name what is wrong."""

import dataclasses
import json
import re
import sys
from importlib.metadata import distributions

import numpy as np
import onnx
import pytest
from PIL import Image

import ernie_vil2
from ernie_vil2 import cli as commands
from ernie_vil2.cli.doctor import check_model
from ernie_vil2.export import export
from ernie_vil2.io.calibration import DIRECTIONS, Calibration, Threshold, write_calibration
from ernie_vil2.io.export_folder import PARITY, BadExport
from ernie_vil2.io.files import INTEGRITY, read_integrity, write_integrity
from ernie_vil2.runtime_onnx import OnnxModel
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.exported_models import GRAPHS, IMAGES, TEXT_TOWER, TEXTS, TOKENS, make_untrained_encoder
from tests.support.image_formats import FILES, encode_image, forbid_opencv, make_smooth_image
from tests.support.other_families import FOLDERS, list_inputs, read_expected
from tests.support.paths import FIXTURES, ROOT
from tests.support.processes import run_process

RELEASED = FIXTURES / "released"
MODELS = {
    "official": lambda: ernie_vil2.load_model(RELEASED / "official_tiny"),
    "paddlenlp": lambda: ernie_vil2.load_model(RELEASED / "paddlenlp_tiny"),
    "sigmoid, BERT, mean": lambda: make_untrained_encoder(
        "Model.image={name: RepVGG, image_size: 32, width: 16, depth: 2}", TEXT_TOWER % ("bert", "mean"),
        "Model.embed_dim=24", "Loss.kind=sigmoid",
    ),
    "PaddleClas": lambda: make_untrained_encoder(
        "Model.image={name: MobileNetV3_small_x0_35, image_size: 64}", TEXT_TOWER % ("ernie", "cls")
    ),
}  # fmt: skip


SLOW_MODELS = ("official", "paddlenlp", "PaddleClas")  # the fixture `pair` exports the first two


@pytest.mark.parametrize("backend", GRAPHS)
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind in SLOW_MODELS else ()) for kind in MODELS]
)
def test_export_gives_the_embeddings_of_its_checkpoint(kind, backend, tmp_path):
    model = MODELS[kind]()
    report = export(model, tmp_path / "exported", backend, inputs=(IMAGES, TEXTS), source=kind)
    assert report == json.loads((tmp_path / "exported" / "parity.json").read_text())
    assert report["top_10"] == {"same_images": 1, "same_order": 1, "mean_overlap": 1}
    assert report["images"]["num_inputs"] == report["texts"]["num_inputs"] == 4
    exported = ernie_vil2.load_model(tmp_path / "exported", backend=backend, batch_size=3)  # batches of 3 and of 1
    for side, inputs in (("images", IMAGES), ("texts", TEXTS)):
        expected = getattr(model, f"encode_{side}")(inputs)
        # Kernels of the backends sum in another order; embeddings have unit length.
        np.testing.assert_allclose(getattr(exported, f"encode_{side}")(inputs), expected, atol=2e-6)
        assert report[side]["max_difference"] < 2e-6 and report[side]["min_cosine"] > 0.99999
        assert np.ptp(expected, axis=0).max() > 1e-3  # equal embeddings of all inputs would hide a fault
    ranking, expected_ranking = exported.rank(IMAGES, TEXTS), model.rank(IMAGES, TEXTS)
    np.testing.assert_allclose(ranking.scores, expected_ranking.scores, atol=1e-4)
    np.testing.assert_allclose(ranking.probabilities, expected_ranking.probabilities, atol=1e-5)
    for attribute in ("fingerprint", "embed_dim", "logit_scale"):
        assert getattr(exported, attribute) == getattr(model, attribute)
    assert exported.backend.name == backend


def test_exported_folder_holds_all_files(exports, model):
    for backend, graphs in GRAPHS.items():
        names = {path.name for path in (exports / backend).iterdir()}
        assert names == graphs | {"export.json", "config.yaml", "vocab.txt", "parity.json", INTEGRITY}
        assert ernie_vil2.load_model(exports / backend).backend.name == backend
        about = json.loads((exports / backend / "export.json").read_text())
        assert about["scalars"] == {"logit_scale": pytest.approx(1 / 0.07)}
        assert about["preprocessing"]["size"] == 32 and about["tokenizer"]["rules"] == "official"
    with pytest.raises(BadExport, match="onnx, not for paddle_inference"):
        ernie_vil2.load_model(exports / "onnx", backend="paddle_inference")


def test_backends_rank_alike_and_are_named_by_commands(exports, shapes, tmp_path, capsys):
    ranks = []
    for backend in GRAPHS:
        options = ["--checkpoint", str(exports / backend), "--data", str(shapes["val"]), "--language", "en"]
        options += ["--device", "cpu", "--backend", backend, "--output", str(tmp_path / backend)]
        assert commands.run("eval", options) == 0
        assert f"backend: {backend}, float32 on cpu" in capsys.readouterr().out
        csv = next((tmp_path / backend).glob("*.csv")).read_text()
        ranks.append(re.sub(r"-?\d\.\d+(e-\d+)?", "cosine", csv))  # cosines differ by rounding
    assert ranks[0] == ranks[1] and len(ranks[0].splitlines()) > 16


def read_axes(values):
    """Return the names and axes of a graph's inputs or outputs; an axis is a name or a fixed size."""
    axes = {}
    for value in values:
        axes[value.name] = [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
    return axes


def test_doctor_refers_to_the_comparison_with_the_model(exports):
    model, integrity, golden = check_model(str(exports / "onnx"))
    assert (model.status, integrity.status, golden.status) == ("ok", "ok", "none")
    assert PARITY in golden.fact and "convert" not in golden.fact


def test_inputs_outputs_and_axes_have_names(exports):
    for tower, inputs, outputs in (
        ("image", {"pixels": ["batch", 32, 32, 3]}, {"image_embeddings": ["batch", 32]}),
        ("text", {"token_ids": ["batch", "length"]}, {"text_embeddings": ["batch", 32]}),
    ):
        graph = onnx.load(str(exports / "onnx" / f"{tower}.onnx")).graph
        assert read_axes(graph.input) == inputs
        assert read_axes(graph.output) == outputs


def list_distributions():
    return {(distribution.name, distribution.version) for distribution in distributions()}


@pytest.mark.slow
def test_export_installs_nothing(model, tmp_path, monkeypatch):
    # paddle2onnx lets pip install an optimiser unless it is told not to. Here pip is a stub that records its arguments.
    (tmp_path / "stub").mkdir()
    record = tmp_path / "pip_arguments"
    (tmp_path / "stub" / "pip.py").write_text(f"import sys; open({str(record)!r}, 'a').write(str(sys.argv))")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stub"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9")
    run_process([sys.executable, "-m", "pip", "install", "anything"], check=True)
    assert "anything" in record.read_text()  # the stub runs in place of pip
    record.unlink()
    initial_distributions = list_distributions()
    for precision in ("float32", "int8"):
        export(model, tmp_path / precision, "onnx", precision)
    assert not record.exists() and list_distributions() == initial_distributions


def test_calibration_is_exported_with_its_model(tmp_path):
    calibrated = make_untrained_encoder(
        TEXT_TOWER % ("ernie", "cls"), "Model.image={name: RepVGG, image_size: 32, width: 8, depth: 1}"
    )
    thresholds = {direction: Threshold(0.25, 90.0, 80.0, 70.0) for direction in DIRECTIONS}
    calibrated.calibration = Calibration(calibrated.fingerprint, "shapes", 33.0, thresholds)
    folder = tmp_path / "exported"
    export(calibrated, folder, "onnx", "int8")  # in int8 the model has another fingerprint
    exported = ernie_vil2.load_model(folder)
    assert exported.calibration == dataclasses.replace(calibrated.calibration, fingerprint=exported.fingerprint)
    probabilities, expected = exported.rank(IMAGES, TEXTS).probabilities, calibrated.rank(IMAGES, TEXTS).probabilities
    np.testing.assert_allclose(probabilities, expected, atol=0.05)  # int8 moves cosines, which 33 multiplies
    write_calibration(dataclasses.replace(exported.calibration, logit_scale=44.0), folder)
    assert ernie_vil2.load_model(folder).calibration.logit_scale == 44


def test_fastest_backend_is_used_where_it_ranks_alike(tmp_path, shapes, capsys, monkeypatch):
    checkpoint = write_untrained_checkpoint(tmp_path, TOKENS)
    model = ernie_vil2.load_model(checkpoint, device="cpu")

    def find_backend(**options):
        return ernie_vil2.load_model(checkpoint, device="cpu", backend="fastest", **options).backend.name

    assert find_backend() == "paddle"
    data = ["--data", str(shapes["val"]), "--samples", "4"]
    assert commands.run("export", [str(checkpoint), "--to", "paddle-inference", *data]) == 0
    assert (checkpoint / "paddle-inference-float32").is_dir() and find_backend() == "paddle_inference"
    export(model, checkpoint / "mine", "onnx", inputs=(IMAGES, TEXTS))
    export(model, checkpoint / "int8", "onnx", "int8", inputs=(IMAGES, TEXTS))
    assert find_backend() == "onnx"
    # The exports have another length of texts.
    assert find_backend(max_length=8) == find_backend(precision="float32", max_length=8) == "paddle"
    assert ernie_vil2.load_model(checkpoint, device="cpu").backend.name == "paddle"

    options = ["--checkpoint", str(checkpoint), "--device", "cpu", *data[:2]]
    evaluation = ["eval", "--language", "en", "--output", str(tmp_path / "results")]
    for command, *arguments in (evaluation, ["search", "build", "--index", str(tmp_path / "index")]):
        assert commands.run(command, [*arguments, *options]) == 0
        assert "backend: onnx, float32 on cpu" in capsys.readouterr().out

    # An export that ranks otherwise is not used, neither with wrong nor with right sums of its files.
    report = json.loads((checkpoint / "mine" / "parity.json").read_text())
    report["top_10"]["same_order"] = 0.99
    (checkpoint / "mine" / "parity.json").write_text(json.dumps(report))
    assert find_backend() == "paddle_inference"
    write_integrity(checkpoint / "mine", read_integrity(checkpoint / "mine").files)
    assert find_backend() == "paddle_inference"
    (checkpoint / "paddle-inference-float32" / "image.json").write_text("{}")
    assert find_backend() == "paddle"


@pytest.mark.parametrize(
    ("backend", "precision", "cosine"), [("onnx", "int8", 0.99), ("paddle_inference", "bfloat16", 0.999)]
)
def test_lower_precision_is_near_and_has_its_fingerprint(model, tmp_path, backend, precision, cosine):
    model.backend.model.train()
    fingerprint = model.fingerprint
    report = export(model, tmp_path / "exported", backend, precision, (IMAGES, TEXTS))
    # The export leaves the model as it was.
    assert model.backend.model.training and model.backend.model.image.training and model.fingerprint == fingerprint
    model.backend.model.eval()
    assert report["images"]["min_cosine"] > cosine and report["texts"]["min_cosine"] > cosine
    exported = ernie_vil2.load_model(tmp_path / "exported")
    assert exported.precision == precision and exported.fingerprint != model.fingerprint
    if backend == "onnx":
        graph = onnx.load(str(tmp_path / "exported" / "text.onnx")).graph
        weights = {weight.name: weight for weight in graph.initializer}
        scales = []
        for name, weight in weights.items():
            is_quantized = weight.data_type == onnx.TensorProto.INT8 and weight.dims
            if is_quantized and name.endswith("_quantized"):
                scales.append(weights[name.replace("_quantized", "_scale")])
        assert len(scales) > 5
        assert all(scale.dims and scale.dims[0] >= 32 for scale in scales)  # a scale for each output of a product
        assert report["texts"]["max_difference"] > 1e-5


@pytest.mark.parametrize("backend", ["onnx", "paddle_inference"])
def test_export_encodes_files_and_strings_as_the_authors_do(backend, tmp_path):
    # SigLIP's GELU is the approximation by tanh. paddle2onnx would export the exact one, which is 1e-4 away.
    files, texts = list_inputs("hf_siglip")
    model = ernie_vil2.load_model(FOLDERS["hf_siglip"], device="cpu")
    report = export(model, tmp_path / "exported", backend, inputs=(files, texts))
    assert report["images"]["max_difference"] < 5e-6 and report["texts"]["max_difference"] < 5e-6
    exported = ernie_vil2.load_model(tmp_path / "exported", device="cpu")
    assert exported.fingerprint == model.fingerprint
    expected = read_expected("hf_siglip")
    encoders, loaders = [exported], [ernie_vil2.load_model]
    if backend == "onnx":
        encoders.append(OnnxModel(tmp_path / "exported"))
        loaders.append(OnnxModel)
    for encoder in encoders:
        np.testing.assert_allclose(encoder.encode_texts(texts), expected["text_embeddings"], atol=5e-6)
        np.testing.assert_allclose(encoder.encode_images(files), expected["image_embeddings"], atol=5e-6)

    # A tokenizer with fewer entries than the model has words is refused.
    tokenizer = tmp_path / "exported" / "tokenizer.json"
    content = json.loads(tokenizer.read_text())
    del content["model"]["vocab"][100:120]
    tokenizer.write_text(json.dumps(content))
    write_integrity(tmp_path / "exported", read_integrity(tmp_path / "exported").files)
    for load in loaders:
        with pytest.raises(BadExport, match=r"tokenizer.json has 400 entries, but 420"):
            load(tmp_path / "exported")


@pytest.fixture(scope="module", params=["own", "official", "paddlenlp"])
def pair(request, model, exports, tmp_path_factory):
    """Return a model, and its export in the runtime that computes without Paddle."""
    if request.param == "own":
        return model, OnnxModel(exports / "onnx", batch_size=3)
    release = ernie_vil2.load_model(RELEASED / f"{request.param}_tiny")
    folder = tmp_path_factory.mktemp("onnx") / "exported"
    export(release, folder, "onnx")
    return release, OnnxModel(folder, batch_size=3)


def make_image_files():
    """Yield image files of every kind."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    yield encode_image(make_smooth_image(61, 97), "JPEG", quality=90)
    yield encode_image(make_smooth_image(97, 61), "JPEG", quality=40, subsampling=2)
    yield encode_image(make_smooth_image(64, 50), "JPEG", exif=exif)
    yield encode_image(make_smooth_image(40, 40, 1)[..., 0], "JPEG")
    yield encode_image(make_smooth_image(64, 50), "WEBP", exif=exif)
    yield encode_image(Image.fromarray(make_smooth_image(48, 64)).quantize(16))
    yield from FILES.values()


def test_runtime_gives_pixels_and_embeddings_of_the_model(pair, tmp_path, monkeypatch):
    forbid_opencv(monkeypatch)
    model, runtime = pair
    path = tmp_path / "a.jpg"
    path.write_bytes(next(make_image_files()))
    images = [*make_image_files(), path, str(path), make_smooth_image(50, 33)]
    for image in images:
        np.testing.assert_array_equal(runtime.preprocess(image), model.preprocess(image))
    np.testing.assert_allclose(runtime.encode_images(images), model.encode_images(images), atol=2e-6)
    np.testing.assert_allclose(runtime.encode_texts(TEXTS), model.encode_texts(TEXTS), atol=2e-6)
    assert runtime.encode_images([]).shape == runtime.encode_texts([]).shape == (0, model.embed_dim)
    assert (runtime.embed_dim, runtime.logit_scale, runtime.logit_bias) == (model.embed_dim, model.logit_scale, 0)


@pytest.mark.parametrize(("image", "message"), [
    (b"no image", "broken image"),
    (encode_image(make_smooth_image(60, 60), "JPEG")[:-300], "truncated image"),
    (encode_image(Image.new("1", (9_500, 9_500))), "too many pixels"),
    (np.zeros([4, 4]), "array"),
    (np.zeros([4, 1200, 3], np.uint8), "too narrow an image"),
])  # fmt: skip
def test_unreadable_image_is_refused_by_the_runtime(pair, image, message):
    with pytest.raises(ValueError, match=message):
        pair[1].encode_images([image])


@pytest.mark.parametrize("load", [OnnxModel, ernie_vil2.load_model])
def test_single_inputs_and_other_types_are_refused(exports, load):
    runtime = load(exports / "onnx")
    with pytest.raises(TypeError, match=r"encode_texts\(\[text\]\)"):
        runtime.encode_texts(TEXTS[0])
    pixels = np.zeros([40, 40, 3], np.uint8)
    for image in ("apple.jpg", IMAGES[0], pixels, Image.fromarray(pixels)):
        with pytest.raises(TypeError, match=r"encode_images\(\[image\]\)"):
            runtime.encode_images(image)
    for value, kind in ((None, "NoneType"), (float("nan"), "float"), (b"a", "bytes")):
        with pytest.raises(TypeError, match=f"text 4 is a {kind}"):
            runtime.encode_texts([*TEXTS, value])
    for image in (None, 1.5, bytearray(IMAGES[0])):
        with pytest.raises(TypeError, match=f"image.* is a {type(image).__name__}"):
            runtime.encode_images([*IMAGES, image])


@pytest.mark.parametrize("load", [OnnxModel, ernie_vil2.load_model])
def test_images_that_would_fill_the_memory_are_refused(exports, load):
    runtime = load(exports / "onnx")
    with pytest.raises(ValueError, match="/dev/zero.*not an ordinary file"):
        runtime.encode_images(["/dev/zero"])
    for image in (np.zeros([1200, 4, 3], np.uint8), Image.new("RGB", (4, 1200))):
        with pytest.raises(ValueError, match="too narrow an image"):
            runtime.encode_images([image])


@pytest.mark.parametrize("size", [0, -1])
def test_batch_size_that_is_not_positive_is_refused(exports, model, size):
    for runtime in (OnnxModel(exports / "onnx", size), ernie_vil2.load_model(exports / "onnx", batch_size=size)):
        for encode, inputs in ((runtime.encode_images, IMAGES), (runtime.encode_texts, TEXTS)):
            with pytest.raises(ValueError, match="batch_size"):
                encode(inputs)
    pixels = [model.preprocess(image) for image in IMAGES]
    for encode, inputs in ((model.encode_images, IMAGES), (model.encode_texts, TEXTS), (model.encode_pixels, pixels)):
        with pytest.raises(ValueError, match="batch_size"):
            encode(inputs, size)


SCRIPT = """
import sys, numpy as np
from ernie_vil2.runtime_onnx import OnnxModel

model = OnnxModel(sys.argv[1], batch_size=3)
np.savez(sys.argv[2], images=model.encode_images(sys.argv[3:]), texts=model.encode_texts(open(0).read().splitlines()))
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"paddle", "paddlenlp", "paddleclas", "pydantic", "safetensors", "yaml", "onnx", "tqdm"}))
"""


def test_runtime_imports_neither_paddle_nor_its_libraries(model, exports, tmp_path):
    files = []
    for number, image in enumerate(IMAGES):
        files.append(tmp_path / f"{number}.png")
        files[-1].write_bytes(image)
    command = [sys.executable, "-c", SCRIPT, exports / "onnx", tmp_path / "embeddings.npz", *files]
    environment = {"PYTHONPATH": str(ROOT)}
    child = run_process(command, text=True, input="\n".join(TEXTS), capture_output=True, env=environment)
    assert child.returncode == 0, child.stderr
    assert child.stdout.strip() == "[]"
    embeddings = np.load(tmp_path / "embeddings.npz")
    np.testing.assert_allclose(embeddings["images"], model.encode_images(IMAGES), atol=2e-6)
    np.testing.assert_allclose(embeddings["texts"], model.encode_texts(TEXTS), atol=2e-6)
