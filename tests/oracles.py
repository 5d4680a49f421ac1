"""Independent ways to the same numbers: a model whose log p(x) is known, and log w in float64 NumPy."""

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from models.interface import LogWeights


class LinearGaussian:
    """z ~ N(0, I), x|z ~ N(A z, s^2 I), so x ~ N(0, A A^T + s^2 I); q(z|x) is the true posterior spoilt by `error`.

    It has the methods of models.interface.Model that bounds and evaluation use.
    """

    def __init__(self, n_latent=2, n_pixels=5, std=0.7, error=0.3, seed=0):
        rng = np.random.default_rng(seed)
        self.a = rng.normal(size=(n_pixels, n_latent))
        self.std, self.n_latent, self.n_context = std, (n_latent,), 0
        precision = np.eye(n_latent) + self.a.T @ self.a / std**2
        self.gain = np.linalg.solve(precision, self.a.T / std**2)
        self.posterior_std = np.sqrt(np.diag(np.linalg.inv(precision)))
        self.mean_error, self.std_error = error * rng.normal(size=n_latent), 1 + error
        covariance = self.a @ self.a.T + std**2 * np.eye(n_pixels)
        self.x = rng.multivariate_normal(np.zeros(n_pixels), covariance, size=150).astype(np.float32)
        self.log_px = tfd.MultivariateNormalTriL(
            np.zeros(n_pixels), np.linalg.cholesky(covariance)
        ).log_prob(self.x.astype(np.float64)).numpy()  # fmt: skip

    def noise(self, n_samples, batch, seed, algorithm="auto_select"):
        return (tf.random.stateless_normal([n_samples, batch, *self.n_latent], seed, alg=algorithm),)

    def encode(self, x, noise, y=None, cut=tf.identity):
        mean = tf.matmul(x, tf.cast(self.gain.T, tf.float32)) + tf.cast(self.mean_error, tf.float32)
        q = _normal(mean, tf.ones_like(mean) * tf.cast(self.posterior_std * self.std_error, tf.float32))
        sample = q.distribution.loc + q.distribution.scale * noise[0]
        return [(q, sample, cut(sample))]

    def __call__(self, x, noise, y=None, cut=tf.identity):
        ((q, sample, z),) = self.encode(x, noise, y, cut)
        return self._densities(x, q, sample, z)

    def log_weights(self, x, z, y=None):
        ((q, _, _),) = self.encode(x, tf.zeros_like(z))
        return self._densities(x, q, *z, *z)

    def sample_prior(self, noise, y=None):
        return tuple(noise)

    def _densities(self, x, q, sample, z):
        prior = _normal(tf.zeros(self.n_latent), tf.ones(self.n_latent))
        mean = tf.einsum("sbd,pd->sbp", z, tf.cast(self.a, tf.float32))
        log_px_z = _normal(mean, tf.fill(tf.shape(mean), float(self.std))).log_prob(x)
        kl = tf.broadcast_to(tfd.kl_divergence(q, prior), tf.shape(log_px_z))
        return LogWeights(log_px_z, (prior.log_prob(z),), (q.log_prob(z),), kl, (sample,), (z,))


def _normal(mean, std):
    return tfd.Independent(tfd.Normal(tf.cast(mean, tf.float32), tf.cast(std, tf.float32)), 1)


def numpy_log_w(model, x, noise, beta=1.0):
    """log w [n_samples, batch] of an IWAE in float64, from its weights, by the formulas of the paper alone."""
    log_px_z, log_pz, log_qz_x = numpy_densities(model, x, numpy_samples(model, x, noise))
    return log_px_z + beta * (log_pz - log_qz_x)


def numpy_samples(model, x, noise):
    """The samples of every layer, float64 [n_samples, batch, n_latent], from z1 up."""
    below, samples = np.asarray(x, np.float64), []
    for block, epsilon in zip(model.encoder, noise):
        mean, log_std = _heads(block, below)
        below = mean + np.exp(log_std) * np.asarray(epsilon, np.float64)
        samples.append(below)
    return samples


def numpy_densities(model, x, z):
    """(log p(x|z), log p(z), log q(z|x)), float64 [n_samples, batch] each, at points z of every layer."""
    x = np.asarray(x, np.float64)
    log_qz_x = sum(_log_normal(at, *_heads(block, below)) for block, at, below in zip(model.encoder, z, [x, *z]))
    log_pz = sum(_log_normal(at, *_heads(block, above)) for block, at, above in zip(model.decoder, z, z[1:]))
    log_pz = log_pz + _log_normal(z[-1], 0.0, np.zeros(1))
    (logits,) = _heads(model.likelihood, z[0])
    return np.sum(x * logits - np.logaddexp(0, logits), axis=-1), log_pz, log_qz_x


def _heads(block, inputs):
    """What the last layers of a block make of its inputs."""

    def dense(layer, inputs):
        kernel, bias = (np.asarray(w, np.float64) for w in layer.get_weights())
        return inputs @ kernel + bias

    h = np.tanh(dense(block.hidden[1], np.tanh(dense(block.hidden[0], inputs))))
    return [dense(head, h) for head in block.heads]


def _log_normal(z, mean, log_std):
    return np.sum(-0.5 * np.log(2 * np.pi) - log_std - 0.5 * ((z - mean) / np.exp(log_std)) ** 2, axis=-1)
