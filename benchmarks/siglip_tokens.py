"""Count texts to which this package and transformers give other ids with SigLIP 1's vocabulary.

    python benchmarks/siglip_tokens.py --peer-python torch-venv/bin/python
    python benchmarks/siglip_tokens.py --peer-python torch-venv/bin/python --folder siglip-base-patch16-224

The texts are drawn: words, full-width letters, ligatures, accents, spaces and controls of many kinds, characters of the
whole basic plane, and sometimes one of the two special tokens. The peer is `SiglipTokenizer` of transformers 4 with
sentencepiece; the interpreter needs both. Without --folder the vocabulary is that of the tests, of 420 pieces.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "tests" / "fixtures" / "others" / "hf_siglip"
LENGTH = 64  # tokens of a text
SPECIAL = ["</s>", "<unk>"]
WORDS = [
    "cat",
    " THE ",
    "'s",
    "don\u2019t",
    "3.14",
    "<b>",
    "&amp;",
    "!",
    "_",
    "\u732b\u548c\u72d7",
    "\uff21\uff22\uff11",
]
ODD = ["\ufb01\u00bd\u00b2", "\u0391\u03a3 ", "\u0130\u1e9e", "e\u0301", "\u2581", "\u200b", "\U0001f600"]
SPACES = [" ", "  ", "\n", "\t", "\u3000", "\x1c", "\x85"]
RANGES = [(0x20, 0x7F), (0xA0, 0x3000), (0x3000, 0xD800), (0xE000, 0x11000)]


def draw_texts(count: int, special_share: float, seed: int = 0) -> list[str]:
    """Draw texts of one to six parts, each of which is a special token with that probability."""
    rng = random.Random(seed)  # noqa: S311  -- drawn again with the same seed
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 6)):
            if rng.random() < special_share:
                parts.append(rng.choice(SPECIAL))
            elif rng.random() < 0.6:
                parts.append(rng.choice(WORDS + ODD + SPACES))
            else:
                parts.append("".join(chr(rng.randrange(*rng.choice(RANGES))) for _ in range(rng.randint(1, 6))))
        texts.append("".join(parts))
    return texts


PEER = """
import json, sys
from transformers import SiglipTokenizer
tokenizer = SiglipTokenizer.from_pretrained(sys.argv[1])
options = {"padding": "max_length", "truncation": True, "max_length": int(sys.argv[2])}
json.dump([tokenizer(text, **options)["input_ids"] for text in json.load(open(sys.argv[3]))], open(sys.argv[4], "w"))
"""


def tokenize_by_peer(python: Path, folder: Path, texts: list[str]) -> list[list[int]]:
    with tempfile.TemporaryDirectory() as name:
        given, ids = Path(name, "texts.json"), Path(name, "ids.json")
        given.write_text(json.dumps(texts))
        command = [str(python), "-W", "ignore", "-c", PEER, str(folder), str(LENGTH), str(given), str(ids)]
        subprocess.run(command, check=True)  # noqa: S603  -- the interpreter that the user names
        return json.loads(ids.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, required=True, metavar="FILE", help="interpreter for transformers")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of a SigLIP 1, with its spiece.model")
    parser.add_argument("--count", type=int, default=20_000, help="texts of each kind")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from ernie_vil2.data.tokenizer import open_tokenizer

    tokenizer = open_tokenizer(options.folder, LENGTH, "siglip")
    for kind, share in (
        ("without special tokens in them", 0.0),
        ("with special tokens in a tenth of their parts", 0.1),
    ):
        texts = draw_texts(options.count, share)
        peer = tokenize_by_peer(options.peer_python, options.folder, texts)
        differing = [
            text for text, ids, theirs in zip(texts, tokenizer(texts).tolist(), peer, strict=True) if ids != theirs
        ]
        print(f"{len(differing):,} of {len(texts):,} texts {kind} have other ids")
        for text in differing[:3]:
            print(f"    {text!r}")


if __name__ == "__main__":
    main()
