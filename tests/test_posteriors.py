"""The true posterior three ways, resampling, and active units, on models where the answer is known."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from evaluation import ACTIVE, make_activity, make_log_likelihood, make_true_posterior, resampled, without_units
from evaluation.posteriors import BORDER_MASS
from models import IWAE
from tests.oracles import LinearGaussian


class LinearGaussianIWAE(LinearGaussian):
    """With what a grid asks of a model besides."""

    n_context = 0

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.n_latent_units, self.n_latent = self.n_latent, (self.n_latent,)

    def noise(self, n_samples, batch, seed, algorithm="auto_select"):
        return (tf.random.stateless_normal([n_samples, batch, self.n_latent_units], seed, alg=algorithm),)

    def encode(self, x, noise, y=None):
        from tensorflow_probability import distributions as tfd

        loc = tf.matmul(x, tf.cast(self.gain.T, tf.float32)) + tf.cast(self.mean_error, tf.float32)
        scale = tf.ones_like(loc) * tf.cast(self.posterior_std * self.std_error, tf.float32)
        return [(tfd.Independent(tfd.Normal(loc, scale), 1), loc + scale * noise[0])]

    def __call__(self, x, noise, y=None):
        self.n_latent = self.n_latent_units
        output = super().__call__(x, noise, y)
        self.n_latent = (self.n_latent_units,)
        return output


def spread_out(n_latent, scale=4.0, seed=3):
    """An IWAE whose posteriors differ from its prior: its first weights, made larger."""
    tf.keras.utils.set_random_seed(seed)
    model = IWAE((20,) * len(n_latent), n_latent)
    for variable in model.trainable_variables:
        variable.assign(variable * scale if variable.shape.rank == 2 else variable)
    return model


def test_grid_is_the_closed_form_posterior():
    model = LinearGaussianIWAE(error=0.4)
    for x, log_px in zip(model.x[:4], model.log_px):
        grid = make_true_posterior(model)(x)
        assert grid.log_px == pytest.approx(log_px, abs=2e-3) and grid.border_mass < BORDER_MASS
        precision = np.eye(2) + model.a.T @ model.a / model.std**2
        exact = scipy.stats.multivariate_normal(model.gain @ x, np.linalg.inv(precision))
        points = np.stack(np.meshgrid(grid.z1, grid.z2), axis=-1)
        likely = grid.log_p > grid.log_p.max() - 10
        np.testing.assert_allclose(grid.log_p[likely], exact.logpdf(points)[likely], atol=5e-3)
        q_mean, q_std = model.gain @ x + model.mean_error, model.posterior_std * model.std_error
        covariance = np.linalg.inv(precision)
        off = q_mean - model.gain @ x
        kl = 0.5 * (np.trace(precision @ np.diag(q_std**2)) + off @ precision @ off - 2)
        kl += 0.5 * np.log(np.linalg.det(covariance) / np.prod(q_std**2))
        assert grid.kl == pytest.approx(kl, abs=5e-3)


def test_grid_and_importance_sampling_agree_on_a_network(binary_images):
    """On a model that is no Gaussian; and the gap between log p(x) and the ELBO is the KL divergence on the grid."""
    model = spread_out((2,), scale=1.2)
    _, log_px = make_log_likelihood(model, 50000)(binary_images)
    output = model(binary_images, model.noise(20000, 6, [1, 2]))
    elbo = tf.reduce_mean(output.log_w(), axis=0).numpy()
    for x, estimate, bound in zip(binary_images, log_px, elbo):
        grid = make_true_posterior(model)(x)
        assert grid.log_px == pytest.approx(estimate, abs=0.05)
        assert grid.kl == pytest.approx(grid.log_px - bound, abs=0.1 + 0.03 * grid.kl)


def test_grid_needs_two_units():
    with pytest.raises(ValueError, match="2 units"):
        make_true_posterior(IWAE((4,), (3,)))


@pytest.mark.parametrize("jit", [False, True])
def test_resampling_frequencies_are_the_weights(jit):
    """Eight samples, told apart by their values, drawn again many times: a chi-squared test against the weights."""
    model = LinearGaussian(error=1.0)
    x = model.x[:3]
    (z,), effective = resampled(model, x, n_samples=8, n_draws=20000, seed=4, jit=jit)
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
    (z,), _ = resampled(model, model.x[:20], n_samples=5000, n_draws=2000)
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


def test_sampling_noise_does_not_count_as_activity(mnist):
    """A second layer that varies with z1's noise and not with x: a plain variance would call it active."""
    model, x = spread_out((4, 3), scale=1.5), (mnist.test_images[:2000] > 127).astype(np.float32)
    for head in model.encoder[0].heads:
        head.kernel.assign(head.kernel * 0)
    _, units = make_activity(model, n_samples=10)(x)
    output = model.encode(x, model.noise(10, 2000, [1, 2]))[1][0].distribution.loc.numpy()
    assert output.mean(axis=0).var(axis=0).max() > ACTIVE > np.abs(units).max()


@pytest.mark.parametrize("n_latent", [(6,), (6, 5)])
def test_a_model_without_its_silenced_units_has_the_same_likelihood(n_latent, mnist):
    model, x = spread_out(n_latent, scale=1.5), (mnist.test_images[:40] > 127).astype(np.float32)
    for layer in range(len(n_latent)):
        silenced(model, layer, [1, 4])
        for head in model.encoder[layer].heads:  # q of these units is their prior, so they cost no KL
            head.bias.assign(head.bias * 0)
    if len(n_latent) > 1:
        for head in model.decoder[0].heads:
            head.kernel.assign(head.kernel.numpy() * ~np.isin(np.arange(head.units), [1, 4]))
    keep = [~np.isin(np.arange(n), [1, 4]) for n in n_latent]
    smaller = without_units(model, keep, x)
    assert smaller.n_latent == tuple(n - 2 for n in n_latent)
    whole, reduced = (make_log_likelihood(m, 20000)(x)[0] for m in (model, smaller))
    assert reduced.test_llh == pytest.approx(whole.test_llh, abs=5 * (whole.mc_error + reduced.mc_error))


def test_an_active_unit_taken_away_leaves_its_mean(mnist):
    """What reads it then sees its mean over the images, so only what the unit told of each image is lost."""
    model, x = spread_out((3,)), (mnist.test_images[:50] > 127).astype(np.float32)
    smaller = without_units(model, [np.array([True, False, True])], x)
    z = np.random.default_rng(0).normal(size=(1, 7, 3)).astype(np.float32)
    mean = model.encode(x, (tf.zeros([1, 50, 3]),))[0][1].numpy()[0].mean(axis=0)
    z[..., 1] = mean[1]
    np.testing.assert_allclose(smaller.likelihood(z[..., [0, 2]]).mean(), model.likelihood(z).mean(), atol=1e-5)
    with pytest.raises(ValueError, match="without units"):
        without_units(model, [np.zeros(3, bool)], x)
