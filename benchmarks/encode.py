"""Images and texts a second of ViT-B/16 and ERNIE base, in each library that is installed, one after the other.

    python benchmarks/encode.py --torch-python torch-venv/bin/python    # with numpy, and torch or openvino
    python benchmarks/encode.py --peer-python torch-venv/bin/python     # with transformers: a Chinese-CLIP of that size

Weights are random, inputs are the demo's drawings and captions. Each backend has a process of its own, encodes a batch
to warm up, and then all of them by the clock. Next to it are the share of texts whose ten closest images are those of
Paddle eager, the share of all these tens that is in both, and the least cosine to its embeddings. On random weights all
embeddings are alike, so that the ten closest are a harder test than on trained ones. With --peer-python the model is a
Chinese-CLIP, and the last line is how many times as fast as transformers it is, in Paddle and exported to ONNX.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
BATCH = 8
OURS = ("Paddle eager", "Paddle Inference float32", "Paddle Inference bfloat16", "onnxruntime float32",
        "onnxruntime int8")  # fmt: skip
FAMILY = ("Paddle eager", "onnxruntime float32", "transformers float32")
THEIRS = ("PyTorch float32", "PyTorch float32, compiled", "PyTorch bfloat16", "OpenVINO float32", "OpenVINO bfloat16")
FOLDERS = {
    "Paddle Inference float32": "paddle_inference-float32",
    "Paddle Inference bfloat16": "paddle_inference-bfloat16",
    "onnxruntime float32": "onnx-float32",
    "onnxruntime int8": "onnx-int8",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", type=Path, metavar="FILE", help="interpreter for PyTorch and OpenVINO")
    parser.add_argument("--peer-python", type=Path, metavar="FILE", help="interpreter for transformers")
    parser.add_argument("--backends", nargs="+", choices=(*OURS, *THEIRS, FAMILY[2]), help="some of them; default: all")
    parser.add_argument("--inputs", type=int, default=32, help="images, and as many texts; default: 32")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--child", nargs=2, metavar=("BACKEND", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return encode(args.child[0], Path(args.child[1]), args.inputs, args.backends)
    with tempfile.TemporaryDirectory() as folder:
        preparation = "prepare Chinese-CLIP" if args.peer_python else "prepare"
        backends = FAMILY if args.peer_python else args.backends or (*OURS, *THEIRS)
        if run(sys.executable, preparation, folder, max(args.threads), args.inputs, backends) is None:
            return 1
        print(f"{cpu()}; {args.inputs} images of 224 pixels and as many texts in batches of {BATCH}\n")
        print(
            f"{'':<28}{'threads':>8}{'images/s':>10}{'texts/s':>9}{'same ten %':>12}"
            f"{'of ten %':>10}{'least cosine':>14}"
        )
        for threads in args.threads:
            reference, rates = None, {}
            for backend in backends:
                python = sys.executable if backend in OURS else args.peer_python or args.torch_python
                found = python and run(python, backend, folder, threads)
                if not found:
                    continue
                rates[backend] = found
                made = np.load(Path(folder, "made.npz"))
                reference = reference or {side: made[side] for side in ("images", "texts")}
                ten, theirs = (
                    np.argsort(-(one["texts"] @ one["images"].T), axis=1)[:, :10] for one in (reference, made)
                )
                shared = np.array([len(np.intersect1d(a, b)) for a, b in zip(ten, theirs, strict=True)])
                same, both = 100 * (shared == 10).mean(), 10 * shared.mean()
                cosine = min((reference[side] * made[side]).sum(axis=1).min() for side in reference)
                print(f"{backend:<28}{threads:>8}{found['images']:>10.2f}{found['texts']:>9.1f}{same:>12.0f}{both:>10.1f}"
                      f"{cosine:>14.6f}", flush=True)  # fmt: skip
            if args.peer_python and len(rates) == len(FAMILY):
                for name in FAMILY[:2]:
                    images, texts = (rates[name][side] / rates[FAMILY[2]][side] for side in ("images", "texts"))
                    print(f"{name}, of transformers' rate: {images:.2f} for images, {texts:.2f} for texts")
    return 0


def run(python, backend, folder, threads, inputs=0, backends=()):
    """Return the rates that a backend reaches in a process of its own; None if it fails."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    child = subprocess.run([python, __file__, "--child", backend, folder, "--inputs", str(inputs),  # noqa: S603  -- a command of this script
                            *(["--backends", *backends] if backends else ())], capture_output=True,
                           text=True, env=os.environ | dict.fromkeys(names, str(threads)))  # fmt: skip
    if child.returncode:
        print(f"{backend}: {(child.stderr.strip().splitlines() or ['no word'])[-1]}", file=sys.stderr)
        return None
    return json.loads(child.stdout.splitlines()[-1])


def cpu():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown processor")


def encode(backend, folder, count, backends):
    if backend.startswith("prepare"):
        return prepare(folder, count, backend.endswith("Chinese-CLIP"), backends)
    library = backend.split()[0]
    opening = {"PyTorch": pytorch, "OpenVINO": openvino, "transformers": transformers}.get(library, ours)
    opened = opening(backend, folder, int(os.environ["OMP_NUM_THREADS"]))
    inputs, rates = np.load(folder / "inputs.npz"), {}
    made: dict[str, Any] = {}
    for side, call in zip(("images", "texts"), opened, strict=True):
        batches = [inputs[side][row : row + BATCH] for row in range(0, len(inputs[side]), BATCH)]
        call(batches[0])
        start = time.perf_counter()
        made[side] = np.concatenate([call(batch) for batch in batches])
        rates[side] = len(inputs[side]) / (time.perf_counter() - start)
    np.savez(folder / "made.npz", **made)
    print(json.dumps(rates))
    return 0


def prepare(folder, count, of_family, backends):
    """Write the model, its exports, inputs and weights into the folder."""
    sys.path.insert(0, str(ROOT))
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
    if of_family:
        from benchmarks.load import WORDS, write

        write(checkpoint)
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        tokens = [*special, *(token for token in tokens if token not in special)][:WORDS]
    else:
        config = load_config(
            None, ["Model.image={name: ViT-B/16, preprocessing: official}", "Model.text={name: ernie-base}"]
        )
        save_weights(build_dual_encoder(config.Model, len(tokens)), checkpoint / "model.safetensors")
        (checkpoint / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    (checkpoint / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    model = load_model(checkpoint, device="cpu")
    images, texts = read_inputs(DataSpec([str(DEMO)]), count, model.preprocess)
    np.savez(folder / "inputs.npz", images=np.stack(images), texts=model.tokenizer(texts[:count]))
    (folder / "means.json").write_text(model.config.Model.image.model_dump_json(include={"mean", "std"}))
    state = get_network(model, "encode.py").state_dict()
    weights: dict[str, Any] = {name: value.numpy() for name, value in state.items()}
    np.savez(folder / "weights.npz", **weights)
    for name in {FOLDERS[backend] for backend in backends if backend in FOLDERS}:
        library, precision = name.split("-")
        export(model, folder / name, library, precision)
    print("{}")
    return 0


def ours(backend, folder, threads):
    sys.path.insert(0, str(ROOT))
    from ernie_vil2.device import runtime

    runtime.configure()  # as the command lines do, before Paddle is imported
    import ernie_vil2

    model = ernie_vil2.load_model(folder / FOLDERS.get(backend, "model"), device="cpu")
    backend = model.backend
    return lambda pixels: backend.start_pixels(pixels)(), lambda ids: backend.start_ids(ids)()


def pytorch(backend, folder, threads):
    import torch

    sys.path.insert(0, str(ROOT))
    from benchmarks.train_step_torch import ImageTower, TextTower

    torch.set_num_threads(threads)
    weights = {name: torch.from_numpy(value) for name, value in np.load(folder / "weights.npz").items()}
    image = ImageTower(224, 16, 768, 12, 12)
    words, positions = (weights[f"text.network.embeddings.{name}_embeddings.weight"] for name in ("word", "position"))
    text = TextTower(len(words), 768, 12, 12, len(positions), 0.0, 0.0, 1e-5)
    for tower, prefix in ((image, "image."), (text, "text.network.")):
        linear = {f"{name}.weight" for name, layer in tower.named_modules() if isinstance(layer, torch.nn.Linear)}
        own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        tower.load_state_dict({name: value.T if name in linear else value for name, value in own.items()})
        tower.eval()
        if "bfloat16" in backend:
            tower.bfloat16()
    kind = torch.bfloat16 if "bfloat16" in backend else torch.float32
    towers = [torch.compile(tower, dynamic=False) if "compiled" in backend else tower for tower in (image, text)]
    mean, std = (torch.tensor(values) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def features(tower, rows):
        with torch.inference_mode():
            return torch.nn.functional.normalize(tower(rows).float()).numpy()

    def pixels(rows):
        return ((torch.from_numpy(rows) / 255 - mean) / std).permute(0, 3, 1, 2).to(kind)

    return lambda rows: features(towers[0], pixels(rows)), lambda rows: features(towers[1], torch.from_numpy(rows))


def transformers(backend, folder, threads):
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    import torch
    from transformers import ChineseCLIPModel

    torch.set_num_threads(threads)
    model = ChineseCLIPModel.from_pretrained(folder / "model").eval()
    mean, std = (torch.tensor(json.loads((folder / "means.json").read_text())[key]) for key in ("mean", "std"))

    def texts(rows):
        ids = torch.from_numpy(rows)
        # Its get_text_features asks for a pooler in transformers 4.57.
        return model.text_projection(model.text_model(ids, attention_mask=(ids != 0).long())[0][:, 0])

    def images(rows):
        return model.get_image_features(((torch.from_numpy(rows) / 255 - mean) / std).permute(0, 3, 1, 2))

    def features(tower, rows):
        with torch.inference_mode():
            return torch.nn.functional.normalize(tower(rows)).numpy()

    return lambda rows: features(images, rows), lambda rows: features(texts, rows)


def openvino(backend, folder, threads):
    import openvino

    kind = {"float32": "f32", "bfloat16": "bf16"}[backend.split()[1]]
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": kind}
    compiled = [openvino.Core().compile_model(folder / "onnx-float32" / f"{tower}.onnx", "CPU", options)
                for tower in ("image", "text")]  # fmt: skip
    return [lambda rows, one=one: one(rows)[0] for one in compiled]


if __name__ == "__main__":
    sys.exit(main())
