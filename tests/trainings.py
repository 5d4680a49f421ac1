"""Small training runs, without a command line."""

import dataclasses

import numpy as np

from experiment.run_folder import Run
from experiment.session import build_model
from experiment.settings import Config
from training.loop import train

TINY = Config(
    n_hidden=(16,), n_latent=(4,), n_samples=3, batch_size=20, epochs=3, learning_rate=1e-3, seed=5, jit="off"
)


def run_training(folder, digits, config=TINY, resume=False):
    """Trains and returns (weights, the text of metrics.csv without its times)."""
    config = dataclasses.replace(config, run_dir=str(folder)).resolved()
    run = Run(folder)
    model = build_model(config, digits.pixel_means)
    train(config, run, digits, model, resume, Run(config.start_from, lock=False) if config.start_from else None)
    return [v.numpy() for v in model.trainable_variables], without_seconds(run.metrics.read_text())


def without_seconds(text):
    """The text of metrics.csv but for the one column that differs from time to time."""
    rows = [line.split(",") for line in text.splitlines()]
    column = rows[0].index("seconds")
    return "\n".join(",".join(row[:column] + row[column + 1 :]) for row in rows)


def same(a, b):
    return a[1] == b[1] and all(np.array_equal(x, y) for x, y in zip(a[0], b[0]))
