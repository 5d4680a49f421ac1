"""Fixed binarised MNIST (Salakhutdinov & Murray, 2008; published by Larochelle & Murray, 2011): 0 and 1, no labels.

The training and the validation images, in this order, are the 60,000 to train on.
"""

import numpy as np

from data import DataError
from data.arrays import reading
from data.catalogue import DATASETS
from data.published import downloaded, files_in, find

NAME = "binarized_mnist"
MD5 = {"train_images": "d59b9fabad33340fb639073182b54bf5", "test_images": "613c1681425842ad647d1a65681635d8"}
PARTS = ("train", "valid", "test")
AMAT = {part: f"{NAME}_{part}.amat" for part in PARTS}
URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"  # where tensorflow-datasets has it from
ADVICE = f"Put {', '.join(AMAT.values())} from {URL} into a folder and give that as --data_dir"


def load(data_dir=None):
    """It as a data.Dataset. See data.published.find."""
    return find(NAME, MD5, from_folder, SOURCES, ADVICE, data_dir)


def from_folder(folder):
    """The three .amat files; or binarized_mnist.npz with arrays of the parts' names, of numpy.packbits(axis=1)."""
    packed = folder / f"{NAME}.npz"
    if not packed.is_file():
        paths = files_in(folder, AMAT.values())
        return _arrays({part: _read_amat(paths[name]) for part, name in AMAT.items()})
    with reading(packed, f"packed {', '.join(PARTS)}"), np.load(packed, allow_pickle=False) as arrays:
        n_pixels = DATASETS[NAME].n_pixels
        return _arrays({part: np.unpackbits(arrays[part], axis=1, count=n_pixels) for part in PARTS})


def from_web(name):
    """The .amat files as they are published."""
    urls = {part: URL + file for part, file in AMAT.items()}
    return downloaded(urls, lambda paths: _arrays({part: _read_amat(path) for part, path in paths.items()}))


def _read_amat(path):
    """Lines of 784 digits, 0 or 1, with spaces between -> uint8 [n, 784]."""
    text = np.frombuffer(path.read_bytes(), np.uint8)
    digits = text[(text == ord("0")) | (text == ord("1"))] - ord("0")
    if not digits.size or digits.size % DATASETS[NAME].n_pixels:
        raise DataError(f"{path} is cut short, or does not hold lines of {DATASETS[NAME].n_pixels} digits")
    return digits.reshape(-1, DATASETS[NAME].n_pixels)


def _arrays(bits):
    """bits: part -> uint8 [n, 784] of 0 and 1."""
    images = {"train": np.concatenate([bits["train"], bits["valid"]]), "test": bits["test"]}
    shape = (-1, *DATASETS[NAME].image_shape)
    return {f"{split}_images": part.reshape(shape) * np.uint8(255) for split, part in images.items()}


SOURCES = {"www.cs.toronto.edu": from_web}
