"""Trained models from Python, with NumPy arrays in and out: `from experiment import load_run`."""

import dataclasses
import functools
import operator
import os
import sys

import numpy as np

from experiment.run_folder import Run, load_config
from experiment.session import Session
from experiment.startup import single_precision, start_tensorflow
from utils import UsageError


def load_run(folder, data_dir=None, gpu=None):
    """The trained model of a run's folder, such as "results/fast/iwae-1l-k50", as a TrainedModel.

    data_dir: a folder with the data set's files, which is looked in first; gpu: a GPU's number, several in a tuple, or
    -1 for the CPU, in a process where TensorFlow has not been imported yet. The random numbers of Python, NumPy and
    TensorFlow are seeded anew. Raises UsageError where there is no finished run, and data.DataError where its data set
    cannot be had.
    """
    data_dir = None if data_dir is None else os.fspath(data_dir)
    config = dataclasses.replace(load_config(folder), data_dir=data_dir).resolved()
    run = Run(folder, lock=False)
    if not run.is_trained():
        raise UsageError(f"load_run: training in {folder} has not ended: it needs model.weights.h5 and training.json")
    if "tensorflow" not in sys.modules:
        device = start_tensorflow(gpu)
        if device.missing:
            print(f"device: {device.line}", file=sys.stderr)
    with single_precision():
        session = Session(config, run, eval_only=True)
        session.load_weights()
    return TrainedModel(session)


class TrainedModel:
    """A trained model. Images are NumPy arrays [n, height, width] or [n, n_pixels]; labels are integers [n], which a
    conditional model needs and any other refuses. Log likelihoods are in nats.

    config: its settings; dataset: what it was trained on, a data.Dataset; model: the Keras model.
    """

    def __init__(self, session):
        from evaluation import make_log_likelihood, make_q_means

        self.config, self.dataset, self.model = session.config, session.dataset, session.model
        # Compiled once, and not at every call.
        self._q_means = functools.cache(lambda: make_q_means(self.model, jit=self.config.compiled))
        self._log_likelihood = functools.cache(lambda k: make_log_likelihood(self.model, k, self.config.compiled))

    def sample(self, n, labels=None, seed=0, means=False):
        """n images from the model, [n, height, width] float32: of 0 and 1, or with `means` the probabilities of 1.

        Raises ValueError for labels that do not fit, and for n below 1.
        """
        from models.random import Stream, stateless_seed

        _check_positive("n", n)
        noise = self.model.noise(1, n, stateless_seed(seed, Stream.PICTURE, 0))
        pixels = self.model.decode(noise, self._context(labels, n)).numpy()
        if not means:
            pixels = (np.random.default_rng(seed).random(pixels.shape) < pixels).astype(np.float32)
        return pixels.reshape(n, *self.dataset.entry.image_shape)

    def encode(self, images, labels=None, seed=0):
        """E_q[z|x], a list of float32 [n, n_latent], z1 first. In a layer that is not drawn first it is a mean over 50
        samples of the layers before. Raises ValueError for images or labels that do not fit.
        """
        x = self._pixels(images)
        return self._q_means()(x, self._context(labels, len(x)), seed)

    def reconstruct(self, images, labels=None, seed=0):
        """E[x|z1] at z1 = E_q[z1|x], [n, height, width] float32: the probabilities that the pixels are 1.

        Raises ValueError for images or labels that do not fit.
        """
        z1, context = self.encode(images, labels, seed)[0], self._context(labels, len(images))
        return self.model.mean_image(z1, context).numpy().reshape(-1, *self.dataset.entry.image_shape)

    def log_likelihood(self, images, labels=None, n_samples=5000, seed=0, show_progress=False):
        """(log p(x) [n], its Monte Carlo error [n]), float64, nats; log p(x|y) for a conditional model.

        images hold 0 and 1 only: p(x) is a distribution over binary images. The estimate is log (1/k) sum_i w_i with
        k = n_samples; errors are NaN for k = 1. Raises ValueError for images or labels that do not fit, and for
        n_samples below 1.
        """
        _check_positive("n_samples", n_samples)
        x = self._pixels(images)
        per_image = self._log_likelihood(n_samples)(x, self._context(labels, len(x)), seed, show_progress)[1]
        return per_image.log_px, per_image.mc_error

    def _pixels(self, images):
        """float32 [n, n_pixels]. Raises ValueError where the images are not the model's."""
        x, entry = np.asarray(images), self.dataset.entry
        if x.shape[1:] not in (tuple(entry.image_shape), (entry.n_pixels,)) or not len(x):
            height, width = entry.image_shape
            raise ValueError(f"images of shape {x.shape} do not fit: [n, {height}, {width}] or [n, {entry.n_pixels}]")
        x = x.reshape(len(x), -1).astype(np.float32)
        if not ((x >= 0) & (x <= 1)).all():
            low, high = x.min(), x.max()
            raise ValueError(
                f"images hold values from {low:.9g} to {high:.9g}, not from 0 to 1: divide bytes by 255 (and binarise"
                " them for log_likelihood)"
            )
        return x

    def _context(self, labels, n):
        """One-hot labels [n, n_labels], or None. Raises ValueError where they are missing, too many, or no labels."""
        if self.config.is_conditional == (labels is None):
            raise ValueError("this model is conditional: it needs labels" if labels is None else
                             "this model is not conditional: it takes no labels")  # fmt: skip
        if labels is None:
            return None
        labels, n_labels = np.asarray(labels), self.dataset.entry.n_labels
        if labels.shape != (n,) or labels.dtype.kind not in "ui" or not np.isin(labels, range(n_labels)).all():
            raise ValueError(f"labels must be {n} integers from 0 to {n_labels - 1}, one for each image")
        return np.eye(n_labels, dtype=np.float32)[labels]


def _check_positive(name, n):
    if operator.index(n) < 1:
        raise ValueError(f"{name}: {n} is not allowed; 1 or more")
