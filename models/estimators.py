"""Objectives of later papers, beside those of models.objectives: the same signature, and the same words.

MIWAE, PIWAE and CIWAE (Rainforth et al., 1802.04537), VR-IWAE (Daudel et al., 2210.06226), reweighted wake-sleep
(Bornschein & Bengio, 1406.2751) and JVI (Nowozin, 2018). The doubly reparameterised gradients of the last three drop
the score of q, and weigh the gradient through each sample instead. That rests on one identity (Tucker et al.,
1810.04152), for functions g_i of all the samples z_1 ... z_k ~ q with parameters phi; on the left z_i is held fixed:

    E[sum_i g_i(z) dlog q(z_i)/dphi] = E[sum_i dg_i(z)/dz_i dz_i/dphi].
"""

import numpy as np
import tensorflow as tf

from models.objectives import Estimate, iwae_elbo, iwae_eq14, logmeanexp, normalised


def miwae(output, beta=1.0, groups=1):
    """(1/M) sum_m L_{k/M}: the mean of the IWAE bounds of M groups of k/M samples (Rainforth et al.).

    groups: M, which divides k; tf.reshape raises where it does not. M = 1: `iwae_elbo`. With k <= M every sample is a
    group of its own: `vae_elbo`.
    """
    return Estimate(
        bound=_mean_of_groups(output.log_w(), groups), surrogate=_mean_of_groups(output.log_w(beta), groups)
    )


def piwae(output, beta=1.0, groups=1):
    """The partially importance weighted autoencoder (Rainforth et al.).

    p follows L_k, the bound of all k samples, as in `iwae_elbo`.
    q follows (1/M) sum_m L_{k/M}, as in `miwae`.
    """
    return iwae_elbo(output, beta)._replace(q_surrogate=_mean_of_groups(output.log_w(beta), groups))


def _mean_of_groups(log_w, groups):
    """(1/M) sum_m log (M/k) sum_{i in group m} w_i, [batch], for M groups of successive samples of log_w
    [n_samples, batch].
    """
    n_samples, batch = log_w.shape[0], tf.shape(log_w)[1]
    groups = min(groups, n_samples)
    grouped = tf.reshape(log_w, [groups, n_samples // groups, batch])  # [groups, samples of a group, batch]
    return tf.reduce_mean(logmeanexp(grouped, axis=1), axis=0)


def ciwae(output, beta=1.0, elbo_weight=0.05):
    """a ELBO + (1 - a) L_k, with a the `elbo_weight` (Rainforth et al., where it is called beta)."""

    def combined(log_w):
        return elbo_weight * tf.reduce_mean(log_w, axis=0) + (1 - elbo_weight) * logmeanexp(log_w)

    return Estimate(bound=combined(output.log_w()), surrogate=combined(output.log_w(beta)))


def vr_iwae(output, beta=1.0, alpha=0.5):
    """1/(1 - alpha) log (1/k) sum_i w_i^(1 - alpha), for 0 <= alpha < 1 (Daudel et al.).

    alpha = 0: `iwae_elbo`; alpha -> 1: `vae_elbo`.
    """
    return Estimate(bound=_renyi(output.log_w(), alpha), surrogate=_renyi(output.log_w(beta), alpha))


def _renyi(log_w, alpha):
    """1/(1 - alpha) log (1/k) sum_i w_i^(1 - alpha), [batch].

    With m the largest log w it is  m + log1p( (1/k) sum_i expm1((1 - alpha) (log w_i - m)) ) / (1 - alpha),  which
    loses no digits as alpha comes near 1, where every power comes near 1. With a small alpha and many samples the mean
    of expm1 comes near -1 and does lose some; there the plain formula loses none.
    """
    if alpha < 0.5:
        return logmeanexp((1 - alpha) * log_w) / (1 - alpha)
    largest = tf.stop_gradient(tf.reduce_max(log_w, axis=0))
    powers_less_one = tf.math.expm1((1 - alpha) * (log_w - largest))  # [n_samples, batch], in (-1, 0]
    return largest + tf.math.log1p(tf.reduce_mean(powers_less_one, axis=0)) / (1 - alpha)


def vr_iwae_dreg(output, beta=1.0, alpha=0.5):
    """The doubly reparameterised gradient of `vr_iwae` (Daudel et al.).

    With w~_i = w_i^(1 - alpha) / sum_j w_j^(1 - alpha),
    p follows sum_i stop(w~_i) log w_i, as in `vr_iwae`;
    q follows sum_i stop(alpha w~_i + (1 - alpha) w~_i^2) log w_i through the samples alone.

    alpha = 0: `dreg`; alpha -> 1: `stl` of the ELBO. With beta the weights are w~_i (1 - beta (1 - alpha) (1 - w~_i)).
    """
    log_w = output.log_w(beta)
    normalised_w = normalised((1 - alpha) * log_w)
    return Estimate(
        bound=_renyi(output.log_w(), alpha),
        surrogate=tf.reduce_sum(normalised_w * log_w, axis=0),
        score=False,
        z_weights=1 - beta * (1 - alpha) * (1 - normalised_w),
    )


def rws(output, beta=1.0):
    """Reweighted wake-sleep with the wake-phi update (Bornschein & Bengio; Le et al., 1805.10469).

    p follows L_k, as in `iwae_elbo`.
    q follows sum_i stop(w~_i) log q(z_i|x) with the samples held fixed, which goes down KL(p(z|x) || q(z|x)) in the
    limit of many samples. With one sample its mean is zero. In what q follows beta is in the weights only.
    """
    q_surrogate = tf.reduce_sum(normalised(output.log_w(beta)) * output.log_qz_x, axis=0)
    return iwae_elbo(output, beta)._replace(q_surrogate=q_surrogate, through_samples=False)


def rws_dreg(output, beta=1.0):
    """The doubly reparameterised gradient of `rws` (Tucker et al.).

    p follows sum_i stop(w~_i) log w_i, as in `iwae_eq14`.
    q follows sum_i stop(w~_i - w~_i^2) log w_i through the samples alone.
    """
    return iwae_eq14(output, beta)._replace(score=False, z_weights=1 - normalised(output.log_w(beta)))


def jvi(output, beta=1.0):
    """k L_k - (k - 1) (1/k) sum_i L_{k-1} without sample i: the jackknife estimate of log p(x) (Nowozin, 2018, JVI-1).

    It takes from L_k its bias of order 1/k, and may lie above log p(x).
    """
    return Estimate(bound=_jackknife(output.log_w()), surrogate=_jackknife(output.log_w(beta)))


def _jackknife(log_w):
    k = log_w.shape[0]
    largest = tf.stop_gradient(tf.reduce_max(log_w, axis=0))  # taken off: no digits are lost to the size of log w
    of_all = logmeanexp(log_w - largest)
    of_others = tf.reduce_logsumexp(_without_each(log_w - largest), axis=1) - np.log(k - 1)  # [left out, batch]
    return largest + k * of_all - (k - 1) * tf.reduce_mean(of_others, axis=0)


def _without_each(log_w):
    """log w [n_samples, batch] -> [left out, n_samples, batch], with -inf in the place of what is left out."""
    left_out = tf.eye(log_w.shape[0], dtype=tf.bool)[..., tf.newaxis]
    return tf.where(left_out, -np.inf, log_w[tf.newaxis])


def jvi_dreg(output, beta=1.0):
    """The doubly reparameterised gradient of `jvi` (Tucker et al.): `dreg` of each bound in it.

    With w~_i the weights among all samples, and w~_ij those of sample j among all but i,
    p follows sum_j stop(c_j) log w_j, c_j = k w~_j - (k - 1) (1/k) sum_i w~_ij, as in `jvi`;
    q follows sum_j stop(d_j) log w_j through the samples alone, d_j the same of the squares w~_j^2 and w~_ij^2.
    With beta the weights of q are (1 - beta) c_j + beta d_j.
    """
    log_w = output.log_w(beta)
    k = log_w.shape[0]
    among_all = normalised(log_w)  # [n_samples, batch]
    among_others = tf.stop_gradient(tf.nn.softmax(_without_each(log_w), axis=1))  # [left out, n_samples, batch]
    c = k * among_all - (k - 1) * tf.reduce_mean(among_others, axis=0)
    d = k * among_all**2 - (k - 1) * tf.reduce_mean(among_others**2, axis=0)
    return Estimate(
        bound=_jackknife(output.log_w()),
        surrogate=tf.reduce_sum(c * log_w, axis=0),
        q_surrogate=tf.reduce_sum(((1 - beta) * c + beta * d) * log_w, axis=0),
        score=False,
    )
