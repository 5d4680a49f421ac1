"""The importance weighted autoencoder with any number of stochastic layers (Burda et al., 1509.00519)."""

from typing import NamedTuple

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from models.blocks import BernoulliBlock, GaussianBlock
from models.fused import GradientPort
from utils import standard_normal


class IWAEOutput(NamedTuple):
    """log w in its parts, in nats, [n_samples, batch]; and z from z1 up, each [n_samples, batch, n_latent]."""

    log_px_z: tf.Tensor  # log p(x|z1)
    log_pz: tf.Tensor  # log p(z1|z2) + ... + log p(zL)
    log_qz_x: tf.Tensor  # log q(z1|x) + ... + log q(zL|z{L-1})
    log_qz_x_path: tf.Tensor  # equal to log_qz_x, with q's parameters held fixed: it depends on them through z alone
    kl: tf.Tensor  # log q(z|x) - log p(z) with all that has a closed form integrated out (see IWAE.call)
    z: tuple
    port: GradientPort  # what every z went through on its way into the densities

    def log_w(self, beta=1.0):
        """log importance weights [n_samples, batch]: log p(x|z) + beta (log p(z) - log q(z|x))."""
        return self.log_px_z + beta * (self.log_pz - self.log_qz_x)


class IWAE(keras.Model):
    """q(z|x) = q(z1|x) q(z2|z1) ... and p(x, z) = p(x|z1) p(z1|z2) ... p(zL), with p(zL) = N(0, I).

    n_hidden, n_latent: one entry per stochastic layer, from the image upwards.
    pixel_means: [n_pixels] mean training image for the output bias, or None.
    n_context: with more than 0 the model is conditional (Sohn et al., 2015): it has all of p and q given y
    [batch, n_context], which is appended to the inputs of q(z1|x) and p(x|z1).
    learned_prior: the prior of a conditional model is p(zL|y), a Gaussian block on y, in place of N(0, I).

    The weights exist as soon as the object does; no data is needed.
    """

    def __init__(
        self,
        n_hidden=(200,),
        n_latent=(100,),
        n_pixels=784,
        pixel_means=None,
        n_context=0,
        learned_prior=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if len(n_hidden) != len(n_latent) or not n_latent:
            raise ValueError(f"n_hidden {n_hidden} and n_latent {n_latent} need one entry per stochastic layer")
        if learned_prior and not n_context:
            raise ValueError("learned_prior needs n_context: there is nothing to learn it from")
        self.n_latent, self.n_pixels, self.n_context = tuple(n_latent), n_pixels, n_context
        widths = (n_pixels, *n_latent)  # of x, z1, ..., zL
        self.encoder = [GaussianBlock(n, d, name=f"q_z{i + 1}") for i, (n, d) in enumerate(zip(n_hidden, n_latent))]
        self.decoder = [
            GaussianBlock(n_hidden[i], widths[i], name=f"p_z{i}") for i in range(1, len(n_latent))
        ]  # decoder[i] is p(z{i+1} | z{i+2}), as encoder[i] is q(z{i+1} | .)
        self.likelihood = BernoulliBlock(n_hidden[0], n_pixels, pixel_means, name="p_x")
        self.prior_block = GaussianBlock(n_hidden[-1], n_latent[-1], name="prior") if learned_prior else None
        for block, width in zip(self.encoder, (n_pixels + n_context, *n_latent)):
            block.build((None, width))
        for block, width in zip(self.decoder, widths[2:]):
            block.build((None, width))
        self.likelihood.build((None, n_latent[0] + n_context))
        if self.prior_block:
            self.prior_block.build((None, n_context))
        self.built = True

    def _with_context(self, inputs, y):
        """inputs [..., batch, d], y [batch, n_context] -> [..., batch, d + n_context]."""
        if not self.n_context:
            return inputs
        y = tf.broadcast_to(y, tf.concat([tf.shape(inputs)[:-1], [self.n_context]], axis=0))
        return tf.concat([inputs, y], axis=-1)

    def prior(self, y=None):
        """p(zL), or p(zL|y) for y [batch, n_context] if it is learned."""
        if self.prior_block:
            return self.prior_block(y)
        width = self.n_latent[-1]
        return tfd.Independent(tfd.Normal(tf.zeros(width), tf.ones(width)), reinterpreted_batch_ndims=1)

    def noise(self, n_samples, batch, seed, algorithm="auto_select"):
        """Standard normal noise for `call`: a tuple of [n_samples, batch, n_latent], one per stochastic layer."""
        seeds = tf.random.split(seed, len(self.n_latent), alg="auto_select")
        return tuple(
            standard_normal([n_samples, batch, width], seeds[i], algorithm) for i, width in enumerate(self.n_latent)
        )

    def encode(self, x, noise, y=None):
        """Samples of q(z|x): a list of (q, z) from the bottom layer up, z [n_samples, batch, n_latent]."""
        layers, below = [], self._with_context(x, y)
        for block, epsilon in zip(self.encoder, noise):
            q = block(below)
            below = q.distribution.loc + q.distribution.scale * epsilon  # reparameterised
            layers.append((q, below))
        return layers

    def call(self, x, noise, y=None):
        """x [batch, n_pixels] in {0, 1}, noise as from `noise`, y [batch, n_context] if the model is conditional ->
        IWAEOutput. A pure function of its arguments.

        Where q(zL|.) meets p(zL) the KL divergence is analytic; below it the entropy of q(zl|.) is analytic and
        log p(zl|z{l+1}) stays sampled. `kl` is their sum, so that log p(x|z) - kl estimates the ELBO.
        """
        encoded = self.encode(x, noise, y)
        port = GradientPort()
        z = tuple(port(sample) for _, sample in encoded)
        priors = [block(above) for block, above in zip(self.decoder, z[1:])] + [self.prior(y)]
        log_pz_parts = [p.log_prob(sample) for p, sample in zip(priors, z)]
        top_q, _ = encoded[-1]
        kl = tfd.kl_divergence(top_q, priors[-1])
        for (q, _), log_p in zip(encoded[:-1], log_pz_parts):
            kl += -q.entropy() - log_p
        frozen = [block(below, frozen=True) for block, below in zip(self.encoder, (self._with_context(x, y), *z))]
        log_px_z = self.likelihood.log_prob(x, self._with_context(z[0], y))
        return IWAEOutput(
            log_px_z=log_px_z,
            log_pz=tf.add_n(log_pz_parts),
            log_qz_x=tf.add_n([q.log_prob(sample) for q, sample in encoded]),
            log_qz_x_path=tf.add_n([q.log_prob(sample) for q, sample in zip(frozen, z)]),
            kl=tf.broadcast_to(kl, tf.shape(log_px_z)),
            z=z,
            port=port,
        )

    def decode(self, noise, y=None):
        """Images from the prior: pixel means [batch, n_pixels], for noise as from `noise` with n_samples = 1."""
        prior = self.prior(y).distribution
        z = prior.loc + prior.scale * noise[-1]
        for block, epsilon in zip(reversed(self.decoder), reversed(noise[:-1])):
            p = block(z).distribution
            z = p.loc + p.scale * epsilon
        return self.likelihood(self._with_context(z, y)).distribution.probs_parameter()[0]
