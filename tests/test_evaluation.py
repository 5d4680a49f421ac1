"""The test log likelihood against a model whose log p(x) is known, and posterior means against the same."""

import math
import types

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from evaluation import (
    likelihood,
    make_bounds,
    make_log_likelihood,
    make_q_means,
    posterior_means,
    sampling_importance_resampling,
)
from models.iwae import IWAE
from models.objectives import iwae_elbo, logmeanexp
from models.random import Stream, random_algorithm, stateless_seed
from tests.oracles import LinearGaussian
from utils import evenly_spaced


@pytest.mark.parametrize("jit", [False, True])
def test_estimate_meets_the_closed_form_within_its_monte_carlo_error(jit):
    model = LinearGaussian()
    result, (log_px, errors, shapes) = make_log_likelihood(model, 5000, jit, binary=False)(model.x)
    exact = model.log_px.mean()
    assert 0 < result.mc_error < 0.01
    assert abs(result.test_llh - exact) < 4 * result.mc_error
    assert result.standard_error == pytest.approx(model.log_px.std(ddof=1) / math.sqrt(len(model.x)), rel=0.02)
    assert result.standard_error == pytest.approx(log_px.std(ddof=1) / math.sqrt(150))
    np.testing.assert_allclose(log_px, model.log_px, atol=0.2)
    assert np.sqrt(np.sum(errors**2)) / len(errors) == pytest.approx(result.mc_error)
    assert (result.n_samples, result.n_images) == (5000, 150)
    assert log_px.dtype == errors.dtype == shapes.dtype == np.float64
    assert len(shapes) == len(log_px) == 150  # without what the last batch is filled up with
    assert result.pareto_k == np.median(shapes) and result.pareto_k_high == np.mean(shapes > 0.7)


def test_monte_carlo_error_is_the_spread_between_repetitions():
    """Where q is half as wide as the posterior, so that the delta method would give too little."""
    model = LinearGaussian(error=-0.5)
    estimate = make_log_likelihood(model, 640, binary=False)
    results = [estimate(model.x, seed=seed) for seed in range(40)]
    spread = np.sqrt(np.var([per_image.log_px for _, per_image in results], axis=0, ddof=1).sum()) / 150
    assert np.mean([result.mc_error for result, _ in results]) == pytest.approx(spread, rel=0.1)
    assert 0.6 < np.mean([result.pareto_k for result, _ in results]) < 0.9


def test_the_largest_weights_are_kept_in_order_whatever_the_chunks(monkeypatch):
    monkeypatch.setattr(likelihood, "DRAWS", 3)
    model, kept, drawn = LinearGaussian(), [], []
    monkeypatch.setattr(likelihood, "pareto_k", lambda log_w: kept.append(log_w) or np.full(len(log_w), 0.7))

    class Recording(LinearGaussian):
        def __call__(self, x, noise, y=None):
            output = super().__call__(x, noise, y)
            tf.py_function(lambda w: drawn.append(w.numpy()), [output.log_w()], [])
            return output

    result, _ = make_log_likelihood(Recording(), 100, jit=False, binary=False)(model.x[:100])
    assert (result.pareto_k, result.pareto_k_high) == (0.7, 0)  # high is above 0.7
    all_of_them = np.sort(np.concatenate(drawn)[:100], axis=0)[::-1]
    np.testing.assert_array_equal(np.concatenate(kept), all_of_them[:21].T)


def test_batches_have_their_own_rows():
    x, y = np.arange(250.0)[:, np.newaxis], np.arange(250.0)[:, np.newaxis] + 1000
    found = [(a[:n, 0], b[:n, 0]) for _, a, b, n in likelihood.batches(x, y)]
    assert [len(a) for a, _ in found] == [100, 100, 50]
    np.testing.assert_array_equal(np.concatenate([a for a, _ in found]), x[:, 0])
    np.testing.assert_array_equal(np.concatenate([b for _, b in found]), y[:, 0])


def test_every_batch_and_every_chunk_has_noise_of_its_own(binary_images):
    """Seen on one image over and over."""
    tf.keras.utils.set_random_seed(1)
    model, x = IWAE((4,), (2,), 784), np.repeat(binary_images[:1], 200, axis=0)
    log_px = make_log_likelihood(model, 20, jit=False)(x)[1].log_px
    assert not np.isin(log_px[:100], log_px[100:]).any()
    assert make_log_likelihood(model, 200, jit=False)(x[:100])[0].mc_error > 1e-3  # it is from what chunks differ by
    of_one, of_two = (make_bounds(model, 3, jit=False)(x[:n], None, tf.constant([1, 2])) for n in (100, 200))
    assert abs(of_one["vae_elbo"] - of_two["vae_elbo"]) > 1e-3  # sums of the same numbers differ by their rounding


def test_images_that_are_not_binary_are_refused(binary_images):
    estimate = make_log_likelihood(IWAE((4,), (2,), 784), 2, jit=False)
    for x in (255 * binary_images, 0.3 * binary_images, np.full_like(binary_images, np.nan)):
        with pytest.raises(ValueError, match="not 0 and 1 alone"):
            estimate(x)


@pytest.mark.parametrize("n_samples", [1, 2, 7, 124, 125])
def test_every_sample_counts_once_whatever_the_chunks(n_samples, monkeypatch):
    """Against the definition, from all the samples at once, where chunks do not divide k nor batches the images."""
    monkeypatch.setattr(likelihood, "DRAWS", 3)
    model = LinearGaussian()
    drawn = []

    class Recording(LinearGaussian):
        def noise(self, n, batch, seed, algorithm="auto_select"):
            drawn.append(n)
            (epsilon,) = super().noise(n, batch, seed, algorithm)
            return (epsilon * 0 + 0.5,)  # all samples alike: the mean over any number of them is known

    estimate = make_log_likelihood(Recording(), n_samples, jit=False, binary=False)
    result, (log_px, errors, _) = estimate(model.x)
    one = model(model.x, (tf.fill([1, 150, 2], 0.5),)).log_w()[0]
    np.testing.assert_allclose(log_px, one, atol=1e-4)
    assert len(log_px) == 150 and max(drawn) <= 3
    assert (result.mc_error is None) == (n_samples == 1) == np.isnan(errors).all()
    if n_samples > 1:  # weighed by their sizes, groups of unequal ones agree too
        np.testing.assert_allclose(errors, 0, atol=1e-3)
    result, _ = estimate(model.x[:1])
    assert result.standard_error is None and result.n_images == 1


def test_estimate_at_small_k_is_the_iwae_bound_in_expectation():
    model = LinearGaussian()
    estimate = make_log_likelihood(model, 5, binary=False)
    ours = np.mean([estimate(model.x, seed=seed)[0].test_llh for seed in range(40)])
    bound = np.mean([iwae_elbo(model(model.x, model.noise(5, 150, [7, s]))).bound.numpy().mean() for s in range(40)])
    assert ours == pytest.approx(bound, abs=0.03)


def test_seed_decides_the_estimate(monkeypatch):
    model = LinearGaussian()
    estimate = make_log_likelihood(model, 50, binary=False)
    a, b, c = (estimate(model.x, seed=seed)[0].test_llh for seed in (1, 1, 2))
    assert a == b != c
    told, bar = [], types.SimpleNamespace(update=lambda *at: told.append(at))
    monkeypatch.setattr(likelihood, "ProgressBar", lambda *_: bar)
    result, _ = estimate(model.x, show_progress=True)
    assert [done for done, _ in told] == [100, 150] and told[-1][1] == pytest.approx(result.test_llh)


def test_each_batch_has_a_seed_of_the_evaluation_s_own_stream(monkeypatch):
    drawn, model = [], LinearGaussian()
    monkeypatch.setattr(likelihood, "stateless_seed", lambda *of: drawn.append(of) or stateless_seed(*of))
    make_log_likelihood(model, 20, jit=False, binary=False)(model.x[:3], seed=3)
    assert drawn == [(3, Stream.TEST, 0)]


def test_images_whose_tail_has_no_shape_do_not_count(monkeypatch):
    monkeypatch.setattr(likelihood, "pareto_k", lambda log_w: np.resize([np.nan, 0.9, 0.5, 0.8], len(log_w)))
    model = LinearGaussian()
    result, _ = make_log_likelihood(model, 200, jit=False, binary=False)(model.x[:4])
    assert result.pareto_k == 0.8 and result.pareto_k_high == pytest.approx(2 / 3)


def test_bounds_are_means_over_exactly_the_images_given():
    model = LinearGaussian()
    values = make_bounds(model, 64)(model.x, None, tf.constant([1, 2]))
    assert values["vae_elbo"] < values["iwae_elbo"] < model.log_px.mean() + 0.05
    assert values["vae_elbo"] == pytest.approx(values["log_px_z"] + values["log_pz"] - values["log_qz_x"], abs=1e-3)
    assert values["kl"] == pytest.approx(values["log_qz_x"] - values["log_pz"], abs=0.1)
    assert values["iwae_elbo"] == pytest.approx(model.log_px.mean(), abs=0.05)
    assert not any(name.endswith("z1") for name in values)  # with one layer it would say the same again


def test_bounds_and_posteriors_are_given_the_labels(binary_images):
    model, y = IWAE((20,), (5,), 784, n_context=3, learned_prior=True), np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]]
    q = model.encoder[0](np.concatenate([binary_images, y], axis=1))
    kl = float(tf.reduce_mean(tfd.kl_divergence(q, model.prior(y))))  # with one layer it is so whatever the noise
    assert make_bounds(model, 3, jit=False)(binary_images, y, tf.constant([1, 2]))["kl"] == pytest.approx(kl, rel=1e-4)
    one, other = y, np.roll(y, 1, axis=1)
    means = [posterior_means(model, binary_images, labels, 20, jit=False)[0] for labels in (one, other)]
    drawn = [sampling_importance_resampling(model, binary_images, labels, 20, 5, jit=False) for labels in (one, other)]
    assert not np.allclose(*means) and not np.allclose(*(z for (z,), _ in drawn))


def test_bounds_have_each_layer_apart():
    model = IWAE((8, 6), (3, 2), n_pixels=12)
    x = np.random.default_rng(0).integers(0, 2, (5, 12)).astype(np.float32)
    values = make_bounds(model, 400)(x, None, tf.constant([1, 2]))
    assert values["log_p_z1"] + values["log_p_z2"] == pytest.approx(values["log_pz"], abs=1e-4)
    assert values["log_q_z1"] + values["log_q_z2"] == pytest.approx(values["log_qz_x"], abs=1e-4)
    # q(z1|x) is Gaussian: the mean of its log density is minus its entropy, whatever the samples
    (q, _, _), _ = model.encode(x, model.noise(1, 5, [0, 0]))
    assert values["log_q_z1"] == pytest.approx(-float(tf.reduce_mean(q.entropy())), abs=0.1)
    z2 = model.encode(x, model.noise(2000, 5, [3, 4]))[1][1].numpy()  # [n_samples, batch, 2]
    log_p_z2 = -0.5 * np.sum(z2**2 + np.log(2 * np.pi), axis=-1)  # log N(z2; 0, I)
    assert values["log_p_z2"] == pytest.approx(log_p_z2.mean(), abs=0.1)


def test_posterior_means_are_those_of_the_true_posterior_not_of_q():
    model = LinearGaussian()
    (means,) = posterior_means(model, model.x, n_samples=5000)
    exact = model.x @ model.gain.T
    assert np.abs(means - exact).max() < 0.15
    assert np.abs(means - exact).mean() < 0.2 * np.abs(model.mean_error).mean()


def test_evenly_spaced_images_spread_over_all_images():
    np.testing.assert_array_equal(evenly_spaced(np.arange(10), 5), [0, 2, 4, 6, 8])
    np.testing.assert_array_equal(evenly_spaced(np.arange(10), None), np.arange(10))
    assert evenly_spaced(np.arange(10000), 3000)[-1] > 9990


def test_there_are_enough_chunks_for_the_groups(monkeypatch):
    """Of which the Monte Carlo error is made."""
    made = {}
    monkeypatch.setattr(likelihood, "_make_accumulate", lambda model, k, chunk, *_: made.update({k: -(-k // chunk)}))
    for k in (1, 9, 11, 15, 21, 199, 5000):
        make_log_likelihood(None, k)
    assert made == {1: 1, 9: 9, 11: 11, 15: 15, 21: 11, 199: 11, 5000: 250}


def test_logmeanexp_is_max_shifted():
    np.testing.assert_allclose(logmeanexp(tf.constant([-10000.0, -10001.0])), -10000 + np.log((1 + np.exp(-1)) / 2))


def test_fewer_images_at_a_time_where_all_their_samples_are_held(monkeypatch):
    assert [likelihood.batch_size(k) for k in (1, 20, 50, 5000)] == [100, 100, 40, 1]
    monkeypatch.setattr(likelihood, "DRAWS", 1)
    model, held = LinearGaussian(), []
    noise = model.noise
    model.noise = lambda n, batch, *how: held.append(batch) or noise(n, batch, *how)
    make_bounds(model, 2, jit=False)(model.x, None, tf.constant([1, 2]))
    assert set(held) == {50}


def test_a_mean_of_the_second_layer_is_over_all_50_samples():
    tf.keras.utils.set_random_seed(1)
    model, x = IWAE((8, 6), (3, 2), 12), np.random.default_rng(0).integers(0, 2, (100, 12)).astype(np.float32)
    noise = model.noise(50, 100, stateless_seed(3, Stream.UNITS, 0), random_algorithm(False))
    expected = tf.reduce_mean(model.encode(x, noise)[1][0].mean(), axis=0)
    np.testing.assert_allclose(make_q_means(model, jit=False)(x, seed=3)[1], expected, atol=1e-5)
