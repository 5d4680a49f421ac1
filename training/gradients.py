"""How noisy an estimator's gradient is, and how far its mean lies from another's."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from training.steps import make_gradients

SAMPLES_PER_CALL = 2000  # of each image, in one compiled call; Ctrl-C is answered between calls


class GradientMoments(NamedTuple):
    """Of the gradient of one network's parameters, over draws of the noise for the same images."""

    mean: np.ndarray  # float64 [n_parameters]
    variance: np.ndarray  # of one draw, float64 [n_parameters]
    n_draws: int

    def norm(self):
        """The norm of the expected gradient.

        The squared norm of a mean over finitely many draws is too large by the variance of that mean, which is taken
        off; where nothing is left it is 0.
        """
        return np.sqrt(max(np.sum(self.mean**2 - self.variance / self.n_draws), 0.0))

    def snr(self):
        """Signal-to-noise ratio |E g| / sqrt(sum Var g) of the whole vector; Rainforth et al. (1802.04537) take that of
        each parameter alone.
        """
        return self.norm() / np.sqrt(np.sum(self.variance))

    def distance(self, other):
        """(norm of the difference of the two expected gradients, the norm that noise alone would give).

        The latter is the root of the summed variances of the two means; its square is taken off the squared norm, which
        leaves 0 on average where the expected gradients are the same. A norm of less than 1.5 times noise alone may
        be chance, or a difference too small to be told from it. `other` has draws of its own.
        """
        variance = self.variance / self.n_draws + other.variance / other.n_draws
        squared = np.sum((self.mean - other.mean) ** 2 - variance)
        return np.sqrt(max(squared, 0.0)), np.sqrt(np.sum(variance))


def make_gradient_moments(config, model):
    """Returns moments(x, y, n_draws, first=0) -> {"encoder": GradientMoments, "decoder": GradientMoments}, of
    config.objective with config.n_samples samples.

    x [batch_size, n_pixels] in {0, 1}; y [batch_size, n_context]. Draws are numbered from `first`: others have other
    noise.
    """
    gradients, draws_per_call = make_gradients(config, model), max(1, SAMPLES_PER_CALL // config.n_samples)
    of_q = {id(variable) for variable in model.q_variables}
    is_q = [id(variable) in of_q for variable in model.trainable_variables]

    @tf.function(jit_compile=config.compiled)
    def go_on(x, y, first, last, total, squares):
        def body(i, total, squares):
            _, _, gradient = gradients(x, y, i, 1.0)
            return i + 1, [s + g for s, g in zip(total, gradient)], [s + g**2 for s, g in zip(squares, gradient)]

        return tf.while_loop(lambda i, *_: i < last, body, (first, total, squares))[1:]

    def moments(x, y, n_draws, first=0):
        x, y = tf.constant(x), tf.constant(y)
        sums = [[tf.zeros(v.shape) for v in model.trainable_variables] for _ in ("total", "squares")]
        for begin in range(first, first + n_draws, draws_per_call):
            end = min(begin + draws_per_call, first + n_draws)
            sums = go_on(x, y, tf.constant(begin), tf.constant(end), *sums)  # compiled at the first call
            sums[0][0].numpy()  # waits for it, so that a signal is answered before the next call
        return {"encoder": _moments(sums, is_q, n_draws), "decoder": _moments(sums, [not q for q in is_q], n_draws)}

    return moments


def _moments(sums, used, n_draws):
    """GradientMoments of the variables that are used, from sums of gradients and of their squares."""
    total, squares = (
        np.concatenate([part.numpy().ravel() for part, use in zip(parts, used) if use]).astype(np.float64)
        for parts in sums
    )
    mean = total / n_draws
    return GradientMoments(mean, (squares / n_draws - mean**2) * n_draws / (n_draws - 1), n_draws)
