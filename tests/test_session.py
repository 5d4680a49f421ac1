"""A session: the images, labels and weights that its settings mean, and what its folder and the tables make of it."""

import dataclasses
import json
import pathlib
import types

import numpy as np
import pytest

import evaluation
import training.loop
from data import DataError
from experiment import cells, session
from experiment.flags import default_path
from experiment.presets import settings_beside
from experiment.run_folder import Run
from experiment.session import Session, build_model
from experiment.settings import Config
from experiment.siblings import finished_sibling, settings_of_sibling
from tests.helpers import RECORD
from utils import UsageError, evenly_spaced

SMALL = Config(n_hidden=(6,), n_latent=(3,), epochs=1, jit="off", conditional="learned_prior")


def test_it_measures_the_test_images_or_those_held_out_with_their_own_labels(few_digits, digits):
    one = Session(SMALL.resolved(), Run(few_digits / "a"))
    x, y = one.test_data()
    np.testing.assert_array_equal(x, digits.binarised_test_images())
    np.testing.assert_array_equal(y.argmax(axis=1), digits.test_labels)
    x, y = one.test_data(50)  # spread evenly: the first ones are easier
    np.testing.assert_array_equal(x, digits.binarised_test_images()[::4])
    np.testing.assert_array_equal(y.argmax(axis=1), digits.test_labels[::4])
    held_out = Session(dataclasses.replace(SMALL, held_out=150).resolved(), Run(few_digits / "b"))
    np.testing.assert_array_equal(held_out.dataset.train_images, digits.train_images[:250])
    np.testing.assert_array_equal(held_out.dataset.test_images, digits.train_images[250:])
    np.testing.assert_array_equal(held_out.test_data()[1].argmax(axis=1), digits.train_labels[250:])


def test_images_are_binarised_as_asked(few_digits, digits):
    one = Session(dataclasses.replace(SMALL, binarise="threshold").resolved(), Run(few_digits / "a"))
    np.testing.assert_array_equal(one.dataset.train_images, 255 * (digits.train_images > 127))
    held_out = Session(dataclasses.replace(SMALL, binarise="fixed", held_out=150).resolved(), Run(few_digits / "c"))
    drawn = digits.binarised("fixed").train_images  # the same draw as where they are trained on
    np.testing.assert_array_equal(held_out.dataset.test_images, drawn[250:])
    with pytest.raises(DataError, match="--binarise: none is for images of 0 and 1"):
        digits.binarised("none")


def replaces(size, held_out=0, **old):
    """Whether a measurement of that size takes the place of an old record."""
    one = types.SimpleNamespace(config=Config(held_out=held_out).resolved())
    return Session._replaces(one, RECORD | old, size)


@pytest.mark.parametrize(
    ("asked", "kept"),
    [((20, 40), True), ((10, 50), True), ((20, 50), True), ((30, 50), False), ((20, 51), False),
     ((30, 40), True), ((10, 60), True)],
)  # fmt: skip
def test_a_record_gives_way_only_to_one_with_as_many_samples_and_images(asked, kept):
    assert replaces(asked) != kept


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [((5000, 10000), (20000, 10000), True), ((20000, 10000), (5000, 10000), False),
     ((20000, 1000), (5000, 10000), False), ((5000, 10000), (5000, 10000), True), ((20000, 1000), (10000, 1000), True)],
)  # fmt: skip
def test_the_record_that_the_tables_show_stays_and_replaces_any_other(old, new, kept):
    assert replaces(new, **dict(zip(("n_samples", "n_images"), old))) != kept


def test_of_held_out_images_which_no_table_shows_the_finer_record_stays():
    assert replaces((20000, 9), held_out=9, n_samples=5000, n_images=9)


@pytest.mark.parametrize(
    ("asked", "measured"),
    [
        ({}, False),
        ({"eval_images": None}, True),
        ({"eval_samples": 30}, True),
        ({"eval_images": 60}, True),
        ({"per_image": "each.csv"}, True),
    ],
)
def test_what_a_task_finds_is_measured_where_more_is_asked_for(asked, measured, few_digits, monkeypatch, capsys):
    one = Session(dataclasses.replace(SMALL, eval_samples=20, eval_images=50).resolved(), Run(few_digits / "a"))
    monkeypatch.setattr(Run, "recorded", lambda self: RECORD)
    monkeypatch.setattr(Session, "measure", lambda self: "measured")
    one.config = dataclasses.replace(one.config, **asked)
    assert (one.report() == "measured") == measured


def test_the_run_s_seed_is_that_of_its_evaluation(few_digits, monkeypatch, capsys):
    config = dataclasses.replace(SMALL, seed=7, held_out=150, eval_samples=20, eval_images=50, threads=3).resolved()
    one, seeds, labels = Session(config, Run(few_digits / "a")), [], []

    def recording(x, y, seed):
        seeds.append(seed)
        labels.append(y)
        return [np.array([1, 0.005, 0.02])]

    monkeypatch.setattr(evaluation, "make_activity", lambda *_, **__: recording)
    value, (x, y) = one.measure().test_llh, one.test_data(50)
    assert f"held-out training log likelihood (k=20): {value:.2f}" in capsys.readouterr().out
    expected = {
        seed: evaluation.make_log_likelihood(one.model, 20, one.config.compiled)(x, y, seed)[0].test_llh
        for seed in (0, 7)
    }
    assert value == expected[7] != expected[0] and seeds == [7]
    np.testing.assert_array_equal(labels[0], y)
    record = json.loads(one.run.test_llh.read_text())
    assert record["threads"] == 3 and record["active_units"] == [2]
    means = evaluation.posterior_means
    monkeypatch.setattr(
        evaluation, "posterior_means", lambda *of, **how: seeds.append(how["seed"]) or means(*of, **how)
    )
    one.draw_posterior_means(n_images=20)
    assert seeds == [7, 7]


def test_a_sibling_with_more_samples_has_the_preset_s_first_ones():
    """They are cut where a run has fewer samples."""
    long = {"preset": "long", **settings_beside("long", {})}
    for given, expected in (({}, 5), ({"n_samples": 50}, 5), ({"n_samples": 50, "first_samples": 3}, 3)):
        config = Config(**long | {"n_samples": 1} | given).resolved()
        assert settings_of_sibling(config, {"n_samples": 100}).first_samples == expected
    config = Config(preset="fast", **settings_beside("fast", {"n_samples": 5, "first_samples": 5})).resolved()
    assert settings_of_sibling(config, {"n_samples": 50}).first_samples == 5  # as was asked for


def test_a_sibling_has_this_run_s_settings_but_not_its_files():
    config = Config(n_samples=5, first_samples=5, preset="fast", **settings_beside("fast", {})).resolved()
    config = dataclasses.replace(config, per_image="each.csv", start_from="elsewhere")
    other = settings_of_sibling(config, {"objective": "dreg"})
    assert (other.first_samples, other.per_image, other.start_from) == (5, None, None)


def test_a_sibling_that_has_ended_is_found_and_another_experiment_is_none(few_digits, capsys):
    one = Session.__new__(Session)
    one.config = SMALL.resolved()
    config = dataclasses.replace(one.config, n_samples=50)
    found = Run(default_path(config))
    assert finished_sibling(one, n_samples=50) is None
    found.begin(config)
    assert finished_sibling(one, n_samples=50) is None  # it has not ended
    found.weights.touch()
    found.training.write_text('{"epochs": 1, "seconds": 1}')
    assert finished_sibling(one, n_samples=50).path == found.path
    found.metrics.write_text("no rows")
    assert finished_sibling(one, n_samples=50) is None and "metrics.csv is damaged" in capsys.readouterr().err
    found.metrics.unlink()
    found.begin(dataclasses.replace(config, seed=1))
    assert finished_sibling(one, n_samples=50) is None


def test_devices_that_are_there_must_divide_the_batch(few_digits, monkeypatch):
    monkeypatch.setattr("training.replicas.n_replicas", lambda: 3)
    with pytest.raises(UsageError, match="3 devices must divide it"):
        Session(SMALL.resolved(), Run(few_digits / "a")).train()


def test_a_held_out_result_is_not_called_a_test_result(capsys):
    config = dataclasses.replace(SMALL, held_out=150, eval_samples=20, eval_images=50).resolved()
    one = Session.__new__(Session)
    one.config, one.run = config, types.SimpleNamespace(recorded=lambda: RECORD, test_llh=pathlib.Path("test_llh.json"))
    one.report()
    assert capsys.readouterr().out.startswith("held-out training log likelihood (k=20): -9.50")
    one.config, one.run.recorded = dataclasses.replace(config, eval_images=None), lambda: RECORD | {"n_images": 150}
    one.report()  # all of those held out have been measured
    assert "test_llh.json has it" in capsys.readouterr().out


def test_a_model_begins_with_the_mean_of_the_training_images(few_digits, digits):
    config = dataclasses.replace(SMALL, held_out=150).resolved()
    one = Session(config, Run(few_digits / "a"))
    expected = build_model(config, digits.train_images[:250].mean(axis=0) / 255)
    for a, b in zip(one.model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_the_seed_decides_the_first_weights(digits):
    a, b, again = (
        build_model(dataclasses.replace(SMALL, seed=s).resolved(), digits.pixel_means).get_weights() for s in (1, 2, 1)
    )
    assert not np.array_equal(a[0], b[0]) and all(map(np.array_equal, a, again))


def test_each_conditional_model_has_its_own_prior(digits):
    for how in ("learned_prior", "standard_prior"):
        model = build_model(dataclasses.replace(SMALL, conditional=how).resolved(), digits.pixel_means)
        assert model.n_context == 10 and model.learned_prior == (how == "learned_prior")


def test_a_training_s_record_says_what_it_was_of(few_digits, monkeypatch, capsys):
    given = []
    monkeypatch.setattr(training.loop, "train", lambda *what: given.append(what[-1]) or 1.5)
    monkeypatch.setattr(Session, "draw", lambda self: None)
    config = dataclasses.replace(SMALL, epochs=-1, batch_size=30, threads=3).resolved()  # the paper's schedule
    at_work = Run(few_digits / "b")  # which another process trains
    one = Session(dataclasses.replace(config, start_from=few_digits / "b"), Run(few_digits / "a"))
    one.train_or_load()
    assert "leaves out 10 images" in capsys.readouterr().out
    record = json.loads(one.run.training.read_text())
    assert (record["epochs"], record["seconds"], record["threads"]) == (3280, 1.5, 3)
    assert record["versions"] and "commit" in record and given[0].path == at_work.path


def test_points_of_pictures_have_their_images_labels(few_digits, digits, monkeypatch):
    jits, make_q_means = [], evaluation.make_q_means
    monkeypatch.setattr(
        evaluation, "make_q_means", lambda model, jit: (jits.append(jit), make_q_means(model, jit=jit))[1]
    )
    monkeypatch.setattr(session, "PCA_IMAGES", 40)
    drawn = []
    monkeypatch.setattr("plots.runs.posterior_pca", lambda *how: drawn.append(how))
    one = Session(SMALL.resolved(), Run(few_digits / "a"))
    one.model.save_weights(one.run.weights_after(0))
    one.draw_posterior_means(n_images=40, standardise=True)
    assert drawn == [(one.run, True)]
    one._draw_means_while_training()
    labels = evenly_spaced(digits.test_labels, 40)
    assert not np.array_equal(labels, digits.test_labels[:40])
    x, y = one.test_data(40)
    expected = {
        "posterior_means": evaluation.posterior_means(one.model, x, y, jit=False)[0],
        "q_means_0000": make_q_means(one.model, jit=False)(x, y)[0],
    }
    for name, means in expected.items():
        with np.load(one.run.arrays / f"{name}.npz") as arrays:
            np.testing.assert_array_equal(arrays["labels"], labels)
            np.testing.assert_allclose(arrays["z1"], means, atol=1e-5)
    one.draw_reconstructions()
    x, y = one.test_data(30)
    images = one.as_images(one.model.mean_image(make_q_means(one.model, jit=False)(x, y)[0], y))
    with np.load(one.run.arrays / "reconstructions.npz") as arrays:
        np.testing.assert_allclose(arrays["means"], images, atol=1e-5)
        np.testing.assert_array_equal(arrays["images"], one.as_images(x))
    assert jits == [False, False]  # as --jit says


def test_learning_curves_name_the_run_s_objective(monkeypatch):
    one, drawn = Session.__new__(Session), []
    one.run, one.config = None, Config(objective="dreg")
    for name in ("draw_reconstructions", "draw_z1_redrawn", "draw_posterior_means", "_draw_means_while_training"):
        monkeypatch.setattr(Session, name, lambda self, *_: None)
    monkeypatch.setattr("plots.runs.prior_samples", lambda run: None)
    monkeypatch.setattr("plots.runs.learning_curves", lambda run, objective: drawn.append(objective))
    one.draw()
    assert drawn == ["dreg"]


def test_frames_of_the_animation_have_their_own_weights_and_the_model_its_own_again(few_digits, monkeypatch):
    seeds, make_q_means = [], evaluation.make_q_means

    def make_and_note(*of, **how):
        q_means = make_q_means(*of, **how)
        return lambda x, y, seed=0: seeds.append(seed) or q_means(x, y, seed)

    monkeypatch.setattr(session, "PCA_IMAGES", 20)
    monkeypatch.setattr("plots.runs.means_while_training", lambda run: None)
    monkeypatch.setattr(evaluation, "make_q_means", make_and_note)
    one = Session(dataclasses.replace(SMALL, seed=7).resolved(), Run(few_digits / "a"))
    first = one.model.get_weights()
    for epochs, factor in ((0, 1), (1, 0), (2, 2)):  # the last ones are the trained ones, which are not kept
        one.model.set_weights([factor * weight for weight in first])
        if epochs < 2:
            one.model.save_weights(one.run.weights_after(epochs))
    one._draw_means_while_training()
    with np.load(one.run.arrays / "q_means_0000.npz") as a, np.load(one.run.arrays / "q_means_0001.npz") as b:
        assert a["z1"].any() and not b["z1"].any() and seeds == [7, 7]
    assert all(np.array_equal(now, 2 * weight) for now, weight in zip(one.model.get_weights(), first))


def test_only_full_measurements_on_the_test_images_fill_the_tables(tmp_path):
    folders = []
    for name, held_out, n_samples, n_images in (
        ("full", 0, 5000, 10000), ("finer", 0, 20000, 10000), ("short", 0, 5000, 1000),
        ("rough", 0, 500, 10000), ("held_out", 10000, 5000, 10000),
    ):  # fmt: skip
        run = Run(tmp_path / "fast" / name)
        run.begin(Config(held_out=held_out).resolved())
        size = {"n_samples": n_samples, "n_images": n_images}
        record = {"test_llh": -80.0, "standard_error": 0.2, "mc_error": 0.1, "active_units": [9], **size}
        run.test_llh.write_text(json.dumps(record))
        run.training.write_text(json.dumps({"epochs": 1, "seconds": 1}))
        folders.append(run.path)
    assert [result.folder for result in cells.finished(cells.results_in(folders))] == ["fast/full"]


def test_a_record_s_seconds_are_those_that_the_estimate_took(few_digits, monkeypatch):
    now = [0.0]

    def estimate(x, *_, **__):
        now[0] += 90
        return evaluation.likelihood.LogLikelihood(-90.0, None, None, 20, len(x), None, None), None

    monkeypatch.setattr(session, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(evaluation, "make_log_likelihood", lambda *_: estimate)
    one = Session(dataclasses.replace(SMALL, eval_images=50).resolved(), Run(few_digits / "a"))
    one.measure()
    assert json.loads(one.run.test_llh.read_text())["seconds"] == 90
