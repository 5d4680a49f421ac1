"""Caltech-101 Silhouettes (Marlin et al., 2010), 28 x 28, split 1: outlines of objects, filled, of 101 classes.

The 4,100 training images are trained on; the 2,264 validation images are left out, as published models leave them out.
"""

import numpy as np

from data.arrays import reading
from data.catalogue import DATASETS
from data.published import downloaded, files_in, find

NAME = "caltech101_silhouettes"
MD5 = {
    "train_images": "7a11cd3a56648e9229eb2b7129a31918",
    "train_labels": "50d4780f4cd3a8e6599fe2268de5a37c",
    "test_images": "a99a87baa42b34fc32f01a7d7d454313",
    "test_labels": "c046f1712763c4b6f942cb8dbfaf312f",
}
FILE = "caltech101_silhouettes_28_split1.mat"
URL = f"https://people.cs.umass.edu/~marlin/data/{FILE}"
ADVICE = f"Put {FILE} from {URL} into a folder and give that as --data_dir"


def load(data_dir=None):
    """It as a data.Dataset. See data.published.find."""
    return find(NAME, MD5, from_folder, SOURCES, ADVICE, data_dir)


def from_folder(folder):
    """The .mat file. Raises NotThere or DataError."""
    return _read(files_in(folder, [FILE])[FILE])


def from_web(name):
    """The .mat file as it is published."""
    return downloaded({FILE: URL}, lambda paths: _read(paths[FILE]))


def _read(path):
    from scipy.io import loadmat

    with reading(path, "the published split 1"):
        arrays = loadmat(path)
        parts = {}
        for split in ("train", "test"):
            # Matlab's images go column by column. 1 is the background there; here the object is, as is the custom.
            images = 1 - arrays[f"{split}_data"].reshape(-1, *DATASETS[NAME].image_shape).transpose(0, 2, 1)
            parts[f"{split}_images"] = images * np.uint8(255)
            parts[f"{split}_labels"] = (arrays[f"{split}_labels"].ravel() - 1).astype(np.uint8)  # there from 1
        return parts


SOURCES = {"people.cs.umass.edu": from_web}
