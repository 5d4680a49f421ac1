"""Folders of PNG and JPEG pictures, read by Pillow."""

import pathlib

import numpy as np

from data.arrays import DataError, GreyImages, binary_to_bytes, reading

ENDINGS = (".png", ".jpg", ".jpeg")


def read_images(path, image_shape=None):
    """The pictures of a folder and of all its sub-folders, by name, or a single one: uint8 [n, height, width], grey.

    image_shape: (height, width) that they must have; by default that of the first. Where no byte of any of them is
    above 1, 1 is white. Raises DataError where a picture cannot be read or is of another size, and where there is none.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise DataError(f"{path} is not there")
    paths = [path] if path.is_file() else pictures_in(path)
    if not paths:
        raise DataError(f"{path} holds no PNG or JPEG files")
    shape = image_shape or size_of(paths[0])
    images = read(paths, shape)
    binary_to_bytes({"": images})
    return images.images.reshape(-1, *shape)


def pictures_in(folder, below=True):
    """The paths of the pictures in a folder, and below it, sorted; hidden files are none."""
    return [path for path in _files_in(folder, below) if path.suffix.lower() in ENDINGS]


def others_in(folder):
    """The paths of all other files in a folder, and below it, sorted, but for hidden ones."""
    return [path for path in _files_in(folder) if path.suffix.lower() not in ENDINGS]


def _files_in(folder, below=True):
    found = folder.rglob("*") if below else folder.iterdir()
    paths = (path for path in found if path.is_file() or not path.exists())  # broken links are said to be broken
    return sorted(path for path in paths if not any(part[0] == "." for part in path.relative_to(folder).parts))


def folders_in(folder):
    """The sub-folders that are not hidden, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def classes_in(folder):
    """{name of a sub-folder: its pictures}, sorted as Keras's image_dataset_from_directory sorts classes; {} where the
    pictures lie in the folder itself. Raises DataError where there are both, or a sub-folder has no picture.
    """
    classes, beside = {one.name: pictures_in(one) for one in folders_in(folder)}, pictures_in(folder, below=False)
    if not any(classes.values()):
        if not beside:
            raise DataError(f"{folder} holds no PNG or JPEG files, and no x_train.npy")
        return {}
    if beside:
        raise DataError(f"{folder} holds pictures beside its sub-folders: sub-folders are classes with their own")
    for name, paths in classes.items():
        if not paths:
            raise DataError(f"{folder / name} holds no PNG or JPEG files: sub-folders are classes")
    return classes


def size_of(path):
    """(height, width) of a picture. Raises DataError."""
    return _open(path).size[::-1]


def read(paths, shape):
    """The pictures as GreyImages, all (height, width) large; says how many were turned from colour to grey.

    Raises DataError, naming the file, where one cannot be read, is of another size, is transparent in places, or is
    grey with more than 8 bits (of colours with 16 bits Pillow keeps the upper 8).
    """
    images, n_coloured = GreyImages("", len(paths), *shape), 0
    for path in paths:
        image = _open(path)
        if image.size[::-1] != tuple(shape):
            (height, width), (h, w) = shape, image.size[::-1]
            raise DataError(f"{path} is {h} pixels high and {w} wide, where {height} by {width} were expected")
        if image.mode.startswith(("I", "F")):
            raise DataError(f"{path} has more than 8 bits a pixel (mode {image.mode}): save it with 8")
        n_coloured += image.mode not in ("1", "L", "LA", "La")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            if image.getchannel("A").getextrema()[0] < 255:
                raise DataError(f"{path} is transparent in places: put it on a background first")
        images.add(np.asarray(image.convert("L"))[np.newaxis])
    if n_coloured:
        print(f"data: {n_coloured} of {len(paths)} pictures are in colour, and were turned to grey", flush=True)
    return images


def _open(path):
    """A picture, read whole."""
    from PIL import Image, ImageOps

    with reading(path, "a picture"), Image.open(path) as image:
        return ImageOps.exif_transpose(image)  # as the camera was held
