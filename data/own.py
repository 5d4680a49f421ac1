"""A data set of the user's own: arrays in an .npz or .npy file, or in a folder of .npy files; or a folder of pictures.

`facts` judges it by names, headers and labels, before anything large is read; `load` reads it, and judges the images.
The arrays' names are Keras's: x_train, and y_train, x_test, y_test where there are such. Grey images in .npy files are
mapped into memory and not read, so that they may be larger than it.
"""

import os
import pathlib
import re
import zlib

import numpy as np

from data import Dataset, pictures
from data.arrays import DataError, GreyImages, binary_to_bytes, blocks
from data.catalogue import DATASETS, DatasetEntry
from data.own_arrays import NAMES, Splits, check_names, in_npy, in_npz, of_arrays

LABELS_TOLD = 20


def name_of(path):
    """A name for folders, of letters, digits, dots and dashes: "photos" of ../my data/photos.npz; no data set's own."""
    name = pathlib.Path(path).resolve().name.removesuffix(".npz").removesuffix(".npy")
    name = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.") or "own"
    return f"own-{name}" if name.replace("-", "_") in DATASETS else name


def facts(path, data_dir=None):
    """What a run saves of the data at `path`: sizes, and crc32, which tells them from others. Raises DataError."""
    try:
        if found := _find(path, data_dir):
            return _facts(_splits(found))
    except OSError as error:  # forbidden, or too long a name
        raise DataError(f"{error.filename} cannot be read ({error.strerror})") from None
    raise DataError(
        f"{path} is not allowed; one of {', '.join(DATASETS)}, or the path of an .npz or .npy file or of a folder of"
        " pictures"
    )


def checked(facts):
    """facts, as they were saved. Raises DataError unless they are what `facts` returns."""
    numbers = ("n_train", "n_test", "n_labels", "crc32")
    try:
        height, width = facts["image_shape"]
        if facts.keys() == {*numbers, "image_shape"} and all(
            type(value) is int for value in (height, width, *(facts[name] for name in numbers))
        ):
            return facts
    except (TypeError, KeyError, ValueError):
        pass
    raise DataError(f"own_data is {facts}, not {', '.join(numbers)} and image_shape")


def entry_of(facts):
    """The DatasetEntry of what `facts` returned."""
    shape = tuple(facts["image_shape"])
    return DatasetEntry(facts["n_train"], facts["n_test"], shape, facts["n_labels"], __name__)


def load(path, data_dir=None, expected=None):
    """The data at `path` as a data.Dataset; where no test set is given it is the last tenth, or two images.

    expected: what `facts` said of them when a run began. Raises DataError, also where they have changed since.
    """
    if not (found := _find(path, data_dir)):
        raise DataError(f"{path} is not there; --data_dir names the folder that it lies in now")
    splits = _splits(found)
    now = _facts(splits)
    if expected and now != expected:
        changed = "; ".join(f"{name} {now[name]}, not {expected[name]}" for name in now if now[name] != expected[name])
        raise DataError(f"{found} is not what the run began with: {changed}")
    entry = entry_of(now)
    if isinstance(splits.images["train"], list):
        _tell("that are no PNG or JPEG", pictures.others_in(found))
    elif found.is_dir():
        _tell("beside x_train.npy", pictures.pictures_in(found, below=False))
    if splits.classes:
        _tell_labels([f"{label} {name}" for label, name in enumerate(splits.classes)])
    read = {split: _read(source, splits.image_shape) for split, source in splits.images.items()}
    grey = {split: part for split, part in read.items() if isinstance(part, GreyImages)}
    binary_to_bytes(grey, of_bytes=read.keys() - grey.keys())
    images = {split: part.images if isinstance(part, GreyImages) else part for split, part in read.items()}
    labels = splits.labels or {split: np.zeros(len(part), np.uint8) for split, part in images.items()}
    if "test" not in images:
        n = entry.n_train
        images = {"train": images["train"][:n], "test": images["train"][n:]}
        labels = {"train": labels["train"][:n], "test": labels["train"][n:]}
    return Dataset(images["train"], labels["train"], images["test"], labels["test"], entry)


def _tell(which, left_out):
    if left_out:
        print(f"data: files left out {which}: {len(left_out)}, such as {left_out[0]}", flush=True)


def _tell_labels(labels):
    more = f", ..., {labels[-1]}" if len(labels) > LABELS_TOLD else ""
    print(f"data: labels {', '.join(labels[:LABELS_TOLD])}{more}", flush=True)


def _splits(found):
    if found.suffix == ".npz":
        return of_arrays(found, in_npz(found))
    if found.suffix == ".npy":
        return of_arrays(found, {"x_train": in_npy(found)})
    if not found.is_dir():
        raise DataError(f"{found} is no .npz or .npy file and no folder")
    if (found / "x_train.npy").is_file():
        check_names(found, [path.stem for path in found.glob("*.npy")])
        return of_arrays(found, {name: in_npy(p) for name in NAMES if (p := found / f"{name}.npy").is_file()})
    return _of_pictures(found)


def _find(path, data_dir):
    places = [pathlib.Path(data_dir) / pathlib.Path(path).name] if data_dir else []
    for place in [*places, pathlib.Path(path)]:
        if place.exists():
            return place
    return None


def _facts(splits):
    n_train = len(splits.images["train"])
    if "test" in splits.images:
        n_test = len(splits.images["test"])
    else:
        n_test = max(2, n_train // 10)
        n_train -= n_test
    if n_train < 1 or n_test < 2:
        raise DataError(f"there are {max(0, n_train)} images to train on and {n_test} to test on; at least 1 and 2")
    if splits.n_labels > max(n_train, 2):
        raise DataError(f"labels go up to {splits.n_labels - 1}, and there are only {n_train} images to train on")
    sizes = dict(n_train=n_train, n_test=n_test, image_shape=list(splits.image_shape), n_labels=splits.n_labels)
    return sizes | {"crc32": splits.crc32}


def _read(source, image_shape):
    """GreyImages; or, of an array of bytes in a file, the uint8 array [n, n_pixels] that is mapped to it."""
    if isinstance(source, list):
        return pictures.read(source, image_shape)
    if source.mapped is not None and source.dtype == np.uint8 and source.shape[3:] != (3,):
        images = source.mapped.reshape(len(source), -1)
        if max(int(images[rows].max()) for rows in blocks(len(images))) <= 1:
            raise DataError(
                f"{source.name} holds 0 and 1 alone; bytes in .npy files are used unchanged: save 1 as 255, or all as"
                " bool or as .npz"
            )
        return images
    if source.shape[3:] == (3,):
        print(f"data: {source.name} is in colour, and was turned to grey", flush=True)
    images = GreyImages(source.name, len(source), *image_shape)
    for block in source.blocks():
        images.add(block)
    return images


def _is_split(path):
    return path.name.lower() in ("train", "test")


def _of_pictures(folder):
    parts = {"train": folder}
    if any(map(_is_split, found := pictures.folders_in(folder))):
        parts = {path.name.lower(): path for path in found}
        beside = ["pictures"] if pictures.pictures_in(folder, below=False) else []
        if parts.keys() != {"train", "test"} or len(found) > 2 or beside:
            there = ", ".join([*(path.name for path in found), *beside])
            raise DataError(f"{folder} has {there}: a split is the folders train and test, and nothing beside them")
    elif nested := next((inner for path in found for inner in pictures.folders_in(path) if _is_split(inner)), None):
        raise DataError(f"{nested} is part of a split in {nested.parent}: give the path of that folder")
    classes = {split: pictures.classes_in(path) for split, path in parts.items()}
    names = list(classes["train"])
    if "test" in classes and (bool(classes["test"]) != bool(names) or set(classes["test"]) - set(names)):
        raise DataError(f"{folder}: train has the classes {names}, and test {list(classes['test'])}")
    images, labels = {}, {}
    for split, path in parts.items():
        if not names:
            images[split] = pictures.pictures_in(path)
            continue
        # Classes in turn, each at its own pace, so that any last part of the list has its share of each.
        listed = sorted(
            ((number + 0.5) / len(paths), names.index(name), picture)
            for name, paths in classes[split].items()
            for number, picture in enumerate(paths)
        )
        images[split] = [picture for _, _, picture in listed]
        labels[split] = np.array([label for _, label, _ in listed])
    said = "".join(f"{p.relative_to(folder)} {p.stat().st_size}\n" for part in images.values() for p in part)
    shape = pictures.size_of(images["train"][0])
    return Splits(images, labels, shape, len(names), zlib.crc32(os.fsencode(said)), tuple(names))
