"""Images as bytes, made and read in blocks of rows, so that memory never holds them twice."""

import contextlib
import math
import mmap
import sys

import numpy as np

from utils import UsageError, first_line

AT_A_TIME = 100  # rows of a block


class DataError(UsageError):
    """A data set that cannot be had, or a copy that is not what it should be; the message is one line."""


@contextlib.contextmanager
def reading(path, what=""):
    """Whatever a library raises within is a DataError that names the file, which should have been `what`.

    Damaged bytes raise whatever they lead to: readers of archives, of arrays and of pictures raise a dozen kinds.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise DataError(f"{path} cannot be read{what and ' as '}{what} ({reason})") from None


def blocks(n):
    """The slices of n rows, AT_A_TIME each."""
    return (slice(start, min(start + AT_A_TIME, n)) for start in range(0, n, AT_A_TIME))


def aligned(shape):
    """A uint8 array, of zeros, that begins where a page of memory does: TensorFlow can then use it as it lies."""
    size = math.prod(shape)
    return np.frombuffer(mmap.mmap(-1, max(1, size)), np.uint8, size).reshape(shape)


def mapped(file):
    """A file's bytes as memory that can be larger than what there is: read when they are looked at, and dropped again.

    What is written there does not reach the file (TensorFlow is given no memory that cannot be written to). Without
    MAP_NORESERVE Linux would want room for a copy of all of it.
    """
    no_reserve = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)  # mmap has it from 3.13 on
    how = mmap.PROT_READ | mmap.PROT_WRITE
    return mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE | no_reserve, prot=how)


class GreyImages:
    """Collects images as bytes, 0 to 255, block by block, and says what was wrong with them.

    name: what the images are called in an error.
    """

    def __init__(self, name, n, height, width):
        self.name, self.done = name, 0
        self.images = aligned((n, height * width))
        self.largest_integer = None  # of all, where they are integers: those up to 1 are binary
        self.in_colour = False

    def add(self, images):
        """images: [m, height, width] or [m, height, width, 1 or 3], of bool, integers up to 255, or floats in [0, 1].

        Raises DataError for other values.
        """
        low, high = images.min(), images.max()
        if images.dtype.kind == "f":
            if np.isnan(low):
                raise DataError(f"{self.name} has NaN among images {self.done} to {self.done + len(images) - 1}")
            if low < 0 or high > 1:
                raise DataError(
                    f"{self.name} has values from {low:.9g} to {high:.9g}: floats must lie in [0, 1]; bytes, 0 to"
                    " 255, go as integers (uint8)"
                )
            images = images * 255
        elif images.dtype.kind in "ui":
            if low < 0 or high > 255:
                raise DataError(f"{self.name} has values from {low} to {high}: integers must lie in 0 to 255")
            self.largest_integer = max(self.largest_integer or 0, int(high))
        else:
            images = images * np.uint8(255)
        if images.ndim == 4:
            self.in_colour = images.shape[-1] == 3
            images = images @ GREY if self.in_colour else images[..., 0]
        if images.dtype.kind == "f":
            images = np.rint(images)
        self.images[self.done : self.done + len(images)] = images.reshape(len(images), -1)
        self.done += len(images)


GREY = np.array([0.299, 0.587, 0.114])  # luma of red, green and blue (ITU-R BT.601), as Pillow has it


def binary_to_bytes(parts, of_bytes=()):
    """Makes 1 into 255, in place, where no integer of any part is above 1: then they are binary images.

    parts: what each is called -> GreyImages; of_bytes: names of further parts, which are known to be bytes. Raises
    DataError where one is binary and another is not: 1 would be black; and for colours of 0 and 1, whose greys were
    rounded to these.
    """
    parts = {name: part for name, part in parts.items() if part.largest_integer is not None}
    largest = {name: part.largest_integer for name, part in parts.items()} | dict.fromkeys(of_bytes, 255)
    if largest and max(largest.values()) <= 1:
        for part in parts.values():
            if part.in_colour:
                raise DataError(f"{part.name} is in colour, and 0 and 1 alone: save it as bool, or as bytes, 0 to 255")
            for rows in blocks(len(part.images)):
                part.images[rows] *= np.uint8(255)
    elif 1 in largest.values():
        highest = " and ".join(f"{name} images up to {value}" for name, value in largest.items())
        raise DataError(f"there are {highest}: save all as bytes, 0 to 255, or all as 0 and 1")
