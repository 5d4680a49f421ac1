"""The other published data sets, from small files in their formats."""

import gzip
import hashlib
import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import tensorflow as tf
from PIL import Image

import data.catalogue
from data import DataError, Dataset, binarized_mnist, caltech101_silhouettes, fashion_mnist, load, omniglot, published
from data.idx import idx_bytes
from data.mnist_sources import IDX_NAMES, KERAS_NAMES
from experiment.run_folder import ROOT

MODULES = [binarized_mnist, caltech101_silhouettes, fashion_mnist, omniglot]


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No cache, and no network."""

    def fail(name):
        raise DataError("no network in this test")

    monkeypatch.setattr(published, "CACHE", tmp_path / "cache")
    for module in MODULES:
        monkeypatch.setattr(module, "SOURCES", {"the web": fail})


@pytest.fixture
def any_sum(monkeypatch):
    """Files that are not the published ones are taken, and of other sizes."""
    monkeypatch.setattr(Dataset, "check", lambda self: None)
    for module in MODULES:
        monkeypatch.setattr(module, "MD5", {})


@pytest.fixture
def bits():
    """Fixed binarised images, of 0 and 1."""
    rng = np.random.default_rng(0)
    return {part: rng.integers(0, 2, (n, 784)).astype(np.uint8) for part, n in zip(binarized_mnist.PARTS, (5, 2, 3))}


def write_amat(folder, bits):
    for part, images in bits.items():
        lines = "".join(" ".join(map(str, image)) + " \n" for image in images)
        (folder / f"binarized_mnist_{part}.amat").write_text(lines)


def test_binarized_mnist_has_validation_images_after_the_training_images(tmp_path, bits, any_sum):
    write_amat(tmp_path, bits)
    loaded = load("binarized_mnist", tmp_path)
    np.testing.assert_array_equal(loaded.train_images, 255 * np.concatenate([bits["train"], bits["valid"]]))
    np.testing.assert_array_equal(loaded.binarised_test_images(), bits["test"])
    assert loaded.binarised("none") is loaded and loaded.entry.binarise == "none" and not loaded.entry.n_labels
    packed = tmp_path / "packed"
    packed.mkdir()
    np.savez(packed / "binarized_mnist.npz", **{part: np.packbits(x, axis=1) for part, x in bits.items()})
    np.testing.assert_array_equal(load("binarized_mnist", packed).train_images, loaded.train_images)


def test_an_amat_file_cut_short_is_named(tmp_path, bits, any_sum):
    write_amat(tmp_path, bits)
    path = tmp_path / "binarized_mnist_valid.amat"
    path.write_text(path.read_text()[:-10])
    with pytest.raises(DataError, match=r"valid\.amat is cut short"):
        load("binarized_mnist", tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"but not binarized_mnist_valid\.amat"):
        load("binarized_mnist", tmp_path)


def test_fashion_mnist_is_read_from_idx_files(tmp_path, any_sum):
    rng = np.random.default_rng(0)
    arrays = {part: rng.integers(0, 9, (4, 28, 28) if "images" in part else 4).astype(np.uint8) for part in IDX_NAMES}
    for part, name in IDX_NAMES.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(arrays[part])))
    loaded = load("fashion_mnist", tmp_path)
    for part, array in arrays.items():
        np.testing.assert_array_equal(getattr(loaded, part), array.reshape(len(array), -1) if array.ndim > 1 else array)
    (tmp_path / "other").mkdir()
    np.savez(tmp_path / "other" / "mnist.npz", x_train=arrays["train_images"])  # which is MNIST's
    with pytest.raises(DataError, match="has none of the IDX files"):
        load("fashion_mnist", tmp_path / "other")


@pytest.fixture
def drawings():
    """Ink of 6 drawings, bool [6, 105, 105]."""
    return np.random.default_rng(0).random((6, 105, 105)) < np.linspace(0.1, 0.9, 6)[:, None, None]


def png(ink):
    file = io.BytesIO()
    Image.fromarray(~ink).save(file, "png")
    return file.getvalue()


def test_omniglot_is_the_same_from_zip_files_and_arrays_in_any_order(tmp_path, drawings, any_sum, monkeypatch):
    monkeypatch.setitem(data.catalogue.DATASETS, "omniglot", data.catalogue.DATASETS["omniglot"]._replace(n_train=4))
    for part, inks in (("background", drawings[:4]), ("evaluation", drawings[4:])):
        with zipfile.ZipFile(tmp_path / f"images_{part}.zip", "w") as archive:
            archive.writestr(f"images_{part}/", "")  # a folder's entry
            for number, ink in enumerate(inks):
                archive.writestr(f"images_{part}/Greek/character{number:02d}/{number}.png", png(ink))
    zipped = load("omniglot", tmp_path)
    arrays = tmp_path / "arrays"
    arrays.mkdir()
    for part, inks in (("background", drawings[[5, 2]]), ("evaluation", drawings[[0, 1, 4, 3]])):
        np.savez(arrays / f"omniglot_images_{part}.npz", images=~inks.reshape(len(inks), 1, 105, 105))
    again = load("omniglot", arrays)
    assert zipped.train_images.shape == (4, 784) and zipped.test_images.shape == (2, 784)
    for part in ("train_images", "test_images"):
        np.testing.assert_array_equal(getattr(zipped, part), getattr(again, part))
    sums = [hashlib.sha256(np.packbits(ink).tobytes()).digest() for ink in drawings]
    first = omniglot.resized(drawings[[sums.index(min(sums))]], 28, 28)
    np.testing.assert_array_equal(zipped.train_images[0], first.ravel())
    means = np.concatenate([zipped.train_images, zipped.test_images]).mean(axis=1) / 255
    np.testing.assert_allclose(np.sort(means), drawings.mean(axis=(1, 2)), atol=2e-3)  # ink is bright, none is lost


def test_omniglot_s_drawings_are_averaged_over_areas(drawings):
    """As tf.image.resize does it, which is another code; rounded to bytes."""
    for shape in ((28, 28), (20, 35)):
        areas = tf.image.resize(drawings[..., np.newaxis].astype(np.float32), shape, method="area")[..., 0]
        assert np.abs(omniglot.resized(drawings, *shape) - 255 * areas.numpy()).max() <= 0.501


def test_silhouettes_are_bright_and_upright_and_labels_count_from_0(tmp_path, any_sum):
    silhouette = np.zeros((28, 28), np.uint8)
    silhouette[3, 5:20] = 1  # a lying line
    rows = np.stack([1 - silhouette.ravel(order="F")] * 3)  # Matlab's order, with a background of 1
    arrays = {f"{split}_{what}": part for split in ("train", "val", "test")
              for what, part in (("data", rows), ("labels", np.array([[1], [101], [3]], np.uint8)))}  # fmt: skip
    scipy.io.savemat(tmp_path / caltech101_silhouettes.FILE, arrays)
    loaded = load("caltech101_silhouettes", tmp_path)
    assert loaded.train_images.shape == loaded.test_images.shape == (3, 784)  # without the validation images
    np.testing.assert_array_equal(loaded.train_images[0].reshape(28, 28), 255 * silhouette)
    assert loaded.test_labels.tolist() == [0, 100, 2] and loaded.context("train", True).shape == (3, 101)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.NAME)
def test_without_files_one_line_says_what_to_put_where(module, tmp_path):
    with pytest.raises(
        DataError,
        match=rf"{module.NAME} was not found \(the web: no network.*Put \S+ .*from http\S+.* --data_dir",
    ) as error:
        module.load()
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match=r"was not found \(--data_dir: .* has n"):
        module.load(tmp_path)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.NAME)
def test_other_bytes_are_refused(module, tmp_path, monkeypatch):
    entry = data.catalogue.DATASETS[module.NAME]
    wrong = {
        f"{split}_{what}": np.zeros((n, *entry.image_shape) if what == "images" else n, np.uint8)
        for split, n in (("train", entry.n_train), ("test", entry.n_test)) for what in ("images", "labels")
    }  # fmt: skip
    monkeypatch.setattr(module, "SOURCES", {"the web": lambda name: wrong})
    with pytest.raises(DataError, match=f"train_images is not that of {module.NAME}"):
        module.load()
    assert not published.CACHE.exists()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("binarized_mnist", "binarized_mnist.npz"),
        ("omniglot", "omniglot_images_background.npz"),
        ("omniglot", "images_background.zip"),
        ("caltech101_silhouettes", caltech101_silhouettes.FILE),
    ],
)
def test_other_bytes_in_a_compressed_file_are_one_line_wherever_they_are(name, file, tmp_path, any_sum):
    """They raise whatever they lead to: zlib.error, EOFError, BadZipFile, and in SciPy an AttributeError."""
    path = tmp_path / file
    noise = np.random.default_rng(0).integers(0, 2, (300, 105, 105)).astype(np.uint8)
    if path.suffix == ".mat":
        scipy.io.savemat(path, {"train_data": noise}, do_compression=True)
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/1.png", png(noise[0] > 0))
    else:
        np.savez_compressed(path, **{"images" if name == "omniglot" else "train": noise})
    whole = path.read_bytes()
    other = tmp_path / file.replace("background", "evaluation")
    other.write_bytes(whole)
    refused = 0
    for at in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:at] + bytes(range(16)) + whole[at + 16 :])
        try:
            load(name, tmp_path)
        except DataError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 30  # a file's date, say, may be any


def test_files_come_as_they_are_published(web, bits, drawings, any_sum, monkeypatch):
    """By tensorflow-datasets' downloader, from the address and by the names that each module has."""
    folder, url = web
    write_amat(folder, bits)
    for part, inks in zip(omniglot.FILES, (drawings[:4], drawings[4:])):
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            for number, ink in enumerate(inks):
                archive.writestr(f"{part}/{number}.png", png(ink))
    silhouettes = {f"{split}_{what}": np.ones((2, n), np.uint8) for split in ("train", "test")
                   for what, n in (("data", 784), ("labels", 1))}  # fmt: skip
    scipy.io.savemat(folder / caltech101_silhouettes.FILE, silhouettes)
    for module in (binarized_mnist, omniglot, caltech101_silhouettes):
        name = caltech101_silhouettes.FILE if module is caltech101_silhouettes else ""
        assert module.URL.startswith("http") and module.URL.endswith(name or "/")
        monkeypatch.setattr(module, "URL", url + name)
        from_folder, from_web = module.from_folder(folder), module.from_web(module.NAME)
        assert from_folder.keys() == from_web.keys()
        for part, array in from_folder.items():
            np.testing.assert_array_equal(from_web[part], array)
    (folder / "binarized_mnist_train.amat").unlink()
    with pytest.raises(DataError, match="the download failed"):
        binarized_mnist.from_web("binarized_mnist")


def test_the_table_s_sizes_are_those_of_the_page():
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+), ([\d,]+) \| (\w+)", (ROOT / "data/README.md").read_text(), re.M)
    said = {name: (*(int(n.replace(",", "")) for n in sizes), labels) for name, *sizes, labels in rows}
    assert said == {name: (entry.n_train, entry.n_test, str(entry.n_labels or "none"))
                    for name, entry in data.catalogue.DATASETS.items()}  # fmt: skip


class Touches:
    """Unpickled, it makes a file: what a file with pickled objects could do, it could do anything else too."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("read, file", [
    (lambda path: load("mnist", path.parent), "mnist.npz"),
    (lambda path: load("binarized_mnist", path.parent), "binarized_mnist.npz"),
    (lambda path: load("omniglot", path.parent), "omniglot_images_background.npz"),
    (lambda path: published.read_cache(path, "mnist", {}), "cached.npz"),
    (lambda path: load(str(path)), "own.npz"),
    (lambda path: load(str(path)), "own.npy"),
])  # fmt: skip
def test_a_file_of_pickled_objects_is_refused_and_nothing_in_it_runs(read, file, tmp_path):
    objects = np.array([Touches(tmp_path / "it ran")], dtype=object)
    names = [*published.PARTS, *binarized_mnist.PARTS, *KERAS_NAMES.values(), "images"]
    for path in (tmp_path / file, tmp_path / file.replace("background", "evaluation")):
        np.save(path, objects) if path.suffix == ".npy" else np.savez(path, **dict.fromkeys(names, objects))
    with pytest.raises(DataError, match="Object arrays|Python objects|x_train|not an array of numbers"):
        read(tmp_path / file)
    assert not (tmp_path / "it ran").exists()
