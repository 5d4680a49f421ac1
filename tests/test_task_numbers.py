"""What the tasks compute and choose, without their command line: moments of gradients, targets, rows and runs."""

import dataclasses
import types

import numpy as np
import pytest
import tensorflow as tf

import evaluation
import evaluation.ais
import training.gradients
from experiment.presets import settings_beside
from experiment.run_folder import Run
from experiment.session import build_model
from experiment.settings import Config
from tests.test_posteriors import spread_out
from training.gradients import GradientMoments, make_gradient_moments
from training.steps import make_gradients
from utils import UsageError, evenly_spaced, read_csv


def test_learning_curves_are_of_both_objectives_at_each_k(monkeypatch, capsys):
    from tasks import task02

    def run(name, logged=True):
        return types.SimpleNamespace(name=name, metrics=types.SimpleNamespace(exists=lambda: logged))

    def found(logged):
        one = types.SimpleNamespace(config=Config(n_samples=5), run=run("own"))
        plain = types.SimpleNamespace(run=run("plain", logged))
        names = [(k, [run.name for run in runs]) for k, runs in task02.pairs(one, plain).items()]
        return names, capsys.readouterr().out

    def at_50(_, objective, n_samples):
        return run(objective) if n_samples == 50 else None

    monkeypatch.setattr(task02, "finished_sibling", at_50)
    compared, out = found(logged=True)
    assert compared == [(5, ["own", "plain"]), (50, ["dreg", "iwae_elbo"])] and "none for k = 1, whose" in out
    compared, out = found(logged=False)  # a log that was deleted
    assert compared == [(50, ["dreg", "iwae_elbo"])] and "none for k = 1, 5, whose" in out


def test_references_have_other_draws_than_what_is_held_against_them():
    from tasks.task02 import DRAWS, MANY_DRAWS, MANY_SAMPLES, REFERENCE_DRAWS, SAMPLES, references

    def moments(*asked, first=0):
        return {network: (*asked, first, network) for network in ("encoder", "decoder")}

    assert references(types.SimpleNamespace(moments=moments)) == {
        **{k: ("dreg", k, REFERENCE_DRAWS, DRAWS, "encoder") for k in SAMPLES},
        "decoder": ("iwae_elbo", MANY_SAMPLES, MANY_DRAWS, DRAWS, "decoder"),
        "rws": ("rws_dreg", MANY_SAMPLES, MANY_DRAWS, DRAWS, "encoder"),
    }


def test_a_model_that_cannot_lose_units_has_no_second_number(monkeypatch):
    from tasks.task06 import without_inactive_units

    def cannot(*_):
        raise NotImplementedError

    monkeypatch.setattr(evaluation, "without_units", cannot)
    monkeypatch.setattr(evaluation, "make_log_likelihood", lambda *_: lambda *_: [types.SimpleNamespace(test_llh=-9.0)])
    one = types.SimpleNamespace(config=Config(), model=None, test_data=lambda n=None: (None, None))
    assert without_inactive_units(one, [np.ones(3)], 5) == (-9.0, None)


def test_gradients_are_of_training_images_with_their_own_labels(digits):
    from tasks.task02 import IMAGES, Gradients

    config = Config(conditional="learned_prior", n_hidden=(4,), n_latent=(2,)).resolved()
    one = Gradients(types.SimpleNamespace(config=config, dataset=digits))
    greys, labels = (evenly_spaced(part, IMAGES) for part in (digits.train_images, digits.train_labels))
    np.testing.assert_array_equal(one.y.argmax(axis=1), labels)
    assert not one.x[greys == 0].any() and one.x[greys == 255].all() and one.x.any()
    other = Gradients(types.SimpleNamespace(config=dataclasses.replace(config, seed=1), dataset=digits))
    assert not np.array_equal(other.x, one.x)  # binarised with the run's seed


def test_a_mean_gradient_is_held_against_its_own_target():
    from tasks.task02 import _distance

    def moments(value, variance=0.0):
        return GradientMoments(np.full(4, value), np.full(4, variance), 10)

    targets = {8: moments(1.0), "rws": moments(2.0), "decoder": moments(4.0)}
    for network, objective, distance in (("encoder", "stl", 0), ("encoder", "rws", 0.5), ("decoder", "rws", 0.75)):
        assert _distance(moments(1.0), targets, network, objective, 8)["distance"] == pytest.approx(distance)
    # both are relative to the norm of the target, here 2, 4 and 8; alone the noise has the norm sqrt(4 * 10 / 10) = 2
    for network, objective, by_chance in (("encoder", "stl", 1), ("encoder", "rws", 0.5), ("decoder", "rws", 0.25)):
        found = _distance(moments(1.0, 10.0), targets, network, objective, 8)["by_chance"]
        assert found == pytest.approx(by_chance)


def test_posteriors_are_looked_at_for_two_images_of_each_label():
    from tasks.task01 import chosen

    assert chosen(np.array([1, 0, 1, 1, 0, 0])).tolist() == [1, 4, 0, 2]
    assert chosen(np.zeros(30, int)).tolist() == list(range(20))  # as where there are no labels
    many = np.arange(101).repeat(3)
    assert len(chosen(many)) == 20 and len(set(many[chosen(many)])) == 10


def test_images_of_the_second_opinion_are_as_many_as_asked_for(monkeypatch):
    from tasks.task07 import n_test_images, on_test_images

    for preset, given, expected in (("fast", {}, 100), ("quick", {}, 100), ("quick", {"eval_images": 7}, 7)):
        assert n_test_images(Config(**{"preset": preset, **settings_beside(preset, given)}).resolved()) == expected
    asked = []
    config = Config(preset="fast").resolved()
    one = types.SimpleNamespace(config=config, model=None, test_data=lambda n: asked.append(n) or (None, None))
    monkeypatch.setattr(evaluation, "make_log_likelihood", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        on_test_images(one)
    assert asked == [100]


def test_the_paper_s_units_stand_beside_the_models_it_has():
    from tasks.task06 import of_paper

    assert of_paper(Config(stochastic_layers=2, n_samples=50).resolved()) == "26+7"
    assert of_paper(Config(objective="vae_elbo", n_samples=5).resolved()) == "20"
    assert of_paper(Config(conditional="learned_prior").resolved()) == of_paper(Config(n_latent=(2,)).resolved()) == ""


def test_pictures_of_active_units_leave_out_variations_of_the_tables_runs():
    from tasks.task06 import drawn

    def preset(**changes):
        return Config(preset="fast", **settings_beside("fast", changes)).resolved()

    small, variation = preset(n_latent=(2,)), preset(n_samples=1, learning_rate=0.5)
    ks = {"b": preset(n_samples=50), "a": preset(n_samples=5)}
    assert drawn(
        {"v": variation, **ks, "seed": preset(n_samples=5, seed=1), "other": preset(n_samples=5, epochs=7)}
    ) == {
        "1 stochastic layer": ["v", "a", "b"]  # v: there is no run of the preset with its k
    }
    assert drawn({"small": small, "smaller": preset(n_latent=(1,))}) == {"1 stochastic layer": ["small", "smaller"]}
    labels, layers = preset(conditional="learned_prior"), preset(stochastic_layers=2)
    assert list(drawn({"l": layers, "c": labels, "s": small})) == [
        "1 stochastic layer", "1 stochastic layer, conditional", "2 stochastic layers"
    ]  # fmt: skip


def test_gradient_moments_are_those_of_many_gradients(digits, monkeypatch):
    config = Config(n_hidden=(8,), n_latent=(3,), n_samples=4, batch_size=5, epochs=1, jit="off")
    config = dataclasses.replace(config, conditional="learned_prior").resolved()
    model, x = build_model(config, digits.pixel_means), (digits.train_images[:5] > 127).astype(np.float32)
    y = digits.context("train", True)[:5]
    monkeypatch.setattr(training.gradients, "SAMPLES_PER_CALL", 16)  # four draws a call, and a last one of two
    moments = make_gradient_moments(config, model)
    found, others = moments(x, y, 10, first=3), moments(x, y, 10, first=13)
    gradients = tf.function(make_gradients(config, model))
    drawn = [gradients(tf.constant(x), tf.constant(y), tf.constant(i), 1.0)[2] for i in range(3, 23)]
    q = {id(v) for v in model.q_variables}
    for network, of_q in (("encoder", True), ("decoder", False)):
        kept = [number for number, v in enumerate(model.trainable_variables) if (id(v) in q) == of_q]
        draws = [np.concatenate([one[number].numpy().ravel() for number in kept]) for one in drawn]
        draws, other = np.split(np.array(draws, np.float64), 2)
        variance, mean = draws.var(axis=0, ddof=1), draws.mean(axis=0)
        one = found[network]
        np.testing.assert_allclose(one.mean, mean, atol=1e-4 * np.abs(mean).max())
        assert one.variance.mean() == pytest.approx(variance.mean(), rel=1e-3)
        assert one.snr() == pytest.approx(np.sqrt(np.sum(mean**2 - variance / 10) / variance.sum()), rel=1e-2)
        distance, by_chance = one.distance(others[network])
        noise = np.sum(variance + other.var(axis=0, ddof=1)) / 10
        assert by_chance == pytest.approx(np.sqrt(noise), rel=1e-3)
        expected = max(np.sum((mean - other.mean(axis=0)) ** 2) - noise, 0)
        assert distance**2 == pytest.approx(expected, abs=1e-2 * noise)


def test_distances_of_mean_gradients_are_right_on_average():
    """Of normal draws around known means 3 apart in each of 50 directions, and around the same mean."""
    rng = np.random.default_rng(0)

    def moments(mean):
        draws = mean + 10 * rng.normal(size=(40, 50))
        return GradientMoments(draws.mean(axis=0), draws.var(axis=0, ddof=1), 40)

    few, many = (GradientMoments(np.full(3, m), np.full(3, 8.0), n) for m, n in ((0.0, 10), (2.0, 1000)))
    noise = 3 * (0.8 + 0.008)  # summed variances of the two means
    for one, other in ((few, many), (many, few)):
        assert one.distance(other) == pytest.approx((np.sqrt(3 * 2**2 - noise), np.sqrt(noise)))
    apart = np.mean([moments(0).distance(moments(3))[0] for _ in range(100)])
    assert apart == pytest.approx(3 * np.sqrt(50), rel=0.05)
    together = np.array([moments(0).distance(moments(0)) for _ in range(100)])
    assert together[:, 0].mean() < together[:, 1].mean() == pytest.approx(np.sqrt(50 * 2 * 100 / 40), rel=0.02)
    assert min(moments(0).norm() for _ in range(20)) == together[:, 0].min() == 0  # where nothing is left
    assert np.mean([moments(3).norm() for _ in range(100)]) == pytest.approx(3 * np.sqrt(50), rel=0.02)


def test_an_estimator_s_gradient_has_the_hyperparameters_that_its_row_names(monkeypatch):
    from tasks import task02

    made = []
    monkeypatch.setattr(training.gradients, "make_gradient_moments", lambda config, _: made.append(config))
    one = task02.Gradients.__new__(task02.Gradients)
    one.config, one.model = Config(), None
    for objective in task02.ESTIMATORS:
        one._compiled(objective, 64)
    found = [(config.objective, config.hyperparameters, config.n_samples, config.batch_size) for config in made]
    assert found == [(name, numbers, 64, task02.IMAGES) for name, numbers in task02.ESTIMATORS.items()]


def test_bounds_on_drawn_images_stand_under_their_names(monkeypatch, capsys):
    from tasks.task07 import on_drawn_images

    found = evaluation.ais.Bracket(np.zeros((2, 4)), np.array([-92.0, -81.0]), np.array([-91.0, -80.5]))
    sampled = types.SimpleNamespace(log_px=np.array([-93.5, -82.0]), mc_error=np.array([0.1, 0.2]))
    monkeypatch.setattr(evaluation.ais, "make_bracket", lambda *_: lambda *_, **__: found)
    monkeypatch.setattr(evaluation, "make_log_likelihood", lambda *_: lambda *_: (None, sampled))
    config = types.SimpleNamespace(eval_samples=2, compiled=False, seed=0)
    one = types.SimpleNamespace(config=config, model=None, test_data=lambda n: (None, np.zeros((2, 0))))
    assert on_drawn_images(one) == [
        dict(lower=-92.0, upper=-91.0, log_px=-93.5, mc_error=0.1),
        dict(lower=-81.0, upper=-80.5, log_px=-82.0, mc_error=0.2),
    ]
    out = capsys.readouterr().out
    assert "log p(x) is known to 0.750 nats" in out and "lies 2.000 below the upper bound" in out


def test_log_likelihoods_that_are_not_finite_reach_no_table():
    from tasks.task07 import rows_of

    one = types.SimpleNamespace(run=types.SimpleNamespace(path="results/run"))
    with pytest.raises(UsageError, match="--run_dir: with the weights of results/run annealed is not finite"):
        rows_of(one, log_px=np.zeros(2), annealed=np.array([1.0, np.nan]))
    assert rows_of(one, annealed=np.ones(1), mc_error=np.array([np.inf]))[0]["annealed"] == 1


def test_the_first_table_is_kept_where_the_second_is_stopped(monkeypatch, tmp_path):
    from tasks import task07

    def stopped(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(task07, "on_test_images", lambda _: [dict(log_px=1.0)])
    monkeypatch.setattr(task07, "on_drawn_images", stopped)
    nothing = types.SimpleNamespace(train_or_load=lambda: None, report=lambda: None, run=Run(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        task07.work(nothing)
    assert read_csv(tmp_path / "annealed.csv") == [{"log_px": "1"}]


def test_what_inactive_units_are_worth_is_measured_without_them():
    from tasks.task06 import without_inactive_units

    config = Config(n_hidden=(20,), n_latent=(3,), eval_samples=50, jit="off").resolved()
    model, x = spread_out((3,)), (np.random.default_rng(0).random((30, 784)) < 0.1).astype(np.float32)
    one = types.SimpleNamespace(config=config, model=model, test_data=lambda n=None: (x[:n], None))
    whole, reduced = without_inactive_units(one, [np.array([1.0, 0.005, 0.02])], 20)
    assert whole == evaluation.make_log_likelihood(model, 50, False)(x[:20])[0].test_llh
    copy = evaluation.without_units(model, [np.array([True, False, True])], x, jit=False)
    assert reduced == evaluation.make_log_likelihood(copy, 50, False)(x[:20])[0].test_llh != whole
    assert without_inactive_units(one, [np.ones(3), np.zeros(3)], 20) == (whole, None)
