"""What training, evaluation, plots and tasks ask of a model. Whatever has these methods can be trained.

A new model is a class in a file of models/ and an entry of models.catalogue.MODELS. Tensors are float32; x [batch,
n_pixels] holds 0 and 1; y [batch, n_context] is what a conditional model is given, with n_context = 0 (or y = None)
otherwise. Lists with an entry for each stochastic layer run from the image up, z1 first, in whichever order the layers
are drawn.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import tensorflow as tf


class LogWeights(NamedTuple):
    """log w = log p(x, z) - log q(z|x) in its parts, in nats, each [n_samples, batch]; and the samples.

    log_p_layers, log_q_layers: such a tensor for each stochastic layer, given the layers drawn before it: with two
    layers log p(z1|z2) and log p(z2); log q(z1|x) and log q(z2|z1).
    samples, z: a tensor [n_samples, batch, n_latent] for each stochastic layer. `samples` can be differentiated by q's
    parameters; every density and every later layer was given z = cut(samples).
    """

    log_px_z: tf.Tensor  # log p(x|z)
    log_p_layers: tuple
    log_q_layers: tuple
    kl: tf.Tensor  # an estimate of KL(q(z|x) || p(z)), in closed form where it has one
    samples: tuple
    z: tuple

    @property
    def log_pz(self):
        """log p(z) = log p(z1|z2) + ... + log p(zL)."""
        return tf.add_n(self.log_p_layers)

    @property
    def log_qz_x(self):
        """log q(z|x) = log q(z1|x) + log q(z2|z1) + ..."""
        return tf.add_n(self.log_q_layers)

    def log_w(self, beta=1.0):
        """log importance weights [n_samples, batch]: log p(x|z) + beta (log p(z) - log q(z|x))."""
        return self.log_px_z + beta * (self.log_pz - self.log_qz_x)


class Model(Protocol):
    """A latent-variable model p(x, z) with its approximate posterior q(z|x). Every method is pure: noise is explicit.

    p(x, z) must not depend on q's variables, as with a VampPrior: dreg, stl, rws and their like leave out q's gradient
    through log p(x, z) at fixed z, and would be silently wrong.

    The constructor takes n_hidden and n_latent (one entry per stochastic layer), n_pixels, pixel_means ([n_pixels] in
    [0, 1], or None), n_context, learned_prior (whether p(z|y) is learned), and the hyperparameters of its entry in
    models/catalogue.py. The weights exist when it returns. It is a keras.Model, so save_weights, load_weights,
    get_weights and trainable_variables are there.
    """

    n_latent: tuple
    drawn: tuple  # the layers' places in every list, in the order in which q draws them: (0, 1) where z1 comes first
    n_pixels: int
    n_context: int
    p_variables: list  # trainable variables of p, and of q: together they are trainable_variables
    q_variables: list

    def noise(self, n_samples: int, batch: int, seed: tf.Tensor, algorithm: str = "auto_select") -> tuple:
        """The noise that n_samples samples of all layers are made from: a tensor [n_samples, batch, n] for each layer.

        All of it is standard normal (annealed importance sampling takes its density for N(0, I)); n may be more than
        the layer's units, for what else is drawn. seed [2] int32; algorithm: as in tf.random.stateless_uniform.
        """

    def encode(self, x, noise, y=None, cut: Callable = tf.identity) -> list:
        """[(q, sample, z)] for each stochastic layer.

        q: a tfd distribution, given the layers drawn before, whose mean() and stddev() broadcast to [n_samples, batch,
        n_latent];
        sample [n_samples, batch, n_latent]: reparameterised; z = cut(sample): what all later layers are given.
        q.log_prob must compute from its argument. A value kept when the sample was drawn, as flows often do, hides that
        log q depends on z, and dreg, stl and rws would be silently wrong.
        """

    def __call__(self, x, noise, y=None, cut: Callable = tf.identity) -> LogWeights:
        """The parts of log w at the samples that `noise` makes. Every density is given z = cut(sample)."""

    def log_weights(self, x, z: tuple, y=None) -> LogWeights:
        """The parts of log w at given points z, a tensor [n_samples, batch, n_latent] for each layer."""

    def sample_prior(self, noise, y=None) -> tuple:
        """Samples of p(z), a tensor [n_samples, batch, n_latent] for each layer."""

    def decode(self, noise, y=None) -> tf.Tensor:
        """Mean images [batch, n_pixels] of samples from the prior, for noise with n_samples = 1."""

    def mean_image(self, z1, y=None) -> tf.Tensor:
        """E[x|z1], [..., n_pixels], for z1 [..., n_latent] of the layer that the image is drawn from; with y [batch,
        n_context], z1 must be [..., batch, n_latent].
        """

    def without_units(self, keep: list, means: list) -> "Model":
        """A copy in which units play no part: their terms in log w cancel, and what reads them is given their mean.

        keep: a bool array [n_latent] for each layer; means: a float array [n_latent] for each. Raises ValueError where
        a layer would have no unit left, and NotImplementedError where a model cannot do it.
        """
