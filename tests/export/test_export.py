"""Exported folders give what the checkpoint gives, with and without Paddle, and say what is wrong with them."""

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
from ernie_vil2.export import export
from ernie_vil2.io.calibration import DIRECTIONS, Calibration, Threshold, write_calibration
from ernie_vil2.io.export_folder import BadExport
from ernie_vil2.io.files import INTEGRITY, read_integrity, write_integrity
from ernie_vil2.runtime_onnx import OnnxModel
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.exported_models import GRAPHS, IMAGES, TEXT_TOWER, TEXTS, TOKENS, make_untrained_encoder
from tests.support.image_formats import FILES, encode_image, forbid_opencv, make_smooth_image
from tests.support.other_families import FOLDERS
from tests.support.other_families import read_expected as expected_of_family
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


SLOW_MODELS = ("official", "paddlenlp", "PaddleClas")  # of which `pair` exports the first two


@pytest.mark.parametrize("backend", GRAPHS)
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind in SLOW_MODELS else ()) for kind in MODELS]
)
def test_every_model_gives_what_its_checkpoint_gives(kind, backend, tmp_path):
    model = MODELS[kind]()
    report = export(model, tmp_path / "made", backend, inputs=(IMAGES, TEXTS), source=kind)
    assert report == json.loads((tmp_path / "made" / "parity.json").read_text())
    assert report["top_10"] == {"same_images": 1, "same_order": 1, "mean_overlap": 1}
    assert report["images"]["num_inputs"] == report["texts"]["num_inputs"] == 4
    made = ernie_vil2.load_model(tmp_path / "made", backend=backend, batch_size=3)  # a batch of 3 and one of 1
    for side, inputs in (("images", IMAGES), ("texts", TEXTS)):
        ours, theirs = (getattr(one, f"encode_{side}")(inputs) for one in (model, made))
        np.testing.assert_allclose(theirs, ours, atol=2e-6)
        assert report[side]["max_difference"] < 2e-6 and report[side]["min_cosine"] > 0.99999
        assert np.ptp(ours, axis=0).max() > 1e-3  # the comparison says something
    np.testing.assert_allclose(made.rank(IMAGES, TEXTS).scores, model.rank(IMAGES, TEXTS).scores, atol=1e-4)
    np.testing.assert_allclose(
        made.rank(IMAGES, TEXTS).probabilities, model.rank(IMAGES, TEXTS).probabilities, atol=1e-5
    )
    for attribute in ("fingerprint", "embed_dim", "logit_scale"):
        assert getattr(made, attribute) == getattr(model, attribute)
    assert made.backend.name == backend


def test_a_folder_holds_all_that_is_needed(exports, model):
    for backend, graphs in GRAPHS.items():
        names = {path.name for path in (exports / backend).iterdir()}
        assert names == graphs | {"export.json", "config.yaml", "vocab.txt", "parity.json", INTEGRITY}
        assert ernie_vil2.load_model(exports / backend).backend.name == backend
        about = json.loads((exports / backend / "export.json").read_text())
        assert about["scalars"] == {"logit_scale": pytest.approx(1 / 0.07)}
        assert about["preprocessing"]["size"] == 32 and about["tokenizer"]["rules"] == "official"
    with pytest.raises(BadExport, match="onnx, not for paddle_inference"):
        ernie_vil2.load_model(exports / "onnx", backend="paddle_inference")


def test_commands_say_which_backend_computes_and_rank_alike(exports, shapes, tmp_path, capsys):
    ranks = []
    for backend in GRAPHS:
        given = ["--checkpoint", str(exports / backend), "--data", str(shapes["val"]), "--language", "en"]
        given += ["--device", "cpu"]
        assert commands.run("eval", [*given, "--backend", backend, "--output", str(tmp_path / backend)]) == 0
        shown = capsys.readouterr().out
        assert f"backend: {backend}, float32 on cpu" in shown
        csv = next((tmp_path / backend).glob("*.csv")).read_text()
        ranks.append(re.sub(r"-?\d\.\d+(e-\d+)?", "cosine", csv))
    assert ranks[0] == ranks[1] and len(ranks[0].splitlines()) > 16


def test_inputs_outputs_and_axes_have_names(exports):
    for tower, inputs, outputs in (
        ("image", {"pixels": ["batch", 32, 32, 3]}, {"image_embeddings": ["batch", 32]}),
        ("text", {"token_ids": ["batch", "length"]}, {"text_embeddings": ["batch", 32]}),
    ):
        graph = onnx.load(str(exports / "onnx" / f"{tower}.onnx")).graph
        for values, expected in ((graph.input, inputs), (graph.output, outputs)):
            found = {one.name: [axis.dim_param or axis.dim_value for axis in one.type.tensor_type.shape.dim]
                     for one in values}  # fmt: skip
            assert found == expected


@pytest.mark.slow
def test_nothing_is_installed(model, tmp_path, monkeypatch):
    """paddle2onnx has pip install an optimiser unless asked not to; pip is a stub here that notes what it is asked."""
    (tmp_path / "stub").mkdir()
    asked = tmp_path / "asked"
    (tmp_path / "stub" / "pip.py").write_text(f"import sys; open({str(asked)!r}, 'a').write(str(sys.argv))")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stub"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9")
    run_process([sys.executable, "-m", "pip", "install", "anything"], check=True)
    assert "anything" in asked.read_text()  # the stub is what runs
    asked.unlink()
    before = {(one.name, one.version) for one in distributions()}
    for precision in ("float32", "int8"):
        export(model, tmp_path / precision, "onnx", precision)
    assert not asked.exists() and {(one.name, one.version) for one in distributions()} == before


def test_a_calibration_goes_with_its_model(tmp_path):
    calibrated = make_untrained_encoder(
        TEXT_TOWER % ("ernie", "cls"), "Model.image={name: RepVGG, image_size: 32, width: 8, depth: 1}"
    )
    thresholds = {direction: Threshold(0.25, 90.0, 80.0, 70.0) for direction in DIRECTIONS}
    calibrated.calibration = Calibration(calibrated.fingerprint, "shapes", 33.0, thresholds)
    folder = tmp_path / "exported"
    export(calibrated, folder, "onnx", "int8")  # in which the model has another fingerprint
    made = ernie_vil2.load_model(folder)
    assert made.calibration == dataclasses.replace(calibrated.calibration, fingerprint=made.fingerprint)
    probabilities, expected = (one.rank(IMAGES, TEXTS).probabilities for one in (made, calibrated))
    np.testing.assert_allclose(probabilities, expected, atol=0.05)
    write_calibration(dataclasses.replace(made.calibration, logit_scale=44.0), folder)
    assert ernie_vil2.load_model(folder).calibration.logit_scale == 44


def test_the_fastest_backend_computes_where_it_ranks_alike(tmp_path, shapes, capsys, monkeypatch):
    checkpoint = write_untrained_checkpoint(tmp_path, TOKENS)
    model = ernie_vil2.load_model(checkpoint, device="cpu")

    def backend(**options):
        return ernie_vil2.load_model(checkpoint, device="cpu", backend="fastest", **options).backend.name

    assert backend() == "paddle"
    data = ["--data", str(shapes["val"]), "--samples", "4"]
    assert commands.run("export", [str(checkpoint), "--to", "paddle-inference", *data]) == 0
    assert (checkpoint / "paddle-inference-float32").is_dir() and backend() == "paddle_inference"
    export(model, checkpoint / "mine", "onnx", inputs=(IMAGES, TEXTS))
    export(model, checkpoint / "int8", "onnx", "int8", inputs=(IMAGES, TEXTS))
    assert backend() == "onnx"
    assert backend(max_length=8) == backend(precision="float32", max_length=8) == "paddle"  # not the export's
    assert ernie_vil2.load_model(checkpoint, device="cpu").backend.name == "paddle"

    given = ["--checkpoint", str(checkpoint), "--device", "cpu", *data[:2]]
    evaluation = ["eval", "--language", "en", "--output", str(tmp_path / "results")]
    for command, *options in (evaluation, ["search", "build", "--index", str(tmp_path / "index")]):
        assert commands.run(command, [*options, *given]) == 0
        assert "backend: onnx, float32 on cpu" in capsys.readouterr().out

    report = json.loads((checkpoint / "mine" / "parity.json").read_text())
    report["top_10"]["same_order"] = 0.99
    (checkpoint / "mine" / "parity.json").write_text(json.dumps(report))
    assert backend() == "paddle_inference"  # damaged, and not alike
    write_integrity(checkpoint / "mine", read_integrity(checkpoint / "mine").files)
    assert backend() == "paddle_inference"
    (checkpoint / "paddle-inference-float32" / "image.json").write_text("{}")
    assert backend() == "paddle"


@pytest.mark.parametrize(
    ("backend", "precision", "cosine"), [("onnx", "int8", 0.99), ("paddle_inference", "bfloat16", 0.999)]
)
def test_a_lower_precision_is_near_and_has_its_fingerprint(model, tmp_path, backend, precision, cosine):
    model.backend.model.train()
    before = model.fingerprint
    report = export(model, tmp_path / "made", backend, precision, (IMAGES, TEXTS))
    # What is exported stays as it was.
    assert model.backend.model.training and model.backend.model.image.training and model.fingerprint == before
    model.backend.model.eval()
    assert report["images"]["min_cosine"] > cosine and report["texts"]["min_cosine"] > cosine
    made = ernie_vil2.load_model(tmp_path / "made")
    assert made.precision == precision and made.fingerprint != model.fingerprint
    if backend == "onnx":
        weights = {one.name: one for one in onnx.load(str(tmp_path / "made" / "text.onnx")).graph.initializer}
        quantised = {name: one for name, one in weights.items() if one.data_type == onnx.TensorProto.INT8 and one.dims}
        scales = [weights[name.replace("_quantized", "_scale")] for name in quantised if name.endswith("_quantized")]
        assert len(scales) > 5  # each output of a product has its own
        assert all(one.dims and one.dims[0] >= 32 for one in scales)
        assert report["texts"]["max_difference"] > 1e-5


@pytest.mark.parametrize("backend", ["onnx", "paddle_inference"])
def test_an_export_encodes_files_and_strings_as_the_authors_do(backend, tmp_path):
    """SigLIP, whose GELU by tanh paddle2onnx would make the exact one: 1e-4 away."""
    folder = FOLDERS["hf_siglip"]
    texts = json.loads((folder / "inputs" / "texts.json").read_text("utf-8"))
    files = [path for path in sorted((folder / "inputs").iterdir()) if path.suffix != ".json"]
    model = ernie_vil2.load_model(folder, device="cpu")
    report = export(model, tmp_path / "made", backend, inputs=(files, texts))
    assert report["images"]["max_difference"] < 5e-6 and report["texts"]["max_difference"] < 5e-6
    loaded = ernie_vil2.load_model(tmp_path / "made", device="cpu")
    assert loaded.fingerprint == model.fingerprint
    expected = expected_of_family("hf_siglip")
    for one in [loaded, *([OnnxModel(tmp_path / "made")] if backend == "onnx" else [])]:
        np.testing.assert_allclose(one.encode_texts(texts), expected["text_embeddings"], atol=5e-6)
        np.testing.assert_allclose(one.encode_images(files), expected["image_embeddings"], atol=5e-6)

    tokenizer = tmp_path / "made" / "tokenizer.json"
    content = json.loads(tokenizer.read_text())
    del content["model"]["vocab"][100:120]
    tokenizer.write_text(json.dumps(content))
    write_integrity(tmp_path / "made", read_integrity(tmp_path / "made").files)
    for load in (ernie_vil2.load_model, *([OnnxModel] if backend == "onnx" else [])):
        with pytest.raises(BadExport, match=r"tokenizer.json has 400 entries, but 420"):
            load(tmp_path / "made")


@pytest.fixture(scope="module", params=["own", "official", "paddlenlp"])
def pair(request, model, exports, tmp_path_factory):
    """A model, and its export in the runtime, which computes without Paddle."""
    if request.param == "own":
        return model, OnnxModel(exports / "onnx", batch_size=3)
    release = ernie_vil2.load_model(RELEASED / f"{request.param}_tiny")
    folder = tmp_path_factory.mktemp("onnx") / "made"
    export(release, folder, "onnx")
    return release, OnnxModel(folder, batch_size=3)


def kinds():
    """Files of every kind."""
    exif = Image.Exif()
    exif[0x0112] = 6
    yield encode_image(make_smooth_image(61, 97), "JPEG", quality=90)
    yield encode_image(make_smooth_image(97, 61), "JPEG", quality=40, subsampling=2)
    yield encode_image(make_smooth_image(64, 50), "JPEG", exif=exif)
    yield encode_image(make_smooth_image(40, 40, 1)[..., 0], "JPEG")
    yield encode_image(make_smooth_image(64, 50), "WEBP", exif=exif)
    yield encode_image(Image.fromarray(make_smooth_image(48, 64)).quantize(16))
    yield from FILES.values()


def test_pixels_ids_and_embeddings_are_those_of_the_model(pair, tmp_path, monkeypatch):
    forbid_opencv(monkeypatch)
    model, runtime = pair
    (tmp_path / "a.jpg").write_bytes(next(kinds()))
    images = [*kinds(), tmp_path / "a.jpg", str(tmp_path / "a.jpg"), make_smooth_image(50, 33)]
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
def test_what_is_not_an_image_is_one_line(pair, image, message):
    with pytest.raises(ValueError, match=message):
        pair[1].encode_images([image])


SCRIPT = """
import sys, numpy as np
from ernie_vil2.runtime_onnx import OnnxModel

model = OnnxModel(sys.argv[1], batch_size=3)
np.savez(sys.argv[2], images=model.encode_images(sys.argv[3:]), texts=model.encode_texts(open(0).read().splitlines()))
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"paddle", "paddlenlp", "paddleclas", "pydantic", "safetensors", "yaml", "onnx", "tqdm"}))
"""


def test_paddle_and_its_company_are_not_imported(model, exports, tmp_path):
    files = []
    for number, image in enumerate(IMAGES):
        files.append(tmp_path / f"{number}.png")
        files[-1].write_bytes(image)
    child = run_process([sys.executable, "-c", SCRIPT, exports / "onnx", tmp_path / "made.npz", *files], text=True,
                           input="\n".join(TEXTS), capture_output=True, env={"PYTHONPATH": str(ROOT)})  # fmt: skip
    assert child.returncode == 0, child.stderr
    assert child.stdout.strip() == "[]"
    made = np.load(tmp_path / "made.npz")
    np.testing.assert_allclose(made["images"], model.encode_images(IMAGES), atol=2e-6)
    np.testing.assert_allclose(made["texts"], model.encode_texts(TEXTS), atol=2e-6)
