"""Training steps inside the graph: no Python and no copy of the data per step."""

import tensorflow as tf

from models import BOUNDS, OBJECTIVES
from models.objectives import vae_elbo
from utils import Stream, random_algorithm, stateless_seed


def binarise(means, seed, algorithm):
    """x ~ Bernoulli(byte / 255): uint8 [batch, n_pixels] -> float32 in {0, 1}."""
    u = tf.random.stateless_uniform(tf.shape(means), seed, alg=algorithm)
    return tf.cast(u * 255.0 < tf.cast(means, tf.float32), tf.float32)


def resample(log_w, u, n):
    """Systematic resampling: n of the k samples of each image, in proportion to their weights.

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
    return tuple(
        tf.transpose(tf.gather(tf.transpose(e, [1, 0, 2]), drawn, batch_dims=1), [1, 0, 2]) for e in noise
    )  # fmt: skip


def make_steps(config, model, optimizer, steps_per_pass):
    """Returns run(images, order, first, last) -> (stopped, bound, value).

    It takes steps first ... last - 1 of one pass: step i trains on images[order[i * batch : (i + 1) * batch]].
    images uint8 [n, n_pixels]; order int32 [n]; first, last scalar int32 tensors, counted from the run's start, so that
    the random numbers of a step depend on the seed and its number alone, however the steps are divided into calls.
    stopped: the step reached; less than `last` where the objective was not finite at that step. bound: the mean bound
    over the steps, in nats. value: the objective at the last step taken.
    """
    objective, bound = OBJECTIVES[config.objective], BOUNDS[config.objective]
    variables, batch, algorithm = model.trainable_variables, config.batch_size, random_algorithm(config.jit == "on")
    n_backward = config.backward_samples
    warmup_steps = config.beta_warmup * steps_per_pass

    def step(i, images, order):
        rows = tf.slice(order, [i % steps_per_pass * batch], [batch])
        x = binarise(tf.gather(images, rows), stateless_seed(config.seed, Stream.BINARISE, i), algorithm)
        noise = model.noise(config.n_samples, batch, stateless_seed(config.seed, Stream.NOISE, i), algorithm)
        beta = tf.minimum(1.0, tf.cast(i + 1, tf.float32) / warmup_steps) if warmup_steps else 1.0
        if n_backward:
            seen = model(x, noise)
            value, bound_value = tf.reduce_mean(objective(seen, beta)), tf.reduce_mean(bound(seen))
            seed = stateless_seed(config.seed, Stream.RESAMPLE, i)
            drawn = resample(seen.log_w(beta), tf.random.stateless_uniform([batch], seed, alg=algorithm), n_backward)
            with tf.GradientTape() as tape:
                output = model(x, take_samples(noise, drawn))
                loss = -tf.reduce_mean(vae_elbo(output, beta))
        else:
            with tf.GradientTape() as tape:
                output = model(x, noise)
                value = tf.reduce_mean(objective(output, beta))  # over the batch
                loss = -value
            bound_value = tf.reduce_mean(bound(output))
        optimizer.apply(tape.gradient(loss, variables), variables)
        return value, bound_value

    @tf.function(jit_compile=config.jit == "on", reduce_retracing=True)
    def run(images, order, first, last):
        def finite_so_far(i, total, value):
            return (i < last) & tf.math.is_finite(value)

        def body(i, total, _):
            value, bound_value = step(i, images, order)
            return tf.where(tf.math.is_finite(value), i + 1, i), total + bound_value, value

        i, total, value = tf.while_loop(finite_so_far, body, (first, 0.0, 0.0))
        return i, total / tf.cast(tf.maximum(i - first, 1), tf.float32), value

    return run
