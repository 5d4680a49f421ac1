"""MNIST: its four arrays, which are known by the MD5 sums of their IDX files, from whichever source has them."""

from data.mnist_sources import SOURCES, advice, from_folder
from data.published import find

NAME = "mnist"
MD5 = {
    "train_images": "6bbc9ace898e44ae57da46a324031adb",
    "train_labels": "a25bea736e30d166cdddb491f175f624",
    "test_images": "2646ac647ad5339dbf082846283269ea",
    "test_labels": "27ae3e4e09519cfbb04c329615203637",
}
ADVICE = advice("https://storage.googleapis.com/cvdf-datasets/mnist/", "mnist.npz as Keras has it")


def load(data_dir=None):
    """MNIST as a data.Dataset. See data.published.find."""
    return find(NAME, MD5, from_folder, SOURCES, ADVICE, data_dir)
