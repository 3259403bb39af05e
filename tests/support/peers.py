"""Does the authors' own class load a folder, and to the same embeddings? A program for an environment with PyTorch.

    python tests/support/peers.py FOLDER FIXTURE [TEXTS]

FOLDER holds a model or an adapter, FIXTURE (see tests/fixtures/others) what the authors' code computed for stored
pixels and ids. It takes transformers, for an adapter with peft, open_clip_torch with timm, or cn_clip, whichever reads
the layout, and prints a JSON object: the library with its version, and the largest differences of image and text
embeddings. With TEXTS, so many of the fixture's texts go through the authors' tokenizer of FOLDER instead of their
stored ids, which are others in a trimmed vocabulary.
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


def of_transformers(folder, given, texts, call):
    library = import_module("transformers")
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        folder = Path(json.loads(adapter.read_text())["base_model_name_or_path"])
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    model, report = getattr(library, name).from_pretrained(folder, output_loading_info=True)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if left := [str(name) for name in report[key] if "position_ids" not in str(name)]:
            raise SystemExit(f"{key}: {left[:5]}")
    if adapter.is_file():
        model = import_module("peft").PeftModel.from_pretrained(model, adapter.parent).get_base_model()
    model.eval()
    pixels = {key: given[key] for key in ("pixel_values", "pixel_attention_mask", "spatial_shapes") if key in given}
    if texts:
        options = ast.literal_eval(re.search(r"AutoTokenizer\(.*?(\{.*?\})", call)[1])
        texts = [text.lower() for text in texts] if "lower" in call else texts
        try:
            tokenizer = library.AutoTokenizer.from_pretrained(folder)
        except (ValueError, AttributeError):  # of transformers 5, in transformers 4
            padding = json.loads((folder / "tokenizer_config.json").read_text())["pad_token"]
            file = str(folder / "tokenizer.json")
            tokenizer = library.PreTrainedTokenizerFast(tokenizer_file=file, pad_token=padding)
        options.setdefault("max_length", given["input_ids"].shape[1])
        found = tokenizer(texts, return_tensors="pt", **options)
        given = given | {key: found[key] for key in ("input_ids", "attention_mask") if key in given}
    texts = {key: given[key] for key in ("input_ids", "attention_mask") if key in given}
    if name == "ChineseCLIPModel":  # whose get_text_features asks for a pooler in transformers 4.57
        texts.setdefault("attention_mask", (given["input_ids"] != 0).long())
        output = model(pixel_values=given["pixel_values"], **texts)
        return "transformers", output.image_embeds, output.text_embeds
    found = [model.get_image_features(**pixels), model.get_text_features(**texts)]
    return "transformers", *(each if torch.is_tensor(each) else each.pooler_output for each in found)


def of_open_clip(folder, given, texts, call):
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
        # Files of transformers 5 have a list of what transformers 4 expects names of.
        import_module("transformers").PreTrainedTokenizerBase._set_model_specific_special_tokens = lambda *_, **__: None
        given["input_ids"] = library.get_tokenizer(f"local-dir:{folder}")(texts)
    return "open_clip_torch", model.encode_image(given["pixel_values"]), model.encode_text(given["input_ids"])


def of_cn_clip(folder, given, texts, call):
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
        given["input_ids"] = import_module("cn_clip.clip.utils").tokenize(texts)
    return "cn_clip", model.encode_image(given["pixel_values"]), model.encode_text(given["input_ids"])


if __name__ == "__main__":
    folder, fixture = map(Path, sys.argv[1:3])
    count = int(sys.argv[3]) if sys.argv[3:] else None
    texts = json.loads((fixture / "inputs" / "texts.json").read_text())[:count] if count else None
    call = json.loads((fixture / "expected.json").read_text())["call"]
    with np.load(fixture / "expected.npz") as arrays:
        given = {name: torch.from_numpy(array) for name, array in arrays.items()}
    read = of_cn_clip if any(folder.glob("*.pt")) else of_transformers
    read = of_open_clip if (folder / "open_clip_config.json").is_file() else read
    with torch.no_grad():
        library, *features = read(folder, given, texts, call)
    found = {}
    for name, values in zip(("image_embeddings", "text_embeddings"), features, strict=True):
        unit = values / values.norm(dim=-1, keepdim=True)
        found[name] = float((unit - given[name][: len(unit)]).abs().max())
    print(json.dumps({"library": f"{library} {version(library.replace('_torch', '-torch'))}", **found}))
