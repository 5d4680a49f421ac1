"""The importance weighted autoencoder with any number of stochastic layers (Burda et al., 1509.00519)."""

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from models.blocks import BernoulliBlock, GaussianBlock
from models.interface import LogWeights
from models.random import standard_normal


class IWAE(keras.Model):
    """q(z|x) = q(z1|x) q(z2|z1) ... and p(x, z) = p(x|z1) p(z1|z2) ... p(zL), with p(zL) = N(0, I).

    It is a models.interface.Model, whose layers are drawn from z1 up.

    n_hidden, n_latent: one entry per stochastic layer, from the image upwards. n_pixels: of an image.
    pixel_means: [n_pixels] mean training image for the output bias, or None.
    n_context: with more than 0 the model is conditional (Sohn et al., 2015): y [batch, n_context] is appended to the
    inputs of q(z1|x) and p(x|z1). The blocks between stochastic layers are not given it.
    learned_prior: the prior of a conditional model is p(zL|y), a Gaussian block on y, in place of N(0, I).
    Raises ValueError where n_hidden and n_latent have no entry per layer, and for a learned_prior without n_context.
    """

    def __init__(self, n_hidden, n_latent, n_pixels, pixel_means=None, n_context=0, learned_prior=False, **kwargs):
        super().__init__(**kwargs)
        if len(n_hidden) != len(n_latent) or not n_latent:
            raise ValueError(f"n_hidden {n_hidden} and n_latent {n_latent} need one entry per stochastic layer")
        if learned_prior and not n_context:
            raise ValueError("learned_prior needs n_context: there is nothing to learn it from")
        self.n_hidden, self.n_latent = tuple(n_hidden), tuple(n_latent)
        self.drawn = tuple(range(len(n_latent)))
        self.n_pixels, self.n_context, self.learned_prior = n_pixels, n_context, learned_prior
        self.pixel_means = None if pixel_means is None else np.asarray(pixel_means, np.float32)
        widths = (n_pixels, *n_latent)  # of x, z1, ..., zL
        self.encoder = [self.encoder_block(i + 1, n, d) for i, (n, d) in enumerate(zip(n_hidden, n_latent))]
        self.decoder = [
            GaussianBlock(n_hidden[i], widths[i], name=f"p_z{i}") for i in range(1, len(n_latent))
        ]  # decoder[i] is p(z{i+1} | z{i+2}), as encoder[i] is q(z{i+1} | .)
        self.likelihood = self.likelihood_block(n_hidden[0], pixel_means)
        self.prior_block = GaussianBlock(n_hidden[-1], n_latent[-1], name="prior") if learned_prior else None
        for block, width in zip(self.encoder, (n_pixels + n_context, *n_latent)):
            block.build((None, width))
        for block, width in zip(self.decoder, widths[2:]):
            block.build((None, width))
        self.likelihood.build((None, n_latent[0] + n_context))
        if self.prior_block:
            self.prior_block.build((None, n_context))
        self.built = True

    def encoder_block(self, layer, n_hidden, n_latent):
        """q(z1|x) for layer 1, q(z{layer}|z{layer - 1}) above; for a subclass to override."""
        return GaussianBlock(n_hidden, n_latent, name=f"q_z{layer}")

    def likelihood_block(self, n_hidden, pixel_means):
        """p(x|z1); for a subclass to override."""
        return BernoulliBlock(n_hidden, self.n_pixels, pixel_means, name="p_x")

    def get_config(self):
        """The constructor's arguments, to which a subclass adds its own."""
        names = "n_hidden", "n_latent", "n_pixels", "pixel_means", "n_context", "learned_prior"
        return {name: getattr(self, name) for name in names}

    @property
    def q_variables(self):
        """The encoder's trainable variables."""
        return [variable for block in self.encoder for variable in block.trainable_variables]

    @property
    def p_variables(self):
        """All others: the decoder's, and those of a learned prior."""
        of_q = {id(variable) for variable in self.q_variables}
        return [variable for variable in self.trainable_variables if id(variable) not in of_q]

    def _with_context(self, inputs, y):
        """inputs [..., batch, d], y [batch, n_context] -> [..., batch, d + n_context]."""
        if not self.n_context:
            return inputs
        y = tf.broadcast_to(y, tf.concat([tf.shape(inputs)[:-1], [self.n_context]], axis=0))
        return tf.concat([inputs, y], axis=-1)

    def q_input(self, x, y=None):
        """What q(z1|.) is given: x, with y appended if the model is conditional."""
        return self._with_context(x, y)

    def prior(self, y=None):
        """p(zL), or p(zL|y) for y [batch, n_context] if it is learned: an Independent of Normals. With a prior that is
        not normal a subclass overrides sample_prior and kl_divergence too.
        """
        if self.prior_block:
            return self.prior_block(y)
        width = self.n_latent[-1]
        return tfd.Independent(tfd.Normal(tf.zeros(width), tf.ones(width)), reinterpreted_batch_ndims=1)

    def noise(self, n_samples, batch, seed, algorithm="auto_select"):
        """Standard normal noise for `call`: a tuple of [n_samples, batch, n_latent], one per stochastic layer."""
        seeds = tf.random.split(seed, len(self.n_latent))
        return tuple(
            standard_normal([n_samples, batch, width], seeds[i], algorithm) for i, width in enumerate(self.n_latent)
        )

    def encode(self, x, noise, y=None, cut=tf.identity):
        """[(q, sample, z)] from z1 up: q = q(zl|z{l-1}), sample = mean + std * noise, and z = cut(sample)."""
        layers, below = [], self.q_input(x, y)
        for block, epsilon in zip(self.encoder, noise):
            q = block(below)
            sample = q.distribution.loc + q.distribution.scale * epsilon  # [n_samples, batch, n_latent]
            below = cut(sample)
            layers.append((q, sample, below))
        return layers

    def call(self, x, noise, y=None, cut=tf.identity):
        """x [batch, n_pixels] in {0, 1}, noise as from `noise`, y [batch, n_context] if the model is conditional ->
        LogWeights.
        """
        qs, samples, z = zip(*self.encode(x, noise, y, cut))
        return self._densities(x, y, qs, z, samples)

    def log_weights(self, x, z, y=None):
        """LogWeights at given points z, a tuple of [n_samples, batch, n_latent] from z1 up."""
        inputs = (self.q_input(x, y), *z)
        return self._densities(x, y, [block(below) for block, below in zip(self.encoder, inputs)], z, z)

    def _densities(self, x, y, qs, z, samples):
        # log q(zl|z{l-1}), with z0 = x
        log_q_layers = [q.log_prob(point) for q, point in zip(qs, z)]
        # log p(zl|z{l+1}), with p(zL) the prior
        priors = [block(above) for block, above in zip(self.decoder, z[1:])] + [self.prior(y)]
        log_p_layers = [p.log_prob(point) for p, point in zip(priors, z)]
        # log p(x|z) = log p(x|z1)
        log_px_z = self.likelihood.log_prob(x, self._with_context(z[0], y))
        kl = self.kl_divergence(qs, priors, log_q_layers, log_p_layers)
        return LogWeights(
            log_px_z=log_px_z,
            log_p_layers=tuple(log_p_layers),
            log_q_layers=tuple(log_q_layers),
            kl=tf.broadcast_to(kl, tf.shape(log_px_z)),
            samples=tuple(samples),
            z=tuple(z),
        )

    def kl_divergence(self, qs, priors, log_q_layers, log_p_layers):
        """An estimate of KL(q(z|x) || p(z)), nats, that broadcasts to [n_samples, batch]. A subclass whose q or prior
        has none in closed form returns sum(log_q_layers) - sum(log_p_layers).
        """
        # KL(q(zL|.) || p(zL)) + sum_{l<L} [ -H(q(zl|.)) - log p(zl|z{l+1}) ], KL and H in closed form
        kl = tfd.kl_divergence(qs[-1], priors[-1])
        for q, log_p in zip(qs[:-1], log_p_layers):
            kl += -q.entropy() - log_p
        return kl

    def sample_prior(self, noise, y=None):
        """Samples of p(z), a tuple of [n_samples, batch, n_latent] from z1 up, for noise as from `noise`."""
        p, z = self.prior(y), []
        for layer in reversed(range(len(self.n_latent))):
            z.insert(0, p.distribution.loc + p.distribution.scale * noise[layer])
            if layer:
                p = self.decoder[layer - 1](z[0])
        return tuple(z)

    def decode(self, noise, y=None):
        """Images from the prior: pixel means [batch, n_pixels], for noise as from `noise` with n_samples = 1."""
        return self.mean_image(self.sample_prior(noise, y)[0], y)[0]

    def mean_image(self, z1, y=None):
        """E[x|z1], the pixel means [..., n_pixels], for z1 [..., n_latent]; with y [batch, n_context], z1 must be
        [..., batch, n_latent].
        """
        return self.likelihood(self._with_context(z1, y)).mean()

    def without_units(self, keep, means):
        """A copy in which units play no part. See models.interface.Model.

        A unit that is not kept has q = p = N(0, 1), so that its terms in log w cancel; the blocks that read it have
        its mean in their bias instead. Raises ValueError where a layer would have no unit left, and NotImplementedError
        where a subclass or a block has methods of its own in the place of those that this rests on.
        """
        _check_methods(self, IWAE, "prior", "sample_prior", "encode", "call", "log_weights")
        if not all(np.any(units) for units in keep):
            raise ValueError("a layer would be left without units")
        copy = type(self)(**self.get_config())
        copy.set_weights(self.get_weights())
        writers = [[block] for block in copy.encoder]  # of z1, ..., zL
        for layer, block in enumerate([*copy.decoder, *filter(None, [copy.prior_block])]):
            writers[layer].append(block)
        readers = [[block] for block in (copy.likelihood, *copy.decoder)]
        for layer, block in enumerate(copy.encoder[1:]):
            readers[layer].append(block)
        for layer, units in enumerate(keep):
            off = np.flatnonzero(~np.asarray(units))
            for block in writers[layer]:
                _check_methods(block, GaussianBlock, "outputs", "call")
                _write_standard_normal(block, off)
            for block in readers[layer]:
                kind = BernoulliBlock if block is copy.likelihood else GaussianBlock
                _check_methods(block, kind, "features", "outputs", "call", "log_prob")
                _read_constant(block, off, np.asarray(means[layer])[off])
        return copy


def _check_methods(it, kind, *names):
    """Raises NotImplementedError where one of these methods is not that of the class `kind`."""
    for name in names:
        if getattr(type(it), name, None) is not getattr(kind, name, None):
            raise NotImplementedError(f"{type(it).__name__} has its own {name}: units cannot be taken out of it")


def _write_standard_normal(block, units):
    """Makes mean and log standard deviation of these units of a Gaussian block zero, whatever it reads."""
    for head in block.heads:
        kernel, bias = (np.array(weights) for weights in head.get_weights())
        kernel[:, units], bias[units] = 0, 0
        head.set_weights([kernel, bias])


def _read_constant(block, units, values):
    """Makes a block read `values` in the place of these units, whatever they are."""
    kernel, bias = (np.array(weights) for weights in block.hidden[0].get_weights())
    bias += values @ kernel[units]
    kernel[units] = 0
    block.hidden[0].set_weights([kernel, bias])
