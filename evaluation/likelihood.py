"""Bounds and the test log likelihood, in nats."""

import itertools
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from evaluation.monte_carlo import UNRELIABLE, monte_carlo_errors, pareto_k, tail_size
from models.objectives import iwae_elbo, vae_elbo
from models.random import Stream, random_algorithm, stateless_seed
from utils import ProgressBar

BATCH = 100  # images at a time
DRAWS = 20  # samples of each image at a time: memory holds BATCH * DRAWS samples, whatever k is
PARTS = ("log_px_z", "log_pz", "log_qz_x", "kl")
CHUNKS_PER_CALL = 25  # in one compiled call; Ctrl-C is answered between calls
CHUNKS = 10  # at least, where there are so many samples
GROUPS = 32  # at most, a power of two: independent groups of samples, which tell the Monte Carlo error


class LogLikelihood(NamedTuple):
    """The k-sample estimate of mean log p(x) over images, and its two separate uncertainties."""

    test_llh: float  # mean over the images of log (1/k) sum_i w_i
    standard_error: float | None  # of that mean, as an estimate for all images: images differ. None for one image
    mc_error: float | None  # of that mean, for these very images: samples differ. None for one sample
    n_samples: int
    n_images: int
    pareto_k: float | None  # the median over the images of the shape of their weights' tail. None for few samples
    pareto_k_high: float | None  # the share of the images where it is above UNRELIABLE


class PerImage(NamedTuple):
    """The estimates for each image, float64 [n_images], nats."""

    log_px: np.ndarray  # log (1/k) sum_i w_i
    mc_error: np.ndarray  # how far log_px would move with other samples; NaN for one sample
    pareto_k: np.ndarray  # the shape of the weights' tail; NaN for few samples


def batches(x, y, size=BATCH):
    """Yields (index, x [size, n_pixels], y [size, n_context], how many rows count). The last batch is filled up with
    copies of its rows. y may be None, for a model that is not conditional.
    """
    y = np.zeros((len(x), 0), np.float32) if y is None else y
    for index in range(math.ceil(len(x) / size)):
        rows = np.arange(index * size, min((index + 1) * size, len(x)))
        filled = np.resize(rows, size)
        yield index, tf.constant(x[filled]), tf.constant(y[filled]), len(rows)


def over_batches(function, x, y, seed_of, size=BATCH):
    """Calls function(x, y, seed_of(index)) on each batch of the images. Its nested tensors [size, ...] are joined into
    NumPy arrays [n_images, ...].
    """
    parts = []
    for index, images, context, count in batches(x, y, size):
        results = function(images, context, seed_of(index))
        parts.append(tf.nest.map_structure(lambda result, count=count: result.numpy()[:count], results))
    return tf.nest.map_structure(lambda *rows: np.concatenate(rows), *parts)


def batch_size(n_samples):
    """How many images to take at a time when all the samples of each are held at once."""
    return max(1, min(BATCH, BATCH * DRAWS // n_samples))


def make_log_likelihood(model, n_samples=5000, jit=True, binary=True):
    """Returns estimate(x, y, seed, show_progress) -> (LogLikelihood, PerImage).

    log p(x) by importance sampling: log (1/k) sum_i p(x, z_i) / q(z_i|x) with k = n_samples, for each image of x
    [n_images, n_pixels] in {0, 1}; all given y [n_images, n_context], if the model is conditional. The samples go by
    in chunks into a running log-sum-exp, so that memory does not depend on k but for the few largest weights.
    binary: False for a likelihood of real numbers; otherwise `estimate` raises ValueError for an x that is not binary.
    """
    chunk = min(DRAWS, max(1, n_samples // CHUNKS))
    groups = min(GROUPS, 2 ** int(math.log2(math.ceil(n_samples / chunk))))
    sizes = np.bincount(np.arange(n_samples) // chunk % groups)  # samples of each group
    tail = tail_size(n_samples)
    accumulate = _make_accumulate(model, n_samples, chunk, groups, tail + 1 if tail else 0, jit)

    def estimate(x, y=None, seed=0, show_progress=False):
        if binary:
            check_binary(x)
        bar = ProgressBar(len(x), "image", "log p(x)") if show_progress else None
        log_px, log_sums, shapes = [], [], []
        for index, count, results in _on_replicas(accumulate, batches(x, y), seed):
            sums, largest = (result.numpy().astype(np.float64) for result in results)
            log_sums.append(sums[:, :count])  # [groups, count]
            with np.errstate(invalid="ignore"):  # where the weights are not finite the result says so
                log_px.append(np.logaddexp.reduce(log_sums[-1], axis=0) - math.log(n_samples))
                shapes.append(pareto_k(largest[:count]) if tail else np.full(count, np.nan))
            if bar:
                bar.update(index * BATCH + count, np.mean(np.concatenate(log_px)))
        log_px, shapes, n = np.concatenate(log_px), np.concatenate(shapes), len(x)
        with np.errstate(invalid="ignore"):
            errors = monte_carlo_errors(np.concatenate(log_sums, axis=1), sizes) if groups > 1 else np.full(n, np.nan)
        known = shapes[np.isfinite(shapes)]
        result = LogLikelihood(
            test_llh=float(log_px.mean()),
            standard_error=float(log_px.std(ddof=1) / math.sqrt(n)) if n > 1 else None,
            mc_error=float(math.sqrt(np.sum(errors**2)) / n) if groups > 1 else None,
            n_samples=n_samples,
            n_images=n,
            pareto_k=float(np.median(known)) if len(known) else None,
            pareto_k_high=float(np.mean(known > UNRELIABLE)) if len(known) else None,
        )
        return result, PerImage(log_px, errors, shapes)

    return estimate


def check_binary(x):
    """Raises ValueError unless the images x [n_images, n_pixels] hold 0 and 1 alone."""
    if not np.isin(x, (0, 1)).all():
        raise ValueError(
            f"images hold values from {np.min(x):g} to {np.max(x):g}, not 0 and 1 alone, and log p(x) is that of binary"
            " images: binarise them first, by images > 0.5 or by a draw with the greys as probabilities"
        )


def _on_replicas(accumulate, all_batches, seed):
    """Yields (index, how many rows count, what `accumulate` returns) of each batch. With several replicas of the model,
    each takes every n-th batch whole, with the noise of that batch, and so the numbers are those of one.
    """
    strategy = tf.distribute.get_strategy()
    all_batches, n = iter(all_batches), strategy.num_replicas_in_sync

    @tf.function
    def on_each(arguments):
        return strategy.run(lambda *batch: accumulate(*batch), args=arguments)

    while several := list(itertools.islice(all_batches, n)):
        arguments = [(x, y, stateless_seed(seed, Stream.TEST, index)) for index, x, y, _ in several]
        if not tf.distribute.has_strategy():
            results = [accumulate(*arguments[0])]
        else:
            arguments += arguments[:1] * (n - len(arguments))  # in the last round; not used
            per_replica = [
                strategy.experimental_distribute_values_from_function(
                    lambda context, values=values: values[context.replica_id_in_sync_group]
                )
                for values in zip(*arguments)
            ]
            gathered = [strategy.gather(output, axis=0) for output in on_each(tuple(per_replica))]
            results = zip(*(tf.split(output, n) for output in gathered))
        for (index, _, _, count), result in zip(several, results):
            yield index, count, result


def _make_accumulate(model, n_samples, chunk, groups, n_largest, jit):
    """Returns accumulate(x, y, seed) -> log of the sum of w over each group of samples [groups, batch], and the
    largest log w in falling order [batch, n_largest].
    """
    algorithm, n_chunks = random_algorithm(jit), math.ceil(n_samples / chunk)

    @tf.function(jit_compile=jit)
    def go_on(x, y, seed, first, last, log_sums, largest):
        batch = x.shape[0]

        def body(i, log_sums, kept):
            noise = model.noise(chunk, batch, tf.random.fold_in(seed, i), algorithm)
            log_w = model(x, noise, y).log_w()  # [chunk, batch]
            asked_for = i * chunk + tf.range(chunk) < n_samples  # the last chunk may hold more than that
            log_w = tf.where(asked_for[:, tf.newaxis], log_w, -math.inf)
            in_group = tf.range(groups)[:, tf.newaxis] == i % groups
            added = tf.where(in_group, tf.reduce_logsumexp(log_w, axis=0), -math.inf)  # [groups, batch]
            log_sums = tf.reduce_logsumexp(tf.stack([log_sums, added]), axis=0)
            if n_largest:
                kept = tf.tensor_scatter_nd_update(kept, [[i - first]], log_w[tf.newaxis])
            return i + 1, log_sums, kept

        kept = tf.fill([CHUNKS_PER_CALL, chunk, batch], -math.inf)  # all log w of this call, sorted once: it is slow
        _, log_sums, kept = tf.while_loop(lambda i, *_: i < last, body, (first, log_sums, kept))
        if n_largest:
            kept = tf.transpose(tf.reshape(kept, [-1, batch]))  # [batch, samples]
            largest = tf.math.top_k(tf.concat([largest, kept], axis=1), n_largest).values
        return log_sums, largest

    def accumulate(x, y, seed):
        state = tf.fill([groups, x.shape[0]], -math.inf), tf.fill([x.shape[0], n_largest], -math.inf)
        for first in range(0, n_chunks, CHUNKS_PER_CALL):
            last = min(first + CHUNKS_PER_CALL, n_chunks)
            state = go_on(x, y, seed, tf.constant(first), tf.constant(last), *state)
            if tf.executing_eagerly():
                state[0].numpy()  # waits for it, so that a signal is answered before the next call
        return state

    return accumulate


def _layers(output):
    """{name: mean over the samples [batch]} of log p and log q of each layer, where there is more than one."""
    if len(output.z) == 1:
        return {}
    both = {"p": output.log_p_layers, "q": output.log_q_layers}
    return {
        f"log_{name}_z{i}": tf.reduce_mean(layer, axis=0)
        for name, layers in both.items()
        for i, layer in enumerate(layers, 1)
    }


def make_bounds(model, n_samples, jit=True):
    """Returns bounds(x, y, seed) -> {name: mean over images}: iwae_elbo and vae_elbo at k = n_samples, and log_px_z,
    log_pz, log_qz_x and kl, the parts of log w.

    x [n_images, n_pixels] in {0, 1}, y [n_images, n_context] or None, seed [2] int32; values in nats. With more than
    one stochastic layer also log_p_z1 = log p(z1|z2), log_p_z2, log_q_z1 = log q(z1|x), log_q_z2, ...
    """
    size = batch_size(n_samples)

    @tf.function(jit_compile=jit)
    def per_image(x, y, seed):
        output = model(x, model.noise(n_samples, size, seed, random_algorithm(jit)), y)
        values = {"iwae_elbo": iwae_elbo(output).bound, "vae_elbo": vae_elbo(output).bound}
        parts = {name: tf.reduce_mean(getattr(output, name), axis=0) for name in PARTS}
        return values | parts | _layers(output)

    def bounds(x, y, seed):
        values = over_batches(per_image, x, y, lambda index: seed + [0, index], size)
        return {name: float(np.mean(value)) for name, value in values.items()}

    return bounds
