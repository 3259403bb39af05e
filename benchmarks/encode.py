"""Compare the speed of libraries at encoding images and texts with ViT-B/16 and ERNIE base.

    python benchmarks/encode.py --torch-python torch-venv/bin/python    # with numpy, and torch or openvino
    python benchmarks/encode.py --peer-python torch-venv/bin/python     # with transformers: a Chinese-CLIP of that size

Weights are random; inputs are the demo's drawings and captions. Each backend has a process of its own, which encodes a
batch to warm up and is then timed by the wall clock. A backend that is not installed is left out. The last columns
compare a backend with Paddle eager, which always runs first: the share of texts with the same ten closest images, the
share of all these images that both have, and the least cosine of two embeddings. With random weights all embeddings are
alike, so that the ten closest differ sooner than with trained ones. With --peer-python the model is a Chinese-CLIP, and
the last lines have the speed of Paddle and of the ONNX export as multiples of transformers'.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

BATCH_SIZE = 8
NUM_CLOSEST = 10
SIDES = ("images", "texts")
REFERENCE = "Paddle eager"
PEER = "transformers float32"
PACKAGE_BACKENDS = (REFERENCE, "Paddle Inference float32", "Paddle Inference bfloat16", "onnxruntime float32",
                    "onnxruntime int8")  # fmt: skip
TORCH_BACKENDS = ("PyTorch float32", "PyTorch float32, compiled", "PyTorch bfloat16", "OpenVINO float32",
                  "OpenVINO bfloat16")  # fmt: skip
CHINESE_CLIP_BACKENDS = (REFERENCE, "onnxruntime float32", PEER)
# Backend -> library and precision of the export that it runs; OpenVINO chooses the precision itself.
EXPORTS = {
    "Paddle Inference float32": ("paddle_inference", "float32"),
    "Paddle Inference bfloat16": ("paddle_inference", "bfloat16"),
    "onnxruntime float32": ("onnx", "float32"),
    "onnxruntime int8": ("onnx", "int8"),
    "OpenVINO float32": ("onnx", "float32"),
    "OpenVINO bfloat16": ("onnx", "float32"),
}
PREPARE, PREPARE_CHINESE_CLIP = "prepare", "prepare Chinese-CLIP"  # in place of a backend
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Encoders = Sequence[Callable[[np.ndarray], np.ndarray]]
"""Functions of a batch of pixels `[B, H, W, 3]` uint8 and of token ids `[B, L]`, which return unit vectors `[B, D]`."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", type=Path, metavar="FILE", help="interpreter with PyTorch or OpenVINO")
    parser.add_argument("--peer-python", type=Path, metavar="FILE", help="interpreter with transformers")
    parser.add_argument("--backends", nargs="+", choices=(*PACKAGE_BACKENDS, *TORCH_BACKENDS, PEER),
                        help="backends to run, besides Paddle eager; default: all")  # fmt: skip
    parser.add_argument("--inputs", type=int, default=32, help="number of images, and of texts; default: 32")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads; default: 1 2")
    parser.add_argument("--child", nargs=2, metavar=("BACKEND", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return run_child(args.child[0], Path(args.child[1]), args.inputs, args.backends)

    backends = choose_backends(parser, args)
    with tempfile.TemporaryDirectory() as folder:
        preparation = PREPARE_CHINESE_CLIP if args.peer_python else PREPARE
        if start_child(sys.executable, preparation, folder, max(args.threads), args.inputs, backends) is None:
            return 1
        inputs = f"{args.inputs} images of 224 pixels and as many texts in batches of {BATCH_SIZE}"
        print(f"{read_processor_name()}; {inputs}\n")
        print(
            f"{'':<28}{'threads':>8}{'images/s':>10}{'texts/s':>9}{'same ten %':>12}"
            f"{'of ten %':>10}{'least cosine':>14}"
        )
        for threads in args.threads:
            rates: dict[str, dict[str, float]] = {}
            reference: dict[str, np.ndarray] = {}
            for backend in backends:
                python = sys.executable if backend in PACKAGE_BACKENDS else args.peer_python or args.torch_python
                backend_rates = start_child(python, backend, folder, threads)
                if backend_rates is None:
                    if backend == REFERENCE:
                        return 1
                    continue
                rates[backend] = backend_rates
                embeddings = dict(np.load(Path(folder, "embeddings.npz")))
                reference = reference or embeddings
                print_row(backend, threads, backend_rates, reference, embeddings)
            if PEER in rates:
                print_ratios(rates)
    return 0


def choose_backends(parser: argparse.ArgumentParser, args: argparse.Namespace) -> list[str]:
    """Return the backends to run, the reference first."""
    available: tuple[str, ...]
    if args.peer_python:
        available = CHINESE_CLIP_BACKENDS
    elif args.torch_python:
        available = PACKAGE_BACKENDS + TORCH_BACKENDS
    else:
        available = PACKAGE_BACKENDS
    chosen = args.backends or available
    for backend in chosen:
        if backend not in available:
            parser.error(f"{backend} is not available; with these interpreters there are: {', '.join(available)}")
    return [backend for backend in available if backend in chosen or backend == REFERENCE]


def print_row(backend: str, threads: int, rates, reference, embeddings) -> None:
    """Print the speed of a backend, and how well its embeddings agree with those of the reference."""
    num_closest = min(NUM_CLOSEST, len(reference["images"]))
    expected = find_closest_images(reference, num_closest)
    closest = find_closest_images(embeddings, num_closest)
    num_shared = np.array([len(np.intersect1d(*rows)) for rows in zip(expected, closest, strict=True)])
    same_percent = 100 * (num_shared == num_closest).mean()
    shared_percent = 100 * num_shared.mean() / num_closest
    least_cosine = min((reference[side] * embeddings[side]).sum(axis=1).min() for side in SIDES)
    print(
        f"{backend:<28}{threads:>8}{rates['images']:>10.2f}{rates['texts']:>9.1f}{same_percent:>12.0f}"
        f"{shared_percent:>10.1f}{least_cosine:>14.6f}",
        flush=True,
    )


def find_closest_images(embeddings: dict[str, np.ndarray], num_closest: int) -> np.ndarray:
    """Return the rows of the closest images of each text `[T, num_closest]`, the closest first."""
    cosines = embeddings["texts"] @ embeddings["images"].T
    return np.argsort(-cosines, axis=1)[:, :num_closest]


def print_ratios(rates: dict[str, dict[str, float]]) -> None:
    """Print the speed of each backend as a multiple of transformers'."""
    for backend, backend_rates in rates.items():
        if backend != PEER:
            images = backend_rates["images"] / rates[PEER]["images"]
            texts = backend_rates["texts"] / rates[PEER]["texts"]
            print(f"{backend}, of transformers' rate: {images:.2f} for images, {texts:.2f} for texts")


def read_processor_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return "unknown processor"


def start_child(python, backend, folder, threads, num_inputs=0, backends=()) -> dict[str, float] | None:
    """Run a backend or a preparation in a process of its own.

    Returns:
        Images and texts per second, none of a preparation; None if the process fails.
    """
    command = [python, __file__, "--child", backend, folder, "--inputs", str(num_inputs)]
    if backends:
        command += ["--backends", *backends]
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
    process = subprocess.run(command, capture_output=True, text=True, env=environment)  # noqa: S603  -- a command of this script
    if process.returncode:
        lines = process.stderr.strip().splitlines() or [f"exit status {process.returncode}"]
        print(f"{backend}: {lines[-1]}", file=sys.stderr)
        return None
    return json.loads(process.stdout.splitlines()[-1])


def run_child(backend: str, folder: Path, num_inputs: int, backends: Sequence[str]) -> int:
    """Prepare the folder, or encode its inputs; print the rates as JSON in the last line."""
    if backend in (PREPARE, PREPARE_CHINESE_CLIP):
        prepare(folder, num_inputs, backend == PREPARE_CHINESE_CLIP, backends)
        print("{}")
        return 0

    threads = int(os.environ["OMP_NUM_THREADS"])
    if backend.startswith("PyTorch"):
        encoders = load_torch(backend, folder, threads)
    elif backend.startswith("OpenVINO"):
        encoders = load_openvino(backend, folder, threads)
    elif backend == PEER:
        encoders = load_transformers(folder, threads)
    else:
        encoders = load_package(backend, folder)

    inputs = np.load(folder / "inputs.npz")
    rates = {}
    embeddings: dict[str, Any] = {}
    for side, encode in zip(SIDES, encoders, strict=True):
        rows = inputs[side]
        batches = [rows[start : start + BATCH_SIZE] for start in range(0, len(rows), BATCH_SIZE)]
        encode(batches[0])  # warm-up
        if len(batches[-1]) < len(batches[0]):
            encode(batches[-1])  # a compiled tower is compiled again for another size
        start = time.perf_counter()
        embeddings[side] = np.concatenate([encode(batch) for batch in batches])
        rates[side] = len(rows) / (time.perf_counter() - start)
    np.savez(folder / "embeddings.npz", **embeddings)
    print(json.dumps(rates))
    return 0


def prepare(folder: Path, num_inputs: int, is_chinese_clip: bool, backends: Sequence[str]) -> None:
    """Write the model, its weights and exports, and the inputs into the folder."""
    from ernie_vil2.device import runtime

    runtime.configure()
    import paddle

    from ernie_vil2.cli.export import DEMO, read_inputs
    from ernie_vil2.config import dump_config, load_config
    from ernie_vil2.data.spec import DataSpec
    from ernie_vil2.data.tokenizer import ERNIE_VOCABULARY, read_vocabulary
    from ernie_vil2.encoder import load_model
    from ernie_vil2.encoder.pretrained import get_network
    from ernie_vil2.export import export
    from ernie_vil2.models import build_dual_encoder, save_weights

    paddle.seed(0)
    checkpoint = folder / "model"
    checkpoint.mkdir()
    tokens = read_vocabulary(ERNIE_VOCABULARY)
    if is_chinese_clip:
        from benchmarks.load import WORDS, write

        write(checkpoint)
        # Chinese-CLIP's vocabulary begins with BERT's special tokens.
        special_tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        tokens = special_tokens + [token for token in tokens if token not in special_tokens]
        tokens = tokens[:WORDS]
    else:
        config = load_config(
            None, ["Model.image={name: ViT-B/16, preprocessing: official}", "Model.text={name: ernie-base}"]
        )
        save_weights(build_dual_encoder(config.Model, len(tokens)), checkpoint / "model.safetensors")
        (checkpoint / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    (checkpoint / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")

    model = load_model(checkpoint, device="cpu")
    images, texts = read_inputs(DataSpec([str(DEMO)]), num_inputs, model.preprocess)
    np.savez(folder / "inputs.npz", images=np.stack(images), texts=model.tokenizer(texts[:num_inputs]))
    (folder / "means.json").write_text(model.config.Model.image.model_dump_json(include={"mean", "std"}))
    state = get_network(model, "encode.py").state_dict()
    weights: dict[str, Any] = {name: value.numpy() for name, value in state.items()}
    np.savez(folder / "weights.npz", **weights)
    for library, precision in {EXPORTS[backend] for backend in backends if backend in EXPORTS}:
        export(model, export_folder(folder, library, precision), library, precision)


def export_folder(folder: Path, library: str, precision: str) -> Path:
    return folder / f"{library}-{precision}"


def load_package(backend: str, folder: Path) -> Encoders:
    """Load the model in Paddle, or one of its exports, with this package."""
    from ernie_vil2.device import runtime

    runtime.configure()  # as the command lines do, before Paddle is imported
    import ernie_vil2

    path = export_folder(folder, *EXPORTS[backend]) if backend in EXPORTS else folder / "model"
    encoder = ernie_vil2.load_model(path, device="cpu").backend
    return lambda pixels: encoder.start_pixels(pixels)(), lambda ids: encoder.start_ids(ids)()


def load_torch(backend: str, folder: Path, threads: int) -> Encoders:
    """Load the weights into towers of PyTorch."""
    import torch

    from benchmarks.train_step_torch import ImageTower, TextTower

    torch.set_num_threads(threads)
    weights = {name: torch.from_numpy(value) for name, value in np.load(folder / "weights.npz").items()}
    num_words = len(weights["text.network.embeddings.word_embeddings.weight"])
    num_positions = len(weights["text.network.embeddings.position_embeddings.weight"])
    dtype = torch.bfloat16 if "bfloat16" in backend else torch.float32
    towers = []
    for prefix, tower in (
        ("image.", ImageTower(224, 16, 768, 12, 12)),
        ("text.network.", TextTower(num_words, 768, 12, 12, num_positions, 0.0, 0.0, 1e-5)),
    ):
        tower_weights = {}
        for name, value in weights.items():
            if name.startswith(prefix):
                tower_weights[name.removeprefix(prefix)] = value
        tower.load_paddle_weights(tower_weights)
        tower.eval().to(dtype)
        towers.append(torch.compile(tower, dynamic=False) if "compiled" in backend else tower)
    image_tower, text_tower = towers
    mean, std = read_mean_and_std(folder)

    def encode(tower, inputs):
        with torch.inference_mode():
            return torch.nn.functional.normalize(tower(inputs).float()).numpy()

    def encode_images(pixels):
        images = (torch.from_numpy(pixels) / 255 - mean) / std
        return encode(image_tower, images.permute(0, 3, 1, 2).to(dtype))

    def encode_texts(ids):
        return encode(text_tower, torch.from_numpy(ids))

    return encode_images, encode_texts


def load_transformers(folder: Path, threads: int) -> Encoders:
    """Load the Chinese-CLIP with transformers."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    import torch
    from transformers import ChineseCLIPModel

    torch.set_num_threads(threads)
    model = ChineseCLIPModel.from_pretrained(folder / "model").eval()
    mean, std = read_mean_and_std(folder)

    def encode_images(pixels):
        with torch.inference_mode():
            images = ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)
            return torch.nn.functional.normalize(model.get_image_features(images)).numpy()

    def encode_texts(rows):
        with torch.inference_mode():
            ids = torch.from_numpy(rows)
            # Its get_text_features asks for a pooler in transformers 4.57.
            states = model.text_model(ids, attention_mask=(ids != 0).long())[0]
            return torch.nn.functional.normalize(model.text_projection(states[:, 0])).numpy()

    return encode_images, encode_texts


def read_mean_and_std(folder: Path):
    """Return mean and standard deviation of the model's pixels, tensors `[3]` of PyTorch."""
    import torch

    values = json.loads((folder / "means.json").read_text())
    return torch.tensor(values["mean"]), torch.tensor(values["std"])


def load_openvino(backend: str, folder: Path, threads: int) -> Encoders:
    """Load the ONNX export with OpenVINO."""
    import openvino

    precision = {"float32": "f32", "bfloat16": "bf16"}[backend.split()[1]]
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
    core = openvino.Core()
    path = export_folder(folder, *EXPORTS[backend])
    image_graph = core.compile_model(path / "image.onnx", "CPU", options)
    text_graph = core.compile_model(path / "text.onnx", "CPU", options)
    return lambda pixels: image_graph(pixels)[0], lambda ids: text_graph(ids)[0]


if __name__ == "__main__":
    sys.exit(main())
