"""Published data sets: found, verified, cached.

Wherever a copy comes from, it is accepted only if the MD5 sums of its arrays, each written as an IDX file, are the
known ones: the right bytes in the right order.
"""

import hashlib
import http.client
import os
import pathlib
import sys
import tempfile
import urllib.parse
import urllib.request

import numpy as np

from data import DataError, Dataset
from data.arrays import aligned
from data.catalogue import DATASETS
from data.idx import idx_bytes
from utils import first_line, whole_file

CACHE = pathlib.Path(__file__).parent / "cache"
PARTS = ("train_images", "train_labels", "test_images", "test_labels")


class NotThere(DataError):
    """The folder has no such files at all, as opposed to files that are wrong."""


def find(name, md5, from_folder, sources, advice, data_dir=None):
    """The data set `name` as a data.Dataset, from `data_dir`, the cache, or the network, in this order.

    md5: part -> sum; labels that a data set does not have need none. from_folder(folder) and, for each origin,
    sources[origin](name) return {part: uint8 images [n, height, width] or labels [n], if it has any}, or raise
    DataError. advice: which files to put into a folder for --data_dir.
    A source that fails is named on stderr with its reason, and the next is tried. A file that is there but is not the
    data set, in `data_dir` or in the cache, is never passed over in silence: it raises DataError, which also is
    raised, with the advice, when every source has failed.
    """
    cached = CACHE / f"{name}.npz"
    failures = []
    if data_dir is not None:
        try:
            return _verified(name, md5, from_folder(pathlib.Path(data_dir)), f"--data_dir {data_dir}")
        except NotThere as reason:
            failures.append(_failed("--data_dir", reason))
    if cached.exists():
        return read_cache(cached, name, md5)
    for origin, source in sources.items():
        try:
            dataset = _verified(name, md5, source(name), origin)
        except DataError as reason:
            failures.append(_failed(origin, reason))
        else:
            write_cache(cached, dataset)
            return dataset
    raise DataError(f"{name} was not found ({'; '.join(failures)}). {advice}")


def _failed(origin, reason):
    print(f"data: {origin}: {reason}", file=sys.stderr)
    return f"{origin}: {reason}"


def verify(name, md5, arrays, origin):
    """Raises DataError, naming `origin`, unless these are the published bytes in their order.

    arrays: {part: uint8 images [n, height, width] or labels [n]}.
    """
    for part, expected in md5.items():
        if arrays[part].dtype != np.uint8:
            raise DataError(f"{origin}: {part} holds {arrays[part].dtype}, not bytes (uint8)")
        found = hashlib.md5(idx_bytes(arrays[part])).hexdigest()
        if found != expected:
            raise DataError(f"{origin}: {part} is not that of {name} (MD5 {found}, not {expected})")


def _verified(name, md5, arrays, origin):
    verify(name, md5, arrays, origin)
    entry = DATASETS[name]
    flat = dict(arrays)
    for split in ("train", "test"):
        images = flat[f"{split}_images"] = aligned((len(arrays[f"{split}_images"]), entry.n_pixels))
        images[:] = arrays[f"{split}_images"].reshape(images.shape)
        flat.setdefault(f"{split}_labels", np.zeros(len(images), np.uint8))
    return Dataset(**flat, entry=entry)


def read_cache(path, name, md5):
    """What write_cache wrote. Raises DataError where it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            parts = {part: arrays[part] for part in PARTS}
    except Exception as error:  # damaged bytes raise whatever they lead to
        raise DataError(f"the cached {path} is damaged ({error}); delete it and it will be fetched again") from None
    return _verified(name, md5, parts, f"the cached {path}, which can be deleted and will be fetched again")


def write_cache(path, dataset):
    """A cache that cannot be written costs time, not the run. Two processes may write it at once: each a whole one."""
    arrays = {part: getattr(dataset, part) for part in PARTS}
    shape = dataset.entry.image_shape
    arrays |= {part: arrays[part].reshape(-1, *shape) for part in ("train_images", "test_images")}
    try:
        path.parent.mkdir(exist_ok=True)
        with whole_file(path) as temporary:
            np.savez(temporary, **arrays)
    except OSError as error:
        print(f"data: not cached, {path} cannot be written ({error.strerror})", file=sys.stderr)


def tensorflow_datasets():
    """The package. Raises DataError where it cannot be imported."""
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise DataError(f"cannot be imported ({error})") from None
    return tensorflow_datasets


def downloaded(urls, read):
    """read({key: path}) of files that tensorflow-datasets' downloader brings. Raises DataError.

    urls: {key: address}. A HEAD request to the last address comes first: it notices in seconds a host that cannot be
    reached, where the downloader would try again for minutes.
    """
    tfds = tensorflow_datasets()
    _check_reachable(list(urls.values())[-1])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # other threads may still write there
        tfds.disable_progress_bar()
        try:
            paths = tfds.download.DownloadManager(download_dir=folder).download(urls)
        except Exception as error:  # it raises what its many dependencies raise
            raise DataError(f"the download failed ({first_line(error)})") from None
        return read({key: pathlib.Path(os.fspath(path)) for key, path in paths.items()})


def _check_reachable(url, timeout=10):
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout).close()
    except (OSError, http.client.HTTPException) as error:
        host = urllib.parse.urlsplit(url).netloc
        raise DataError(f"{host} cannot be reached ({first_line(getattr(error, 'reason', error))})") from None


def files_in(folder, names):
    """{name: path} of files that must all be in a folder. Raises NotThere where none is, DataError where some are."""
    found = {name: folder / name for name in names if (folder / name).is_file()}
    if not found:
        raise NotThere(f"{folder} has no {' or '.join(names)}")
    if missing := [name for name in names if name not in found]:
        raise DataError(f"{folder} has {', '.join(found)}, but not {', '.join(missing)}")
    return found
