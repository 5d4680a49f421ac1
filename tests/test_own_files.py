"""A user's own data as files: which are read, where they are looked for, and whether they have changed."""

import zipfile

import numpy as np
import pytest

from data import DataError, load, own, read_images
from experiment.flags import parse_call_flags, parse_flags
from tests.helpers import GREYS, draw


def test_pictures_of_0_and_1_are_black_and_white(tmp_path):
    bits = (GREYS > 127).astype(np.uint8)
    for number, image in enumerate(bits):
        draw(tmp_path / "masks" / f"{number:02d}.png", image)
    np.testing.assert_array_equal(read_images(tmp_path / "masks"), 255 * bits)


@pytest.mark.parametrize("shape", [(-5, 8, 8), (4 * 10**12, 80000, 80000)])
def test_an_archive_s_header_of_a_shape_that_cannot_be_is_refused(shape, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.npz", "w") as archive, archive.open("x_train.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": "|u1"})
        file.write(bytes(320))
    with pytest.raises(DataError, match="is not an array of numbers" if shape[0] < 0 else "is cut short"):
        own.facts(str(tmp_path / "all.npz"))


def test_pictures_that_have_changed_since_a_run_began_are_noticed(tmp_path):
    for number, image in enumerate(GREYS):
        draw(tmp_path / "ab"[number % 2] / f"{number:02d}.png", image)
    found = [own.facts(tmp_path)]
    draw(tmp_path / "a" / "00.png", np.zeros_like(GREYS[0]))  # a smaller file
    found.append(own.facts(tmp_path))
    (tmp_path / "a" / "02.png").rename(tmp_path / "a" / "03.png")
    found.append(own.facts(tmp_path))
    assert len({one.pop("crc32") for one in found}) == 3 and found[0] == found[1] == found[2]


def test_the_folder_of_data_dir_is_looked_in_first(tmp_path):
    (tmp_path / "moved").mkdir()
    np.savez(tmp_path / "moved" / "all.npz", x_train=255 - GREYS)
    facts = own.facts(str(tmp_path / "all.npz"), tmp_path / "moved")  # it is there alone
    words = ["--dataset", str(tmp_path / "all.npz"), "--data_dir", str(tmp_path / "moved"), "--batch_size", "9"]
    assert parse_flags(words)[0].own_data == facts
    np.savez(tmp_path / "all.npz", x_train=GREYS)
    loaded = load(str(tmp_path / "all.npz"), tmp_path / "moved", facts)
    np.testing.assert_array_equal(loaded.test_images, 255 - GREYS.reshape(20, -1)[18:])


@pytest.mark.parametrize("values", [GREYS / 255, GREYS > 127, np.stack([GREYS, GREYS, 255 - GREYS], axis=-1)])
def test_an_npy_file_holds_what_an_npz_file_may_hold(values, tmp_path):
    np.save(tmp_path / "all.npy", values)
    np.savez(tmp_path / "all.npz", x_train=values)
    one, other = (load(str(tmp_path / f"all.{suffix}")) for suffix in ("npy", "npz"))
    one.check()
    for part in ("train_images", "test_images"):
        np.testing.assert_array_equal(getattr(one, part), getattr(other, part))


def test_a_survey_takes_data_of_fewer_images_than_the_usual_batch(tmp_path):
    np.savez(tmp_path / "all.npz", x_train=GREYS)
    words = ["--dataset", str(tmp_path / "all.npz")]
    assert parse_call_flags(words, same=("dataset",))[0].own_data["n_train"] == 18
