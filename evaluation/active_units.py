"""Which latent units a model uses (Burda et al., sec. 5.2)."""

import numpy as np
import tensorflow as tf

from evaluation.likelihood import over_batches
from models.random import Stream, random_algorithm, stateless_seed

ACTIVE = 0.01  # a unit is active if its activity is above this
SAMPLES = 50  # of the layers drawn before; an even number


def make_activity(model, n_samples=SAMPLES, jit=True):
    """Returns activity(x, y, seed) -> A_u = Cov_x(E_q(u|x)[u]) of every unit: a list of [n_latent], a layer each.

    Over the images x [n_images, n_pixels]. In the layer that is drawn first the expectation is exact; in the others it
    is a mean over n_samples samples of the layers drawn before. The variance of such means is too large by 1/n_samples
    of the unit's own variance, which alone can exceed the threshold. So the covariance is taken between the means over
    two independent halves of the samples, whose number must be even.
    """
    half_means = _make_half_means(model, n_samples, jit)

    def activity(x, y=None, seed=0):
        return [np.mean((a - a.mean(0)) * (b - b.mean(0)), axis=0) for a, b in half_means(x, y, seed)]

    return activity


def _make_half_means(model, n_samples, jit):
    """Returns half_means(x, y, seed) -> for each layer E_q[z] [n_images, n_latent] by either half of the samples."""

    @tf.function(jit_compile=jit)
    def of_batch(x, y, seed):
        noise = model.noise(n_samples, x.shape[0], seed, random_algorithm(jit))
        means = [tf.broadcast_to(q.mean(), sample.shape) for q, sample, _ in model.encode(x, noise, y)]
        return [[tf.reduce_mean(half, axis=0) for half in tf.split(mean, 2, axis=0)] for mean in means]

    def half_means(x, y, seed):
        return over_batches(of_batch, x, y, lambda index: stateless_seed(seed, Stream.UNITS, index))

    return half_means


def make_q_means(model, jit=True):
    """Returns q_means(x, y, seed) -> E_q[z|x], a list of [n_images, n_latent], z1 first.

    In the layer that is drawn first it is exact; in the others it is a mean over SAMPLES samples of those before.
    """
    half_means = _make_half_means(model, SAMPLES, jit)

    def q_means(x, y=None, seed=0):
        return [(a + b) / 2 for a, b in half_means(x, y, seed)]

    return q_means


def without_units(model, keep, x, y=None, jit=True):
    """A copy of the model without some of its latent units; what read them is given their mean over the images x.

    keep: for each layer a bool array [n_latent]. Raises ValueError where a layer would have no unit left.
    """
    return model.without_units(keep, [means.mean(axis=0) for means in make_q_means(model, jit=jit)(x, y)])
