"""The objectives: each reduces log w [n_samples, batch] to a value per image [batch], in nats, to be maximised.

One signature, `objective(output, beta=1.0)`: `output` is an IWAEOutput, and `beta` multiplies log p(z) - log q(z|x).
A new objective is one function and one line in OBJECTIVES.
"""

import tensorflow as tf

from utils import logmeanexp


def vae_elbo(output, beta=1.0):
    """The ELBO, averaged over samples: mean_i log w_i (Kingma & Welling, 1312.6114, eq. 6)."""
    return tf.reduce_mean(output.log_w(beta), axis=0)


def vae_elbo_kl(output, beta=1.0):
    """The ELBO with the KL divergence in closed form where there is one (Kingma & Welling, eq. 7)."""
    return tf.reduce_mean(output.log_px_z - beta * output.kl, axis=0)


def iwae_elbo(output, beta=1.0):
    """The importance weighted bound L_k = log mean_i w_i (Burda et al., eq. 8)."""
    return logmeanexp(output.log_w(beta), axis=0)


def iwae_eq14(output, beta=1.0):
    """sum_i stop(w~_i) log w_i, whose gradient is that of `iwae_elbo` (Burda et al., eq. 14). Its value is no bound."""
    log_w = output.log_w(beta)
    normalised_w = tf.stop_gradient(tf.nn.softmax(log_w, axis=0))  # over the samples
    return tf.reduce_sum(normalised_w * log_w, axis=0)


def _path_log_w(output, beta):
    """log w, which depends on q's parameters through the samples alone."""
    return output.log_px_z + beta * (output.log_pz - output.log_qz_x_path)


def dreg(output, beta=1.0):
    """The doubly reparameterised estimator of the gradient of `iwae_elbo` (Tucker et al., 1810.04152, eq. 8).

    Its gradient for q is sum_i w~_i^2 (d log w_i / d z_i)(d z_i / d phi), with q's parameters fixed inside log q, and
    for p it is that of `iwae_elbo`. Both come from one backward pass: sum_i stop(w~_i) log w_i has p's gradient, and
    what flows back through the samples towards q is weighted by w~_i once more. Its value is no bound.
    """
    log_w = _path_log_w(output, beta)
    normalised_w = tf.stop_gradient(tf.nn.softmax(log_w, axis=0))  # over the samples
    output.port.weights = normalised_w
    return tf.reduce_sum(normalised_w * log_w, axis=0)


def stl(output, beta=1.0):
    """Sticking the landing (Roeder et al., 1703.09194): `iwae_elbo` less its score term, biased for k > 1."""
    return logmeanexp(_path_log_w(output, beta), axis=0)


OBJECTIVES = {f.__name__: f for f in (vae_elbo, vae_elbo_kl, iwae_elbo, iwae_eq14, dreg, stl)}

# What to show while an objective is trained: the bound that it maximises.
BOUNDS = {
    "vae_elbo": vae_elbo,
    "vae_elbo_kl": vae_elbo_kl,
    "iwae_elbo": iwae_elbo,
    "iwae_eq14": iwae_elbo,
    "dreg": iwae_elbo,
    "stl": iwae_elbo,
}
