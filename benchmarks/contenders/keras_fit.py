"""Keras `fit` with its own train_step and many steps per execution; TFP densities."""

import keras
import numpy as np
import tensorflow as tf

from benchmarks.contenders import EPSILON, LEARNING_RATE
from benchmarks.contenders.tf_reference import Model

STEPS_PER_EXECUTION = 50


class FitModel(Model):
    n_samples = 1

    def train_step(self, x):
        with tf.GradientTape() as tape:
            loss = -self.bound(self.log_w(x, self.n_samples))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss}


def build(spec, weights, images):
    model = FitModel(weights, spec["layers"])
    model.n_samples = spec["n_samples"]
    model.built = True
    optimizer = keras.optimizers.Adam(LEARNING_RATE, epsilon=EPSILON)
    model.compile(optimizer=optimizer, steps_per_execution=STEPS_PER_EXECUTION, jit_compile=False)

    def binarise(means):
        return tf.cast(tf.random.uniform(tf.shape(means)) * 255.0 < tf.cast(means, tf.float32), tf.float32)

    data = tf.data.Dataset.from_tensor_slices(images).shuffle(len(images)).repeat()
    data = data.batch(spec["batch_size"], drop_remainder=True).map(binarise).prefetch(tf.data.AUTOTUNE)

    def run(n_steps):
        n_steps = int(np.ceil(n_steps / STEPS_PER_EXECUTION)) * STEPS_PER_EXECUTION
        model.fit(data, steps_per_epoch=n_steps, epochs=1, shuffle=False, verbose=0)
        return n_steps

    return lambda x, noise: float(model.bound(model.log_w(x, len(noise[0]), noise))), run
