"""How noisy an estimator's gradient is."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from training.steps import make_gradients


class GradientNoise(NamedTuple):
    """Of the gradient of q's parameters, over draws of the noise for the same images."""

    variance: float  # of a parameter's gradient, averaged over the parameters
    snr: float  # norm of the mean gradient over the root of the summed variances


def make_gradient_noise(config, model):
    """Returns gradient_noise(x, y, n_draws) -> GradientNoise of config.objective with config.n_samples samples.

    x [batch_size, n_pixels] in {0, 1}; y [batch_size, n_context]. The squared norm of the mean over finitely many draws
    is too large by the variance of that mean, which is taken off; where nothing is left the ratio is 0.
    """
    gradients = make_gradients(config, model)
    of_q = {id(variable) for variable in model.q_variables}
    is_q = [id(variable) in of_q for variable in model.trainable_variables]

    @tf.function(jit_compile=config.jit == "on")
    def sums(x, y, n_draws):
        def body(i, total, squares):
            _, _, all_gradients = gradients(x, y, i, 1.0)
            drawn = [gradient for gradient, use in zip(all_gradients, is_q) if use]
            return i + 1, tf.nest.map_structure(tf.add, total, drawn), [s + g**2 for s, g in zip(squares, drawn)]

        zeros = [tf.zeros(v.shape) for v, use in zip(model.trainable_variables, is_q) if use]
        return tf.while_loop(lambda i, *_: i < n_draws, body, (0, zeros, list(zeros)))[1:]

    def gradient_noise(x, y, n_draws):
        total, squares = (np.concatenate([part.numpy().ravel() for part in parts]).astype(np.float64)
                          for parts in sums(tf.constant(x), tf.constant(y), tf.constant(n_draws)))  # fmt: skip
        mean = total / n_draws
        variance = (squares / n_draws - mean**2) * n_draws / (n_draws - 1)
        signal = np.sum(mean**2 - variance / n_draws)
        return GradientNoise(float(np.mean(variance)), float(np.sqrt(max(signal, 0.0) / np.sum(variance))))

    return gradient_noise
