"""Fashion-MNIST (Xiao et al., 1708.07747), from four IDX files with the names and the format of MNIST's."""

import functools

from data.mnist_sources import advice, from_folder, from_tfds
from data.published import find

NAME = "fashion_mnist"
MD5 = {
    "train_images": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train_labels": "9018921c3c673c538a1fc5bad174d6f9",
    "test_images": "8181f5470baa50b63fa0f6fddb340f0a",
    "test_labels": "15d484375f8d13e6eb1aabb0c3f46965",
}
SOURCES = {"tensorflow-datasets": from_tfds}
ADVICE = advice("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/")


def load(data_dir=None):
    """Fashion-MNIST as a data.Dataset. See data.published.find."""
    return find(NAME, MD5, functools.partial(from_folder, npz=None), SOURCES, ADVICE, data_dir)
