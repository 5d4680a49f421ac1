"""Training steps inside the graph: no Python and no copy of the data per step."""

import math

import tensorflow as tf

from models.catalogue import OBJECTIVES, objective_function
from models.gradients import estimate_and_gradients
from models.objectives import vae_elbo
from models.random import Stream, random_algorithm, stateless_seed
from training.replicas import make_step, n_replicas

ROWS_IN_CACHE = 1000  # samples whose activations a CPU's caches hold; larger batches go by in microbatches


def rows_of(drawn, first, n, axis=0):
    """Rows first ... first + n - 1 along an axis. Random numbers are drawn for the whole batch or microbatch and then
    sliced, so that an image gets the same ones however it is divided. XLA computes only the rows that stay.
    """
    if n == drawn.shape[axis]:
        return drawn
    begin, size = [0] * len(drawn.shape), list(drawn.shape)
    begin[axis], size[axis] = first, n
    return tf.slice(drawn, begin, size)


def binarise(means, seed, algorithm, first=0, batch=None):
    """x ~ Bernoulli(byte / 255): uint8 [n, n_pixels] -> float32 in {0, 1}.

    The images stand from place `first` on in a batch of `batch` images; by default they are the whole batch.
    """
    n, n_pixels = means.shape
    u = rows_of(tf.random.stateless_uniform([batch or n, n_pixels], seed, alg=algorithm), first, n)
    return tf.cast(u * 255.0 < tf.cast(means, tf.float32), tf.float32)


def resample(log_w, u, n):
    """Systematic resampling (Kitagawa, 1996): n of the k samples of each image, in proportion to their weights.

    log_w [n_samples, batch]; u [batch], uniform in [0, 1) -> indices [n, batch], in which sample i is expected
    n w~_i times. So the gradient of the mean of log w over the drawn samples is an unbiased estimate of
    sum_i w~_i grad log w_i, the gradient of the IWAE bound (Burda et al., sec. 3).
    """
    cumulated = tf.cumsum(tf.nn.softmax(log_w, axis=0), axis=0)  # [n_samples, batch]
    positions = (tf.range(n, dtype=tf.float32)[:, tf.newaxis] + u) / n  # [n, batch]
    below = cumulated[tf.newaxis] <= positions[:, tf.newaxis]  # [n, n_samples, batch]
    drawn = tf.reduce_sum(tf.cast(below, tf.int32), axis=1)
    return tf.minimum(drawn, tf.shape(log_w)[0] - 1)  # rounding may leave the last sum below 1


def take_samples(noise, drawn):
    """noise: tuple of [n_samples, batch, n_latent]; drawn [n, batch] -> tuple of [n, batch, n_latent]."""
    drawn = tf.transpose(drawn)
    return tuple(tf.transpose(tf.gather(tf.transpose(e, [1, 0, 2]), drawn, batch_dims=1), [1, 0, 2]) for e in noise)


def n_microbatches(config):
    """Into how many equal microbatches a batch is split, so that each fits a CPU's caches, as far as one image's
    samples do; 1 on a GPU.
    """
    if tf.config.get_visible_devices("GPU"):
        return 1
    batch = config.batch_size
    enough = (n for n in range(1, batch) if batch % n == 0 and batch // n * config.n_samples <= ROWS_IN_CACHE)
    return next(enough, batch)


def make_gradients(config, model):
    """Returns gradients(x, y, i, beta, first=0) -> (value, bound, gradients): of the objective's mean over x at step i.

    x float32 [n, n_pixels] in {0, 1} holds the images from place `first` on in the step's batch of config.batch_size
    images: all of them, or a replica's share, of which `first` is a multiple. y [n, n_context]; i, beta: scalars.
    value and bound in nats; the gradients, of ascent, in the order of model.trainable_variables.
    """
    objective = objective_function(config.objective, config.numbers_of(OBJECTIVES[config.objective]))
    algorithm, n_backward = random_algorithm(config.compiled), config.backward_samples
    n_micro = n_microbatches(config)
    micro_size = config.batch_size // n_micro

    def of_part(x, y, beta, micro, first):
        """x: the images from place `first` on of the run's microbatch number `micro`, whose noise is from one seed."""
        seed, n = stateless_seed(config.seed, Stream.NOISE, micro), x.shape[0]
        noise = model.noise(config.n_samples, micro_size, seed, algorithm)
        noise = tuple(rows_of(e, first, n, axis=1) for e in noise)
        if not n_backward:
            return estimate_and_gradients(model, objective, x, noise, y, beta)
        seed = stateless_seed(config.seed, Stream.RESAMPLE, micro)
        u = rows_of(tf.random.stateless_uniform([micro_size], seed, alg=algorithm), first, n)
        output = model(x, noise, y)
        estimate = objective(output, beta)
        drawn = take_samples(noise, resample(output.log_w(beta), u, n_backward))
        _, _, gradients = estimate_and_gradients(model, vae_elbo, x, drawn, y, beta)
        return tf.reduce_mean(estimate.surrogate), tf.reduce_mean(estimate.bound), gradients

    def gradients(x, y, i, beta, first=0):
        # Images of a part: it divides a microbatch and this replica's share, so that no part crosses a border.
        size = math.gcd(micro_size, x.shape[0])
        parts_per_micro, n_parts = micro_size // size, x.shape[0] // size

        def of_number(number, x, y):
            number += first // size  # counted from the batch's first image
            micro = i * n_micro + number // parts_per_micro
            return of_part(x, y, beta, micro, number % parts_per_micro * size)

        if n_parts == 1:
            return of_number(0, x, y)

        def body(number, sums):
            part = [tf.slice(whole, [number * size, 0], [size, whole.shape[1]]) for whole in (x, y)]
            return number + 1, tf.nest.map_structure(tf.add, sums, of_number(number, *part))

        zeros = (0.0, 0.0, [tf.zeros(variable.shape) for variable in model.trainable_variables])
        sums = tf.while_loop(lambda number, _: number < n_parts, body, (0, zeros))[1]
        return tf.nest.map_structure(lambda total: total / n_parts, sums)

    return gradients


def make_steps(config, model, optimizer, steps_per_epoch):
    """Returns run(images, context, order, first, last) -> (stopped, bound, value).

    It takes steps first ... last - 1 of one epoch: step i trains on images[order[i * batch : (i + 1) * batch]].
    images uint8 [n, n_pixels]; context float32 [n, n_context]; order int32 [n], these three as from
    training.replicas.on_each_device; first, last scalar int32 tensors, counted from the run's start, so that the random
    numbers of a step depend on the seed and its number alone, however the steps are divided into calls.
    stopped: the step reached; less than `last` where the objective was not finite at that step. bound: the mean bound
    over the steps, in nats. value: the objective at the last step taken.
    """
    gradients, batch, jit = make_gradients(config, model), config.batch_size, config.compiled
    warmup_steps, n_share = config.beta_warmup * steps_per_epoch, batch // n_replicas()

    def share(i, replica, images, context, order):
        first = replica * n_share  # the place in the batch of this replica's first image
        rows = tf.gather(order, i % steps_per_epoch * batch + first + tf.range(n_share))
        seed = stateless_seed(config.seed, Stream.BINARISE, i)
        x = binarise(tf.gather(images, rows), seed, random_algorithm(jit), first, batch)
        beta = tf.minimum(1.0, tf.cast(i + 1, tf.float32) / warmup_steps) if warmup_steps else 1.0
        return gradients(x, tf.gather(context, rows), i, beta, first)

    step = make_step(share, optimizer, model.trainable_variables, jit)

    @tf.function(jit_compile=jit and not tf.distribute.has_strategy(), reduce_retracing=True)
    def run(images, context, order, first, last):
        def finite_so_far(i, total, value):
            return (i < last) & tf.math.is_finite(value)

        def body(i, total, _):
            value, bound = step(i, images, context, order)
            return tf.where(tf.math.is_finite(value), i + 1, i), total + bound, value

        i, total, value = tf.while_loop(finite_so_far, body, (first, 0.0, 0.0))
        return i, total / tf.cast(tf.maximum(i - first, 1), tf.float32), value

    return run
