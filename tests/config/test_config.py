"""Configurations: files, overrides and their errors, versions, differences, and overrides of whole sections."""

import json
import re
import time

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ernie_vil2.config import (
    MISSING,
    Config,
    ConfigError,
    SourceConfig,
    ViewsConfig,
    apply_overrides,
    differences,
    dump_config,
    load_config,
    validate_config,
)
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
        ("Training.learning_rate=1", "did you mean Optimizer.learning_rate or "),
        ("Loss.temperature=-1", "Loss.temperature: Input should be greater than 0, got -1"),
        ("Model.image.drop_path=1", "Model.image.drop_path: Input should be less than 1, got 1"),
        ("Model.image.name=ViT", "'ViT' leaves its size open: set patch_size, width, depth, heads"),
        ("Model.image={name: 'm:X', layers: [3, 4, 6]}", "Model.image.layers: List should have at least 4 items"),
        ("Model.text.depth=2", "Model.text: 'ernie-base' has no depth"),
        ("Views.resize=100", "Views.resize (100) is smaller than the crop"),
        ("Views.crop_area=[0.9, 0.1]", "Views: crop_area"),
        ("Views.languages={fr: 1}", "language 'fr' needs an entry in prompts"),
        ("Data.groups=9", "Data.groups (9) does not divide Training.global_batch (7168)"),
        ("Data.train=[{data: [a.tar], wieght: 2}]", "unknown key Data.train.0.wieght; did you mean Data.train.weight?"),
        ("Data.val=[{data: [a.tar], mixup: 2}]", "known here: Data.val.data, Data.val.layout, "),
        (
            "Training.stages=[{until: 1, rate: 2}]",
            "Training.stages.0.rate; did you mean Training.stages.learning_rate?",
        ),
        ("Evaluation.evaluators=[{retrieval: 1}]", "Evaluation.evaluators.0.retrieval: "),
        ("Evaluation.evaluators=[retrieval, {retrieval: {}}]", "Evaluation.evaluators: retrieval is named twice"),
        ("Data.train=a.csv", "Data.train: Input should be a valid list, got 'a.csv'; write [a.csv]"),
        ("Data.train=[a.tar, {data: [b.tar], weight: 2}]", "a.tar has no weight, other sources have one"),
        ("Data.max_length=600", "Model.text.max_positions=600"),
        ("Loss.temperature", "write Section.key=value"),
        ("Loss.temperature.x=1", "Loss.temperature"),
        ("Training.mixup=0.99", "unknown key Training.mixup; known here: Training.task, "),
        ("Schedule.cooldown=0.2", "Schedule: cooldown goes with kind: constant"),
    ],
)
def test_error_names_the_key_and_the_remedy(override, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        load_config(None, [override])
    assert len(str(caught.value)) < 1000


def test_too_long_texts_are_refused_by_the_positions_that_they_need():
    # Two positions of these 50 come before the first token.
    tower = "{name: transformer, width: 8, depth: 1, heads: 1, max_positions: 50, variant: {first_position: 2}}"
    load_config(None, [f"Model.text={tower}", "Data.max_length=48"])
    with pytest.raises(ConfigError, match=r"48 tokens.*max_positions \(50\).*max_positions=51"):
        load_config(None, [f"Model.text={tower}", "Data.max_length=49"])


def test_last_of_the_widths_is_that_of_the_embeddings():
    tower = "Model.text={name: transformer, width: 64, depth: 1, heads: 1, variant: {head: 32}}"
    assert load_config(None, [tower, "Loss.widths=[16, 32]"]).Loss.widths == [16, 32]
    for change in ("Loss.widths=[32, 64]", "Model.embed_dim=48"):
        with pytest.raises(ConfigError, match="Loss.widths ends with"):
            load_config(None, [tower, "Loss.widths=[16, 32]", change])


def test_default_yaml_shows_every_field_with_its_default():
    path = ROOT / "configs" / "default.yaml"
    assert load_config(path) == Config()
    shown_tree, default_tree = yaml.safe_load(path.read_text()), yaml.safe_load(dump_config(Config()))

    # The file also shows the fields of the kinds of towers that are not the default.
    tower_fields = set()
    for prefix, base in {"Model.image.": ImageTowerConfig, "Model.text.": TextTowerConfig}.items():
        for kind in base.kinds():
            tower_fields.update(prefix + field for field in kind.model_fields)
    assert "Model.image.layers" in tower_fields
    default_towers = {"Model": {side: default_tree["Model"][side] for side in ("image", "text")}}
    default_fields = {key for key, _ in differences(default_towers, {"Model": {"image": {}, "text": {}}})}
    missing_keys = {key for key, values in differences(shown_tree, default_tree) if MISSING in values}
    assert missing_keys == tower_fields - default_fields


STUDY_NAMES = ("study", "small_student", "wrong_captions", "long_texts", "widths")
STUDIES = {ROOT / "configs" / "ablation" / f"{name}.yaml" for name in STUDY_NAMES}
STUDIES.add(ROOT / "configs" / "cheaper" / "study.yaml")
CURATIONS = sorted((ROOT / "configs" / "curate").rglob("*.yaml"))  # with files of rules
CONFIGURATIONS = sorted({*(ROOT / "configs").rglob("*.yaml")} - {*STUDIES, *CURATIONS})


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: "/".join(path.parts[-2:]))
def test_every_shipped_configuration_loads_and_takes_steps(path):
    load_config(path)
    # A trial of a few steps replaces the epochs of the file.
    training = resolve_steps(load_config(path, ["Training.steps=5"]), 100_000).Training
    assert (training.steps, training.epochs) == (5, None)


def test_last_override_of_steps_and_epochs_wins():
    assert load_config(None, ["Training.steps=5", "Training.epochs=2"]).Training.epochs == 2
    assert load_config(None, ["Training.epochs=2", "Training.steps=5"]).Training.epochs is None


def test_last_override_wins_and_5e_5_is_a_number(tmp_path):
    overlay = tmp_path / "a.yaml"
    overlay.write_text("Optimizer: {learning_rate: 2e-3}\n")
    assert load_config(overlay).Optimizer.learning_rate == 0.002
    config = load_config(overlay, ["Optimizer.learning_rate=1e-4", "Optimizer.learning_rate=5E-5"])
    assert config.Optimizer.learning_rate == 0.00005


def test_override_sets_a_key_of_a_section_that_is_null(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("Tuning: {lora: null}\nTraining:\n  # steps: 7\n")
    overrides = ["Tuning.lora.rank=4", "Training.steps=5"]
    for config in (load_config(path, overrides), apply_overrides(Config(), overrides)):
        assert (config.Tuning.lora.rank, config.Training.steps) == (4, 5)


def test_overlay_lies_on_its_base(tmp_path):
    files = {
        "lowest.yaml": "Training: {steps: 5, seed: 3, log_every: 2}",
        "folder/middle.yaml": "base: ../lowest.yaml\nTraining: {steps: 6, seed: 4}",
        "top.yaml": "base: folder/middle.yaml\nTraining: {steps: 7}",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert load_config(tmp_path / "top.yaml") == load_config(
        None, ["Training.steps=7", "Training.seed=4", "Training.log_every=2"]
    )


def test_steps_of_an_overlay_replace_the_epochs_of_its_base(tmp_path):
    (tmp_path / "base.yaml").write_text("Training: {epochs: 3, seed: 1}")
    path = tmp_path / "a.yaml"
    for training, expected in (("steps: 5", (5, None)), ("seed: 2", (100_000, 3)), ("steps: 5, epochs: 2", (5, 2))):
        path.write_text(f"base: base.yaml\nTraining: {{{training}}}")
        loaded = load_config(path).Training
        assert (loaded.steps, loaded.epochs) == expected


@pytest.mark.parametrize(("text", "culprit"), [
    ("base: top.yaml", "base: top.yaml"),
    ("base: middle.yaml", "middle.yaml: base: top.yaml"),
    ("base: [a.yaml]", "base is the name of a file"),
    ("base: nowhere.yaml", "nowhere.yaml"),
])  # fmt: skip
def test_base_that_cannot_be_used_is_named(tmp_path, text, culprit):
    (tmp_path / "middle.yaml").write_text("base: top.yaml")
    (tmp_path / "top.yaml").write_text(text)
    with pytest.raises(ConfigError, match=culprit):
        load_config(tmp_path / "top.yaml")


def test_untrusted_configuration_reads_no_other_file(tmp_path):
    (tmp_path / "below.yaml").write_text("Training: {steps: 5}")
    (tmp_path / "top.yaml").write_text("base: below.yaml")
    with pytest.raises(ConfigError, match="unknown key base"):
        load_config(tmp_path / "top.yaml", is_untrusted=True)


def test_error_names_a_file_that_is_not_a_configuration(tmp_path):
    path = tmp_path / "odd.yaml"
    for text in ("- a\n", "a: ["):
        path.write_text(text)
        with pytest.raises(ConfigError, match="odd.yaml"):
            load_config(path)
    with pytest.raises(ConfigError, match="nowhere.yaml"):
        load_config("nowhere.yaml")


def test_plain_entries_of_train_form_one_source(tmp_path):
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
def test_dumped_configuration_is_read_back_equal(tmp_path_factory, temperature, weight, prompt, epsilon):
    config = Config.model_validate({
        "Loss": {"temperature": temperature, "weights": {"text_text": weight}},
        "Views": {"prompts": {"zh": prompt, "en": "x"}},
        "Optimizer": {"epsilon": epsilon},
    })  # fmt: skip
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config


# Words that YAML 1.1 reads as booleans in any case, and their meaning.
SWITCH_WORDS = {"on": True, "Off": False, "yes": True, "NO": False, "true": True, "False": False}
SWITCHES = ["Views.caption_lines", "Views.shuffle_tags", "Training.recompute", "Evaluation.at_start", "Tuning.by_size"]


@pytest.mark.parametrize("word", SWITCH_WORDS)
def test_switch_word_is_a_boolean_or_a_text_as_its_field_is(tmp_path, word):
    for key in SWITCHES:
        section, field = key.split(".")
        assert getattr(getattr(load_config(None, [f"{key}={word}"]), section), field) is SWITCH_WORDS[word], key
    # In a file also within lists, as a key, and in options of any type.
    path = tmp_path / "file.yaml"
    path.write_text(
        f"Training: {{recompute: {word}, output: {word}}}\n"
        f"Data: {{train: [{word}, {{data: [{word}], caption_lines: {word}}}], encoding: {word}}}\n"
        f"Views: {{languages: {{{word}: 1}}, tag_probability: 0}}\n"
        f"Loss: {{options: {{flag: {word}, list: [{word}], {word}: {{{word}: {word}}}}}}}\n"
        f"Evaluation: {{evaluators: [{word}, {{margin: {{flag: {word}}}}}]}}\n"
    )
    config = load_config(path)
    value = SWITCH_WORDS[word]
    assert (config.Training.recompute, config.Training.output, config.Data.encoding) == (value, word, word)
    assert config.Data.train[0] == word and config.Data.train[1].caption_lines is value
    assert config.Data.train[1].data == [word] and list(config.Views.languages) == [word]
    assert config.Loss.options == {"flag": value, "list": [value], word: {word: value}}
    assert config.Evaluation.evaluators == [word, {"margin": {"flag": value}}]
    written = tmp_path / "written.yaml"
    written.write_text(dump_config(config))
    assert load_config(written) == config


def test_fused_attention_is_a_word_and_not_a_boolean(tmp_path):
    path = tmp_path / "a.yaml"
    for word in ("on", "off", "auto"):
        path.write_text(f"Training: {{fused_attention: {word}}}\n")
        overrides = [f"Training.fused_attention={word}"]
        for config in (load_config(path), load_config(None, overrides), apply_overrides(Config(), overrides)):
            assert config.Training.fused_attention == word
    with pytest.raises(ConfigError, match="Training.fused_attention: .*yes"):
        load_config(None, ["Training.fused_attention=yes"])
    with pytest.raises(ConfigError, match="Training.steps: .* got 'on'"):
        load_config(None, ["Training.steps=on"])


@pytest.mark.parametrize(("holdout", "scored_data", "unscored_parts"), [
    ({"val": 0}, {}, ["Data.holdout.val"]),
    ({"test": 0}, {}, ["Data.holdout.test"]),
    ({"val": 0}, {"val": ["val.tar"]}, []),
    ({"val": 0}, {"val": [{"split": "val"}]}, []),
    (None, {}, []),
])  # fmt: skip
def test_empty_parts_of_a_holdout_are_named(holdout, scored_data, unscored_parts):
    config = Config.model_validate({"Data": {"train": ["a.tar"], "holdout": holdout, **scored_data}})
    warnings = config.Data.warnings
    assert all(name in warning for name, warning in zip(unscored_parts, warnings, strict=True))


def test_settings_of_plain_entries_are_named_if_there_are_none():
    for train, expected_names in ((["a.csv"], []), ([{"data": ["a.csv"]}], ["Data.images", "Data.encoding"])):
        data = {"train": train, "images": "photos", "encoding": "big5"}
        warnings = Config.model_validate({"Data": data}).Data.warnings
        assert [warning.partition(" ")[0] for warning in warnings] == expected_names


def test_validation_on_an_empty_part_is_refused():
    data = {"train": ["a.tar"], "val": [{"protocol": "pairs"}], "holdout": {"val": 0}}
    with pytest.raises(ValueError, match="holdout.val is 0"):
        Config.model_validate({"Data": data})


@pytest.mark.parametrize("key", ["Data.text_id", "Training.device", "Evaluation.protocol"])
def test_empty_name_is_refused(key):
    with pytest.raises(ConfigError, match=key):
        load_config(None, [f"{key}=''"])


FILE_WITH_ALIAS = "Data: {train: &files [a.tsv, b.tsv], val: *files}\n"
FILE_WITH_MANY_VALUES = "Data:\n  train: &files [" + ", ".join(f"{number}.tsv" for number in range(2000)) + "]\n"


@pytest.mark.parametrize("is_untrusted", [False, True])
def test_alias_has_the_value_of_its_anchor(tmp_path, is_untrusted):
    path = tmp_path / "a.yaml"
    path.write_text(FILE_WITH_ALIAS)
    data = load_config(path, is_untrusted=is_untrusted).Data
    assert data.train == data.val == ["a.tsv", "b.tsv"]


def test_override_of_an_anchor_leaves_its_aliases(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("Views: {languages: &texts {zh: 1}}\nData: {train: [{data: [a.tsv], languages: *texts}]}\n")
    config = load_config(path, ["Views.languages.en=2"])
    assert config.Views.languages == {"zh": 1, "en": 2}
    assert config.Data.sources[0].languages == {"zh": 1}


def test_only_untrusted_files_are_limited_in_values(tmp_path):
    path = tmp_path / "a.yaml"
    aliases = ", ".join(["*files"] * 60)
    path.write_text(f"{FILE_WITH_MANY_VALUES}Training: {{steps: [{aliases}]}}\n")
    with pytest.raises(ConfigError, match=r"Training\.steps: Input should be a valid integer"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"a\.yaml: not valid YAML: more than 100,000 values"):
        load_config(path, is_untrusted=True)


def write_config(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_dumped_configuration_has_a_version(tmp_path):
    text = dump_config(Config())
    assert yaml.safe_load(text)["version"] == 1
    assert load_config(write_config(tmp_path, text)) == Config()
    assert load_config(write_config(tmp_path, "Training: {seed: 3}\n")).Training.seed == 3


@pytest.mark.parametrize("version", ["0", "2", "true", "null", "9" * 80])
def test_unknown_version_is_refused(tmp_path, version):
    path = write_config(tmp_path, f"version: {version}\nTraining: {{seed: 3}}\n")
    with pytest.raises(ConfigError, match="version") as caught:
        load_config(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < len(str(path)) + 200


def test_version_cannot_be_overridden(tmp_path):
    with pytest.raises(ConfigError, match="unknown key version"):
        load_config(write_config(tmp_path, "version: 1\n"), ["version=1"])


@pytest.mark.parametrize(("trees", "expected"), [
    ([{}], []),
    ([{"A": {"b": 1}}, {"A": {"b": 1}}], []),
    ([{"A": {"b": 1, "c": [1]}}, {"A": {"b": 2, "c": [1]}}], [("A.b", [1, 2])]),
    ([{"A": {"b": {"zh": 1}}}, {"A": {"b": {"en": 1}}}], [("A.b.zh", [1, MISSING]), ("A.b.en", [MISSING, 1])]),
    ([{"A": None}, {"A": {"b": 1}}], [("A", [None, {"b": 1}])]),
    ([{"a": 1}, {"a": 1}, {"a": 2}], [("a", [1, 1, 2])]),
])  # fmt: skip
def test_differences_list_keys_and_values(trees, expected):
    assert list(differences(*trees)) == expected


def test_settings_that_may_differ_on_resume_are_not_changes():
    # A run on CPU that was configured in bfloat16 has trained in float32.
    free = ["Evaluation.every=7", "Training.device=cpu", "Data.workers=1", "Training.precision=bfloat16"]
    changed = load_config(None, [*free, "Optimizer.beta1=0.8"])
    assert find_changed_settings(load_config(None, []), changed) == ["Optimizer.beta1"]


def test_empty_loss_weights_restore_all_view_pairs():
    path = ROOT / "configs" / "finetune" / "muge.yaml"
    weights = {"image_image": 0, "text_text": 0, "image_text": 1, "text_image": 1}
    assert load_config(path).Loss.weights.model_dump() == weights
    assert set(load_config(path, ["Loss.weights={}"]).Loss.weights.model_dump().values()) == {1.0}


VIT = {"name": "ViT", "image_size": 32, "patch_size": 8, "width": 64, "depth": 2, "heads": 2, "mean": [0, 0, 0]}
TOWER = "my_towers:X"


def override_section(section, old_value, value):
    """Override a whole section, and return it with the remark that is printed."""
    parent, _, key = section.rpartition(".")
    siblings = {} if old_value is None else {key: old_value}
    tree = {parent: siblings} if parent else siblings
    remark = override(tree, f"{section}={json.dumps(value)}")
    return (tree[parent] if parent else tree)[key], remark


@pytest.mark.parametrize(
    ("old_value", "value", "expected", "expected_remark"),
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
        # The old section has no name, so that its tower is the default one.
        ({"image_size": 32}, {"name": "ViT-B/16"}, {"image_size": 32, "name": "ViT-B/16"}, "(ViT-B/16) keeps"),
        (None, {"name": TOWER}, {"name": TOWER}, None),
        (VIT, dict(VIT), VIT, None),
        (VIT, "paddle", "paddle", None),
    ],
)
def test_override_of_a_tower_keeps_fields_that_fit(old_value, value, expected, expected_remark):
    result, remark = override_section("Model.image", old_value, value)
    assert result == expected
    if expected_remark is None:
        assert remark is None
    else:
        assert expected_remark in remark


def test_another_kind_of_loss_drops_the_temperature():
    loss = {"kind": "info_nce", "temperature": 0.05, "duplicates": "positives", "weights": {"image_text": 1}}
    result, remark = override_section("Loss", loss, {"kind": "sigmoid"})
    assert result == {"kind": "sigmoid", "duplicates": "positives", "weights": {"image_text": 1}}
    assert remark.endswith("and drops temperature: 0.05")


def test_override_of_one_field_keeps_the_rest_of_a_tower():
    tower = load_config("configs/demo/emoji.yaml").Model.image
    changed_tower = load_config("configs/demo/emoji.yaml", ["Model.image.width=24"]).Model.image
    assert changed_tower == tower.model_copy(update={"width": 24})


def test_reduced_residual_is_refused_in_float32():
    with pytest.raises(ConfigError, match="residual.*precision"):
        load_config(None, ["Training.residual=reduced"])
    config = load_config(None, ["Training.residual=reduced", "Training.precision=bfloat16"])
    assert config.Training.residual == "reduced"


def test_suite_does_not_build_the_vits_of_other_families():
    # PaddleClas's ViT would ignore the variant.
    fields = "name: ViT, image_size: 32, patch_size: 8, width: 16, depth: 1, heads: 2"
    for variant, expected_name in (("null", "paddleclas:ViT"), ("{activation: gelu}", "ViT")):
        overrides = ["Model.implementation=suite", f"Model.image={{{fields}, variant: {variant}}}"]
        assert load_config(None, overrides).Model.image.name == expected_name


@pytest.mark.parametrize("task", ["new_language", "entailment", "nlvr2"])
def test_teacher_is_refused_by_tasks_that_do_not_use_it(task):
    overrides = [f"Training.task={task}", "Tuning.teacher.embeddings=teacher"]
    with pytest.raises(ConfigError, match=rf"Tuning\.teacher .*{task}"):
        load_config(None, overrides)
    load_config(None, [*overrides, "Tuning.teacher=null"])


SOURCES = [
    {}, {"languages": {"fr": 1}}, {"tag_probability": 0.5}, {"tag_probability": 0}, {"prompts": {"fr": "avec "}},
    {"prompts": {"fr": "avec "}, "separators": {"fr": ", "}},
    {"prompts": {"fr": "avec "}, "separators": {"fr": ", "}, "tag_probability": 0.5, "languages": {"fr": 1, "zh": 1}},
    {"languages": {"fr": 1}, "tag_probability": 0}, {"languages": {"en": 1}, "tag_probability": 1},
]  # fmt: skip


@pytest.mark.parametrize("source", SOURCES, ids=str)
@pytest.mark.parametrize("views", [{}, {"tag_probability": 0, "languages": {"zh": 1, "fr": 1}}], ids=str)
def test_sources_are_refused_if_their_views_lack_texts_for_tags(views, source):
    source = {"data": ["a.csv"], **source}
    tree = {"Views": views, "Data": {"train": [source]}}
    try:
        SourceConfig(**source).merge_views(ViewsConfig(**views))
    except ValueError:
        with pytest.raises(ConfigError, match="'fr' needs an entry in prompts and in separators"):
            validate_config(tree, "")
    else:
        validate_config(tree, "")


def test_many_sources_and_languages_are_checked_in_seconds():
    texts = dict.fromkeys(map(str, range(3000)), ",")
    views = {"languages": dict.fromkeys(texts, 1), "prompts": texts, "separators": texts}
    start = time.monotonic()
    validate_config({"Views": views, "Data": {"train": [{"data": ["a.tar"]}] * 10_000}}, "")
    assert time.monotonic() - start < 20
