"""The objectives: each turns the parts of log w, [n_samples, batch], into a bound, which is reported, and surrogates,
whose gradients p and q ascend; in nats.

One signature, `objective(output, beta=1.0, **hyperparameters) -> Estimate`. `output` is a models.interface.LogWeights.
`beta` (KL warm-up) multiplies log p(z) - log q(z|x) in what p and q follow; in what is reported it is 1. Here are the
ELBO, the importance weighted bound L_k, and other gradients of L_k; other bounds and updates are in
models/estimators.py. A new one is one function, in a file of its own if you like, and one entry of
models.catalogue.OBJECTIVES.

In the formulas w_i = p(x, z_i) / q(z_i|x) for sample i of k, w~_i = w_i / sum_j w_j, and stop(.) is a constant to the
derivative.
"""

from typing import NamedTuple

import tensorflow as tf
import tensorflow_probability as tfp


class Estimate(NamedTuple):
    """What an objective makes of a batch. models.gradients.estimate_and_gradients says how p and q follow it."""

    bound: tf.Tensor  # [batch], nats: what is reported, in expectation a lower bound on log p(x) (jvi: an estimate)
    surrogate: tf.Tensor  # [batch]: p follows its gradient
    q_surrogate: tf.Tensor | None = None  # [batch]: q follows the gradient of this one; None: of `surrogate`
    score: bool = True  # whether q follows it at fixed z, through q's parameters in log q(z|x)
    through_samples: bool = True  # whether q follows it through the samples z_i
    z_weights: tf.Tensor | None = None  # [n_samples, batch]: multiplies what reaches q through each sample; None: 1


def logmeanexp(log_w, axis=0):
    """log of the mean of exp(log_w) along `axis`, without overflow."""
    return tfp.math.reduce_logmeanexp(log_w, axis)


def normalised(log_w):
    """w~_i = w_i / sum_j w_j as constants to the derivative, [n_samples, batch], from log w [n_samples, batch]."""
    return tf.stop_gradient(tf.nn.softmax(log_w, axis=0))  # over the samples


def vae_elbo(output, beta=1.0):
    """The ELBO: (1/k) sum_i log w_i (Kingma & Welling, 1312.6114, eq. 6)."""
    return Estimate(
        bound=tf.reduce_mean(output.log_w(), axis=0),
        surrogate=tf.reduce_mean(output.log_w(beta), axis=0),
    )


def vae_elbo_kl(output, beta=1.0):
    """The ELBO as (1/k) sum_i log p(x|z_i) - KL(q(z|x) || p(z)), the latter in closed form where there is one
    (Kingma & Welling, eq. 7).
    """
    return Estimate(
        bound=tf.reduce_mean(output.log_px_z - output.kl, axis=0),
        surrogate=tf.reduce_mean(output.log_px_z - beta * output.kl, axis=0),
    )


def iwae_elbo(output, beta=1.0):
    """The importance weighted bound L_k = log (1/k) sum_i w_i (Burda et al., eq. 8)."""
    return Estimate(bound=logmeanexp(output.log_w()), surrogate=logmeanexp(output.log_w(beta)))


def iwae_eq14(output, beta=1.0):
    """sum_i stop(w~_i) log w_i, whose gradient is that of `iwae_elbo` (Burda et al., eq. 14)."""
    log_w = output.log_w(beta)
    return Estimate(bound=logmeanexp(output.log_w()), surrogate=tf.reduce_sum(normalised(log_w) * log_w, axis=0))


def dreg(output, beta=1.0):
    """The doubly reparameterised gradient of `iwae_elbo` (Tucker et al., 1810.04152, eq. 8).

    p follows sum_i stop(w~_i) log w_i, as in `iwae_eq14`.
    q follows sum_i stop(w~_i^2) log w_i through the samples z_i alone: the same surrogate, weighted by w~_i once more.
    With beta, log w holds -beta log q, so the score that is left out is -beta sum_i w~_i dlog q(z_i)/dphi at fixed z_i.
    Its mean is that of -beta (w~_i - w~_i^2) through the samples (the identity at the top of models.estimators). Added
    to w~_i, the weight of the gradient through the samples, this gives (1 - beta) w~_i + beta w~_i^2.
    """
    normalised_w = normalised(output.log_w(beta))
    z_weights = normalised_w + (1 - beta) * (1 - normalised_w)
    return iwae_eq14(output, beta)._replace(score=False, z_weights=z_weights)


def stl(output, beta=1.0):
    """Sticking the landing (Roeder et al., 1703.09194): q follows `iwae_elbo` through the samples alone.

    For k > 1 this gradient is biased.
    """
    return iwae_elbo(output, beta)._replace(score=False)
