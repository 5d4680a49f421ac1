"""The IDX format of the MNIST files: two zero bytes, the type (8: unsigned byte), the rank, the sizes, the bytes."""

import gzip

import numpy as np

from data.arrays import DataError, reading


def read_idx(path):
    """The uint8 array in an IDX file, gzipped or not. Raises DataError, naming the file, where it is not whole."""
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        with reading(path):
            raw = gzip.decompress(raw)
    rank = raw[3] if raw[:3] == b"\0\0\x08" and len(raw) > 3 else 0
    if rank not in (1, 3) or len(raw) < 4 + 4 * rank:
        raise DataError(f"{path} is not an IDX file of images or labels")
    shape = np.frombuffer(raw, ">u4", rank, offset=4)
    body = np.frombuffer(raw, np.uint8, offset=4 + 4 * rank)
    if body.size != int(np.prod(shape)):
        raise DataError(f"{path} is cut short or too long: {body.size} bytes, where its header says {np.prod(shape)}")
    return body.reshape(shape)


def idx_bytes(array):
    """The bytes of the IDX file that holds a uint8 array."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()
