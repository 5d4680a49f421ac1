"""TensorFlow in the reference's style: one tf.function call a step, batches from tf.data, TFP densities."""

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from benchmarks.contenders import EPSILON, LEARNING_RATE, layout


class Model(keras.Model):
    """Dense layers on [n_samples, batch, d] tensors, as they come."""

    def __init__(self, weights, layers):
        super().__init__()
        self.stochastic_layers, self.dense = layers, []
        for (n_in, n_out), kernel, bias in zip(layout(layers), weights[::2], weights[1::2], strict=True):
            layer = keras.layers.Dense(n_out)
            layer.build((None, n_in))
            layer.set_weights([kernel, bias])
            self.dense.append(layer)

    def gaussian(self, first, inputs):
        h1, h2, mean, log_std = self.dense[first : first + 4]
        h = tf.tanh(h2(tf.tanh(h1(inputs))))
        return tfd.Normal(mean(h), tf.exp(log_std(h)))

    def bernoulli(self, first, inputs):
        h1, h2, logits = self.dense[first : first + 3]
        return tfd.Bernoulli(logits=logits(tf.tanh(h2(tf.tanh(h1(inputs))))))

    def log_w(self, x, n_samples, noise=None):
        def draw(q, shape, number):
            return q.sample(*shape) if noise is None else q.loc + q.scale * noise[number]

        def total(log_p):
            return tf.reduce_sum(log_p, axis=-1)

        q1 = self.gaussian(0, x)
        z1 = draw(q1, [n_samples], 0)
        log_w = -total(q1.log_prob(z1))
        if self.stochastic_layers == 2:
            q2 = self.gaussian(4, z1)
            z2 = draw(q2, [], 1)
            log_w += total(self.gaussian(8, z2).log_prob(z1)) - total(q2.log_prob(z2))
            log_w += total(tfd.Normal(0.0, 1.0).log_prob(z2))
            return log_w + total(self.bernoulli(12, z1).log_prob(x))
        return log_w + total(tfd.Normal(0.0, 1.0).log_prob(z1)) + total(self.bernoulli(4, z1).log_prob(x))

    def bound(self, log_w):
        n_samples = tf.cast(tf.shape(log_w)[0], tf.float32)
        return tf.reduce_mean(tf.reduce_logsumexp(log_w, axis=0) - tf.math.log(n_samples))


def build(spec, weights, images):
    model, optimizer = Model(weights, spec["layers"]), keras.optimizers.Adam(LEARNING_RATE, epsilon=EPSILON)
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)

    def batches():  # each pass binarises the whole data set, as the reference does
        while True:
            x = (rng.random(images.shape, np.float32) * 255 < images).astype(np.float32)
            yield from tf.data.Dataset.from_tensor_slices(x).shuffle(len(x)).batch(spec["batch_size"]).prefetch(4)

    @tf.function
    def train_step(x):
        with tf.GradientTape() as tape:
            loss = -model.bound(model.log_w(x, spec["n_samples"]))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    stream = batches()

    def run(n_steps):
        for _ in range(n_steps):
            loss = train_step(next(stream))
        float(loss)

    return lambda x, noise: float(model.bound(model.log_w(x, len(noise[0]), noise))), run


def one_image(weights, layers, n_samples):
    """log p(x) of one test image [1, 784] at a time, all samples at once, as the reference evaluates."""
    model = Model(weights, layers)
    return tf.function(lambda image: model.bound(model.log_w(image, n_samples)))
