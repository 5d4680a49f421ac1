"""Which latent units a model uses (Burda et al., sec. 5.2)."""

import numpy as np
import tensorflow as tf

from evaluation.likelihood import batches
from models import IWAE
from utils import Stream, random_algorithm, stateless_seed

ACTIVE = 0.01  # a unit is active if its activity is above this


def make_activity(model, n_samples=50, jit=True):
    """Returns activity(x, y, seed) -> A_u = Cov_x(E_q(u|x)[u]) of every unit: a list of [n_latent], z1 first.

    Over the images x [n_images, n_pixels]. The expectation is exact in the first layer and taken over n_samples
    samples of the layers below in the others. There the covariance is between two independent halves of the samples,
    so that what is left of their noise does not count as activity: a variance of means over samples would be too large
    by 1/n_samples of the unit's own variance, and that alone can be more than the threshold.
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
        locations = [q.distribution.loc for q, _ in model.encode(x, noise, y)]
        locations[0] = tf.broadcast_to(locations[0], [n_samples, *locations[0].shape])
        return [[tf.reduce_mean(half, axis=0) for half in tf.split(loc, 2, axis=0)] for loc in locations]

    def half_means(x, y, seed):
        parts = [
            [
                [half.numpy()[:count] for half in layer]
                for layer in of_batch(*batch, stateless_seed(seed, Stream.UNITS, i))
            ]
            for i, *batch, count in batches(x, y)
        ]
        return [[np.concatenate(half) for half in zip(*layer)] for layer in zip(*parts)]

    return half_means


def without_units(model, keep, x, y=None):
    """The same model without some of its latent units; where they were read stands their mean over the images x.

    keep: a bool array [n_latent] a layer, z1 first. Raises ValueError where a layer would have no unit left.
    """
    if not all(np.any(units) for units in keep):
        raise ValueError("a layer would be left without units")
    means = [(a + b).mean(axis=0) / 2 for a, b in _make_half_means(model, 50, True)(x, y, 0)]
    smaller = IWAE(
        [block.hidden[0].units for block in model.encoder],
        [int(np.sum(units)) for units in keep],
        n_pixels=model.n_pixels,
        n_context=model.n_context,
        learned_prior=model.prior_block is not None,
    )
    for (old, reads, writes), (new, _, _) in zip(_wiring(model), _wiring(smaller), strict=True):
        kernel, bias = old.hidden[0].get_weights()
        if reads is not None:
            units = np.concatenate([keep[reads], np.ones(len(kernel) - len(keep[reads]), bool)])  # the label stays
            bias = bias + means[reads][~keep[reads]] @ kernel[~units]
            kernel = kernel[units]
        new.hidden[0].set_weights([kernel, bias])
        new.hidden[1].set_weights(old.hidden[1].get_weights())
        for old_head, new_head in zip(old.heads, new.heads):
            kernel, bias = old_head.get_weights()
            units = slice(None) if writes is None else keep[writes]
            new_head.set_weights([kernel[:, units], bias[units]])
    return smaller


def _wiring(model):
    """(block, the stochastic layer it reads, the one it writes) of every block, counted from 0; None is x or y."""
    yield from ((block, i - 1 if i else None, i) for i, block in enumerate(model.encoder))
    yield from ((block, i + 1, i) for i, block in enumerate(model.decoder))
    yield model.likelihood, 0, None
    if model.prior_block:
        yield model.prior_block, None, len(model.n_latent) - 1
