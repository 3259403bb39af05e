"""A program that loads a folder with its authors' class and compares the embeddings; it needs PyTorch.

    python tests/support/peers.py FOLDER FIXTURE [TEXTS]

FOLDER holds a model or an adapter, FIXTURE (see tests/fixtures/others) the results of the authors' code for stored
pixels and ids. The program uses the library that reads the layout: transformers (with peft for an adapter),
open_clip_torch with timm, or cn_clip. It prints a JSON object: the library with its version, and the largest
differences of image and text embeddings. With the number TEXTS, the authors' tokenizer of FOLDER encodes that many of
the fixture's texts; the stored ids do not fit a trimmed vocabulary.
"""

import ast
import json
import os
import re
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
import numpy as np
import torch


def encode_with_transformers(folder, arrays, texts, call):
    library = import_module("transformers")
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        folder = Path(json.loads(adapter.read_text())["base_model_name_or_path"])
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    model, report = getattr(library, name).from_pretrained(folder, output_loading_info=True)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        differing_keys = [str(name) for name in report[key] if "position_ids" not in str(name)]
        if differing_keys:
            raise SystemExit(f"{key}: {differing_keys[:5]}")
    if adapter.is_file():
        model = import_module("peft").PeftModel.from_pretrained(model, adapter.parent).get_base_model()
    model.eval()
    pixel_keys = ("pixel_values", "pixel_attention_mask", "spatial_shapes")
    pixels = {key: arrays[key] for key in pixel_keys if key in arrays}
    if texts:
        options = read_tokenizer_options(call)
        texts = [text.lower() for text in texts] if "lower" in call else texts
        try:
            tokenizer = library.AutoTokenizer.from_pretrained(folder)
        except (ValueError, AttributeError):  # transformers 4 cannot read some settings of transformers 5
            padding = json.loads((folder / "tokenizer_config.json").read_text())["pad_token"]
            file = str(folder / "tokenizer.json")
            tokenizer = library.PreTrainedTokenizerFast(tokenizer_file=file, pad_token=padding)
        options.setdefault("max_length", arrays["input_ids"].shape[1])
        encoded = tokenizer(texts, return_tensors="pt", **options)
        arrays = arrays | {key: encoded[key] for key in ("input_ids", "attention_mask") if key in arrays}
    ids = {key: arrays[key] for key in ("input_ids", "attention_mask") if key in arrays}
    if name == "ChineseCLIPModel":  # its get_text_features needs a pooler in transformers 4.57
        ids.setdefault("attention_mask", (arrays["input_ids"] != 0).long())
        output = model(pixel_values=arrays["pixel_values"], **ids)
        return "transformers", output.image_embeds, output.text_embeds
    features = []
    for output in (model.get_image_features(**pixels), model.get_text_features(**ids)):
        features.append(output if torch.is_tensor(output) else output.pooler_output)
    return "transformers", *features


def read_tokenizer_options(call):
    """Return the options of the tokenizer in a fixture's call, which are a dictionary or keywords."""
    arguments = re.search(r"AutoTokenizer\([^,]*, (.*?)\)", call)[1]  # the first one says what the texts are
    node = ast.parse(f"tokenizer({arguments})", mode="eval").body
    options = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
    for argument in node.args:
        options |= ast.literal_eval(argument)
    return options


def encode_with_open_clip(folder, arrays, texts, call):
    library, timm = import_module("open_clip"), import_module("open_clip.timm_model").timm
    vision = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]["vision_cfg"]
    if "timm_model_name" in vision:  # the fixture's sizes are not those of its name
        create, width = timm.create_model, vision["width"]
        sizes = {"embed_dim": width, "depth": vision["layers"], "num_heads": width // vision["head_width"],
                 "img_size": vision["image_size"], "patch_size": vision["patch_size"],
                 "mlp_ratio": vision["mlp_ratio"]}  # fmt: skip
        timm.create_model = lambda name, **options: create(name, **{**options, **sizes})
    model, _ = library.create_model_from_pretrained(f"local-dir:{folder}")
    model.eval()
    if texts:
        # Files of transformers 5 hold a list of special tokens where transformers 4 expects them by name.
        import_module("transformers").PreTrainedTokenizerBase._set_model_specific_special_tokens = lambda *_, **__: None
        arrays["input_ids"] = library.get_tokenizer(f"local-dir:{folder}")(texts)
    return "open_clip_torch", model.encode_image(arrays["pixel_values"]), model.encode_text(arrays["input_ids"])


def encode_with_cn_clip(folder, arrays, texts, call):
    library = import_module("cn_clip.clip.model")
    settings = {}
    for path in (folder / "model_configs").glob("*.json"):
        settings |= json.loads(path.read_text())
    if isinstance(settings["vision_layers"], str):
        settings["vision_layers"] = json.loads(settings["vision_layers"])
    model = library.CLIP(**settings, tokenizer=None)
    model.tokenizer = type("Tokenizer", (), {"vocab": {"[PAD]": 0}})()
    (path,) = folder.glob("*.pt")
    state = torch.load(path, weights_only=True)["state_dict"]
    state = {name.removeprefix("module."): value.float() for name, value in state.items() if "bert.pooler" not in name}
    model.float().load_state_dict(state)
    model.eval()
    if texts:
        tokenizer = import_module("cn_clip.clip.bert_tokenizer").FullTokenizer(vocab_file=folder / "vocab.txt")
        import_module("cn_clip.clip.utils")._tokenizer = tokenizer
        arrays["input_ids"] = import_module("cn_clip.clip.utils").tokenize(texts)
    return "cn_clip", model.encode_image(arrays["pixel_values"]), model.encode_text(arrays["input_ids"])


def main(folder, fixture, num_texts=None):
    texts = None
    if num_texts:
        texts = json.loads((fixture / "inputs" / "texts.json").read_text())[:num_texts]
    call = json.loads((fixture / "expected.json").read_text())["call"]
    with np.load(fixture / "expected.npz") as file:
        arrays = {name: torch.from_numpy(array) for name, array in file.items()}

    if (folder / "open_clip_config.json").is_file():
        encode = encode_with_open_clip
    elif any(folder.glob("*.pt")):
        encode = encode_with_cn_clip
    else:
        encode = encode_with_transformers
    with torch.no_grad():
        library, *features = encode(folder, arrays, texts, call)

    differences = {}
    for name, values in zip(("image_embeddings", "text_embeddings"), features, strict=True):
        normalised = values / values.norm(dim=-1, keepdim=True)
        differences[name] = float((normalised - arrays[name][: len(normalised)]).abs().max())
    print(json.dumps({"library": f"{library} {version(library.replace('_torch', '-torch'))}", **differences}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]), *map(int, sys.argv[3:]))
