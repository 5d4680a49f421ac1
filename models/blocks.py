"""The two building blocks of p and q: a Gaussian block and a Bernoulli block, each on two tanh layers."""

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from models.fused import sum_softplus_dense


class Block(keras.layers.Layer):
    """Two tanh layers of n_hidden units, and the linear layers (`heads`) that read the second one."""

    def __init__(self, n_hidden, heads, **kwargs):
        super().__init__(**kwargs)
        self.hidden = [keras.layers.Dense(n_hidden, activation="tanh", name=f"hidden{i}") for i in (1, 2)]
        self.heads = heads

    def build(self, input_shape):
        width = input_shape[-1]
        for layer in self.hidden:
            layer.build((None, width))
            width = layer.units
        for layer in self.heads:
            layer.build((None, width))

    def outputs(self, inputs):
        """[..., d] -> what each of the heads makes of them, [..., units]."""
        h = self.features(inputs)
        return [tf.reshape(head(h), tf.concat([tf.shape(inputs)[:-1], [head.units]], axis=0)) for head in self.heads]

    def features(self, inputs):
        """[..., d] -> [rows, n_hidden], as one matrix: Keras layers are slow on tensors of higher rank."""
        h = tf.reshape(inputs, [-1, inputs.shape[-1]])
        for layer in self.hidden:
            h = layer(h)
        return h


class GaussianBlock(Block):
    """A diagonal Gaussian whose mean and log standard deviation are linear in two tanh layers (Burda et al., sec. 5,
    who let exp give the variance; here, as in the reference implementation, it gives the standard deviation).
    """

    def __init__(self, n_hidden, n_latent, **kwargs):
        mean = keras.layers.Dense(n_latent, name="mean")
        log_std = keras.layers.Dense(n_latent, name="log_std")
        super().__init__(n_hidden, [mean, log_std], **kwargs)

    def call(self, inputs):
        """[..., d] -> tfd.Independent of Normals with event shape [n_latent] and batch shape [...]."""
        mean, log_std = self.outputs(inputs)
        return tfd.Independent(tfd.Normal(mean, tf.exp(log_std)), reinterpreted_batch_ndims=1)


class BernoulliBlock(Block):
    """p(x|z): independent Bernoulli pixels whose logits are linear in two tanh layers.

    pixel_means: [n_pixels] in [0, 1], the mean training image; the output bias starts at its logit, so that a
    new model already knows how bright each pixel is. None starts it at zero.
    """

    def __init__(self, n_hidden, n_pixels, pixel_means=None, **kwargs):
        bias = "zeros"
        if pixel_means is not None:
            p = np.clip(np.asarray(pixel_means, np.float64), 0.001, 0.999)
            bias = keras.initializers.Constant(np.log(p / (1 - p)).astype(np.float32))
        logits = keras.layers.Dense(n_pixels, bias_initializer=bias, name="logits")
        super().__init__(n_hidden, [logits], **kwargs)

    def call(self, z):
        """[..., d] -> tfd.Independent of Bernoullis with event shape [n_pixels] and batch shape [...]."""
        (logits,) = self.outputs(z)
        return tfd.Independent(tfd.Bernoulli(logits=logits), reinterpreted_batch_ndims=1)

    def log_prob(self, x, z):
        """log p(x|z) [n_samples, batch] for x [batch, n_pixels], z [n_samples, batch, d].

        Equal to self(z).log_prob(x), which is the definition, in fewer passes over [n_samples * batch, n_pixels]:
        with logits l = h W + b,  log p = sum_d x_d l_d - sum_d softplus(l_d),  and the first sum is
        h . (x W^T) + x . b, which never needs the logits at all.
        """
        if type(self).call is not BernoulliBlock.call:  # a subclass has another definition
            return self(z).log_prob(x)
        h = self.features(z)  # [n_samples * batch, n_hidden]
        (head,) = self.heads
        kernel, bias = tf.convert_to_tensor(head.kernel), tf.convert_to_tensor(head.bias)
        shape = tf.shape(z)[:2]
        h_by_image = tf.reshape(h, tf.concat([shape, [h.shape[-1]]], axis=0))  # [n_samples, batch, n_hidden]
        x_dot_l = tf.reduce_sum(h_by_image * tf.matmul(x, kernel, transpose_b=True), axis=-1)
        x_dot_l += tf.linalg.matvec(x, bias)
        return x_dot_l - tf.reshape(sum_softplus_dense(h, kernel, bias), shape)
