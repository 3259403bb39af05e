"""Configurations: files, overrides and their errors, versions, differences, and overrides of whole sections."""

import json
import re

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ernie_vil2.config import MISSING, Config, ConfigError, apply_overrides, differences, dump_config, load_config
from ernie_vil2.config.load import override
from ernie_vil2.towers import ImageTowerConfig, TextTowerConfig
from ernie_vil2.training.checkpoint import find_changed_settings
from ernie_vil2.training.optimizer import resolve_steps
from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("Loss.tempreture=1", "unknown key Loss.tempreture; did you mean Loss.temperature?"),
        ("Training.batch_size=8", "did you mean Training.global_batch or Training.micro_batch?"),
        ("Training.learning_rate=1", "did you mean Optimizer.learning_rate?"),
        ("Loss.temperature=-1", "Loss.temperature: Input should be greater than 0, got -1"),
        ("Model.image.name=ViT", "'ViT' leaves its size open: set patch_size, width, depth, heads"),
        ("Model.image={name: 'm:X', layers: [3, 4, 6]}", "Model.image.layers: List should have at least 4 items"),
        ("Model.text.depth=2", "Model.text: 'ernie-base' has no depth"),
        ("Views.resize=100", "Views.resize (100) is smaller than the crop"),
        ("Views.crop_area=[0.9, 0.1]", "Views: crop_area"),
        ("Views.languages={fr: 1}", "language 'fr' needs an entry in prompts"),
        ("Data.groups=9", "Data.groups (9) does not divide Training.global_batch (7168)"),
        ("Data.train=[{data: [a.tar], wieght: 2}]", "did you mean Data.train.weight or "),
        ("Data.train=a.csv", "Data.train: Input should be a valid list, got 'a.csv'; write [a.csv]"),
        ("Data.train=[a.tar, {data: [b.tar], weight: 2}]", "a.tar has no weight, other sources have one"),
        ("Data.max_length=600", "exceeds Model.text.max_positions"),
        ("Loss.temperature", "write Section.key=value"),
        ("Loss.temperature.x=1", "Loss.temperature"),
        ("Training.mixup=0.99", "unknown key Training.mixup; known here: Training.task, "),
    ],
)
def test_an_error_names_the_key_and_the_way_out(override, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        load_config(None, [override])
    assert len(str(caught.value)) < 1000


def test_default_yaml_shows_every_field_with_its_default():
    path = ROOT / "configs" / "default.yaml"
    assert load_config(path) == Config()
    shown, known = yaml.safe_load(path.read_text()), yaml.safe_load(dump_config(Config()))
    bases = {"Model.image.": ImageTowerConfig, "Model.text.": TextTowerConfig}
    fields = {prefix + field for prefix, base in bases.items() for kind in base.kinds() for field in kind.model_fields}
    assert "Model.image.layers" in fields
    sides = {"Model": {"image": known["Model"]["image"], "text": known["Model"]["text"]}}
    of_other_kinds = fields - {key for key, _ in differences(sides, {"Model": {"image": {}, "text": {}}})}
    assert {key for key, values in differences(shown, known) if MISSING in values} == of_other_kinds


_STUDIES = ("study", "small_student", "wrong_captions", "long_texts", "widths")
STUDIES = {ROOT / "configs" / "ablation" / f"{name}.yaml" for name in _STUDIES}
CURATIONS = sorted((ROOT / "configs" / "curate").glob("*.yaml"))
CONFIGURATIONS = sorted({*(ROOT / "configs").rglob("*.yaml")} - {*STUDIES, *CURATIONS})


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_every_shipped_configuration_loads(path):
    """A short try of it has its steps."""
    load_config(path)
    training = resolve_steps(load_config(path, ["Training.steps=5"]), 100_000).Training
    assert (training.steps, training.epochs) == (5, None)


def test_of_steps_and_epochs_the_last_one_counts():
    both = ["Training.steps=5", "Training.epochs=2"]
    assert load_config(None, both).Training.epochs == 2
    assert load_config(None, both[::-1]).Training.epochs is None


def test_last_override_wins_and_5e_5_is_a_number(tmp_path):
    overlay = tmp_path / "a.yaml"
    overlay.write_text("Optimizer: {learning_rate: 2e-3}\n")
    assert load_config(overlay).Optimizer.learning_rate == 0.002
    config = load_config(overlay, ["Optimizer.learning_rate=1e-4", "Optimizer.learning_rate=5E-5"])
    assert config.Optimizer.learning_rate == 0.00005


def test_file_that_is_not_a_configuration_is_named(tmp_path):
    path = tmp_path / "odd.yaml"
    for text in ("- a\n", "a: ["):
        path.write_text(text)
        with pytest.raises(ConfigError, match="odd.yaml"):
            load_config(path)
    with pytest.raises(ConfigError, match="nowhere.yaml"):
        load_config("nowhere.yaml")


def test_plain_entries_of_train_are_one_source_together(tmp_path):
    config = load_config(None, ["Data.train=[a.tar, {data: [c.tar, d.tsv], languages: {en: 1}}, b.tar]"])
    assert [source.data for source in config.Data.sources] == [["a.tar", "b.tar"], ["c.tar", "d.tsv"]]
    (tmp_path / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(tmp_path / "config.yaml") == config


@settings(max_examples=10)
@given(
    temperature=st.floats(min_value=1e-6, max_value=10),
    weight=st.floats(min_value=0, max_value=1e6),
    prompt=st.text(max_size=20),
    epsilon=st.floats(min_value=1e-12, max_value=1e-3),
)
@example(temperature=1.0, weight=0.0, prompt="0e0", epsilon=1e-3)
@example(temperature=1.0, weight=0.0, prompt="a\x85", epsilon=1e-3)
def test_what_is_dumped_is_read_back_equal(tmp_path_factory, temperature, weight, prompt, epsilon):
    config = Config.model_validate({
        "Loss": {"temperature": temperature, "weights": {"text_text": weight}},
        "Views": {"prompts": {"zh": prompt, "en": "x"}},
        "Optimizer": {"epsilon": epsilon},
    })  # fmt: skip
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config


# What the words mean, in any case, that YAML 1.1 reads as booleans.
SWITCH_WORDS = {"on": True, "Off": False, "yes": True, "NO": False, "true": True, "False": False}
SWITCHES = ["Views.caption_lines", "Views.shuffle_tags", "Training.recompute", "Evaluation.at_start", "Tuning.by_size"]


@pytest.mark.parametrize("word", SWITCH_WORDS)
def test_a_switch_word_is_what_its_field_takes(tmp_path, word):
    """A boolean, or the text as it was written, also within lists, as a key, and in options of any type; in a file."""
    for key in SWITCHES:
        section, field = key.split(".")
        assert getattr(getattr(load_config(None, [f"{key}={word}"]), section), field) is SWITCH_WORDS[word], key
    path = tmp_path / "file.yaml"
    path.write_text(
        f"Training: {{recompute: {word}, output: {word}}}\n"
        f"Data: {{train: [{word}, {{data: [{word}], caption_lines: {word}}}], encoding: {word}}}\n"
        f"Views: {{languages: {{{word}: 1}}, tag_probability: 0}}\n"
        f"Loss: {{options: {{flag: {word}, list: [{word}]}}}}\n"
        f"Evaluation: {{evaluators: [{word}, {{margin: {{flag: {word}}}}}]}}\n"
    )
    config = load_config(path)
    truth = SWITCH_WORDS[word]
    assert (config.Training.recompute, config.Training.output, config.Data.encoding) == (truth, word, word)
    assert config.Data.train[0] == word and config.Data.train[1].caption_lines is truth
    assert config.Data.train[1].data == [word] and list(config.Views.languages) == [word]
    assert config.Loss.options == {"flag": truth, "list": [truth]}
    assert config.Evaluation.evaluators == [word, {"margin": {"flag": truth}}]
    written = tmp_path / "written.yaml"
    written.write_text(dump_config(config))
    assert load_config(written) == config


def test_attention_is_switched_by_the_words_of_its_field(tmp_path):
    path = tmp_path / "a.yaml"
    for word in ("on", "off", "auto"):
        path.write_text(f"Training: {{fused_attention: {word}}}\n")
        override = [f"Training.fused_attention={word}"]
        for config in (load_config(path), load_config(None, override), apply_overrides(Config(), override)):
            assert config.Training.fused_attention == word
    with pytest.raises(ConfigError, match="Training.fused_attention: .*yes"):
        load_config(None, ["Training.fused_attention=yes"])
    with pytest.raises(ConfigError, match="Training.steps: .* got 'on'"):
        load_config(None, ["Training.steps=on"])


@pytest.mark.parametrize(("holdout", "scored", "unscored"), [
    ({"val": 0}, {}, ["Data.holdout.val"]),
    ({"test": 0}, {}, ["Data.holdout.test"]),
    ({"val": 0}, {"val": ["val.tar"]}, []),
    ({"val": 0}, {"val": [{"split": "val"}]}, []),
    (None, {}, []),
])  # fmt: skip
def test_parts_of_nothing_are_named(holdout, scored, unscored):
    config = Config.model_validate({"Data": {"train": ["a.tar"], "holdout": holdout, **scored}})
    assert len(config.Data.unscored) == len(unscored)
    assert all(name in sentence for name, sentence in zip(unscored, config.Data.unscored, strict=True))


def test_part_of_nothing_is_not_what_is_trained_on():
    data = {"train": ["a.tar"], "val": [{"protocol": "pairs"}], "holdout": {"val": 0}}
    with pytest.raises(ValueError, match="holdout.val is 0"):
        Config.model_validate({"Data": data})


@pytest.mark.parametrize("key", ["Data.text_id", "Training.device", "Evaluation.protocol"])
def test_name_that_is_empty_is_refused(key):
    with pytest.raises(ConfigError, match=key):
        load_config(None, [f"{key}=''"])


ANCHORED = "Data: {train: &files [a.tsv, b.tsv], val: *files}\n"
MANY = "Data:\n  train: &files [" + ", ".join(f"{number}.tsv" for number in range(2000)) + "]\n"


@pytest.mark.parametrize("is_untrusted", [False, True])
def test_an_alias_means_what_its_anchor_names(tmp_path, is_untrusted):
    path = tmp_path / "a.yaml"
    path.write_text(ANCHORED)
    data = load_config(path, is_untrusted=is_untrusted).Data
    assert data.train == data.val == ["a.tsv", "b.tsv"]


def test_a_users_own_file_may_mean_any_number_of_values(tmp_path):
    path = tmp_path / "a.yaml"
    aliases = ", ".join(["*files"] * 60)
    path.write_text(f"{MANY}Training: {{steps: [{aliases}]}}\n")
    with pytest.raises(ConfigError, match=r"Training\.steps: Input should be a valid integer"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"a\.yaml: not valid YAML: more than 100,000 values"):
        load_config(path, is_untrusted=True)


def write(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_written_names_its_version(tmp_path):
    """A user's file may leave it out."""
    text = dump_config(Config())
    assert yaml.safe_load(text)["version"] == 1
    assert load_config(write(tmp_path, text)) == Config()
    assert load_config(write(tmp_path, "Training: {seed: 3}\n")).Training.seed == 3


@pytest.mark.parametrize("version", ["0", "2", "true", "null", "9" * 80])
def test_another_version_is_refused(tmp_path, version):
    path = write(tmp_path, f"version: {version}\nTraining: {{seed: 3}}\n")
    with pytest.raises(ConfigError, match="version") as caught:
        load_config(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < len(str(path)) + 200


def test_an_override_cannot_name_a_version(tmp_path):
    with pytest.raises(ConfigError, match="unknown key version"):
        load_config(write(tmp_path, "version: 1\n"), ["version=1"])


@pytest.mark.parametrize(("trees", "expected"), [
    ([{}], []),
    ([{"A": {"b": 1}}, {"A": {"b": 1}}], []),
    ([{"A": {"b": 1, "c": [1]}}, {"A": {"b": 2, "c": [1]}}], [("A.b", [1, 2])]),
    ([{"A": {"b": {"zh": 1}}}, {"A": {"b": {"en": 1}}}], [("A.b.zh", [1, MISSING]), ("A.b.en", [MISSING, 1])]),
    ([{"A": None}, {"A": {"b": 1}}], [("A", [None, {"b": 1}])]),
    ([{"a": 1}, {"a": 1}, {"a": 2}], [("a", [1, 1, 2])]),
])  # fmt: skip
def test_keys_and_values_that_differ(trees, expected):
    assert list(differences(*trees)) == expected


def test_what_is_free_on_resume_is_not_a_change():
    # A run on CPU that was configured in bfloat16 has trained in float32 in truth.
    free = ["Evaluation.every=7", "Training.device=cpu", "Data.workers=1", "Training.precision=bfloat16"]
    changed = load_config(None, [*free, "Optimizer.beta1=0.8"])
    assert find_changed_settings(load_config(None, []), changed) == ["Optimizer.beta1"]


def test_four_view_pairs_count_again_where_none_is_named():
    path = ROOT / "configs" / "finetune" / "muge.yaml"
    weights = {"image_image": 0, "text_text": 0, "image_text": 1, "text_image": 1}
    assert load_config(path).Loss.weights.model_dump() == weights
    assert set(load_config(path, ["Loss.weights={}"]).Loss.weights.model_dump().values()) == {1.0}


VIT = {"name": "ViT", "image_size": 32, "patch_size": 8, "width": 64, "depth": 2, "heads": 2, "mean": [0, 0, 0]}
TOWER = "my_towers:X"


def overridden(section, before, value):
    """A section after an override of all of it, and the remark on it."""
    parent, _, key = section.rpartition(".")
    siblings = {} if before is None else {key: before}
    remark = override({parent: siblings} if parent else siblings, f"{section}={json.dumps(value)}")
    return siblings[key], remark


@pytest.mark.parametrize(
    ("before", "value", "result", "remark"),
    [
        (VIT, {"width": 128}, VIT | {"width": 128}, "keeps image_size: 32, patch_size: 8, depth: 2, heads: 2, mean"),
        (VIT, {"name": "ViT", "drop_path": 0.1}, VIT | {"drop_path": 0.1}, "Model.image (ViT) keeps"),
        (
            VIT | {"weights": "x"},
            {"name": TOWER, "width": 64},
            {"name": TOWER, "width": 64, "image_size": 32, "mean": [0, 0, 0]},
            "(ViT becomes my_towers:X) keeps image_size: 32, mean: [0, 0, 0] and drops patch_size: 8, depth: 2, "
            "heads: 2, weights: x",
        ),
        # Weights of other sizes do not fit.
        (VIT | {"weights": "x"}, {"width": 128}, VIT | {"width": 128}, "and drops weights: x"),
        (VIT | {"weights": "x"}, {"width": 64, "drop_path": 0.1}, VIT | {"weights": "x", "drop_path": 0.1}, "keeps"),
        # The name that the file leaves open is the default.
        ({"image_size": 32}, {"name": "ViT-B/16"}, {"image_size": 32, "name": "ViT-B/16"}, "(ViT-B/16) keeps"),
        (None, {"name": TOWER}, {"name": TOWER}, None),
        (VIT, dict(VIT), VIT, None),
        (VIT, "paddle", "paddle", None),
    ],
)
def test_a_tower(before, value, result, remark):
    found, printed = overridden("Model.image", before, value)
    assert found == result
    assert (printed is None) == (remark is None) and (remark or "") in (printed or "")


def test_a_loss_of_another_kind_starts_from_its_own_temperature():
    before = {"kind": "info_nce", "temperature": 0.05, "duplicates": "positives", "weights": {"image_text": 1}}
    found, printed = overridden("Loss", before, {"kind": "sigmoid"})
    assert found == {"kind": "sigmoid", "duplicates": "positives", "weights": {"image_text": 1}}
    assert printed.endswith("and drops temperature: 0.05")


def test_one_size_of_a_tower_is_overridden_alone():
    before = load_config("configs/demo/emoji.yaml").Model.image
    after = load_config("configs/demo/emoji.yaml", ["Model.image.width=24"]).Model.image
    assert after == before.model_copy(update={"width": 24})
