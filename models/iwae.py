"""The importance weighted autoencoder with any number of stochastic layers (Burda et al., 1509.00519)."""

from typing import NamedTuple

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from models.blocks import BernoulliBlock, GaussianBlock
from models.fused import GradientPort


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

    The weights exist as soon as the object does; no data is needed.
    """

    def __init__(self, n_hidden=(200,), n_latent=(100,), n_pixels=784, pixel_means=None, **kwargs):
        super().__init__(**kwargs)
        if len(n_hidden) != len(n_latent) or not n_latent:
            raise ValueError(f"n_hidden {n_hidden} and n_latent {n_latent} need one entry per stochastic layer")
        self.n_latent, self.n_pixels = tuple(n_latent), n_pixels
        widths = (n_pixels, *n_latent)  # of x, z1, ..., zL
        self.encoder = [GaussianBlock(n, d, name=f"q_z{i + 1}") for i, (n, d) in enumerate(zip(n_hidden, n_latent))]
        self.decoder = [
            GaussianBlock(n_hidden[i], widths[i], name=f"p_z{i}") for i in range(1, len(n_latent))
        ]  # decoder[i] is p(z{i+1} | z{i+2}), as encoder[i] is q(z{i+1} | .)
        self.likelihood = BernoulliBlock(n_hidden[0], n_pixels, pixel_means, name="p_x")
        for block, width in zip(self.encoder, widths):
            block.build((None, width))
        for block, width in zip(self.decoder, widths[2:]):
            block.build((None, width))
        self.likelihood.build((None, widths[1]))
        self.built = True

    def prior(self):
        """p(zL), the standard normal."""
        width = self.n_latent[-1]
        return tfd.Independent(tfd.Normal(tf.zeros(width), tf.ones(width)), reinterpreted_batch_ndims=1)

    def noise(self, n_samples, batch, seed, algorithm="auto_select"):
        """Standard normal noise for `call`: a tuple of [n_samples, batch, n_latent], one per stochastic layer."""
        seeds = tf.random.split(seed, len(self.n_latent), alg="auto_select")
        return tuple(
            tf.random.stateless_normal([n_samples, batch, width], seeds[i], alg=algorithm)
            for i, width in enumerate(self.n_latent)
        )

    def encode(self, x, noise):
        """Samples of q(z|x): a list of (q, z) from the bottom layer up, z [n_samples, batch, n_latent]."""
        layers, below = [], x
        for block, epsilon in zip(self.encoder, noise):
            q = block(below)
            below = q.distribution.loc + q.distribution.scale * epsilon  # reparameterised
            layers.append((q, below))
        return layers

    def call(self, x, noise):
        """x [batch, n_pixels] in {0, 1}, noise as from `noise` -> IWAEOutput. A pure function of its arguments.

        Where q(zL|.) meets p(zL) the KL divergence is analytic; below it the entropy of q(zl|.) is analytic and
        log p(zl|z{l+1}) stays sampled. `kl` is their sum, so that log p(x|z) - kl estimates the ELBO.
        """
        encoded = self.encode(x, noise)
        port = GradientPort()
        z = tuple(port(sample) for _, sample in encoded)
        priors = [block(above) for block, above in zip(self.decoder, z[1:])] + [self.prior()]
        log_pz_parts = [p.log_prob(sample) for p, sample in zip(priors, z)]
        top_q, _ = encoded[-1]
        kl = tfd.kl_divergence(top_q, priors[-1])
        for (q, _), log_p in zip(encoded[:-1], log_pz_parts):
            kl += -q.entropy() - log_p
        frozen = [block(below, frozen=True) for block, below in zip(self.encoder, (x, *z))]
        log_px_z = self.likelihood.log_prob(x, z[0])
        return IWAEOutput(
            log_px_z=log_px_z,
            log_pz=tf.add_n(log_pz_parts),
            log_qz_x=tf.add_n([q.log_prob(sample) for q, sample in encoded]),
            log_qz_x_path=tf.add_n([q.log_prob(sample) for q, sample in zip(frozen, z)]),
            kl=tf.broadcast_to(kl, tf.shape(log_px_z)),
            z=z,
            port=port,
        )

    def decode(self, noise):
        """Images from the prior: pixel means [batch, n_pixels], for noise as from `noise` with n_samples = 1."""
        prior = self.prior().distribution
        z = prior.loc + prior.scale * noise[-1]
        for block, epsilon in zip(reversed(self.decoder), reversed(noise[:-1])):
            p = block(z).distribution
            z = p.loc + p.scale * epsilon
        return self.likelihood(z).distribution.probs_parameter()[0]
