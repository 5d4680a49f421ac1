"""The data sets, with the facts that flags, models and pictures follow. Nothing here imports TensorFlow."""

from typing import NamedTuple


class DatasetEntry(NamedTuple):
    """A data set: its sizes, and the module whose `load(data_dir)` returns it as a data.Dataset."""

    n_train: int
    n_test: int
    image_shape: tuple  # (height, width)
    n_labels: int
    module: str
    binarise: str = "dynamic"  # what --binarise is for it, unless it is given

    @property
    def n_pixels(self):
        return self.image_shape[0] * self.image_shape[1]


DATASETS = {
    "mnist": DatasetEntry(60000, 10000, (28, 28), 10, "data.mnist"),
    "binarized_mnist": DatasetEntry(60000, 10000, (28, 28), 0, "data.binarized_mnist", "none"),
    "omniglot": DatasetEntry(24345, 8115, (28, 28), 0, "data.omniglot"),
    "fashion_mnist": DatasetEntry(60000, 10000, (28, 28), 10, "data.fashion_mnist"),
    "caltech101_silhouettes": DatasetEntry(4100, 2307, (28, 28), 101, "data.caltech101_silhouettes", "none"),
}
DEFAULT = "mnist"  # the published tables are on it
BINARISE = {  # how bytes become 0 and 1; byte/255 is the probability of 1
    "dynamic": "training images are drawn anew in every epoch, test images once",
    "fixed": "all are drawn once",
    "threshold": "1 where the byte is above 127",
    "none": "all are 0 and 1 already",
}
