"""MNIST as arrays: found, verified, cached.

Whatever a copy comes from, the MD5 sums of the four uncompressed IDX files decide whether it is the right one: the
right bytes in the right order.
"""

import hashlib
import pathlib
import sys
import zipfile
from typing import NamedTuple

import numpy as np

from data.idx import DataError, idx_bytes
from data.sources import SOURCES, NotThere, from_folder
from files import whole_file

N_LABELS = 10
CACHE = pathlib.Path(__file__).parent / "cache"
MD5 = {
    "mnist": {
        "train_images": "6bbc9ace898e44ae57da46a324031adb",
        "train_labels": "a25bea736e30d166cdddb491f175f624",
        "test_images": "2646ac647ad5339dbf082846283269ea",
        "test_labels": "27ae3e4e09519cfbb04c329615203637",
    }
}


class Dataset(NamedTuple):
    """Images are uint8 [n, 784], and byte/255 is the probability that a pixel is 1; labels are uint8 [n]."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @property
    def pixel_means(self):
        """The mean training image, float64 [784] in [0, 1]."""
        return self.train_images.mean(axis=0) / 255

    def hold_out(self, n):
        """The same data with the last n training images in the place of the test images; itself for n = 0."""
        if not n:
            return self
        train, held_out = slice(None, -n), slice(-n, None)
        return Dataset(
            self.train_images[train], self.train_labels[train], self.train_images[held_out], self.train_labels[held_out]
        )

    def context(self, split, conditional):
        """What a model is conditioned on: one-hot labels, float32 [n, 10]; or nothing, [n, 0]. split: train or test."""
        labels = getattr(self, f"{split}_labels")
        return np.eye(N_LABELS, dtype=np.float32)[labels] if conditional else np.zeros((len(labels), 0), np.float32)

    def binarised_test_images(self):
        """The test images, binarised once and for all: float32 [n, 784] in {0, 1}.

        The first draw of NumPy's legacy generator after seeding with 123, which is what the reference implementation
        evaluates; NumPy keeps that stream unchanged for good.
        """
        return np.random.RandomState(123).binomial(1, self.test_images / 255.0).astype(np.float32)


def verify(dataset, name, origin):
    """Raises DataError, naming `origin`, unless these are the bytes of the published files in their order."""
    for part, expected in MD5[name].items():
        found = hashlib.md5(idx_bytes(getattr(dataset, part))).hexdigest()
        if found != expected:
            raise DataError(f"{origin}: {part} is not that of {name} (MD5 {found}, not {expected})")


def load(name="mnist", data_dir=None):
    """The data set `name`, from `data_dir`, the cache, or the network, in this order.

    A source that fails is named on stderr with its reason, and the next is tried. A file that is there but is not the
    data set, in `data_dir` or in the cache, is never passed over in silence: it raises DataError, which also is
    raised, with what to put where, when every source has failed.
    """
    cached = CACHE / f"{name}.npz"
    failures = []
    if data_dir is not None:
        try:
            return _verified(from_folder(pathlib.Path(data_dir)), name, f"--data_dir {data_dir}")
        except NotThere as reason:
            failures.append(_failed("--data_dir", reason))
    if cached.exists():
        return _read_cache(cached, name)
    for origin, source in SOURCES.items():
        try:
            dataset = _verified(source(name), name, origin)
        except DataError as reason:
            failures.append(_failed(origin, reason))
        else:
            _write_cache(cached, dataset)
            return dataset
    raise DataError(
        f"{name} was not found ({'; '.join(failures)}). Put its four IDX files, gzipped or not, or mnist.npz as Keras"
        " has it, into a folder and give that as --data_dir"
    )


def _failed(origin, reason):
    print(f"data: {origin}: {reason}", file=sys.stderr)
    return f"{origin}: {reason}"


def _verified(parts, name, origin):
    dataset = Dataset(**{part: np.ascontiguousarray(array) for part, array in parts.items()})
    verify(dataset, name, origin)
    flat = {part: getattr(dataset, part).reshape(-1, 784) for part in ("train_images", "test_images")}
    return dataset._replace(**flat)


def _read_cache(path, name):
    try:
        with np.load(path, allow_pickle=False) as arrays:
            parts = {part: arrays[part] for part in Dataset._fields}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"the cached {path} is damaged ({error}); delete it and it will be fetched again") from None
    return _verified(parts, name, f"the cached {path}, which can be deleted and will be fetched again")


def _write_cache(path, dataset):
    """A cache that cannot be written costs time, not the run. Two processes may write it at once: each a whole one."""
    images = {part: getattr(dataset, part).reshape(-1, 28, 28) for part in ("train_images", "test_images")}
    try:
        path.parent.mkdir(exist_ok=True)
        with whole_file(path) as temporary:
            np.savez(temporary, **dataset._replace(**images)._asdict())
    except OSError as error:
        print(f"data: not cached, {path} cannot be written ({error.strerror})", file=sys.stderr)
