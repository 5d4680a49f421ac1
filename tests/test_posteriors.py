"""The true posterior three ways, resampling, and active units, on models where the answer is known."""

import inspect

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from evaluation import (
    ACTIVE,
    active_units,
    likelihood,
    make_activity,
    make_bounds,
    make_log_likelihood,
    make_q_means,
    make_true_posterior,
    posterior_means,
    posteriors,
    sampling_importance_resampling,
    without_units,
)
from evaluation.likelihood import batches
from evaluation.posteriors import BORDER_MASS
from models.iwae import IWAE
from models.random import Stream, stateless_seed
from tests.oracles import LinearGaussian


def spread_out(n_latent, scale=4.0, seed=3):
    """An IWAE whose posteriors differ from its prior: its first weights, made larger."""
    tf.keras.utils.set_random_seed(seed)
    model = IWAE((20,) * len(n_latent), n_latent, 784)
    for variable in model.trainable_variables:
        variable.assign(variable * scale if variable.shape.rank == 2 else variable)
    return model


def closed_kl(model):
    """KL(q(z|x) || p(z|x)), which is the same for every x."""
    precision = np.eye(2) + model.a.T @ model.a / model.std**2
    q_std, off = model.posterior_std * model.std_error, model.mean_error
    kl = 0.5 * (np.trace(precision @ np.diag(q_std**2)) + off @ precision @ off - 2)
    return kl - 0.5 * np.log(np.linalg.det(precision) * np.prod(q_std**2))


def test_grid_is_the_closed_form_posterior():
    model = LinearGaussian(error=0.4)
    true_posterior = make_true_posterior(model, binary=False)
    for x, log_px in zip(model.x[:4], model.log_px):
        grid = true_posterior(x)
        assert grid.log_px == pytest.approx(log_px, abs=2e-3) and grid.border_mass < BORDER_MASS
        precision = np.eye(2) + model.a.T @ model.a / model.std**2
        exact = scipy.stats.multivariate_normal(model.gain @ x, np.linalg.inv(precision))
        points = np.stack(np.meshgrid(grid.first, grid.second), axis=-1)
        likely = grid.log_p > grid.log_p.max() - 10
        np.testing.assert_allclose(grid.log_p[likely], exact.logpdf(points)[likely], atol=5e-3)
        assert grid.kl == pytest.approx(closed_kl(model), abs=5e-3)
        assert len(grid.first) == len(grid.second) == 200  # fine enough here, so the points are not doubled


def test_a_grid_takes_any_noise_and_any_shape_of_q(monkeypatch):
    """Noise may have more columns than units; the mean of q may have an axis of samples, as that of a flow does."""
    model = LinearGaussian(error=0.4)
    expected = make_true_posterior(model, binary=False)(model.x[0])
    encode = model.encode

    def of_three_columns(x, noise, y=None, cut=tf.identity):
        assert noise[0].shape[-1] == 3
        ((q, sample, z),) = encode(x, (noise[0][..., :2],), y, cut)
        q = tfd.Independent(tfd.Normal(q.mean()[tf.newaxis], q.stddev()[tf.newaxis]), 1)
        return [(q, sample, z)]

    monkeypatch.setattr(model, "noise", lambda n, batch, seed: (tf.ones([n, batch, 3]),))
    monkeypatch.setattr(model, "encode", of_three_columns)
    monkeypatch.setattr(model, "log_weights", lambda x, z, y=None: model._densities(x, encode(x, z)[0][0], *z, *z))
    found = make_true_posterior(model, binary=False)(model.x[0])
    assert (found.log_px, found.kl) == pytest.approx((expected.log_px, expected.kl))


def test_points_are_doubled_until_the_grid_is_fine_enough():
    model = LinearGaussian(error=0.4)
    grid = make_true_posterior(model, binary=False)(model.x[0], n=5)
    assert len(grid.first) in (10, 20, 40) and grid.log_px == pytest.approx(model.log_px[0], abs=0.02)


def test_points_are_doubled_until_a_narrow_q_is_resolved():
    model = LinearGaussian(error=0.4)
    model.std_error = 0.01
    grid = make_true_posterior(model, binary=False)(model.x[0])
    assert len(grid.first) > 200 and grid.kl == pytest.approx(closed_kl(model), rel=0.02)


def test_the_grid_covers_q_wherever_it_is(monkeypatch):
    model, looked_at = LinearGaussian(), []
    model.mean_error = np.array([-9.0, 9.0])
    densities = posteriors._make_densities(model, True)
    monkeypatch.setattr(
        posteriors, "_make_densities", lambda *_: lambda x, axes: looked_at.append(axes) or densities(x, axes)
    )
    grid = make_true_posterior(model, binary=False)(model.x[0])
    mean, std = model.gain @ model.x[0] + model.mean_error, model.posterior_std * model.std_error
    low, high = mean - 5 * std, mean + 5 * std
    np.testing.assert_allclose(looked_at[0][[0, -1]], [np.minimum(low, -5), np.maximum(high, 5)], rtol=1e-4)
    for at, start, end in zip((grid.first, grid.second), low, high):
        assert at[0] < start + 1e-3 and end - 1e-3 < at[-1]


def test_the_grid_is_widened_where_mass_lies_on_its_border():
    """The posterior is beyond |z| = 5, where neither prior nor q lets one look for it."""
    model = LinearGaussian(std=0.3, error=0.4)
    x = (model.a @ [6.0, -5.5]).astype(np.float32)
    model.mean_error = -0.5 * model.gain @ x
    exact = scipy.stats.multivariate_normal(np.zeros(5), model.a @ model.a.T + 0.09 * np.eye(5)).logpdf(x)
    grid = make_true_posterior(model, binary=False)(x)
    assert grid.log_px == pytest.approx(exact, abs=0.02) and grid.border_mass <= 1e-5


def test_points_are_doubled_until_a_narrow_posterior_is_resolved():
    """Every second point misses its peak, so that their log p(x) is lower, not higher."""
    model = LinearGaussian(std=0.01)
    model.posterior_std, model.std_error, model.mean_error = np.full(2, 0.5), 1, np.zeros(2)
    grid = make_true_posterior(model, binary=False)(model.x[0])
    assert grid.log_px == pytest.approx(model.log_px[0], abs=0.02)


@pytest.mark.parametrize(("off", "resolved"), [(0.02, False), (0.005, True)])
def test_points_are_close_enough_where_every_second_one_gives_the_same(off, resolved):
    axes = np.linspace([-6, -6], [6, 6], 201)
    log_q = scipy.stats.norm.logpdf(axes[:, 0])[:, np.newaxis] + scipy.stats.norm.logpdf(axes[:, 1])
    log_joint = log_q.copy()
    log_joint[::2, ::2] += 4 / 3 * off  # a quarter of the points, and all of the coarse grid's
    grid = posteriors._normalised(axes, log_joint, log_q)
    assert posteriors._is_resolved(grid, axes, log_joint, log_q) == resolved


def test_points_are_doubled_up_to_a_bound(monkeypatch):
    resolved = iter([False] * 5)  # an image that no number of points resolves is not looked at for ever
    monkeypatch.setattr(posteriors, "MOST_POINTS", 8)
    monkeypatch.setattr(posteriors, "_is_resolved", lambda *_: next(resolved))
    assert len(make_true_posterior(LinearGaussian(), binary=False)(LinearGaussian().x[0], n=5).first) == 8


def test_the_border_is_the_outermost_points():
    axes, flat = np.linspace([0, 0], [1, 2], 5), np.zeros((5, 5))
    assert posteriors._normalised(axes, flat, flat).border_mass == pytest.approx(16 / 25)


def in_batches_of(size, monkeypatch):
    """Few images are not filled up to a whole batch of many."""
    monkeypatch.setattr(likelihood, "batches", lambda x, y, *_: batches(x, y, size))


def test_grid_and_importance_sampling_agree_on_a_network(binary_images, monkeypatch):
    """On a model that is no Gaussian; and the gap between log p(x) and the ELBO is the KL divergence on the grid."""
    in_batches_of(6, monkeypatch)
    model = spread_out((2,), scale=1.2)
    true_posterior = make_true_posterior(model)
    log_px = make_log_likelihood(model, 50000)(binary_images)[1].log_px
    output = model(binary_images, model.noise(20000, 6, [1, 2]))
    elbo = tf.reduce_mean(output.log_w(), axis=0).numpy()
    for x, estimate, bound in zip(binary_images, log_px, elbo):
        grid = true_posterior(x)
        assert grid.log_px == pytest.approx(estimate, abs=0.05)
        assert grid.kl == pytest.approx(grid.log_px - bound, abs=0.1 + 0.03 * grid.kl)


@pytest.mark.parametrize("jit", [False, True])
def test_evaluations_are_compiled_as_asked(jit, monkeypatch):
    asked, function, model = [], tf.function, LinearGaussian()
    monkeypatch.setattr(tf, "function", lambda **how: asked.append(how["jit_compile"]) or function(**how))
    make_true_posterior(model, jit, binary=False)
    make_activity(model, jit=jit)
    make_bounds(model, 2, jit)
    posterior_means(model, model.x[:1], n_samples=2, jit=jit)
    sampling_importance_resampling(model, model.x[:1], n_samples=2, n_draws=1, jit=jit)
    assert asked == [jit] * 5


def test_grid_needs_two_units_and_a_binary_image():
    with pytest.raises(ValueError, match="2 units"):
        make_true_posterior(IWAE((4,), (3,), 784))
    with pytest.raises(ValueError, match="not 0 and 1 alone"):
        make_true_posterior(IWAE((4,), (2,), 784))(np.full(784, 0.3, np.float32))


@pytest.mark.parametrize("jit", [False, True])
def test_resampling_frequencies_are_the_weights(jit):
    """Eight samples, told apart by their values, drawn again many times: a chi-squared test against the weights."""
    model = LinearGaussian(error=1.0)
    x = model.x[:3]
    (z,), effective = sampling_importance_resampling(model, x, n_samples=8, n_draws=20000, seed=4, jit=jit)
    for image in range(3):
        values, counts = np.unique(z[:, image, 0], return_counts=True)
        points = z[[np.flatnonzero(z[:, image, 0] == value)[0] for value in values], image]  # [found, 2]
        q_mean = model.gain @ x[image] + model.mean_error
        q = scipy.stats.multivariate_normal(q_mean, np.diag((model.posterior_std * model.std_error) ** 2))
        joint = scipy.stats.norm(points @ model.a.T, model.std).logpdf(x[image]).sum(axis=1)
        log_w = joint + scipy.stats.norm.logpdf(points).sum(axis=1) - q.logpdf(points)
        w = np.exp(log_w - log_w.max())
        w /= w.sum()  # of the samples that were drawn at all: the others' share is below 1 in 20,000 or so
        assert effective[image] == pytest.approx(1 / np.sum(w**2), rel=0.02)
        often = w * 20000 > 5
        expected = w[often] / w[often].sum() * counts[often].sum()
        assert scipy.stats.chisquare(counts[often], expected).pvalue > 1e-4


def test_resampled_points_are_of_the_posterior_where_q_is_not():
    model = LinearGaussian(error=0.5)
    (z,), _ = sampling_importance_resampling(model, model.x[:20], n_samples=5000, n_draws=2000)
    exact = model.x[:20] @ model.gain.T
    assert np.abs(z.mean(axis=0) - exact).max() < 0.1
    np.testing.assert_allclose(z.std(axis=0), np.tile(model.posterior_std, (20, 1)), rtol=0.12)


def silenced(model, layer, units):
    """Units that say nothing: q of them does not depend on x, and nothing reads them."""
    for head in model.encoder[layer].heads:
        head.kernel.assign(head.kernel.numpy() * ~np.isin(np.arange(head.units), units))
    readers = [model.likelihood] if layer == 0 else [model.decoder[layer - 1]]
    readers += model.encoder[layer + 1 : layer + 2]
    for reader in readers:
        kernel = reader.hidden[0].kernel.numpy()
        kernel[units] = 0
        reader.hidden[0].kernel.assign(kernel)


@pytest.mark.parametrize("n_latent", [(6,), (6, 5)])
def test_silenced_units_are_the_inactive_ones(n_latent, mnist):
    model, x = spread_out(n_latent), (mnist.test_images[:300] > 127).astype(np.float32)
    for layer in range(len(n_latent)):
        silenced(model, layer, [1, 4])
    for units in make_activity(model)(x):
        expected = ~np.isin(np.arange(len(units)), [1, 4])
        np.testing.assert_array_equal(units > ACTIVE, expected)
        assert np.abs(units[~expected]).max() < 1e-6


def test_the_threshold_is_the_paper_s():
    assert ACTIVE == 0.01


def test_sampling_noise_does_not_count_as_activity(mnist):
    """A second layer that varies with z1's noise and not with x: a plain variance would call it active."""
    model, x = spread_out((4, 3), scale=1.5), (mnist.test_images[:2000] > 127).astype(np.float32)
    for head in model.encoder[0].heads:
        head.kernel.assign(head.kernel * 0)
    _, units = make_activity(model, n_samples=10)(x)
    output = model.encode(x, model.noise(10, 2000, [1, 2]))[1][0].distribution.loc.numpy()
    assert output.mean(axis=0).var(axis=0).max() > ACTIVE > np.abs(units).max()


@pytest.mark.parametrize("n_latent", [(6,), (6, 5)])
def test_a_model_without_its_silenced_units_has_the_same_likelihood(n_latent, mnist, monkeypatch):
    """Units that say nothing cost KL while q differs from p; then the bound of the model without them is the higher."""
    model, x = spread_out(n_latent, scale=1.5), (mnist.test_images[:40] > 127).astype(np.float32)
    in_batches_of(40, monkeypatch)
    for layer in range(len(n_latent)):
        silenced(model, layer, [1, 4])
    keep = [~np.isin(np.arange(n), [1, 4]) for n in n_latent]
    copy = without_units(model, keep, x)
    whole, reduced = (make_log_likelihood(m, 20000)(x)[0] for m in (model, copy))
    assert reduced.test_llh == pytest.approx(whole.test_llh, abs=5 * (whole.mc_error + reduced.mc_error))


@pytest.mark.parametrize("learned_prior", [False, True])
@pytest.mark.parametrize("n_latent", [(6,), (6, 5)])
def test_what_units_taken_away_did_leaves_no_trace(n_latent, learned_prior, binary_images):
    """In log w their terms cancel whatever they are, and their noise reaches nothing."""
    tf.keras.utils.set_random_seed(1)
    y = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]] if learned_prior else None
    sizes = [(20,) * len(n_latent), n_latent, 784]
    model = IWAE(*sizes, n_context=3, learned_prior=True) if learned_prior else IWAE(*sizes)
    keep = [~np.isin(np.arange(n), [1, 4]) for n in n_latent]
    means = [10 * layer + np.arange(n, dtype=np.float32) for layer, n in enumerate(n_latent)]
    copy = model.without_units(keep, means)
    noise = [e.numpy() for e in model.noise(3, 6, [1, 2])]
    before = copy(binary_images, noise, y)
    for layer in noise:
        layer[..., [1, 4]] += 2
    after = copy(binary_images, noise, y)
    np.testing.assert_allclose(before.log_px_z, after.log_px_z, rtol=1e-5)
    np.testing.assert_allclose(before.log_w(), after.log_w(), rtol=1e-5)
    # the units that stay are the model's own: q(z1|x) of them has not changed
    stay = np.flatnonzero(keep[0])
    old, new = (m.encode(binary_images, noise, y)[0][1].numpy()[..., stay] for m in (model, copy))
    np.testing.assert_allclose(old, new, rtol=1e-5)
    z = np.random.default_rng(0).normal(size=(6, n_latent[0])).astype(np.float32)
    z_with_means = np.where(keep[0], z, means[0]).astype(np.float32)
    np.testing.assert_allclose(copy.mean_image(z, y), model.mean_image(z_with_means, y), atol=1e-5)
    if len(n_latent) == 2:  # what reads z2 sees the means of its units
        z2 = np.random.default_rng(1).normal(size=(6, n_latent[1])).astype(np.float32)
        old, new = model.decoder[0](np.where(keep[1], z2, means[1]).astype(np.float32)), copy.decoder[0](z2)
        np.testing.assert_allclose(new.mean().numpy()[:, stay], old.mean().numpy()[:, stay], rtol=1e-4, atol=1e-5)


def test_a_model_of_another_class_stays_of_it_without_units(binary_images):
    class Centred(IWAE):
        def q_input(self, x, y=None):
            return super().q_input(x - self.pixel_means, y)

    means = np.full(784, 0.5, np.float32)
    model = Centred((20,), (3,), 784, means)
    copy, noise = without_units(model, [np.array([True, False, True])], binary_images), model.noise(2, 6, [1, 2])
    old, new = (m.encode(binary_images, noise)[0][1].numpy()[..., [0, 2]] for m in (model, copy))
    np.testing.assert_allclose(new, old, rtol=1e-5)


@pytest.mark.parametrize("conditional", [False, True])
def test_an_active_unit_taken_away_leaves_its_mean(conditional, mnist):
    """What reads it then sees its mean over the images, so only what the unit told of each image is lost."""
    x, y, of_z = (mnist.test_images[:50] > 127).astype(np.float32), None, None
    model = IWAE((20,), (3,), 784, n_context=2) if conditional else spread_out((3,))
    if conditional:
        y, of_z = (np.eye(2, dtype=np.float32)[np.arange(n) % 3 // 2] for n in (50, 7))
    copy = without_units(model, [np.array([True, False, True])], x, y)
    z = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    means = model.encode(x, (tf.zeros([1, 50, 3]),), y)[0][1].numpy()[0].mean(axis=0)
    expected = model.mean_image(np.concatenate([z[:, :1], 0 * z[:, 1:2] + means[1], z[:, 2:]], axis=-1), of_z)
    np.testing.assert_allclose(copy.mean_image(z, of_z), expected, atol=1e-5)
    with pytest.raises(ValueError, match="without units"):
        without_units(model, [np.zeros(3, bool)], x, y)


def test_log_weights_at_the_samples_are_those_of_a_call(binary_images):
    model = spread_out((4, 3), scale=1.0)
    output = model(binary_images, model.noise(5, 6, [1, 2]))
    again = model.log_weights(binary_images, output.z)
    for name in ("log_px_z", "log_pz", "log_qz_x", "kl"):
        np.testing.assert_allclose(getattr(again, name), getattr(output, name), rtol=1e-5)


def test_the_seed_is_0_where_none_is_given():
    model = LinearGaussian()
    functions = make_activity(model), make_q_means(model), make_log_likelihood(model), posterior_means
    for function in (*functions, sampling_importance_resampling):
        assert inspect.signature(function).parameters["seed"].default == 0
    assert inspect.signature(posterior_means).parameters["n_samples"].default == 500
    assert inspect.signature(sampling_importance_resampling).parameters["n_samples"].default == 5000
    assert inspect.signature(make_activity).parameters["n_samples"].default == 50


def test_every_image_has_samples_of_its_own_and_is_drawn_with_other_numbers(monkeypatch):
    model, seeds = LinearGaussian(), []
    x, noise, categorical = np.repeat(model.x[:1], 2, axis=0), model.noise, tf.random.stateless_categorical
    (means,) = posterior_means(model, x, n_samples=5, jit=False)
    assert np.abs(means[0] - means[1]).max() > 1e-3
    monkeypatch.setattr(model, "noise", lambda n, batch, seed, *_: seeds.append(seed) or noise(n, batch, seed))
    monkeypatch.setattr(tf.random, "stateless_categorical", lambda *of: seeds.append(of[-1]) or categorical(*of))
    monkeypatch.setattr(tf, "function", lambda **_: lambda f: f)
    sampling_importance_resampling(model, x, n_samples=5, n_draws=2, jit=False)
    assert len(seeds) == 2 and not np.array_equal(*seeds)


def test_batches_have_seeds_of_their_own_and_none_that_of_the_prior_s_pictures(monkeypatch):
    drawn, model = [], LinearGaussian()
    monkeypatch.setattr(posteriors, "stateless_seed", lambda *args: (drawn.append(args), stateless_seed(*args))[1])
    posterior_means(model, model.x, n_samples=2, seed=3, jit=False)
    sampling_importance_resampling(model, model.x, n_samples=2, n_draws=1, seed=3, jit=False)
    assert drawn == 2 * [(3, Stream.PICTURE, 1), (3, Stream.PICTURE, 2)]  # number 0 is the pictures'
    drawn.clear()
    monkeypatch.setattr(likelihood, "DRAWS", 1)
    posterior_means(model, model.x, n_samples=2, seed=3, jit=False)
    assert len(drawn) == 3  # batches of 50, so that all the samples of each are in memory
    drawn.clear()
    monkeypatch.setattr(active_units, "stateless_seed", posteriors.stateless_seed)
    make_activity(model, n_samples=2, jit=False)(model.x, seed=3)
    assert drawn == [(3, Stream.UNITS, 0), (3, Stream.UNITS, 1)]
