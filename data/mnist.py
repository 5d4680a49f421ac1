"""MNIST as arrays: found, verified, cached.

Whatever a copy comes from, the MD5 sums of the four uncompressed IDX files decide whether it is the right one: the
right bytes in the right order.
"""

import hashlib
import pathlib
import sys

import numpy as np

from data import DataError, Dataset
from data.catalogue import DATASETS
from data.idx import idx_bytes
from data.mnist_sources import SOURCES, NotThere, from_folder
from utils import whole_file

NAME = "mnist"
ENTRY = DATASETS[NAME]
CACHE = pathlib.Path(__file__).parent / "cache"
MD5 = {
    "train_images": "6bbc9ace898e44ae57da46a324031adb",
    "train_labels": "a25bea736e30d166cdddb491f175f624",
    "test_images": "2646ac647ad5339dbf082846283269ea",
    "test_labels": "27ae3e4e09519cfbb04c329615203637",
}
PARTS = tuple(MD5)


def verify(arrays, origin):
    """Raises DataError, naming `origin`, unless these are the bytes of the published files in their order.

    arrays: {part: uint8 images [n, 28, 28] or labels [n]}.
    """
    for part, expected in MD5.items():
        found = hashlib.md5(idx_bytes(arrays[part])).hexdigest()
        if found != expected:
            raise DataError(f"{origin}: {part} is not that of {NAME} (MD5 {found}, not {expected})")


def load(data_dir=None):
    """MNIST as a data.Dataset, from `data_dir`, the cache, or the network, in this order.

    A source that fails is named on stderr with its reason, and the next is tried. A file that is there but is not the
    data set, in `data_dir` or in the cache, is never passed over in silence: it raises DataError, which also is
    raised, with what to put where, when every source has failed.
    """
    cached = CACHE / f"{NAME}.npz"
    failures = []
    if data_dir is not None:
        try:
            return _verified(from_folder(pathlib.Path(data_dir)), f"--data_dir {data_dir}")
        except NotThere as reason:
            failures.append(_failed("--data_dir", reason))
    if cached.exists():
        return _read_cache(cached)
    for origin, source in SOURCES.items():
        try:
            dataset = _verified(source(NAME), origin)
        except DataError as reason:
            failures.append(_failed(origin, reason))
        else:
            _write_cache(cached, dataset)
            return dataset
    raise DataError(
        f"{NAME} was not found ({'; '.join(failures)}). Put its four IDX files, gzipped or not, or mnist.npz as Keras"
        " has it, into a folder and give that as --data_dir"
    )


def _failed(origin, reason):
    print(f"data: {origin}: {reason}", file=sys.stderr)
    return f"{origin}: {reason}"


def _verified(arrays, origin):
    verify(arrays, origin)
    flat = {part: np.ascontiguousarray(array) for part, array in arrays.items()}
    flat |= {part: flat[part].reshape(-1, ENTRY.n_pixels) for part in ("train_images", "test_images")}
    return Dataset(**flat, entry=ENTRY)


def _read_cache(path):
    try:
        with np.load(path, allow_pickle=False) as arrays:
            parts = {part: arrays[part] for part in PARTS}
    except Exception as error:  # damaged bytes raise whatever they lead to
        raise DataError(f"the cached {path} is damaged ({error}); delete it and it will be fetched again") from None
    return _verified(parts, f"the cached {path}, which can be deleted and will be fetched again")


def _write_cache(path, dataset):
    """A cache that cannot be written costs time, not the run. Two processes may write it at once: each a whole one."""
    arrays = {part: getattr(dataset, part) for part in PARTS}
    arrays |= {part: arrays[part].reshape(-1, *ENTRY.image_shape) for part in ("train_images", "test_images")}
    try:
        path.parent.mkdir(exist_ok=True)
        with whole_file(path) as temporary:
            np.savez(temporary, **arrays)
    except OSError as error:
        print(f"data: not cached, {path} cannot be written ({error.strerror})", file=sys.stderr)
