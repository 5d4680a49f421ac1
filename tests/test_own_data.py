"""A user's own data: what is read, what is refused, and a run on a folder of pictures from flags to log p(x)."""

import json
import os
import warnings

import numpy as np
import pytest

import plots.runs
from data import DataError, arrays, load, own, read_images
from experiment import cells, load_run, run_folder, session, survey
from experiment.flags import parse_flags
from experiment.settings import Config
from tasks import task04, task05, task06
from tests.helpers import GREYS, draw, in_process, last_frame, run_task
from tests.test_seams import SIZES, only_folder, pictures
from training.images import as_tensor

SHAPE = (20, 32)


def strokes(n, seed=0):
    """Images [n, 20, 32] with a bright row, that of the label, and labels."""
    labels = np.arange(n) % 3
    images = np.random.default_rng(seed).integers(0, 60, (n, *SHAPE)).astype(np.uint8)
    images[np.arange(n), 5 * labels + 4] = 230
    return images, labels


@pytest.fixture
def folder(tmp_path):
    """200 pictures of 20 x 32 in three sub-folders."""
    for number, (image, label) in enumerate(zip(*strokes(200))):
        draw(tmp_path / "my shapes" / "abc"[label] / f"{number:03d}.png", image)
    return tmp_path / "my shapes"


def test_the_name_of_own_data_is_not_one_of_a_data_set():
    names = {"../my data/photos.npz": "photos", "a/my shapes/": "my-shapes", "./omniglot": "own-omniglot"}
    assert {path: own.name_of(path) for path in [*names, "fashion_mnist.npz"]} == names | {
        "fashion_mnist.npz": "own-fashion-mnist"
    }


def test_a_folder_of_pictures_is_trained_on_measured_drawn_and_loaded(folder, results, monkeypatch, capfd):
    monkeypatch.setattr(plots.runs, "save_animation", last_frame)
    flags = ["--preset", "quick", *SIZES, "--batch_size", 10, "--learning_rate", 0.05, "--ema", 0]
    assert run_task(task04, "--dataset", f"{folder}/", *flags) == 0, capfd.readouterr().err
    run = only_folder(results)
    assert run.name.startswith("ciwae-learned-prior-1l-k2-") and "-dataset-my-shapes-" in run.name
    saved = json.loads((run / "config.json").read_text())["experiment"]
    assert (saved["own_data"]["n_train"], saved["own_data"]["n_test"], saved["own_data"]["n_labels"]) == (180, 20, 3)
    names = ("prior", "learning_curves", "posterior_pca", "reconstructions")
    assert {f"figures/{name}.png" for name in names} <= pictures(run)
    with np.load(run / "arrays" / "prior_0002.npz") as kept:
        assert kept["means"].shape == (30, *SHAPE)  # a label a row
        rows = kept["means"].reshape(3, 10, *SHAPE).mean(axis=(1, 3))  # [label, height]
    assert rows[:, [4, 9, 14]].argmax(axis=1).tolist() == [0, 1, 2]  # each label's own row is bright
    assert json.loads((run / "test_llh.json").read_text())["n_images"] == 20
    assert cells.cell_of(run_folder.load_config(run)) is None

    new, labels = strokes(6, seed=1)
    for number, image in enumerate(new):
        draw(folder.parent / "new" / f"{number}.png", image)
    trained = load_run(run, gpu=-1)
    images = read_images(folder.parent / "new", SHAPE)
    np.testing.assert_array_equal(images, new)
    log_px, _ = trained.log_likelihood(images > 127, labels, n_samples=50)
    wrong, _ = trained.log_likelihood(images > 127, (labels + 1) % 3, n_samples=50)
    assert log_px.shape == (6,) and (log_px > wrong).all()  # by the right label they are more probable
    assert trained.reconstruct(images > 127, labels).shape == (6, *SHAPE)
    assert trained.sample(2, [0, 2]).shape == (2, *SHAPE)

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a figure without room for the long name of its one run
        assert survey(task06.work, "", ["--dataset", str(folder), "--gpu", "-1"], same=("dataset",)) == 0
    assert (results / "task06" / "my-shapes" / "active_units.csv").exists()
    plain = ["--preset", "quick", *SIZES, "--batch_size", 10, "--epochs", 1, "--run_dir", results / "plain"]
    with monkeypatch.context() as patch:
        patch.setattr(session.Session, "draw", lambda self: None)
        assert in_process("--dataset", folder, *plain) == 0  # as a model that is given no labels

    again = ["--eval_only", "--run_dir", run]
    capfd.readouterr()
    assert run_task(task05, *again) == 2  # the run there is not what task 5 is about
    assert "learned_prior is not allowed; here it is standard_prior" in capfd.readouterr().err
    folder.rename(folder.parent / "new" / folder.name)
    assert in_process(*again) == 2
    assert "my shapes is not there; --data_dir names the folder" in capfd.readouterr().err
    assert len(load_run(run, data_dir=folder.parent / "new", gpu=-1).dataset.test_images) == 20
    (folder.parent / "new" / folder.name / "a" / "000.png").unlink()
    assert in_process(*again, "--data_dir", folder.parent / "new") == 2
    error = capfd.readouterr().err
    assert "my shapes is not what the run began with: n_train 180" not in error and "n_test 19, not 20" in error
    assert error.count("\n") == 1


def test_a_path_is_the_same_however_it_is_written(folder, results, monkeypatch):
    monkeypatch.chdir(folder.parent)
    ways = str(folder), f"{folder.name}/", f"./x/../{folder.name}"
    (folder.parent / "x").mkdir()
    configs = [parse_flags(["--dataset", way, "--preset", "quick"])[0] for way in ways]
    assert configs[0] == configs[1] == configs[2] and configs[0].dataset == str(folder)


def test_the_last_tenth_has_its_share_of_every_class(folder):
    for name in ("a", "b"):
        for path in sorted((folder / name).iterdir())[20:]:
            path.unlink()
    loaded = load(str(folder))
    assert np.bincount(loaded.train_labels).tolist() == [18, 18, 60] and len(loaded.test_labels) == 10
    assert np.bincount(loaded.test_labels).tolist() == [2, 2, 6]
    bright = loaded.test_images.reshape(-1, *SHAPE)[:, [4, 9, 14]].mean(axis=2).argmax(axis=1)
    np.testing.assert_array_equal(bright, loaded.test_labels)  # every picture has its own label


def test_labels_in_npy_files_that_have_changed_are_noticed(tmp_path):
    """Each of them; of images, which may be larger than memory, a hundred."""
    labels = np.arange(1000) % 2
    np.save(tmp_path / "x_train.npy", np.concatenate([GREYS] * 50))
    np.save(tmp_path / "y_train.npy", labels)
    before = own.facts(str(tmp_path))
    labels[1] = 0
    np.save(tmp_path / "y_train.npy", labels)
    with pytest.raises(DataError, match="is not what the run began with: crc32"):
        load(str(tmp_path), None, before)


def test_colour_is_turned_to_grey_and_said_to_be(tmp_path, capsys):
    rgb = np.random.default_rng(1).integers(0, 256, (20, 4, 6, 3)).astype(np.uint8)
    luma = rgb @ [0.299, 0.587, 0.114]
    for number, image in enumerate(rgb):
        draw(tmp_path / "folder" / f"{number:02d}.png", image if number else luma[0].round().astype(np.uint8))
    draw(tmp_path / "folder" / "01.png", np.concatenate([rgb[1], np.full((4, 6, 1), 255, np.uint8)], axis=2))  # opaque
    np.savez(tmp_path / "some.npz", x_train=rgb)
    for name, said in (("folder", "19 of 20 pictures are in colour"), ("some.npz", "in colour, and was turned")):
        loaded = load(str(tmp_path / name))
        both = np.concatenate([loaded.train_images, loaded.test_images])
        np.testing.assert_allclose(both.reshape(luma.shape), luma, atol=0.51)
        assert said in capsys.readouterr().out


def test_images_of_one_channel_are_grey(tmp_path):
    np.savez(tmp_path / "channel.npz", x_train=GREYS[..., np.newaxis])
    np.testing.assert_array_equal(load(str(tmp_path / "channel.npz")).train_images, GREYS.reshape(20, -1)[:18])


@pytest.mark.parametrize("values", [GREYS, GREYS / 255, (GREYS / 255).astype(np.float32), GREYS.astype(np.int64)])
def test_bytes_and_fractions_are_the_same_images(values, tmp_path):
    labels = np.arange(20)[:, np.newaxis] % 4
    np.savez(tmp_path / "all.npz", x_train=values[:15], y_train=labels[:15], x_test=values[15:], y_test=labels[15:])
    loaded = load(str(tmp_path / "all.npz"))
    np.testing.assert_array_equal(np.concatenate([loaded.train_images, loaded.test_images]), GREYS.reshape(20, -1))
    assert loaded.test_labels.tolist() == [3, 0, 1, 2, 3] and loaded.entry.n_labels == 4
    assert loaded.entry.image_shape == (4, 6) and (loaded.entry.n_train, loaded.entry.n_test) == (15, 5)
    np.savez_compressed(tmp_path / "split.npz", x_train=values)
    loaded = load(str(tmp_path / "split.npz"))
    np.testing.assert_array_equal(loaded.test_images, GREYS.reshape(20, -1)[18:])  # the last tenth


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float64])
def test_images_of_0_and_1_are_binary_whatever_their_type(dtype, tmp_path):
    np.savez(tmp_path / "bits.npz", x_train=(GREYS > 127).astype(dtype))
    loaded = load(str(tmp_path / "bits.npz"))
    np.testing.assert_array_equal(loaded.train_images, 255 * (GREYS > 127).reshape(20, -1)[:18])
    assert loaded.binarised("none") is loaded


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float64])
def test_colours_of_0_and_1_are_not_rounded_to_black_and_white(dtype, tmp_path):
    red = np.zeros((20, 4, 6, 3), dtype)
    red[..., 0] = 1
    np.savez(tmp_path / "red.npz", x_train=red)
    if dtype is np.uint8:
        with pytest.raises(DataError, match="red.npz is in colour, and 0 and 1 alone: save it as bool, or as bytes"):
            load(str(tmp_path / "red.npz"))
    else:
        np.testing.assert_array_equal(load(str(tmp_path / "red.npz")).train_images, 76)  # 0.299 of 255


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_bytes_up_to_2_are_dark_greys_and_not_bits(suffix, tmp_path):
    path = tmp_path / f"dark.{suffix}"
    np.savez(path, x_train=GREYS % 3) if suffix == "npz" else np.save(path, GREYS % 3)
    np.testing.assert_array_equal(load(str(path)).train_images, (GREYS % 3).reshape(20, -1)[:18])


def test_binarise(tmp_path):
    np.savez(tmp_path / "all.npz", x_train=np.concatenate([GREYS] * 40))
    loaded = load(str(tmp_path / "all.npz"))
    assert loaded.binarised("dynamic") is loaded
    fixed, again, threshold = (loaded.binarised(how) for how in ("fixed", "fixed", "threshold"))
    assert set(np.unique(fixed.train_images)) == set(np.unique(threshold.train_images)) == {0, 255}
    np.testing.assert_array_equal(fixed.train_images, again.train_images)
    drawn = np.random.default_rng(0).random(loaded.train_images.shape) * 255 < loaded.train_images
    np.testing.assert_array_equal(fixed.train_images, 255 * drawn)
    copies = fixed.train_images.reshape(36, 20, -1).mean(axis=0) / 255  # of 36 draws of every image
    np.testing.assert_allclose(copies, GREYS.reshape(20, -1) / 255, atol=5 * 0.5 / 36**0.5)
    np.testing.assert_array_equal(fixed.binarised_test_images(), loaded.binarised_test_images())
    np.testing.assert_array_equal(threshold.binarised_test_images(), loaded.test_images > 127)
    with pytest.raises(DataError, match="--binarise: none is for images of 0 and 1 alone, and these have greys"):
        loaded.binarised("none")
    last = loaded.binarised("threshold").train_images.copy()
    last[-1, -1] = 7
    for changes in (dict(test_images=loaded.test_images), dict(train_images=last)):
        with pytest.raises(DataError, match="none is for images of 0 and 1 alone"):
            loaded.binarised("threshold")._replace(**changes).binarised("none")
    for grey in (1, 254):
        with pytest.raises(DataError, match=f"greys, such as {grey}/255"):
            loaded._replace(train_images=np.array([[0, 255, grey]], np.uint8)).binarised("none")


def test_of_mapped_images_a_hundred_spread_over_all_tell_a_run_its_data(tmp_path):
    def crc32(changed):
        images = np.zeros((1000, 4, 6), np.uint8)
        images[changed] = 1
        np.save(tmp_path / "big.npy", images)
        return own.facts(tmp_path / "big.npy")["crc32"]

    before = crc32([])
    assert [row for row in (0, 1, 9, 10, 500, 981, 990, 999) if crc32(row) != before] == [0, 10, 500, 990]


def test_an_npy_file_of_bytes_is_mapped_and_not_copied(tmp_path, monkeypatch):
    np.save(tmp_path / "big.npy", GREYS)
    np.save(tmp_path / "channel.npy", GREYS[..., np.newaxis])
    monkeypatch.setattr(arrays, "aligned", lambda shape: pytest.fail("it was copied"))
    for name in ("channel.npy", "big.npy"):
        loaded = load(str(tmp_path / name))
        np.testing.assert_array_equal(loaded.train_images, GREYS.reshape(20, -1)[:18])
    tensor = as_tensor(loaded.train_images)
    before = (tmp_path / "big.npy").read_bytes()
    loaded.train_images[0, 0] ^= 255  # copied on write: the tensor is this memory, and the file is not changed
    assert tensor.numpy()[0, 0] == loaded.train_images[0, 0] and (tmp_path / "big.npy").read_bytes() == before


def test_a_mapped_file_may_be_larger_than_memory(tmp_path):
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shape = 3 * memory // 10**6, 1000, 1000
    with open(tmp_path / "large.npy", "wb") as file:  # all holes but for the header: it takes no room on the disk
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + shape[0] * 10**6)
    assert own.facts(tmp_path / "large.npy")["n_train"] == shape[0] - shape[0] // 10


def test_a_fixed_draw_keeps_no_greys(tmp_path):
    np.save(tmp_path / "all.npy", GREYS)
    np.savez(tmp_path / "all.npz", x_train=GREYS)
    for name in ("all.npy", "all.npz"):
        drawn = load(str(tmp_path / name)).binarised("fixed")
        np.testing.assert_array_equal(drawn.test_images, GREYS[18:].reshape(2, -1))
        assert drawn.test_images.base is None and set(np.unique(drawn.train_images)) == {0, 255}


def test_task06_has_a_folder_for_each_data_set(tmp_path):
    names = [task06.folder_for(name).name for name in ("mnist", "omniglot", str(tmp_path / "omniglot.npz"), "photos")]
    assert names == ["task06", "omniglot", "own-omniglot", "photos"]


def test_a_folder_of_npy_files_has_labels_and_test_images_too(tmp_path, capsys):
    labels = np.arange(20) % 2
    for split, rows in (("train", slice(12)), ("test", slice(12, 20))):
        np.save(tmp_path / f"x_{split}.npy", GREYS[rows])
        np.save(tmp_path / f"y_{split}.npy", labels[rows])
    loaded = load(str(tmp_path))
    np.testing.assert_array_equal(loaded.test_images, GREYS[12:].reshape(8, -1))
    np.testing.assert_array_equal(loaded.train_labels, labels[:12])
    assert capsys.readouterr().out == ""
    for name in ("a.png", "below/b.png"):  # only beside it could one be meant to be an image of the set
        draw(tmp_path / name, GREYS[0])
    load(str(tmp_path))
    assert capsys.readouterr().out == f"data: files left out beside x_train.npy: 1, such as {tmp_path}/a.png\n"


def test_arrays_are_kept_once_as_tensors_where_they_lie_as_those_want_it():
    images = arrays.aligned((300, 35))
    images[:] = 7
    for part in (images, images[:200]):
        tensor = as_tensor(part)
        part[0, 0] += 1
        assert tensor.numpy()[0, 0] == part[0, 0] and tensor.shape == part.shape
    elsewhere = np.frombuffer(bytes(1000), np.uint8)[3:].reshape(997, 1)
    np.testing.assert_array_equal(as_tensor(elsewhere).numpy(), elsewhere)


def test_what_has_changed_since_a_run_began_is_refused(tmp_path):
    for name in ("all.npz", "all.npy"):
        save = np.save if name.endswith("npy") else lambda path, images: np.savez(path, x_train=images)
        save(tmp_path / name, GREYS)
        facts = own.facts(tmp_path / name)
        load(str(tmp_path / name), expected=facts)
        save(tmp_path / name, 255 - GREYS)
        with pytest.raises(DataError, match=f"{name} is not what the run began with: crc32"):
            load(str(tmp_path / name), expected=facts)
        save(tmp_path / name, GREYS[:19])
        with pytest.raises(DataError, match="n_train 17, not 18"):
            load(str(tmp_path / name), expected=facts)


def test_a_cell_of_the_tables_is_dynamically_binarised_mnist_s():
    assert cells.cell_of(Config(binarise="dynamic").resolved()) is not None
    for changes in (dict(binarise="fixed"), dict(dataset="binarized_mnist"), dict(dataset="fashion_mnist")):
        assert cells.cell_of(Config(**changes).resolved()) is None
        assert not cells.follows(Config(**changes).resolved(), "fast")
