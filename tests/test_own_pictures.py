"""A user's own folder of pictures: which are read, and what its sub-folders mean."""

import os

import numpy as np
import pytest
from PIL import ExifTags, Image

from data import DataError, load, own, read_images
from tests.helpers import GREYS, draw


def test_a_folder_may_have_train_and_test(tmp_path):
    for number, image in enumerate(GREYS):
        name = f"{number:02d}.{('jpg', 'JPG', 'jpeg')[number % 3]}"
        draw(tmp_path / ("train" if number < 14 else "test") / name, np.full_like(image, number * 10))
    loaded = load(str(tmp_path))
    assert (loaded.entry.n_train, loaded.entry.n_test, loaded.entry.n_labels) == (14, 6, 0)
    np.testing.assert_allclose(loaded.test_images.mean(axis=1), 10 * np.arange(14, 20), atol=1)
    draw(tmp_path / "test" / "a" / "1.png", GREYS[0])
    with pytest.raises(DataError, match="holds pictures beside its sub-folders"):
        load(str(tmp_path))


def test_hidden_folders_are_neither_classes_nor_splits_and_hold_no_pictures(tmp_path):
    for number, image in enumerate(GREYS):
        draw(tmp_path / "classes" / "ab"[number % 2] / f"{number:02d}.png", image)
        draw(tmp_path / "split" / ("train" if number < 14 else "test") / f"{number:02d}.png", image)
    for hidden in ("classes/.checkpoints", "classes/a/.thumbnails", "split/.checkpoints"):
        draw(tmp_path / hidden / "00.png", GREYS[0])
    found = own.facts(tmp_path / "classes")
    assert (found["n_train"], found["n_test"], found["n_labels"]) == (18, 2, 2)
    found = own.facts(tmp_path / "split")
    assert (found["n_train"], found["n_test"], found["n_labels"]) == (14, 6, 0)


def test_classes_of_a_test_folder_are_those_of_the_training_folder(tmp_path, capsys):
    for number, image in enumerate(GREYS):
        split, name = ("train", "abc"[number % 3]) if number < 12 else ("test", "bc"[number % 2])
        draw(tmp_path / split / name / f"{number:02d}.png", image)
    loaded = load(str(tmp_path))
    assert capsys.readouterr().out == "data: labels 0 a, 1 b, 2 c\n"
    assert loaded.entry.n_labels == 3 and np.bincount(loaded.train_labels).tolist() == [4, 4, 4]
    assert np.bincount(loaded.test_labels).tolist() == [0, 4, 4]
    draw(tmp_path / "test" / "d" / "0.png", GREYS[0])
    with pytest.raises(DataError, match=r"train has the classes \['a', 'b', 'c'\], and test \['b', 'c', 'd'\]"):
        load(str(tmp_path))


def test_pictures_are_read_from_a_folder_or_one_alone(tmp_path):
    (tmp_path / "empty").mkdir()
    for name, said in (("none", "none is not there"), ("empty", "empty holds no PNG or JPEG files")):
        with pytest.raises(DataError, match=said):
            read_images(tmp_path / name)
    for number, image in enumerate(GREYS[:2]):
        draw(tmp_path / "some" / f"{number}.png", image)
    np.testing.assert_array_equal(read_images(tmp_path / "some"), GREYS[:2])
    np.testing.assert_array_equal(read_images(tmp_path / "some" / "1.png"), GREYS[1:2])
    with pytest.raises(DataError, match="0.png is 4 pixels high and 6 wide, where 6 by 4 were expected"):
        read_images(tmp_path / "some", (6, 4))
    draw(tmp_path / "some" / "2.png", 0 * GREYS[0])  # black, and no sign of binary images
    np.testing.assert_array_equal(read_images(tmp_path / "some"), [*GREYS[:2], 0 * GREYS[0]])


def test_a_picture_lies_as_the_camera_was_held(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # it is to be turned to the right
    Image.fromarray(GREYS[0]).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_images(tmp_path / "a.png"), [np.rot90(GREYS[0], -1)])


def test_a_third_folder_beside_train_and_test_is_refused(tmp_path):
    """As three classes the test pictures would be trained on."""
    for name in ("train", "val", "test"):
        draw(tmp_path / name / "1.png", GREYS[0])
    with pytest.raises(DataError, match="has test, train, val: a split is the folders train and test, and nothing"):
        load(str(tmp_path))
    (tmp_path / "test").rename(tmp_path / "val" / "test")
    with pytest.raises(DataError, match="has train, val: a split is"):
        load(str(tmp_path))
    (tmp_path / "val" / "test").rename(tmp_path / "test")
    (tmp_path / "val" / "1.png").rename(tmp_path / "1.png")
    (tmp_path / "val").rmdir()
    with pytest.raises(DataError, match="has test, train, pictures: a split is"):
        load(str(tmp_path))


def test_a_class_may_be_a_link_to_a_folder(tmp_path):
    for number in range(12):
        draw(tmp_path / "elsewhere" / f"{number}.png", GREYS[number])
        draw(tmp_path / "mine" / "a" / f"{number}.png", GREYS[0])
    (tmp_path / "mine" / "b").symlink_to(tmp_path / "elsewhere")
    loaded = load(str(tmp_path / "mine"))
    assert np.bincount(np.concatenate([loaded.train_labels, loaded.test_labels])).tolist() == [12, 12]


def test_what_is_no_file_is_not_waited_for(tmp_path):
    for number, image in enumerate(GREYS):
        draw(tmp_path / f"{number:02d}.png", image)
    os.mkfifo(tmp_path / "zz.png")
    assert own.facts(tmp_path)["n_train"] == 18


def test_a_folder_that_may_not_be_read_is_one_line(tmp_path, monkeypatch):
    def forbidden(*_):
        raise PermissionError(13, "Permission denied", "/theirs/pictures")

    monkeypatch.setattr(own, "_find", forbidden)
    with pytest.raises(DataError, match="^/theirs/pictures cannot be read \\(Permission denied\\)$"):
        own.facts("/theirs/pictures")
    monkeypatch.undo()
    with pytest.raises(DataError, match="cannot be read \\(File name too long\\)$"):
        own.facts("a" * 300)


def test_files_that_are_no_pictures_are_told(tmp_path, capfd):
    for number, image in enumerate(GREYS):
        draw(tmp_path / f"{number:02d}.png", image)
    (tmp_path / ".hidden").touch()
    load(str(tmp_path))
    assert capfd.readouterr().out == ""
    draw(tmp_path / "scan.bmp", GREYS[0])
    load(str(tmp_path))
    told = f"data: files left out that are no PNG or JPEG: 1, such as {tmp_path}/scan.bmp\n"
    assert capfd.readouterr().out == told


def test_splits_are_found_however_their_names_are_written(tmp_path):
    for number, image in enumerate(GREYS):
        draw(tmp_path / ("Train" if number < 15 else "TEST") / "ab"[number % 2] / f"{number:02d}.png", image)
    found = own.facts(tmp_path)
    assert (found["n_train"], found["n_test"], found["n_labels"]) == (15, 5, 2)
