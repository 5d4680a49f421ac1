"""OMNIGLOT (Lake et al., 2015): 32,460 handwritten characters, here in 28 x 28 pixels and without labels.

The 28 x 28 version of Burda et al. has 24,345 training and 8,070 test images, and how it was split and resized is not
known. This one is made from the published drawings of 105 x 105 pixels: every drawing is resized by averages over
areas, and the drawings are put into the order of the SHA-256 of their bits, which is as good as shuffled and the same
whatever order they come in; the first 24,345 are trained on.
"""

import hashlib
import io
import zipfile

import numpy as np

from data.arrays import blocks, reading
from data.catalogue import DATASETS
from data.published import NotThere, downloaded, files_in, find

NAME = "omniglot"
MD5 = {"train_images": "33f28fcc43f2afaa3f262e65087547a5", "test_images": "2f24272ae856efec23bbe2ec37305d97"}
SIDE = 105  # pixels of the published drawings, each way
DRAWINGS = f"drawings of {SIDE} x {SIDE} pixels"
FILES = ("images_background", "images_evaluation")
URL = "https://github.com/brendenlake/omniglot/raw/master/python/"  # where tensorflow-datasets has it from
ADVICE = f"Put {' and '.join(f'{name}.zip' for name in FILES)} from {URL} into a folder and give that as --data_dir"


def load(data_dir=None):
    """It as a data.Dataset. See data.published.find."""
    return find(NAME, MD5, from_folder, SOURCES, ADVICE, data_dir)


def from_folder(folder):
    """The two zip files; or omniglot_images_background.npz and omniglot_images_evaluation.npz, whose array `images`
    [characters, drawers, 105, 105] is True where there is paper.
    """
    try:
        paths = files_in(folder, [f"{name}.zip" for name in FILES])
        return _arrays(np.concatenate([_read_zip(path) for path in paths.values()]))
    except NotThere as reason:
        try:
            paths = files_in(folder, [f"omniglot_{name}.npz" for name in FILES])
        except NotThere:
            raise reason from None
    return _arrays(np.concatenate([_read_npz(path) for path in paths.values()]))


def from_web(name):
    """The zip files as they are published."""
    urls = {file: f"{URL}{file}.zip" for file in FILES}
    return downloaded(urls, lambda paths: _arrays(np.concatenate([_read_zip(path) for path in paths.values()])))


def _read_zip(path):
    """Ink, bool [n, 105, 105], of every PNG file in a zip file."""
    from PIL import Image

    with reading(path, DRAWINGS), zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")]
        drawings = [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("1")) for name in names]
        return ~np.stack(drawings).reshape(-1, SIDE, SIDE)


def _read_npz(path):
    with reading(path, DRAWINGS), np.load(path, allow_pickle=False) as arrays:
        return ~arrays["images"].astype(bool).reshape(-1, SIDE, SIDE)


def resized(ink, height, width):
    """Averages over areas: bool [n, SIDE, SIDE] -> bytes [n, height, width], by whole numbers throughout.

    Pixel i of the result covers the pixels from i SIDE / height to (i + 1) SIDE / height; those at the ends by a part.
    """
    rows, columns = _overlaps(height), _overlaps(width)
    result, full = np.empty((len(ink), height, width), np.uint8), SIDE * SIDE
    for part in blocks(len(ink)):
        covered = rows @ ink[part].astype(np.float64) @ columns.T  # whole numbers, up to SIDE * SIDE: exact
        result[part] = (255 * covered + full // 2) // full
    return result


def _overlaps(n):
    """[n, SIDE]: how much of each old pixel lies in each new one, in units of 1/n of an old pixel: SIDE in each row."""
    new, old = np.arange(n)[:, np.newaxis], np.arange(SIDE)
    return np.maximum(0, np.minimum((new + 1) * SIDE, (old + 1) * n) - np.maximum(new * SIDE, old * n)).astype(float)


def _arrays(ink):
    """The data set of the drawings' ink, bool [n, 105, 105], in any order."""
    entry = DATASETS[NAME]
    bits = np.packbits(ink.reshape(len(ink), -1), axis=1)
    order = sorted(range(len(ink)), key=lambda i: hashlib.sha256(bits[i].tobytes()).digest())
    images = resized(ink, *entry.image_shape)[order]
    return {"train_images": images[: entry.n_train], "test_images": images[entry.n_train :]}


SOURCES = {"github.com": from_web}
