"""This project's gradients alone, without an optimiser; spec["random"] says whether images and noise are drawn anew.

Beside the matrix products alone and the whole step they tell what a step's time goes to. As with the products, a
vanishing part of each gradient goes into the weights, so that nothing can be left out or done once for all.
"""

import tensorflow as tf

from benchmarks.contenders.ours import configured
from models.random import Stream, random_algorithm, stateless_seed
from training.steps import binarise, make_gradients, n_microbatches


def build(spec, weights, images):
    config, model = configured(spec, weights, images)
    data, batch, algorithm = tf.constant(images), config.batch_size, random_algorithm(jit=True)
    y, seed = tf.zeros([batch, 0]), stateless_seed(0, Stream.BINARISE, 0)
    x = binarise(data[:batch], seed, "auto_select")
    if not spec["random"]:
        noise = model.noise(config.n_samples, batch // n_microbatches(config), seed)
        model.noise = lambda *_: noise
    gradients = make_gradients(config, model)

    def images_at(i):
        if not spec["random"]:
            return x
        rows = (i * batch + tf.range(batch)) % len(images)
        return binarise(tf.gather(data, rows), stateless_seed(0, Stream.BINARISE, i), algorithm)

    @tf.function(jit_compile=True)
    def loop(n):
        def body(i):
            _, _, found = gradients(images_at(i), y, i, 1.0)
            for variable, gradient in zip(model.trainable_variables, found):
                variable.assign_add(1e-12 * gradient)
            return (i + 1,)

        return tf.while_loop(lambda i: i < n, body, (0,))

    def run(n_steps):
        loop(tf.constant(n_steps))[0].numpy()

    return None, run
