"""Data sets as arrays. `load` finds the one that is asked for; its module knows its sources and its checksums."""

import importlib
from typing import NamedTuple

import numpy as np

from data.catalogue import DATASETS, DatasetEntry
from data.idx import DataError

__all__ = ["DataError", "Dataset", "load"]


class Dataset(NamedTuple):
    """Images are uint8 [n, n_pixels], and byte/255 is the probability that a pixel is 1; labels are uint8 [n]."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    entry: DatasetEntry

    @property
    def pixel_means(self):
        """The mean training image, float64 [n_pixels] in [0, 1]."""
        return self.train_images.mean(axis=0) / 255

    def hold_out(self, n):
        """The same data with the last n training images in the place of the test images; itself for n = 0."""
        if not n:
            return self
        return self._replace(
            train_images=self.train_images[:-n],
            train_labels=self.train_labels[:-n],
            test_images=self.train_images[-n:],
            test_labels=self.train_labels[-n:],
        )

    def context(self, split, conditional):
        """What a model is conditioned on: one-hot labels, float32 [n, n_labels]; or nothing, [n, 0].

        split: train or test.
        """
        labels = getattr(self, f"{split}_labels")
        if not conditional:
            return np.zeros((len(labels), 0), np.float32)
        return np.eye(self.entry.n_labels, dtype=np.float32)[labels]

    def binarised_test_images(self):
        """The test images, binarised once and for all: float32 [n, n_pixels] in {0, 1}.

        The first draw of NumPy's legacy generator after seeding with 123, which is what the reference implementation
        evaluates; NumPy keeps that stream unchanged for good.
        """
        return np.random.RandomState(123).binomial(1, self.test_images / 255.0).astype(np.float32)


def load(name, data_dir=None):
    """The data set `name` of data.catalogue.DATASETS. Raises DataError where it cannot be had.

    data_dir: a folder with its files, which is looked in first.
    """
    return importlib.import_module(DATASETS[name].module).load(data_dir)
