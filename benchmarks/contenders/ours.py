"""This project: the very functions that main.py trains with."""

import math

import numpy as np
import tensorflow as tf

from experiment.session import build_model
from experiment.settings import Config
from models.objectives import iwae_elbo
from training.schedule import make_optimizer
from training.steps import make_steps


def build(spec, weights, images):
    config, model = configured(spec, weights, images)
    steps_per_epoch = len(images) // config.batch_size
    take_steps = make_steps(config, model, make_optimizer(config, steps_per_epoch, model), steps_per_epoch)
    data = tf.constant(images), tf.zeros([len(images), 0])
    order = tf.constant(np.random.default_rng(0).permutation(len(images)), tf.int32)
    position = 0

    def run(n_steps):
        nonlocal position
        position += n_steps
        stopped, value, _ = take_steps(*data, order, tf.constant(position - n_steps), tf.constant(position))
        if int(stopped) < position:
            raise ArithmeticError(f"step {int(stopped)} gave {float(value)}: too few steps for the time")

    return lambda x, noise: float(tf.reduce_mean(iwae_elbo(model(x, noise)).bound)), run


def configured(spec, weights, images):
    """(Config, model) of a spec, with the common weights."""
    config = Config(
        stochastic_layers=spec["layers"],
        objective=spec.get("objective", "iwae_elbo"),
        n_samples=spec["n_samples"],
        hyperparameters=spec.get("hyperparameters"),
        batch_size=spec["batch_size"],
        epochs=1,
        learning_rate=spec.get("learning_rate", 1e-3),
        optimizer=spec.get("optimizer", "adam"),
        ema=spec.get("ema", 0.0),
        backward_samples=math.ceil(spec["n_samples"] / fraction)
        if (fraction := spec.get("backward_fraction"))
        else None,
    ).resolved()
    model = build_model(config, images.mean(axis=0) / 255)
    assign(model, weights)
    return config, model


def assign(model, weights):
    """Sets the model's weights from the common list."""
    blocks = [*model.encoder, *model.decoder, model.likelihood]
    layers = [layer for block in blocks for layer in (*block.hidden, *block.heads)]
    for layer, kernel, bias in zip(layers, weights[::2], weights[1::2], strict=True):
        layer.set_weights([kernel, bias])
