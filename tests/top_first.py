"""A model unlike models.iwae.IWAE in all that models/interface.py leaves open, for the proofs in test_model_seam.py."""

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from models.interface import LogWeights
from models.random import standard_normal


def normal(mean, log_std):
    return tfd.MultivariateNormalDiag(mean, tf.exp(log_std) * tf.ones_like(mean))


class TopFirst(keras.Model):
    """q(z|x) = q(zL|x) ... q(z1|x, z2), which begins at the top, and p(x, z) = p(x|z1) p(z1|z2) ... p(zL).

    Every mean and every logit is linear, and every standard deviation a weight. n_hidden is not used. With n_context
    the labels are appended to x in q and to z1 in p(x|z1); a learned prior has a mean that depends on them.
    """

    def __init__(self, n_hidden, n_latent, n_pixels, pixel_means=None, n_context=0, learned_prior=False):
        super().__init__()
        self.n_latent, self.n_pixels, self.n_context = tuple(n_latent), n_pixels, n_context
        self.drawn = tuple(reversed(range(len(n_latent))))
        self.arguments = (n_hidden, n_latent, n_pixels, None, n_context, learned_prior)
        above = (*n_latent[1:], 0)  # units of the layer above each
        self.q_means = [keras.layers.Dense(n) for n in n_latent]
        self.p_means = [keras.layers.Dense(n) for n in n_latent[:-1]]
        self.p_means += [keras.layers.Dense(n_latent[-1])] if learned_prior else []
        self.logits = keras.layers.Dense(n_pixels)
        for dense, width in zip(self.q_means, above):
            dense.build((None, n_pixels + n_context + width))
        for dense, width in zip(self.p_means, (*n_latent[1:], n_context)):
            dense.build((None, width))
        self.logits.build((None, n_latent[0] + n_context))
        self.q_log_stds = [self.add_weight(shape=(n,), initializer="zeros", name=f"q_{n}") for n in n_latent]
        self.p_log_stds = [self.add_weight(shape=(n,), initializer="zeros", name=f"p_{n}") for n in n_latent[:-1]]
        self.built = True

    @property
    def q_variables(self):
        return [variable for dense in self.q_means for variable in dense.trainable_variables] + self.q_log_stds

    @property
    def p_variables(self):
        dense = [*self.p_means, self.logits]
        return [variable for one in dense for variable in one.trainable_variables] + self.p_log_stds

    def _beside(self, inputs, y):
        """inputs [..., batch, d] -> [..., batch, d + n_context]."""
        if not self.n_context:
            return inputs
        return tf.concat([inputs, tf.broadcast_to(y, [*inputs.shape[:-1], self.n_context])], axis=-1)

    def noise(self, n_samples, batch, seed, algorithm="auto_select"):
        seeds = tf.random.split(seed, len(self.n_latent))
        return tuple(standard_normal([n_samples, batch, n], seeds[i], algorithm) for i, n in enumerate(self.n_latent))

    def _q(self, layer, x, above, y):
        inputs = self._beside(x, y)
        if above is not None:
            inputs = tf.concat([tf.broadcast_to(inputs, [*above.shape[:-1], inputs.shape[-1]]), above], axis=-1)
        return normal(self.q_means[layer](inputs), self.q_log_stds[layer])

    def _p(self, layer, above, y):
        if layer < len(self.n_latent) - 1:
            return normal(self.p_means[layer](above), self.p_log_stds[layer])
        if len(self.p_means) == len(self.n_latent):
            return normal(self.p_means[layer](y), tf.zeros(self.n_latent[layer]))
        return normal(tf.zeros(self.n_latent[layer]), 0.0)

    def encode(self, x, noise, y=None, cut=tf.identity):
        layers, above = [None] * len(self.n_latent), None
        for layer in self.drawn:
            q = self._q(layer, x, above, y)
            sample = q.mean() + tf.exp(self.q_log_stds[layer]) * noise[layer]
            above = cut(sample)
            layers[layer] = q, sample, above
        return layers

    def call(self, x, noise, y=None, cut=tf.identity):
        qs, samples, z = zip(*self.encode(x, noise, y, cut))
        return self._densities(x, y, qs, z, samples)

    def log_weights(self, x, z, y=None):
        return self._densities(x, y, [self._q(i, x, above, y) for i, above in enumerate([*z[1:], None])], z, z)

    def _densities(self, x, y, qs, z, samples):
        ps = [self._p(layer, above, y) for layer, above in enumerate([*z[1:], None])]
        pixels = tfd.Independent(tfd.Bernoulli(self.logits(self._beside(z[0], y))), 1)
        log_px_z = pixels.log_prob(x)
        kl = tf.add_n([tf.broadcast_to(tfd.kl_divergence(q, p), tf.shape(log_px_z)) for q, p in zip(qs, ps)])
        log_p_layers, log_q_layers = (tuple(d.log_prob(point) for d, point in zip(ds, z)) for ds in (ps, qs))
        return LogWeights(log_px_z, log_p_layers, log_q_layers, kl, tuple(samples), tuple(z))

    def sample_prior(self, noise, y=None):
        z, above = [None] * len(self.n_latent), None
        for layer in self.drawn:
            p = self._p(layer, above, y)
            z[layer] = above = p.mean() + p.stddev() * noise[layer]
        return tuple(z)

    def decode(self, noise, y=None):
        return self.mean_image(self.sample_prior(noise, y)[0], y)[0]

    def mean_image(self, z1, y=None):
        return tf.sigmoid(self.logits(self._beside(z1, y)))

    def without_units(self, keep, means):
        copy = TopFirst(*self.arguments)
        copy.set_weights(self.get_weights())
        for layer, units in enumerate(keep):
            off, values = np.flatnonzero(~units), means[layer][~units]
            writers = [copy.q_means[layer], *copy.p_means[layer : layer + 1]]
            readers = [copy.p_means[layer - 1], copy.q_means[layer - 1]] if layer else [copy.logits]
            for dense in writers:
                kernel, bias = dense.get_weights()
                kernel[:, off], bias[off] = 0, 0
                dense.set_weights([kernel, bias])
            for log_stds in (copy.q_log_stds[layer], *copy.p_log_stds[layer : layer + 1]):
                log_stds.assign(np.where(units, log_stds, 0))
            for dense in readers:
                kernel, bias = dense.get_weights()
                rows = off + (copy.n_pixels + copy.n_context) * (dense in copy.q_means)  # x, then the layer above
                bias += values @ kernel[rows]
                kernel[rows] = 0
                dense.set_weights([kernel, bias])
        return copy
