"""The search of a learning rate: which rates are tried and which is chosen; tests/pages/test_own_data.py runs it."""

import math

import numpy as np
import pytest

from ernie_vil2.config import ConfigError, load_config
from ernie_vil2.evaluation.outcomes import Outcomes
from ernie_vil2.io.run_folder import lock_run_folder
from ernie_vil2.models.weights.initial import choose_recipe, resolve_model_like
from ernie_vil2.training import rate_search
from ernie_vil2.training.rate_search import Trial
from ernie_vil2.training.update import NotFinite
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.published_folders import TOKENS
from tests.support.trainings import fit

LADDER = [2e-5, 5e-5, 1e-4, 2e-4, 4e-4, 1e-3]


def test_rate_and_batch_follow_the_size_of_the_model_unless_set(tmp_path):
    settings = [f"Model.weights={write_untrained_checkpoint(tmp_path / 'MODEL', TOKENS)}", "Data.train=[x]"]
    small = resolve_model_like(load_config("configs/finetune/own.yaml", settings))
    assert (small.Tuning.initial_share, small.Tuning.freeze_norms) == (0.3, False)
    assert (small.Optimizer.learning_rate, small.Training.global_batch, small.Training.micro_batch) == (2e-3, 64, None)
    changes = ["Optimizer.learning_rate=3e-4", "Training.global_batch=128"]
    changed = resolve_model_like(resolve_model_like(load_config("configs/finetune/own.yaml", settings + changes)))
    assert (changed.Optimizer.learning_rate, changed.Training.global_batch) == (3e-4, 128)
    released = choose_recipe({"image": {}, "text": {"width": 768}})
    assert {key: value for _, key, value in released} == {
        "learning_rate": 5e-5, "global_batch": 256, "micro_batch": 64, "initial_share": 0, "freeze_norms": False,
    }  # fmt: skip
    convolutional = choose_recipe({"image": {"name": "RepVGG"}, "text": {"width": 192}})
    assert ("Tuning", "freeze_norms", True) in convolutional


def make_outcomes(hits, language="zh"):
    """Return the outcomes of retrieval, as a scorer returns them; `hits` says which pairs are found."""
    numbers = range(len(hits))
    ids = [f"image_to_text {number}" for number in numbers] + [f"text_to_image {number}" for number in numbers]
    values = 100.0 * np.tile(np.asarray(hits, float), 2)
    rows = np.tile(np.arange(len(hits)), 2)
    groups = {"mR": np.repeat([0, 1], len(hits))}
    return {language: Outcomes(ids, {"mR": values}, "mR", rows, np.where(values > 0, 1, 9), groups)}


def make_results(*trials):
    """Return the results of trials, the first one with the recipe's rate; a trial is its hits, or None if it failed."""
    results = rate_search.Results()
    for number, hits in enumerate(trials):
        rate = 1e-3 * 2**number
        if hits is None:
            results.add(Trial(rate, 64, None), None)
        else:
            results.add(Trial(rate, 64, 100 * float(np.mean(hits))), rate_search.pool_queries(make_outcomes(hits)))
    return results


def test_rate_is_chosen_only_if_clearly_better():
    # The recipe finds 40 of 93 images; a rate that finds five more and loses three is not clearly better.
    recipe = np.arange(93) < 40
    slightly = (np.arange(93) >= 3) & (np.arange(93) < 45)
    clearly = np.arange(93) < 60
    assert make_results(recipe, slightly).choose() is None
    assert make_results(recipe, slightly, clearly, None).choose().rate == 4e-3
    assert make_results(clearly, recipe, slightly).choose() is None  # worse rates are not chosen
    assert make_results(None, slightly, clearly).choose().rate == 4e-3
    results = make_results(recipe, slightly)
    difference = results.compute_difference(*results.trials[::-1])
    assert difference.mean == pytest.approx(100 * 2 / 93) and difference.low < 0 < difference.high


def test_no_rate_is_chosen_by_chance():
    # All hits are coin flips. Without Holm's correction for eight comparisons, one of the 20 searches chooses a rate.
    rng = np.random.default_rng(0)
    for _ in range(20):
        hits = rng.random((9, 60)) < 0.5
        assert not make_results(*hits).choose()


def test_queries_of_two_languages_are_pooled_by_images():
    queries = rate_search.pool_queries({**make_outcomes([1, 0, 1]), **make_outcomes([0, 0, 1], "en")})
    assert len(set(queries.ids)) == 12 and queries.clusters.tolist() == queries.clusters.tolist()[:3] * 4
    assert len(set(queries.clusters.tolist())) == 3
    # A language and a direction is a group; two of three texts are found in Chinese, one in English.
    means = [queries.values[queries.groups == group].mean() for group in range(4)]
    assert np.mean(means) == pytest.approx((200 / 3 + 100 / 3) / 2)


@pytest.mark.parametrize("is_clear", [True, False])
@pytest.mark.parametrize(
    ("best", "batch", "rate", "expected"),
    [
        (1e-4, 64, 1e-4, [2e-5, 5e-5, 2e-4, 4e-4, 1e-3]),  # the recipe's rate is not tried twice
        (4e-3, 64, 2e-3, [*LADDER, 4e-3, 8e-3]),  # the recipe's rate is the highest of the ladder
        (2e-2, 64, 5e-3, LADDER),  # twice this rate is above the largest
        (4e-3, 256, 1e-3, [*LADDER, 2e-3, 4e-3, 8e-3, 2e-3, 4e-3, 8e-3]),
        (2e-5, 256, 2e-5, [*LADDER, 5e-5]),
    ],
)
def test_rates_grow_while_the_highest_is_clearly_best(best, batch, rate, expected, is_clear):
    settings = ["Data.train=[x]", f"Training.global_batch={batch}", f"Optimizer.learning_rate={rate}"]
    finished = []
    for trial in rate_search.propose_trials(load_config(None, settings), 1000, finished, lambda *_: is_clear):
        # The score falls with the distance to the best rate, and with the batch.
        finished.append(trial._replace(score=-abs(math.log(trial.rate / best)) - trial.batch))
    assert finished[0].setting == (rate, batch)
    rates = [trial.rate for trial in finished[1:]]
    if is_clear:
        assert rates == expected
    else:
        assert max(rates) <= max(1e-3, rate)


def test_rate_of_the_recipe_is_scaled_to_its_batch():
    settings = ["Data.train=[x]", "Training.global_batch=64", "Optimizer.learning_rate=1e-4", "Tuning.base_batch=16"]
    first = next(rate_search.propose_trials(load_config(None, settings), 1000, [], lambda *_: False))
    assert first.setting == (pytest.approx(4e-4), 64)


@pytest.fixture
def trial_folders(monkeypatch):
    """Return the folders of the trials, which all fail at once."""
    folders = []

    def fail(config, **_):
        folders.append(config.Training.output)
        raise NotFinite("a rate too high")

    monkeypatch.setattr(rate_search, "Trainer", fail)
    return folders


def test_trials_stay_in_a_folder_of_any_name(config, tmp_path, trial_folders):
    folder = tmp_path / "run #1: [new]"
    with pytest.raises(ConfigError, match="no trial"):
        rate_search.tune_rate(config(f'Training.output="{folder}"'))
    assert set(trial_folders) == {str(folder / rate_search.TRIAL_FOLDER)}


def test_folder_is_checked_before_the_trials(config, tmp_path, trial_folders):
    settings = config("Training.steps=1")
    with lock_run_folder(tmp_path / "run"), pytest.raises(ConfigError, match="in use"):
        rate_search.tune_rate(settings)
    fit(settings)
    with pytest.raises(ConfigError, match="already holds a run"):
        rate_search.tune_rate(settings)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").touch()
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        rate_search.tune_rate(config(f"Training.output={other}"))
    assert not trial_folders


def test_results_serve_only_the_configuration_that_was_tried(config, tmp_path, monkeypatch):
    monkeypatch.setattr(rate_search, "_run_trial", lambda config, trial, _: (trial._replace(score=1.0), None))
    rate_search.tune_rate(config())
    path = tmp_path / "run" / rate_search.RESULTS_FILE
    content = path.read_bytes()
    rate_search.tune_rate(config("Training.steps=7", "Training.log_every=3"))
    with pytest.raises(ConfigError, match="another Loss.weights.image_image"):
        rate_search.tune_rate(config("Loss.weights.image_image=0"))
    assert path.read_bytes() == content
