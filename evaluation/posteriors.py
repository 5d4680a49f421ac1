"""The true posterior p(z|x): its means and samples by importance weights, and all of it on a grid where z is 2-D."""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from evaluation.likelihood import batch_size, check_binary, over_batches
from models.random import Stream, random_algorithm, stateless_seed

ROWS = 2000  # points of the grid at a time
FAR = 25.0  # nats below the highest density: the points beyond hold no mass worth counting
STDS_OF_Q = 5  # at least so many standard deviations of q lie inside the grid
BORDER_MASS = 1e-5  # at most so much of the posterior's mass may lie on the grid's border
RESOLVED = 0.01  # nats that log p(x) may change with half the points per side; also how far q's mass may be from 1
MOST_POINTS = 1600  # per side


def posterior_means(model, x, y=None, n_samples=500, seed=0, jit=True):
    """E[z|x] by self-normalised importance sampling: sum_i w~_i z_i, a list of [n_images, n_latent], z1 first.

    x [n_images, n_pixels] in {0, 1}; y [n_images, n_context] or None.
    Few samples give noise of its own: units that x does not determine get the mean of a few standard normals.
    """

    @tf.function(jit_compile=jit)
    def means(x, y, seed):
        output = model(x, model.noise(n_samples, x.shape[0], seed, random_algorithm(jit)), y)
        normalised_w = tf.nn.softmax(output.log_w(), axis=0)[..., tf.newaxis]  # [n_samples, batch, 1]
        return [tf.reduce_sum(normalised_w * z, axis=0) for z in output.z]

    return _over_images(means, x, y, n_samples, seed)


def sampling_importance_resampling(model, x, y=None, n_samples=5000, n_draws=100, seed=0, jit=True):
    """Sampling importance resampling (Rubin, 1987): n_draws of n_samples samples of q, drawn again in proportion to
    their weights.

    x [n_images, n_pixels] in {0, 1}; y [n_images, n_context] or None. As n_samples grows they become draws from p(z|x).
    Returns (a list of [n_draws, n_images, n_latent], z1 first;
    the effective sample size 1 / sum_i w~_i^2 of the weights [n_images]).
    """

    @tf.function(jit_compile=jit)
    def draw(x, y, seed):
        noise_seed, draw_seed = tf.unstack(tf.random.split(seed, 2))
        output = model(x, model.noise(n_samples, x.shape[0], noise_seed, random_algorithm(jit)), y)
        log_w = output.log_w()  # [n_samples, batch]
        drawn = tf.random.stateless_categorical(tf.transpose(log_w), n_draws, draw_seed)  # [batch, n_draws]
        effective = 1 / tf.reduce_sum(tf.nn.softmax(log_w, axis=0) ** 2, axis=0)
        z = [tf.gather(tf.transpose(z, [1, 0, 2]), drawn, batch_dims=1) for z in output.z]  # [batch, n_draws, n_latent]
        return z, effective

    drawn, effective = _over_images(draw, x, y, n_samples, seed)
    return [layer.transpose(1, 0, 2) for layer in drawn], effective


def _over_images(of_batch, x, y, n_samples, seed):
    return over_batches(of_batch, x, y, lambda i: stateless_seed(seed, Stream.PICTURE, i + 1), batch_size(n_samples))


class GridPosterior(NamedTuple):
    """One image's posterior over a 2-D z, on a grid. Densities [n, n] have the second unit down, the first across."""

    first: np.ndarray  # [n], the first unit's values
    second: np.ndarray  # [n], the second unit's
    log_p: np.ndarray  # log p(z|x), normalised on the grid
    log_q: np.ndarray  # log q(z|x)
    log_px: float  # log of the integral of p(x, z) over the grid
    kl: float  # KL(q(z|x) || p(z|x)), the gap between log p(x) and the ELBO
    border_mass: float  # of p(z|x), on the grid's outermost points


def make_true_posterior(model, jit=True, binary=True):
    """Returns true_posterior(x [n_pixels], n=200) -> the GridPosterior of one image, n points a side.

    For a model with one stochastic layer of two units; raises ValueError for any other. A coarse grid over all that the
    prior and q allow finds where p(x, z) has its mass; a finer one covers that and q. It is widened until no mass lies
    on its border; its points are doubled, up to MOST_POINTS per side, until every second one alone gives the same log
    p(x) and q sums to 1. binary: as for make_log_likelihood.
    """
    if model.n_latent != (2,) or model.n_context:
        given = f"{model.n_latent} and {model.n_context} labels"
        raise ValueError(f"a grid needs one stochastic layer of 2 units and no labels, not {given}")
    densities = _make_densities(model, jit)

    def true_posterior(x, n=200):
        if binary:
            check_binary(x)
        noise = tuple(map(tf.zeros_like, model.noise(1, 1, [0, 0])))
        ((q, sample, _),) = model.encode(tf.constant(x[np.newaxis]), noise)
        mean, std = (np.broadcast_to(of, sample.shape)[0, 0] for of in (q.mean(), q.stddev()))  # [unit]
        around_q = np.stack([mean - STDS_OF_Q * std, mean + STDS_OF_Q * std])  # [low or high, unit]
        box = np.stack([np.minimum(around_q[0], -5.0), np.maximum(around_q[1], 5.0)])
        for _ in range(2):  # what a coarse grid leaves is looked at again, more finely
            axes = np.linspace(*box, 100)  # [points, unit]
            log_joint, _ = densities(x, axes)
            box = _around(log_joint > log_joint.max() - FAR, axes, around_q)
        while True:
            axes = np.linspace(*box, n)
            log_joint, log_q = densities(x, axes)
            grid = _normalised(axes, log_joint, log_q)
            if grid.border_mass > BORDER_MASS:
                box = box + [[-0.25], [0.25]] * (box[1] - box[0])  # each side moves out by a quarter of the width
            elif n < MOST_POINTS and not _is_resolved(grid, axes, log_joint, log_q):
                n = min(2 * n, MOST_POINTS)
            else:
                return grid

    return true_posterior


def _is_resolved(grid, axes, log_joint, log_q):
    """Whether the points are close enough together for p(x, z), and for q, over which KL(q || p) is summed."""
    coarse = _normalised(axes[::2], log_joint[::2, ::2], log_q[::2, ::2])
    mass_of_q = np.exp(np.logaddexp.reduce(log_q, axis=None) + _log_cell(axes))
    return abs(coarse.log_px - grid.log_px) <= RESOLVED and abs(mass_of_q - 1) <= RESOLVED


def _log_cell(axes):
    return np.log(np.prod(axes[1] - axes[0]))


def _normalised(axes, log_joint, log_q):
    log_cell = _log_cell(axes)
    log_px = np.logaddexp.reduce(log_joint, axis=None) + log_cell
    log_p = log_joint - log_px
    border = np.ones_like(log_p, bool)
    border[1:-1, 1:-1] = False
    border_mass = np.exp(np.logaddexp.reduce(log_p[border]) + log_cell)
    kl = np.sum(np.exp(log_q + log_cell) * (log_q - log_p))
    return GridPosterior(*axes.T, log_p, log_q, float(log_px), float(kl), float(border_mass))


def _around(inside, axes, at_least):
    """The box [low or high, unit] around the points `inside` [n, n], a step wider, that holds `at_least` too."""
    step = axes[1] - axes[0]
    held = [axes[inside.any(axis=unit), unit] for unit in (0, 1)]
    low, high = (np.array([bound(values) for values in held]) for bound in (np.min, np.max))
    return np.stack([np.minimum(low - step, at_least[0]), np.maximum(high + step, at_least[1])])


def _make_densities(model, jit):
    """Returns densities(x [n_pixels], axes [n, 2]) -> log p(x, z) and log q(z|x), float64 [n, n], at all pairs."""

    @tf.function(jit_compile=jit)
    def at(x, z):  # [1, n_pixels], [ROWS, 2]
        output = model.log_weights(x, (z[:, tf.newaxis],))  # [ROWS, 1]
        return (output.log_px_z + output.log_pz)[:, 0], output.log_qz_x[:, 0]

    def densities(x, axes):
        points = np.stack(np.meshgrid(*axes.T), axis=-1).reshape(-1, 2).astype(np.float32)
        padded = np.resize(points, (math.ceil(len(points) / ROWS) * ROWS, 2))
        x = tf.constant(x[np.newaxis], tf.float32)
        parts = [[part.numpy() for part in at(x, tf.constant(rows))] for rows in padded.reshape(-1, ROWS, 2)]
        shape = (len(axes), len(axes))  # meshgrid's: the second unit down, the first across
        return [np.concatenate(part)[: len(points)].astype(np.float64).reshape(shape) for part in zip(*parts)]

    return densities
