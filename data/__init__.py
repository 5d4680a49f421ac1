"""Data sets as arrays. `load` finds the one that is asked for; its module knows its sources and its checksums."""

import importlib
from typing import NamedTuple

import numpy as np

from data.arrays import DataError, aligned, blocks
from data.catalogue import DATASETS, DatasetEntry
from data.pictures import read_images
from utils import evenly_spaced

__all__ = ["DataError", "Dataset", "load", "read_images"]


class Dataset(NamedTuple):
    """Images are uint8 [n, n_pixels], and byte/255 is the probability that a pixel is 1; labels are integers [n], 0
    throughout where there are none.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    entry: DatasetEntry

    @property
    def pixel_means(self):
        """The mean training image, float64 [n_pixels] in [0, 1]."""
        return self.train_images.mean(axis=0) / 255

    def check(self):
        """Raises DataError unless the arrays are what the entry and this class say."""
        entry = self.entry
        for split, n in (("train", entry.n_train), ("test", entry.n_test)):
            images, labels = getattr(self, f"{split}_images"), getattr(self, f"{split}_labels")
            if images.dtype != np.uint8 or images.shape != (n, entry.n_pixels):
                wanted = f"uint8 {(n, entry.n_pixels)}"
                raise DataError(f"{split}_images are {images.dtype} {images.shape}, not {wanted}")
            known = np.isin(labels, np.arange(max(1, entry.n_labels))).all()
            if labels.dtype.kind not in "ui" or labels.shape != (n,) or not known:
                found = f"{labels.dtype} {labels.shape} from {labels.min()} to {labels.max()}"
                raise DataError(f"{split}_labels are {found}, not {n} integers from 0, of {entry.n_labels} labels")

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

    def binarised(self, how):
        """The data with its training images made 0 and 255, by `how` of data.catalogue.BINARISE; itself for "dynamic".

        Test images become such with "threshold"; else they stay grey, and `binarised_test_images` draws them.
        The draw of "fixed" belongs to the data set, whatever the run's seed is.
        Raises DataError for "none" where there are greys.
        """
        if how == "fixed":
            generator = np.random.default_rng(0)
            return self._replace(
                train_images=_by_blocks(self.train_images, lambda grey: generator.random(grey.shape) * 255 < grey),
                test_images=self.test_images.copy(),  # a view may keep the greys in memory
            )
        if how == "threshold":
            images = self.train_images, self.test_images
            train, test = (_by_blocks(part, lambda grey: grey > 127) for part in images)
            return self._replace(train_images=train, test_images=test)
        if how == "none":
            for images in (self.train_images, self.test_images):
                for rows in blocks(len(images)):
                    if len(grey := images[rows][(images[rows] > 0) & (images[rows] < 255)]):
                        raise DataError(
                            "--binarise: none is for images of 0 and 1 alone, and these have greys, such as"
                            f" {grey[0]}/255: p(x|z) is a distribution over binary images; dynamic, fixed or threshold"
                            " makes them so"
                        )
        return self

    def context(self, split, conditional):
        """What a model is conditioned on: one-hot labels, float32 [n, n_labels]; or nothing, [n, 0].

        split: train or test.
        """
        labels = getattr(self, f"{split}_labels")
        if not conditional:
            return np.zeros((len(labels), 0), np.float32)
        return np.eye(self.entry.n_labels, dtype=np.float32)[labels]

    def binarised_train_images(self, n, seed):
        """n training images, spread evenly, binarised by a draw of this seed, an integer or a list of them: float32 [n,
        n_pixels] in {0, 1}.
        """
        means = evenly_spaced(self.train_images, n) / 255.0
        return (np.random.default_rng(seed).random(means.shape) < means).astype(np.float32)

    def binarised_test_images(self, n=None):
        """The test images, binarised once and for all, or n of them, spread evenly: float32 [n, n_pixels] in {0, 1}.

        The first draw of NumPy's legacy generator after seeding with 123, which is what the reference implementation
        evaluates; NumPy keeps that stream unchanged for good.
        """
        generator, kept = np.random.RandomState(123), evenly_spaced(np.arange(len(self.test_images)), n)
        x = np.empty((len(kept), self.entry.n_pixels), np.float32)
        for rows in blocks(len(self.test_images)):  # all are drawn, so that an image's pixels do not depend on n
            binary = generator.binomial(1, self.test_images[rows] / 255.0)
            here = (kept >= rows.start) & (kept < rows.start + len(binary))
            x[here] = binary[kept[here] - rows.start]
        return x


def _by_blocks(images, is_one):
    """255 where is_one(images), a block of rows at a time, and 0 elsewhere: uint8, as `images`."""
    binary = aligned(images.shape)
    for rows in blocks(len(images)):
        binary[rows] = is_one(images[rows]) * np.uint8(255)
    return binary


def load(name, data_dir=None, expected=None):
    """The data set `name` of data.catalogue.DATASETS, or the user's own at the path `name`. Raises DataError where it
    cannot be had.

    data_dir: a folder with its files, which is looked in first; expected: of the user's own, as in data.own.load.
    """
    if name not in DATASETS:
        from data import own

        return own.load(name, data_dir, expected)
    dataset = importlib.import_module(DATASETS[name].module).load(data_dir)
    dataset.check()
    return dataset
