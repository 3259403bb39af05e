"""An ONNX export without Paddle: the pixels, the ids and the embeddings of ErnieViL2."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ernie_vil2
from ernie_vil2.export import export
from ernie_vil2.runtime_onnx import OnnxModel
from tests.hostile.bad_input.case import encoded, smooth_image
from tests.support.exported_models import IMAGES, TEXTS
from tests.support.image_formats import FILES, forbid_opencv
from tests.support.processes import run_process

ROOT = Path(__file__).parents[2]
RELEASED = ROOT / "tests" / "fixtures" / "released"


@pytest.fixture(scope="module", params=["own", "official", "paddlenlp"])
def pair(request, model, tmp_path_factory):
    """A model, and its export in the runtime."""
    one = model if request.param == "own" else ernie_vil2.load_model(RELEASED / f"{request.param}_tiny")
    folder = tmp_path_factory.mktemp("onnx") / "made"
    export(one, folder, "onnx")
    return one, OnnxModel(folder, batch_size=3)


def kinds():
    """Files of every kind."""
    exif = Image.Exif()
    exif[0x0112] = 6
    yield encoded(smooth_image(61, 97), "JPEG", quality=90)
    yield encoded(smooth_image(97, 61), "JPEG", quality=40, subsampling=2)
    yield encoded(smooth_image(64, 50), "JPEG", exif=exif)
    yield encoded(smooth_image(40, 40, 1)[..., 0], "JPEG")
    yield encoded(smooth_image(64, 50), "WEBP", exif=exif)
    yield encoded(Image.fromarray(smooth_image(48, 64)).quantize(16))
    yield from FILES.values()


def test_pixels_ids_and_embeddings_are_those_of_the_model(pair, tmp_path, monkeypatch):
    forbid_opencv(monkeypatch)
    model, runtime = pair
    (tmp_path / "a.jpg").write_bytes(next(kinds()))
    images = [*kinds(), tmp_path / "a.jpg", str(tmp_path / "a.jpg"), smooth_image(50, 33)]
    for image in images:
        np.testing.assert_array_equal(runtime.preprocess(image), model.preprocess(image))
    np.testing.assert_allclose(runtime.encode_images(images), model.encode_images(images), atol=2e-6)
    np.testing.assert_allclose(runtime.encode_texts(TEXTS), model.encode_texts(TEXTS), atol=2e-6)
    assert runtime.encode_images([]).shape == runtime.encode_texts([]).shape == (0, model.embed_dim)
    assert (runtime.embed_dim, runtime.logit_scale, runtime.logit_bias) == (model.embed_dim, model.logit_scale, 0)


@pytest.mark.parametrize(("image", "message"), [
    (b"no image", "broken image"),
    (encoded(smooth_image(60, 60), "JPEG")[:-300], "truncated image"),
    (encoded(Image.new("1", (9_500, 9_500))), "too many pixels"),
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
