"""`tokenizer_config.json` next to a vocabulary: what it says is followed as transformers follows it, or refused."""

import json
from pathlib import Path

import pytest

from ernie_vil2.data.tokenizer import open_tokenizer
from tests.support.other_families import OWN, copy_folder

tokenizers = pytest.importorskip("tokenizers")
CHINESE = OWN / "hf_chinese_clip_bin"
PEER = json.loads((Path(__file__).parents[1] / "fixtures" / "tokenizer_settings" / "bert.json").read_text("utf-8"))


def write_bert(folder, kind="vocab.txt", **settings):
    """Write BERT's vocabulary in either form, with the settings next to it."""
    lines = (CHINESE / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    vocabulary = [*lines, *(entry for entry in PEER["entries"] if entry not in lines)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    if kind == "tokenizer.json":
        content = json.loads(open_tokenizer(folder, 32, "bert").files()["tokenizer.json"])
        content["padding"] = None  # as transformers writes it
        (folder / "tokenizer.json").write_text(json.dumps(content))
        (folder / "vocab.txt").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("kind", ["vocab.txt", "tokenizer.json"])
@pytest.mark.parametrize("row", PEER["rows"], ids=lambda row: "-".join(row["settings"]) or "defaults")
def test_berts_normaliser_is_that_of_the_settings(tmp_path, kind, row):
    tokenizer = open_tokenizer(write_bert(tmp_path, kind, **row["settings"]), 32, "bert")
    assert [tokenizer.encode(text) for text in PEER["texts"]] == row["ids"]


BAD_SETTINGS = [
    {"padding_side": "left"}, {"split_special_tokens": True}, {"strip_accents": "yes"}, {"do_lower_case": None},
    {"pad_token": "<nothing>"}, {"sep_token": {"content": "[CLS]"}},
    {"added_tokens_decoder": {"3": {"content": "[PAD]"}}}, {"added_tokens_decoder": [1]},
]  # fmt: skip


@pytest.mark.parametrize("settings", BAD_SETTINGS, ids=lambda settings: next(iter(settings)))
def test_a_setting_that_is_not_followed_is_named(tmp_path, settings):
    with pytest.raises(ValueError, match=next(iter(settings))) as caught:
        open_tokenizer(write_bert(tmp_path, **settings), 32, "bert")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "rules", "settings"),
    [
        ("hf_clip", "clip", {"eos_token": "<|startoftext|>"}),
        ("hf_clip", "clip", {"add_prefix_space": True}),
        ("hf_siglip", "siglip", {"do_lower_case": False}),
        ("hf_siglip2_naflex", "siglip2", {"add_bos_token": True}),
        ("openclip_siglip_timm", "open_clip_canonical", {"padding_side": "left"}),
    ],
)
def test_settings_of_other_tokenizers_are_read_too(tmp_path, name, rules, settings):
    folder = copy_folder(OWN / name, tmp_path / "model", "tokenizer_config.json", **settings)
    with pytest.raises(ValueError, match=next(iter(settings))):
        open_tokenizer(folder, 32, rules)
