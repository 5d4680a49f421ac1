"""The data sets, with the facts that flags, models and pictures follow. Nothing here imports TensorFlow."""

from typing import NamedTuple


class DatasetEntry(NamedTuple):
    """A data set: its sizes, and the module whose `load(data_dir)` returns it as a data.Dataset."""

    n_train: int
    n_test: int
    image_shape: tuple  # (height, width)
    n_labels: int
    module: str

    @property
    def n_pixels(self):
        return self.image_shape[0] * self.image_shape[1]


DATASETS = {
    "mnist": DatasetEntry(60000, 10000, (28, 28), 10, "data.mnist"),
}
DEFAULT = "mnist"  # the published tables are on it
