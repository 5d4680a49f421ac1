"""log p(x) by annealed importance sampling, a second opinion that does not lean on q(z|x). In nats.

Wu, Burda, Salakhutdinov and Grosse (1611.04273) judge decoders this way. A chain walks through the noise e that the
prior's samples z(e) are made from. It begins with e ~ N(0, I), and passes through the densities
N(e; 0, I) p(x|z(e))^beta_t, 0 = beta_0 < ... < beta_T = 1, with a step of Hamiltonian Monte Carlo in each. Its weight

    log w = sum_t (beta_t - beta_{t-1}) log p(x|z(e_{t-1}))        E[w] = p(x)

makes log (1/n) sum_i w_i of n chains a lower bound of log p(x) in expectation, as the IWAE bound is. Where x was drawn
from the model there is an exact sample of p(e|x): the e that it was drawn with. A chain that goes back from there to
the prior has E[1/w] = 1/p(x), and -log (1/n) sum_i 1/w_i is an upper bound: bidirectional Monte Carlo (Grosse et al.,
1511.02543).

The chains walk in e and not in z, because p(z1|z2) can be far narrower in one unit than in another, and the narrowest
decides the step size. In e a unit that x says nothing of has width 1.

The loop is written out since tfp.mcmc.sample_annealed_importance_chain is biased: it judges a proposal under beta_t
against the log density that its starting point had under beta_{t-1}.
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_probability import mcmc

from evaluation.likelihood import batches, check_binary
from evaluation.monte_carlo import monte_carlo_errors
from models.random import Stream, stateless_seed
from utils import ProgressBar

BATCH = 20  # images at a time
LEAPFROG_STEPS = 5
ACCEPTED = 0.65  # share of proposals at which HMC gets furthest (Neal, 1206.1901, sec. 4.4)
PILOT = 5  # the step sizes come from chains with so many times fewer temperatures
FIRST_STEP_SIZE, ADAPTATION = 0.5, 0.3  # of the pilot, and how much its steps change with the share accepted
STEEPNESS = 4.0  # of the schedule of beta
STEPS_PER_CALL = 50  # temperatures in one compiled call; Ctrl-C is answered between calls


class Annealed(NamedTuple):
    """Estimates of log p(x) for each image, float64 [n_images], nats."""

    log_px: np.ndarray
    mc_error: np.ndarray  # how far log_px would move with other chains
    accepted: float  # mean share of proposals that HMC accepted


class Bracket(NamedTuple):
    """Bounds, in expectation, on log p(x) of images drawn from the model, float64 [n_images], nats."""

    x: np.ndarray  # [n_images, n_pixels], 0 and 1
    lower: np.ndarray  # by chains from the prior
    upper: np.ndarray  # by chains from the z that the image was drawn from


def temperatures(n):
    """beta_0 ... beta_n [n + 1] from 0 to 1, along a sigmoid: small steps at both ends (Grosse et al., 1511.02543)."""
    curve = 1 / (1 + np.exp(-STEEPNESS * np.linspace(-1, 1, n + 1)))
    return ((curve - curve[0]) / (curve[-1] - curve[0])).astype(np.float32)


def make_ais(model, n_temperatures=4000, n_chains=16, jit=True, binary=True):
    """Returns estimate(x, y, seed, show_progress) -> Annealed, for x [n_images, n_pixels] in {0, 1} and y
    [n_images, n_context] if the model is conditional. n_chains: a power of two, at least 2. binary: as for
    make_log_likelihood. Raises ValueError for other n_chains, and for an x that is not binary.
    """
    if n_chains < 2 or n_chains.bit_count() != 1:
        raise ValueError(f"n_chains: {n_chains} is not allowed; a power of two, at least 2")
    anneal = _make_anneal(model, n_temperatures, n_chains, jit)

    def estimate(x, y=None, seed=0, show_progress=False):
        if binary:
            check_binary(x)
        bar = ProgressBar(len(x), "image", "log p(x)") if show_progress else None
        log_w, accepted = [], []
        for index, images, context, count in batches(x, y, BATCH):
            weights, share = anneal(images, context, stateless_seed(seed, Stream.ANNEAL, index))
            log_w.append(weights[:, :count])
            accepted.append(share)
            if bar:
                bar.update(index * BATCH + count, np.mean(_log_mean(np.concatenate(log_w, axis=1))))
        log_w = np.concatenate(log_w, axis=1)  # [n_chains, n_images]
        return Annealed(_log_mean(log_w), monte_carlo_errors(log_w, np.ones(n_chains)), float(np.mean(accepted)))

    return estimate


def make_bracket(model, n_temperatures=4000, n_chains=16, jit=True):
    """Returns bracket(n_images, y, seed, show_progress) -> Bracket of images drawn from the model, given y if it is
    conditional.
    """
    anneal = _make_anneal(model, n_temperatures, n_chains, jit)

    def bracket(n_images, y=None, seed=0, show_progress=False):
        bar = ProgressBar(n_images, "image", "upper - lower") if show_progress else None
        parts = []
        for index, _, context, count in batches(np.zeros((n_images, 0)), y, BATCH):
            seeds = tf.random.split(stateless_seed(seed, Stream.SIMULATE, index), 4)
            noise = model.noise(1, BATCH, seeds[0])
            means = model.decode(noise, context)
            x = tf.cast(tf.random.stateless_uniform(means.shape, seeds[1]) < means, tf.float32)
            lower, _ = anneal(x, context, seeds[2])
            upper, _ = anneal(x, context, seeds[3], start=noise)
            parts.append([part[:count] for part in (x.numpy(), _log_mean(lower), -_log_mean(-upper))])
            if bar:
                bar.update(index * BATCH + count, np.mean(parts[-1][2] - parts[-1][1]))
        return Bracket(*map(np.concatenate, zip(*parts)))

    return bracket


def _log_mean(log_w):
    return np.logaddexp.reduce(log_w, axis=0) - np.log(len(log_w))


def _make_run(model, n_chains, jit):
    """Returns run(x, y, seed, noise, beta, step_sizes, rate) -> (log w of each chain [n_chains, batch], step sizes used
    [T, batch], mean share of proposals accepted [batch]): chains from `noise` through the temperatures beta [T + 1].

    Their step sizes are step_sizes [T, batch] times a factor, which begins at 1, grows where more than ACCEPTED of an
    image's proposals are accepted, and falls where fewer are; `rate` says how fast, 0 not at all.
    """

    @tf.function(jit_compile=jit)
    def go_on(x, y, seed, beta, step_sizes, rate, first, last, state):
        """The transitions first ... last - 1. state: (noise, log w, factor, step sizes used, shares accepted)."""

        def log_px_z(*noise):
            return model.log_weights(x, model.sample_prior(noise, y), y).log_px_z  # [n_chains, batch]

        def body(t, noise, log_w, factor, used, accepted):
            # log w <- log w + (beta_t - beta_{t-1}) log p(x|z(e))
            log_w += (beta[t + 1] - beta[t]) * log_px_z(*noise)

            def log_density(*noise):
                # log N(e; 0, I) + beta_t log p(x|z(e)), but for a constant
                squares = sum(tf.reduce_sum(layer**2, axis=-1) for layer in noise)
                return -0.5 * squares + beta[t + 1] * log_px_z(*noise)

            size = (factor * step_sizes[t])[tf.newaxis, :, tf.newaxis]
            kernel = mcmc.HamiltonianMonteCarlo(log_density, size, LEAPFROG_STEPS)
            seed_t = tf.random.fold_in(seed, t)
            noise, results = kernel.one_step(noise, kernel.bootstrap_results(noise), seed=seed_t)
            share = tf.reduce_mean(tf.exp(tf.minimum(results.log_accept_ratio, 0.0)), axis=0)  # [batch]
            used = tf.tensor_scatter_nd_update(used, [[t]], [factor * step_sizes[t]])
            return t + 1, noise, log_w, factor * tf.exp(rate * (share - ACCEPTED)), used, accepted + share

        return tf.while_loop(lambda t, *_: t < last, body, (first, *state))[1:]

    def run(x, y, seed, noise, beta, step_sizes, rate):
        n, batch = len(step_sizes), x.shape[0]
        zero = tf.zeros([batch])
        state = noise, tf.zeros([n_chains, batch]), zero + 1, tf.zeros([n, batch]), zero
        for first in range(0, n, STEPS_PER_CALL):
            last = min(first + STEPS_PER_CALL, n)
            state = go_on(x, y, seed, beta, step_sizes, rate, tf.constant(first), tf.constant(last), state)
            state[1].numpy()  # waits for it, so that a signal is answered before the next call
        _, log_w, _, used, accepted = state
        return log_w, used, accepted / n

    return run


def _make_anneal(model, n_temperatures, n_chains, jit):
    """Returns anneal(x, y, seed, start=None) -> (log w of each chain [n_chains, batch], share of proposals accepted).

    start: a tuple of [1, batch, n_latent], exact samples of p(e|x). Chains go from there to the prior, and log w is
    still that of the way from the prior. None: they go from the prior to p(e|x).
    """
    run = _make_run(model, n_chains, jit)

    def pilot_step_sizes(x, y, seed, noise):
        """[n_temperatures, batch], of the transitions of chains from the prior, found by pilot chains that start at
        `noise`. They are separate chains, since HMC leaves its density as it is only if the step size depends neither
        on the chain's own past nor on where it starts.
        """
        few = temperatures(math.ceil(n_temperatures / PILOT))
        guess = tf.fill([len(few) - 1, x.shape[0]], FIRST_STEP_SIZE)
        _, sizes, _ = run(x, y, seed, noise, few, guess, ADAPTATION)
        return tf.gather(sizes, np.arange(n_temperatures) * (len(few) - 1) // n_temperatures)

    def anneal(x, y, seed, start=None):
        seeds = tf.random.split(seed, 4)
        first = [list(model.noise(n_chains, x.shape[0], s)) for s in (seeds[0], seeds[1])]
        beta, sizes = temperatures(n_temperatures), pilot_step_sizes(x, y, seeds[2], first[0])
        if start is None:
            log_w, _, accepted = run(x, y, seeds[3], first[1], beta, sizes, 0.0)
        else:
            noise = [tf.repeat(layer, n_chains, axis=0) for layer in start]
            log_w, _, accepted = run(x, y, seeds[3], noise, beta[::-1], _backwards(sizes), 0.0)
            log_w = -log_w
        return log_w.numpy().astype(np.float64), float(np.mean(accepted))

    return anneal


def _backwards(sizes):
    """Step sizes [T, ...] at beta_1 ... beta_T -> [T, ...] at beta_{T-1} ... beta_0, with that of beta_1 for beta_0.
    None is needed at beta_T = 1, where the chain begins with an exact sample.
    """
    return tf.concat([sizes[-2::-1], sizes[:1]], axis=0)
