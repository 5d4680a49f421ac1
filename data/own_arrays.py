"""A user's own arrays, from .npz and .npy files: looked at by their headers and labels, and read block by block."""

import dataclasses
import math
import zipfile
import zlib
from typing import NamedTuple

import numpy as np

from data.arrays import DataError, blocks, mapped, reading
from utils import evenly_spaced

NAMES = ("x_train", "y_train", "x_test", "y_test")


class Splits(NamedTuple):
    """A user's data before the images are read. images: "train" and, where it is given, "test" -> their source, which
    is a list of paths or an Array; labels: the same keys -> integers [n], or {} where there are none.
    """

    images: dict
    labels: dict
    image_shape: tuple
    n_labels: int
    crc32: int  # of the files' names and sizes, or of the arrays: whether this is what a run began with
    classes: tuple = ()  # names of the labels, from 0, where they are those of sub-folders


@dataclasses.dataclass(frozen=True)
class Array:
    """An array in a file, by its header."""

    name: str
    shape: tuple
    dtype: np.dtype
    mapped: np.ndarray | None  # the array itself, where it is in a file of its own
    blocks: object  # () -> its rows, AT_A_TIME of them in turn
    crc32: int

    def __len__(self):
        return self.shape[0]


def _header(file, name):
    """(shape, dtype) of an array from the beginning of an .npy file; what follows is the array."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, in_fortran_order, dtype = read(file)
    if dtype.hasobject or not shape or min(shape) < 0:
        raise DataError(f"{name} is not an array of numbers")
    if in_fortran_order:
        raise DataError(f"{name} is not in C order; np.ascontiguousarray makes it so")
    return shape, dtype


def in_npy(path):
    """The Array of an .npy file. Raises DataError where its header is none."""
    with reading(path), path.open("rb") as file:
        shape, dtype = _header(file, path)
        array = np.frombuffer(mapped(file), dtype, math.prod(shape), file.tell()).reshape(shape)
    # all of labels; of images, which may be larger than memory, a hundred
    some = evenly_spaced(array, 100) if array.ndim > 2 else array
    return Array(str(path), array.shape, array.dtype, array,
                  lambda: (array[rows] for rows in blocks(len(array))), zlib.crc32(some))  # fmt: skip


def check_names(path, names):
    """Raises DataError for a name that is nearly one of NAMES: what it holds would be left out without a word."""
    for name in names:
        if name not in NAMES and name.lower() in NAMES:
            raise DataError(f"{path} has {name}: the name is {name.lower()}")


def in_npz(path):
    """{name of NAMES: Array} of those in an .npz file, of which x_train must be one. Raises DataError."""
    with reading(path), zipfile.ZipFile(path) as archive:
        names = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if "x_train" not in names:
            raise DataError(f"{path} has no x_train (it has {', '.join(names) or 'nothing'})")
        check_names(path, names)
        return {name: _member(archive, names[name]) for name in NAMES if name in names}


def _member(archive, info):
    name, path = f"{info.filename.removesuffix('.npy')} in {archive.filename}", archive.filename

    with archive.open(info) as file:
        shape, dtype = _header(file, name)
    row = dtype.itemsize * math.prod(shape[1:])
    if shape[0] * row > info.file_size:
        raise DataError(f"{name} is cut short: it has the shape {shape}")

    def read_blocks():
        with reading(name), zipfile.ZipFile(path) as again, again.open(info.filename) as file:
            _header(file, name)
            for rows in blocks(shape[0]):
                n = rows.stop - rows.start
                yield np.frombuffer(file.read(n * row), dtype).reshape(n, *shape[1:])

    return Array(name, shape, dtype, None, read_blocks, info.CRC)


def of_arrays(path, arrays):
    """The Splits of arrays, name of NAMES -> Array. Raises DataError where they do not fit together."""
    if "y_test" in arrays and "x_test" not in arrays:
        raise DataError(f"{path} has y_test and no x_test")
    images = {split: arrays[f"x_{split}"] for split in ("train", "test") if f"x_{split}" in arrays}
    for array in images.values():
        if len(array.shape) not in (3, 4) or (len(array.shape) == 4 and array.shape[-1] not in (1, 3)):
            raise DataError(
                f"{array.name} has the shape {array.shape}: [n, height, width] is needed, or that and 1 or 3 channels"
            )
        if array.dtype.kind not in "fuib":
            raise DataError(f"{array.name} holds {array.dtype}, not numbers")
        if not all(array.shape):
            raise DataError(f"{array.name} has the shape {array.shape}: it is empty")
        if array.shape[1:3] != images["train"].shape[1:3]:
            raise DataError(f"{array.name} has the shape {array.shape}, and x_train {images['train'].shape}")
    labels = {split: _labels(arrays[f"y_{split}"], images[split]) for split in images if f"y_{split}" in arrays}
    if labels and labels.keys() != images.keys():
        raise DataError(f"{path} has labels for {' and '.join(labels)} alone, and images for {' and '.join(images)}")
    n_labels = int(max(part.max() for part in labels.values())) + 1 if labels else 0
    if "test" in labels and labels["test"].max() > labels["train"].max():
        raise DataError(f"{path}: y_test goes up to {labels['test'].max()}, and y_train to {labels['train'].max()}")
    crc = zlib.crc32(str([(array.shape, array.dtype.str, array.crc32) for array in arrays.values()]).encode())
    return Splits(images, labels, tuple(map(int, images["train"].shape[1:3])), n_labels, crc)


def _labels(array, images):
    """[n] integers. Raises DataError where they do not match the images."""
    if array.dtype.kind not in "uib" or array.shape not in ((len(images),), (len(images), 1)):
        raise DataError(
            f"{array.name} has the shape {array.shape} and type {array.dtype}: an integer for each of the {len(images)}"
            " images is needed"
        )
    labels = np.concatenate(list(array.blocks())).reshape(-1).astype(np.int64)
    if labels.min() < 0:
        raise DataError(f"{array.name} has labels from {labels.min()}: they count from 0")
    return labels
