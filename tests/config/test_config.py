import re
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from ernie_vil2.config import Config, ConfigError, dump_config, load_config, read_yaml, with_overrides
from ernie_vil2.training.optimizer import with_steps

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("Loss.tempreture=1", "unknown key Loss.tempreture; did you mean Loss.temperature?"),
        ("Optimizer.temperature=1", "unknown key Optimizer.temperature; did you mean Loss.temperature?"),
        ("Loss.weights.image_txt=2", "did you mean Loss.weights.image_text?"),
        ("Training.batch_size=8", "did you mean Training.global_batch or Training.micro_batch?"),
        ("Training.learning_rate=1", "did you mean Optimizer.learning_rate?"),
        ("Loss.temperature=-1", "Loss.temperature: Input should be greater than 0, got -1"),
        ("Training.precision=int8", "Training.precision: Input should be 'float32', 'bfloat16' or 'float16'"),
        ("Model.image.name=ViT", "'ViT' leaves its size open: set patch_size, width, depth, heads"),
        ("Model.image.layers=[3, 4, 6]", "Model.image.layers: List should have at least 4 items"),
        ("Model.text.depth=2", "'ernie-base' has fixed sizes: remove depth"),
        ("Views.resize=100", "Views.resize (100) is smaller than the crop"),
        ("Views.crop_area=[0.9, 0.1]", "crop_area runs from the least to the most"),
        ("Views.languages={fr: 1}", "language 'fr' needs an entry in prompts"),
        ("Data.groups=9", "Data.groups (9) does not divide Training.global_batch (7168)"),
        ("Data.train=[{data: [a.tar], wieght: 2}]", "did you mean Data.train.weight or "),
        ("Data.train=a.csv", "Data.train: Input should be a valid list, got 'a.csv'; write [a.csv]"),
        ("Data.train=[a.tar, {data: [b.tar], weight: 2}]", "a.tar has no weight, other sources have one"),
        ("Data.train=[{data: [b.tar], languages: {fr: 1}}]", "language 'fr' needs an entry in prompts"),
        ("Data.max_length=600", "exceeds Model.text.max_positions"),
        ("Loss.temperature", "write Section.key=value"),
        ("Loss.temperature.x=1", "Loss.temperature"),
    ],
)
def test_an_error_names_the_key_and_the_way_out(override, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        load_config(None, [override])
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(("override", "known"), [
    ("Training.mixup=0.99", "Training.task, "),
    ("Optimizer.lr=1", "Optimizer.learning_rate, "),
])  # fmt: skip
def test_key_that_resembles_none_is_not_taken_for_another(override, known):
    with pytest.raises(ConfigError, match=f"unknown key {override.partition('=')[0]}; known here: {known}"):
        load_config(None, [override])


def test_only_options_of_the_sections_at_fault_are_named():
    others = ["Data.workers=0", "Views.grayscale=0"]
    with pytest.raises(ConfigError, match="^defaults -o Training.steps=-1: Training.steps: "):
        load_config(None, [*others, "Training.steps=-1"])
    with pytest.raises(ConfigError, match="^defaults -o Data.workers=0 -o Views.grayscale=0 -o Data.groups="):
        load_config(None, [*others, "Data.groups=9"])  # sections that do not fit each other


def test_default_yaml_shows_every_field_with_its_default():
    path = ROOT / "configs" / "default.yaml"
    assert load_config(path) == Config()

    def keys(tree, section):
        for name, field in section.model_fields.items():
            yield name in tree
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield from keys(tree[name], field.annotation)

    assert all(keys(yaml.safe_load(path.read_text()), Config))


_STUDIES = ("study", "small_student", "wrong_captions", "long_texts", "widths")
STUDIES = {ROOT / "configs" / "ablation" / f"{name}.yaml" for name in _STUDIES}
CURATIONS = sorted((ROOT / "configs" / "curate").glob("*.yaml"))
CONFIGURATIONS = sorted({*(ROOT / "configs").rglob("*.yaml")} - {*STUDIES, *CURATIONS})


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_every_shipped_configuration_loads(path):
    """A short try of it has its steps."""
    load_config(path)
    training = with_steps(load_config(path, ["Training.steps=5"]), 100_000).Training
    assert (training.steps, training.epochs) == (5, None)


def test_of_steps_and_epochs_the_last_one_counts():
    both = ["Training.steps=5", "Training.epochs=2"]
    assert load_config(None, both).Training.epochs == 2
    assert load_config(None, both[::-1]).Training.epochs is None


def test_every_field_says_what_it_means():
    def undescribed(section):
        for name, field in section.model_fields.items():
            if not field.description:
                yield name
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield from undescribed(field.annotation)

    assert list(undescribed(Config)) == []


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
    for word in ("on", "off", "auto"):
        assert load_config(None, [f"Training.fused_attention={word}"]).Training.fused_attention == word
        path = tmp_path / f"{word}.yaml"
        path.write_text(f"Training: {{fused_attention: {word}}}\n")
        assert load_config(path).Training.fused_attention == word
        assert with_overrides(Config(), [f"Training.fused_attention={word}"]).Training.fused_attention == word
    with pytest.raises(ConfigError, match="Training.fused_attention: .*yes"):
        load_config(None, ["Training.fused_attention=yes"])
    with pytest.raises(ConfigError, match="Training.steps: .* got 'on'"):
        load_config(None, ["Training.steps=on"])


def test_a_switch_word_of_other_yaml_stays_a_boolean(tmp_path):
    path = tmp_path / "other.yaml"
    path.write_text("{first: off, second: [yes, 'yes']}")
    assert read_yaml(path) == {"first": False, "second": [True, "yes"]}


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
